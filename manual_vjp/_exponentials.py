"""Exponentials that cannot overflow, and their sums, of what a mask allows: what softmax, logsumexp and the cross-entropies are made of."""

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._rule import dtypes


def shifted(x: Array, where: Array | None, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """`exp(x - top)`, 0 where not allowed; top, the largest of what is allowed; and the sum. In at least float32, the axes kept with size 1 in the latter two.

    Where nothing is allowed, top and sum are 0.
    """
    wide = _allowed(x, where)
    top = jax.lax.stop_gradient(jnp.max(wide, axis=axes, keepdims=True, initial=-jnp.inf))
    top = jnp.where(top == -jnp.inf, 0, top)  # -inf - -inf would be NaN
    exponentials = jnp.exp(wide - top)
    return exponentials, top, jnp.sum(exponentials, axis=axes, keepdims=True)


def top_and_total(x: Array, where: Array | None, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The largest of what is allowed, and the sum of `exp(x - top)`: what a backward needs, two numbers a row."""
    return shifted(x, where, axes)[1:]


def scaled_exponentials(x: Array, where: Array | None, top: Array, total: Array, scale: Array) -> Array:
    """`scale * exp(x - top) / total`, 0 where not allowed: the softmax in the backward. The exponentials are the forward's, so one program computes them once."""
    return jnp.exp(_allowed(x, where) - top) * (scale / nonzero(total))


def nonzero(total: Array) -> Array:
    """`total` as a divisor: 1 where it is 0, as nothing was allowed."""
    return jnp.where(total == 0, 1, total)


def _allowed(x: Array, where: Array | None) -> Array:
    wide = x.astype(dtypes(x)[1])
    return wide if where is None else jnp.where(where, wide, -jnp.inf)
