"""What normalisations along rows share: any axes seen as rows, sums as products with vectors, and backward passes in blocks of rows."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._blocks import over_blocks, put, take
from manual_vjp._rule import match, require_axes, require_shape, static_number

BLOCK = 256  # rows that lie in a core's cache together with all that is made of them
LARGE = 2**21  # elements beyond which blocks pay: twice 8 MiB no longer fit the caches


def require_row(op: str, x: Array, axis: int | tuple[int, ...], **weights: Array | None) -> tuple[int, ...]:
    """The axes, ascending. Raises ValueError unless they exist and each of `weights` has the shape of a row along them."""
    if jnp.ndim(x) == 0:
        raise ValueError(f"{op}: x has shape (), wanted at least one dimension to normalise along")
    axes = require_axes(op, axis, jnp.ndim(x))
    for name, value in weights.items():
        require_shape(op, name, value, tuple(jnp.shape(x)[a] for a in axes), f"because x has shape {jnp.shape(x)} and axis is {axis}")
    return axes


def require_eps(op: str, eps: float) -> float:
    """`eps` as a Python number of at least 0."""
    eps = static_number(op, "eps", eps)
    if not eps >= 0:
        raise ValueError(f"{op}: eps is {eps}, wanted a number of at least 0, such as 1e-5")
    return eps


def as_rows(x: Array, axes: tuple[int, ...]) -> tuple[Array, Callable[[Array], Array]]:
    """`x` with the axes as its last one, and the way back."""
    last = tuple(range(x.ndim - len(axes), x.ndim))
    moved = x if axes == last else jnp.moveaxis(x, axes, last)
    lead = moved.shape[: x.ndim - len(axes)]
    rows = moved.reshape(*lead, math.prod(moved.shape[len(lead) :]))

    def back(y: Array) -> Array:
        y = y.reshape(moved.shape)
        return y if axes == last else jnp.moveaxis(y, last, axes)

    return rows, back


def along(weights: Array, x: Array, axis: int | tuple[int, ...]) -> Array:
    """`weights` of the shape of a row, so that it broadcasts along `axis` of x."""
    axes = require_axes("along", axis, x.ndim)
    return weights.reshape([size if a in axes else 1 for a, size in enumerate(x.shape)])


def row_mean(a: Array, weights: Array) -> Array:
    """`mean(a * weights)` along the last axis, kept with size 1."""
    return jnp.matmul(a, weights, precision="highest")[..., None] / max(a.shape[-1], 1)


def column_sum(a: Array) -> Array:
    """The sum over all axes but the last."""
    rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    return jnp.matmul(jnp.ones(rows.shape[:1], a.dtype), rows, precision="highest")


def to_weights(ct: Array | None, weights: Array | None) -> Array | None:
    """A column sum as the cotangent of weights that may be None."""
    return None if ct is None or weights is None else match(ct, weights)


Rows = Callable[..., tuple[Array, Array | None, Array | None]]


def by_rows(rows: Rows, arrays: tuple[Array, ...], block: int) -> tuple[Array, Array | None, Array | None]:
    """`rows(*arrays)`: one array of the rows' shape, and sums over rows. On CPU, where it is large, in blocks of rows."""
    if arrays[0].size <= LARGE and block == BLOCK:
        return rows(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=lambda *arrays: _blocked(rows, arrays, block), default=rows)


def _blocked(rows: Rows, arrays: tuple[Array, ...], block: int) -> Any:
    flat = [a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in arrays]
    out, *sums = jax.eval_shape(rows, *flat)

    def step(carry: Any, start: Any, size: int) -> Any:
        done, *totals = carry
        block_out, *more = rows(*(take(a, start, size) for a in flat))
        return put(done, block_out, start), *(None if t is None else t + m for t, m in zip(totals, more, strict=True))

    empty = (jnp.zeros(out.shape, out.dtype), *(None if s is None else jnp.zeros(s.shape, s.dtype) for s in sums))
    done, *totals = over_blocks(step, empty, len(flat[0]), block, tuple(flat))
    return done.reshape(arrays[0].shape), *totals
