r"""Softmax along any axes, with a mask.

Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs" (1990).

Forward, with sums and maxima along the axes and over the elements that the mask allows:
    y = exp(x - max(x)) / sum(exp(x - max(x))) where allowed, else 0
Derivation.  dy = y (dx - sum(y dx)). The map diag(y) - y y^T is symmetric, so it is its own VJP; and it is 0 in rows and columns where y = 0.
Backward, with y_ct given:
    x_ct = y (y_ct - sum(y y_ct))
Validity: everywhere; the largest exponential is 1, so nothing overflows. Where nothing is allowed, y = 0 and x_ct = 0. 16-bit inputs compute in
    float32; y is then kept as it is returned, rounded to 16 bits.
Residuals: y, which the next layer keeps anyway, so no memory of its own (autodiff keeps two arrays of that size).
Cost, forward, backward:  products none, none     elementary functions E, none
    for E elements.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from manual_vjp._exponentials import nonzero, shifted
from manual_vjp._rule import dtypes, require_axes, require_floating, require_mask
from verify.spec import Arg, Spec


def softmax(
    x: Float[Array, "*shape"], where: Bool[Array, "..."] | None = None, *, axis: int | tuple[int, ...] = -1
) -> Float[Array, "*shape"]:
    """`exp(x) / sum(exp(x))` along `axis`; as `jax.nn.softmax`.

    Args:
        x: array of any shape and floating dtype.
        where: boolean, broadcastable to x: False takes an element out, its result is 0. Or None.
        axis: one axis or several, along which the result sums to 1.

    Returns:
        An array of the shape and dtype of x. 0 where nothing is allowed.

    Raises:
        ValueError: axis or the shape of where does not fit.
        TypeError: x is not floating point, or where is not boolean.

    Example:
        >>> x = jnp.log(jnp.array([1.0, 2.0, 5.0]))
        >>> softmax(x)
        Array([0.125, 0.25 , 0.625], dtype=float32)
        >>> softmax(x, where=jnp.array([True, True, False])).round(3)
        Array([0.333, 0.667, 0.   ], dtype=float32)
    """
    require_floating("softmax", x=x)
    require_mask("softmax", "where", where, jnp.shape(x), "x")
    return _compiled(x, where, require_axes("softmax", axis, jnp.ndim(x)))


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softmax(x: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    return _forward(x, where, axes)[0]


def _forward(x: Array, where: Array | None, axes: tuple[int, ...]) -> tuple[Array, Array]:
    exponentials, _, total = shifted(x, where, axes)
    y = (exponentials / nonzero(total)).astype(x.dtype)
    return y, y


def _backward(axes: tuple[int, ...], y: Array, y_ct: Array) -> tuple[Array, None]:
    result, compute = dtypes(y)
    y, y_ct = y.astype(compute), y_ct.astype(compute)
    return (y * (y_ct - jnp.sum(y * y_ct, axis=axes, keepdims=True))).astype(result), None


_softmax.defvjp(_forward, _backward)
_compiled = jax.jit(_softmax, static_argnums=2)


def reference(x, where=None, *, axis=-1):
    """The textbook formula; what is not allowed is left out of maximum and sum."""
    allowed = jnp.broadcast_to(True if where is None else where, x.shape)
    top = jnp.max(x, axis=axis, keepdims=True, where=allowed, initial=jnp.finfo(x.dtype).min)
    weights = jnp.where(allowed, jnp.exp(jnp.where(allowed, x - jax.lax.stop_gradient(top), 0)), 0)
    total = weights.sum(axis, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


SPEC = Spec(
    name="softmax",
    fn=softmax,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="n m"), "where": Arg(dims="#n #m", dtype="bool", optional=True)},
    sizes={"n": (0, 130), "m": (0, 130)},
    options={"axis": (-1, 0, (0, 1))},
    source="Bridle (1990)",
)
