"""What may go wrong at the ends of a backward pass: a residual, the incoming cotangent, or the cotangent of one argument.

Each is `change(array, others) -> array` of the same shape and dtype; `others` are the residuals or cotangents beside it. `fits` says whether that
changes anything at this shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

Change = Callable[[Any, Sequence[Any]], Any]


@dataclass(frozen=True)
class End:
    """One edit; fits: of an array, or its shape and dtype, and those beside it."""

    change: Change
    fits: Callable[[Any, Sequence[Any]], bool] = lambda array, others: True


BLOCK, TAIL = 8, 64  # a kernel that forgets its last, incomplete block; one that handles its first block only


def _twins(array: Any, others: Sequence[Any]) -> list[Any]:
    """The others of the same shape and dtype."""
    return [b for b in others if b is not array and b.shape == array.shape and b.dtype == array.dtype]


def _is_float(array: Any, others: Sequence[Any] = ()) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _zero_from(start: Callable[[int], int]) -> End:
    return End(
        lambda array, others: array.at[..., start(array.shape[-1]) :].set(0),
        lambda array, others: array.ndim > 0 and start(array.shape[-1]) < array.shape[-1],
    )


def _one_element(array: Any, others: Sequence[Any]) -> Any:
    middle = jnp.arange(array.size).reshape(array.shape) == array.size // 2
    return jnp.where(middle, 0, array).astype(array.dtype)


def _rounded(dtype: str) -> End:
    return End(
        lambda array, others: array.astype(dtype).astype(array.dtype),
        lambda array, others: _is_float(array) and jnp.finfo(array.dtype).bits > jnp.finfo(dtype).bits,
    )


def _times(size: float, dtype: str) -> End:
    return End(lambda array, others: array + (array * size).astype(array.dtype), lambda array, others: str(array.dtype) == dtype)


ZEROS, ONES = End(lambda a, others: jnp.zeros_like(a)), End(lambda a, others: jnp.ones_like(a))
NEGATED, DOUBLED = End(lambda a, others: -a), End(lambda a, others: a * 2)
TWIN = End(lambda a, others: _twins(a, others)[0], lambda a, others: bool(_twins(a, others)))
TRANSPOSED = End(lambda a, others: jnp.swapaxes(a, -1, -2), lambda a, others: a.ndim >= 2 and a.shape[-1] == a.shape[-2] > 1)
LAST = _zero_from(lambda n: n - 1)

RESIDUAL: dict[str, End] = {
    "replaced by zeros": ZEROS,
    "replaced by ones": ONES,
    "times 1.001": End(lambda a, others: (a * 1.001).astype(a.dtype), _is_float),
    "replaced by another one of its shape": TWIN,
    "negated": End(lambda a, others: ~a if a.dtype == jnp.bool_ else -a, lambda a, others: a.dtype == jnp.bool_ or _is_float(a)),
}
UPSTREAM: dict[str, End] = {
    "replaced by ones": ONES,
    "replaced by its mean": End(lambda a, others: jnp.full_like(a, a.mean()), lambda a, others: a.size > 1),
    "clipped to [-1, 1]": End(lambda a, others: jnp.clip(a, -1, 1)),
    "replaced by its absolute value": End(lambda a, others: jnp.abs(a)),
    "with its last entries zeroed": LAST,
    "doubled": DOUBLED,
}
COTANGENT: dict[str, End] = {
    "replaced by zeros": ZEROS,
    "negated": NEGATED,
    "doubled": DOUBLED,
    "with 1 added": End(lambda a, others: a + jnp.ones_like(a)),
    "transposed": TRANSPOSED,
    "replaced by that of another argument of its shape": TWIN,
    "with its last entries zeroed": LAST,
    f"zeroed from index {TAIL} on": _zero_from(lambda n: TAIL),
    f"zeroed from the last multiple of {BLOCK} on": _zero_from(lambda n: n // BLOCK * BLOCK if n > BLOCK else n),
    "with one element zeroed": End(_one_element),
    **{f"rounded to {dtype}": _rounded(dtype) for dtype in ("bfloat16", "float16", "float32")},
    **{f"times 1 + {size:.0e} in float64": _times(size, "float64") for size in (1e-3, 1e-6, 1e-9)},
}
_STEP = re.compile(r"times 1 \+ (\S+) where (\w+)")


def relative(size: float, dtype: str) -> str:
    """The name of the edit that makes a cotangent of this dtype wrong by this relative error."""
    return f"times 1 + {size!r} where {dtype}"


def end_of(where: str, name: str) -> End:
    """The edit called `name`: where is "residual", "upstream" or "cotangent"."""
    if where == "cotangent" and (match := _STEP.fullmatch(name)):
        return _times(float(match[1]), match[2])
    return {"residual": RESIDUAL, "upstream": UPSTREAM, "cotangent": COTANGENT}[where][name]
