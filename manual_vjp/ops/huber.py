r"""Huber loss.

Source: Huber, "Robust estimation of a location parameter" (Annals of Mathematical Statistics 35, 1964).

Forward, for each element, with r = prediction - target:
    loss = r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2)
Derivation.  dloss = r dr where |r| <= delta, else delta sign(r) dr:  in both cases  dloss = clip(r, -delta, delta) dr.
Backward, with ct given for each element:
    prediction_ct = clip(prediction - target, -delta, delta) ct     target_ct = -prediction_ct
    Weights and the reduction come after it and are differentiated by JAX.
Validity: everywhere; the derivative is continuous, and has kinks itself at |r| = delta. 16-bit inputs compute in float32.
Residuals: prediction and target, which the caller holds, so no memory of its own.
Cost, forward, backward:  products none, none     elementary functions none, none
    a few operations for each element.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._losses import difference, plain_reduced, reduced, require_reduction
from manual_vjp._rule import dtypes, require_floating, require_shape, static_number
from verify.spec import Arg, Spec


def huber(
    prediction: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    weights: Float[Array, "*shape"] | None = None,
    *,
    delta: float = 1.0,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`r**2 / 2` for errors `r = prediction - target` up to `delta`, and linear beyond; and the mean or the sum of it.

    Args:
        prediction, target: arrays of one shape, of any floating dtype.
        weights: a factor for each element, of the same shape; or None.
        delta: where the loss turns from quadratic to linear; a Python number above 0.
        reduction: "mean" (the sum divided by the sum of the weights, or by 1 if that is 0), "sum" or "none".

    Returns:
        A scalar, or with "none" an array of the shape of prediction; in the dtype that prediction and target promote to.

    Raises:
        ValueError: a shape or the reduction does not fit, or delta is not above 0.
        TypeError: an argument is not floating point, or delta is traced.

    Example:
        >>> huber(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
        Array(1.25, dtype=float32)
    """
    require_floating("huber", prediction=prediction, target=target, weights=weights)
    for name, value in (("target", target), ("weights", weights)):
        require_shape("huber", name, value, jnp.shape(prediction), "the shape of prediction")
    require_reduction("huber", reduction)
    delta = static_number("huber", "delta", delta)
    if not delta > 0:
        raise ValueError(f"huber: delta is {delta}, wanted a number above 0")
    return _compiled(prediction, target, weights, delta, reduction)


@ft.partial(jax.jit, static_argnums=(3, 4))
def _compiled(prediction, target, weights, delta: float, reduction: str):
    return reduced(_huber(prediction, target, delta), weights, None, reduction).astype(dtypes(prediction, target)[0])


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _huber(prediction: Array, target: Array, delta: float) -> Array:
    return _forward(prediction, target, delta)[0]


def _forward(prediction: Array, target: Array, delta: float) -> tuple[Array, tuple[Array, Array]]:
    r = difference(prediction, target)
    size = jnp.abs(r)  # XLA keeps r alone for both passes; in k (r - k / 2) the clipped k would be a second array
    return jnp.where(size <= delta, r * r / 2, delta * (size - delta / 2)), (prediction, target)


def _backward(delta: float, residuals: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    prediction, target = residuals
    prediction_ct = jnp.clip(difference(prediction, target), -delta, delta) * ct
    return prediction_ct.astype(prediction.dtype), (-prediction_ct).astype(target.dtype)


_huber.defvjp(_forward, _backward)


def reference(prediction, target, weights=None, *, delta=1.0, reduction="mean"):
    """The textbook formula."""
    r = prediction - target
    loss = jnp.where(jnp.abs(r) <= delta, r**2 / 2, delta * (jnp.abs(r) - delta / 2))
    return plain_reduced(loss, weights, reduction)


SPEC = Spec(
    name="huber",
    fn=huber,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"prediction": Arg(dims="*shape"), "target": Arg(dims="*shape"), "weights": Arg(dims="*shape", optional=True, low=0.0, high=2.0)},
    sizes={"shape": (0, 40)},
    options={"delta": (1.0, 0.25), "reduction": ("mean", "sum", "none")},
    source="Huber (Annals of Mathematical Statistics 35, 1964)",
)
