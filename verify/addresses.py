"""How a case is written down: "layer_norm/0/7", or at other sizes "layer_norm/0/7@D=3,batch=2x1"."""

from __future__ import annotations

import re

from verify.sizes import Sizes
from verify.spec import SpecError

LARGEST_INDEX = 100_000  # sizes are a sequence: reaching an index walks past all before it


def format_sizes(sizes: Sizes) -> str:
    """Sizes as in an address: "n=3,batch=2x1"."""
    return ",".join(f"{name}={size_text(size)}" for name, size in sizes.items())


def size_text(size: int | tuple[int, ...]) -> str:
    """A size as in an address: 3, 2x1, or () for no dimension."""
    return "x".join(map(str, size)) or "()" if isinstance(size, tuple) else str(size)


def parse_address(address: str) -> tuple[str, int, int, dict[str, str] | None]:
    """Split "name/seed/index@n=3,batch=2x1" into name, seed, index, and sizes as text (or None). Raises SpecError."""
    match = re.fullmatch(r"(?P<name>[^@]+)/(?P<seed>[0-9]{1,20})/(?P<index>[0-9]{1,9})(?:@(?P<sizes>.*))?", address)
    if match is None or int(match["seed"]) >= 2**63:
        raise SpecError(f"address {address!r} is not NAME/SEED/INDEX, such as layer_norm/0/7 or linear/0/7@d_in=2,d_out=3")
    if int(match["index"]) > LARGEST_INDEX:
        raise SpecError(f"address {address!r}: indices end at {LARGEST_INDEX}")
    sizes = None
    if match["sizes"] is not None:
        pairs = [pair.partition("=") for pair in match["sizes"].split(",") if pair]
        if any(not re.fullmatch(r"\(\)|[0-9]{1,9}(x[0-9]{1,9})*", size) for _, _, size in pairs):
            raise SpecError(f"address {address!r}: sizes after @ must look like n=3,batch=2x1")
        sizes = {name: size for name, _, size in pairs}
        if len(sizes) < len(pairs):
            raise SpecError(f"address {address!r} names a size twice")
    return match["name"], int(match["seed"]), int(match["index"]), sizes
