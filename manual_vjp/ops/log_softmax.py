r"""Logarithm of softmax along any axes, with a mask.

Source: Goodfellow, Bengio & Courville, "Deep learning" (2016), section 6.2.2.3; Blanchard, Higham & Higham (2021) on its rounding.

Forward, with sums and maxima along the axes and over the elements that the mask allows:
    lse = max(x) + log(sum(exp(x - max(x))))     y = x - lse where allowed, else -inf
Derivation.  dlse = sum(p dx) with p = exp(x - lse), so  dy = dx - sum(p dx).
Backward, with y_ct given, 0 where not allowed:
    x_ct = y_ct - p sum(y_ct)
Validity: everywhere; the largest exponential is 1. 16-bit inputs compute in float32, and p comes from x, not from the rounded y.
Residuals: x, which the caller holds, and max(x) and sum(exp(x - max(x))), two numbers a row (autodiff keeps two arrays of x's size).
Cost, forward, backward:  products none, none     elementary functions E, E
    for E elements: the exponentials are computed again in the backward.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from manual_vjp._exponentials import nonzero, scaled_exponentials, top_and_total
from manual_vjp._rule import dtypes, require_axes, require_floating, require_mask
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array | None, Array, Array]  # x, where, top, total


def log_softmax(
    x: Float[Array, "*shape"], where: Bool[Array, "..."] | None = None, *, axis: int | tuple[int, ...] = -1
) -> Float[Array, "*shape"]:
    """`x - log(sum(exp(x)))` along `axis`; as `jax.nn.log_softmax`.

    Args:
        x: array of any shape and floating dtype.
        where: boolean, broadcastable to x: False takes an element out, its result is -inf. Or None.
        axis: one axis or several.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        ValueError: axis or the shape of where does not fit.
        TypeError: x is not floating point, or where is not boolean.

    Example:
        >>> x = jnp.log(jnp.array([1.0, 2.0, 5.0]))
        >>> jnp.exp(log_softmax(x)).round(3)
        Array([0.125, 0.25 , 0.625], dtype=float32)
    """
    require_floating("log_softmax", x=x)
    require_mask("log_softmax", "where", where, jnp.shape(x), "x")
    return _compiled(x, where, require_axes("log_softmax", axis, jnp.ndim(x)))


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _log_softmax(x: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    return _forward(x, where, axes)[0]


def _forward(x: Array, where: Array | None, axes: tuple[int, ...]) -> tuple[Array, Residuals]:
    result, compute = dtypes(x)
    top, total = top_and_total(x, where, axes)
    y = x.astype(compute) - top - jnp.log(nonzero(total))
    y = y if where is None else jnp.where(where, y, -jnp.inf)
    return y.astype(result), (x, where, top, total)


def _backward(axes: tuple[int, ...], residuals: Residuals, y_ct: Array) -> tuple[Array, None]:
    x, where, top, total = residuals
    y_ct = y_ct.astype(top.dtype)
    y_ct = y_ct if where is None else jnp.where(where, y_ct, 0)
    x_ct = y_ct - scaled_exponentials(x, where, top, total, jnp.sum(y_ct, axis=axes, keepdims=True))
    return x_ct.astype(x.dtype), None


_log_softmax.defvjp(_forward, _backward)
_compiled = jax.jit(_log_softmax, static_argnums=2)


def reference(x, where=None, *, axis=-1):
    """The textbook formula; what is not allowed is left out of maximum and sum."""
    allowed = jnp.broadcast_to(True if where is None else where, x.shape)
    top = jnp.max(x, axis=axis, keepdims=True, where=allowed, initial=jnp.finfo(x.dtype).min)
    shifted = jnp.where(allowed, x - jax.lax.stop_gradient(top), 0)
    total = jnp.sum(jnp.where(allowed, jnp.exp(shifted), 0), axis=axis, keepdims=True)
    return jnp.where(allowed, shifted - jnp.log(jnp.where(total > 0, total, 1)), -jnp.inf)


SPEC = Spec(
    name="log_softmax",
    fn=log_softmax,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="n m"), "where": Arg(dims="#n #m", dtype="bool", optional=True)},
    sizes={"n": (0, 130), "m": (0, 130)},
    options={"axis": (-1, 0, (0, 1))},
    source="Goodfellow, Bengio & Courville (2016), section 6.2.2.3",
)
