"""What normalisations along rows share: any axes seen as rows, sums as products with vectors, and in blocks of rows."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._blocks import over_blocks, put, take
from manual_vjp._rule import match, require_axes, require_shape, static_number

BLOCK = 64  # rows that lie in a core's cache together with all that is made of them
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


Sums = Callable[..., tuple[tuple[Array, ...], tuple[Array | None, ...]]]


def in_blocks(sums: Sums, arrays: tuple[Array, ...], block: int) -> tuple[tuple[Array, ...], tuple[Array | None, ...]]:
    """`sums(*arrays)`: sums along rows, kept with size 1, and sums over rows. On CPU, where the arrays are large, in blocks of rows.

    What is summed is then never an array in memory. Nothing but sums is made in the loop: a result as large as x would be filled with zeros before it.
    """
    if arrays[0].size <= LARGE and block == BLOCK:
        return sums(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=lambda *arrays: _blocked(sums, arrays, block), default=sums)


def _blocked(sums: Sums, arrays: tuple[Array, ...], block: int) -> Any:
    flat = [a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in arrays]

    def step(carry: Any, start: Any, size: int) -> Any:
        rows, columns = sums(*(take(a, start, size) for a in flat))
        return [put(held, part, start) for held, part in zip(carry[0], rows, strict=True)], jax.tree.map(jnp.add, carry[1], columns)

    empty = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(sums, *flat))
    rows, columns = over_blocks(step, ([*empty[0]], empty[1]), len(flat[0]), block, tuple(flat))
    return tuple(a.reshape(*arrays[0].shape[:-1], 1) for a in rows), columns
