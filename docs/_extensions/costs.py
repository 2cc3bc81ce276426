"""The line `Cost` of an operation's docstring, read: what its products and its elementary functions take, forward and backward. A test counts both."""

import inspect
import re
from typing import NamedTuple

LINE = re.compile(r"^Cost, forward, backward:  products (.+), (.+?)     elementary functions (.+), (.+)\n    (.+)$", re.M)


class Cost(NamedTuple):
    """Terms such as "2 R d_in d_out", or "none"."""

    product: str
    product_backward: str
    functions: str
    functions_backward: str
    remark: str


def of(docstring: str) -> Cost:
    """Raises ValueError for a docstring without the line."""
    if found := LINE.search(inspect.cleandoc(docstring)):
        return Cost(*found.groups())
    raise ValueError("the docstring has no line 'Cost, forward, backward:  products ..., ...     elementary functions ..., ...'")
