"""What may go wrong at the ends of a backward pass: a residual, the incoming cotangent, or the cotangent of one argument.

Each is `change(array, others) -> array` of the same shape and dtype; `others` are the residuals or cotangents beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

Change = Callable[[Any, Sequence[Any]], Any]
BLOCK, TAIL = 8, 64  # a kernel that forgets its last, incomplete block; one that handles its first block only


def _twin(array: Any, others: Sequence[Any]) -> Any:
    """Another one of the same shape and dtype, or the array itself."""
    return next((b for b in others if b is not array and b.shape == array.shape and b.dtype == array.dtype), array)


def _is_float(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _zero_from(start: Callable[[int], int]) -> Change:
    def change(array: Any, others: Sequence[Any]) -> Any:
        if not array.ndim or start(array.shape[-1]) >= array.shape[-1]:
            return array
        return array.at[..., start(array.shape[-1]) :].set(0)

    return change


def _one_element(array: Any, others: Sequence[Any]) -> Any:
    if array.size == 0:
        return array
    middle = jnp.arange(array.size).reshape(array.shape) == array.size // 2
    return jnp.where(middle, 0, array).astype(array.dtype)


def _transposed(array: Any, others: Sequence[Any]) -> Any:
    return jnp.swapaxes(array, -1, -2) if array.ndim >= 2 and array.shape[-1] == array.shape[-2] > 1 else array


def _rounded(dtype: str) -> Change:
    def change(array: Any, others: Sequence[Any]) -> Any:
        return array.astype(dtype).astype(array.dtype) if jnp.finfo(array.dtype).bits > jnp.finfo(dtype).bits else array

    return change


RESIDUAL: dict[str, Change] = {
    "replaced by zeros": lambda a, others: jnp.zeros_like(a),
    "replaced by ones": lambda a, others: jnp.ones_like(a),
    "times 1.001": lambda a, others: (a * 1.001).astype(a.dtype) if _is_float(a) else a,
    "replaced by another one of its shape": _twin,
    "negated": lambda a, others: ~a if a.dtype == jnp.bool_ else -a if _is_float(a) else a,
}
UPSTREAM: dict[str, Change] = {
    "replaced by ones": lambda a, others: jnp.ones_like(a),
    "replaced by its mean": lambda a, others: jnp.full_like(a, a.mean()) if a.size else a,
    "clipped to [-1, 1]": lambda a, others: jnp.clip(a, -1, 1),
    "replaced by its absolute value": lambda a, others: jnp.abs(a),
    "its last entries zeroed": _zero_from(lambda n: n - 1),
    "doubled": lambda a, others: a * 2,
}
COTANGENT: dict[str, Change] = {
    "replaced by zeros": lambda a, others: jnp.zeros_like(a),
    "negated": lambda a, others: -a,
    "doubled": lambda a, others: a * 2,
    "1 added": lambda a, others: a + jnp.ones_like(a),
    "transposed": _transposed,
    "replaced by that of another argument of its shape": _twin,
    "its last entries zeroed": _zero_from(lambda n: n - 1),
    f"zeroed from index {TAIL} on": _zero_from(lambda n: TAIL),
    f"zeroed from the last multiple of {BLOCK} on": _zero_from(lambda n: n // BLOCK * BLOCK if n > BLOCK else n),
    "one element zeroed": _one_element,
    **{f"rounded to {dtype}": _rounded(dtype) for dtype in ("bfloat16", "float16", "float32")},
    **{
        f"times 1 + {size:.0e} in float64": (lambda a, others, size=size: a * (1 + size) if a.dtype == jnp.float64 else a)
        for size in (1e-3, 1e-6, 1e-9)
    },
}
_STEP = re.compile(r"times 1 \+ (\S+) where (\w+)")


def relative(size: float, dtype: str) -> str:
    """The name of the edit that makes a cotangent of this dtype wrong by this relative error."""
    return f"times 1 + {size!r} where {dtype}"


def change_of(where: str, name: str) -> Change:
    """The change called `name`: where is "residual", "upstream" or "cotangent"."""
    if where == "cotangent" and (match := _STEP.fullmatch(name)):
        size, dtype = float(match[1]), match[2]
        return lambda a, others: a + (a * size).astype(a.dtype) if str(a.dtype) == dtype else a
    return {"residual": RESIDUAL, "upstream": UPSTREAM, "cotangent": COTANGENT}[where][name]
