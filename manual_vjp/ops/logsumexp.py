r"""Logarithm of a sum of exponentials along any axes, with a mask.

Source: Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax functions" (IMA J. Numer. Anal. 41, 2021).

Forward, with sums and maxima along the axes and over the elements that the mask allows:
    y = max(x) + log(sum(exp(x - max(x))))
Derivation.  dy = sum(exp(x) dx) / sum(exp(x)) = sum(exp(x - y) dx).
Backward, with y_ct given:
    x_ct = y_ct exp(x - y) where allowed, else 0
    With top = max(x) and total = sum(exp(x - top)) it is computed as y_ct / total exp(x - top), whose exponentials the forward has.
Validity: everywhere; the largest exponential is 1. Where nothing is allowed, y = -inf and x_ct = 0. 16-bit inputs compute in float32.
Residuals: x, which the caller holds, and top and total, two numbers a row (autodiff keeps an array and more of x's size).
Cost, forward, backward:  products none, none     elementary functions E, E
    for E elements: the exponentials are computed again in the backward.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from manual_vjp._exponentials import scaled_exponentials, top_and_total
from manual_vjp._rule import require_axes, require_floating, require_mask
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array | None, Array, Array]  # x, where, top, total


def logsumexp(
    x: Float[Array, "*shape"], where: Bool[Array, "..."] | None = None, *, axis: int | tuple[int, ...] = -1, keepdims: bool = False
) -> Float[Array, "..."]:
    """`log(sum(exp(x)))` along `axis`, without overflow.

    Args:
        x: array of any shape and floating dtype.
        where: boolean, broadcastable to x: False takes an element out. Or None.
        axis: one axis or several.
        keepdims: keep the axes, with size 1.

    Returns:
        An array of the shape of x without the axes, in the dtype of x; -inf where nothing is allowed.

    Raises:
        ValueError: axis or the shape of where does not fit.
        TypeError: x is not floating point, or where is not boolean.

    Example:
        >>> logsumexp(jnp.array([1000.0, 1000.0])) - 1000 - jnp.log(2.0)
        Array(0., dtype=float32)
    """
    require_floating("logsumexp", x=x)
    require_mask("logsumexp", "where", where, jnp.shape(x), "x")
    axes = require_axes("logsumexp", axis, jnp.ndim(x))
    y = _compiled(x, where, axes)
    return y if keepdims else jnp.squeeze(y, axes)


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _logsumexp(x: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    return _forward(x, where, axes)[0]


def _forward(x: Array, where: Array | None, axes: tuple[int, ...]) -> tuple[Array, Residuals]:
    top, total = top_and_total(x, where, axes)
    return (top + jnp.log(total)).astype(x.dtype), (x, where, top, total)


def _backward(axes: tuple[int, ...], residuals: Residuals, y_ct: Array) -> tuple[Array, None]:
    del axes  # they are kept in top, with size 1
    x, where, top, total = residuals
    return scaled_exponentials(x, where, top, total, y_ct.astype(top.dtype)).astype(x.dtype), None


_logsumexp.defvjp(_forward, _backward)
_compiled = jax.jit(_logsumexp, static_argnums=2)


def reference(x, where=None, *, axis=-1, keepdims=False):
    """The textbook formula; what is not allowed is left out of maximum and sum."""
    allowed = jnp.broadcast_to(True if where is None else where, x.shape)
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True, where=allowed, initial=jnp.finfo(x.dtype).min))
    total = jnp.sum(jnp.where(allowed, jnp.exp(jnp.where(allowed, x - top, 0)), 0), axis=axis, keepdims=True)
    y = jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)) + top, -jnp.inf)
    return y if keepdims else jnp.squeeze(y, axis)


SPEC = Spec(
    name="logsumexp",
    fn=logsumexp,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="n m"), "where": Arg(dims="#n #m", dtype="bool", optional=True)},
    sizes={"n": (1, 130), "m": (1, 130)},
    options={"axis": (-1, 0, (0, 1)), "keepdims": (False, True)},
    source="Blanchard, Higham & Higham (2021)",
)
