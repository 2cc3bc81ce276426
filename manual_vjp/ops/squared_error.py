r"""Squared error.

Source: Legendre, "Nouvelles methodes pour la determination des orbites des cometes" (1805), the method of least squares.

Forward, for each element:
    loss = (prediction - target)^2
Derivation.  dloss = 2 (prediction - target) (dprediction - dtarget).
Backward, with ct given for each element:
    prediction_ct = 2 (prediction - target) ct     target_ct = -prediction_ct
    Weights and the reduction come after it and are differentiated by JAX.
Validity: everywhere. 16-bit inputs compute in float32.
Residuals: prediction and target, which the caller holds, so no memory of its own.
Cost, forward, backward:  products none, none     elementary functions none, none
    a few operations for each element.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._losses import difference, plain_reduced, reduced, require_reduction
from manual_vjp._rule import dtypes, require_floating, require_shape
from verify.spec import Arg, Spec


def squared_error(
    prediction: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    weights: Float[Array, "*shape"] | None = None,
    *,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`(prediction - target)**2`, and the mean or the sum of it.

    Args:
        prediction, target: arrays of one shape, of any floating dtype.
        weights: a factor for each element, of the same shape; or None.
        reduction: "mean" (the sum divided by the sum of the weights, or by 1 if that is 0), "sum" or "none".

    Returns:
        A scalar, or with "none" an array of the shape of prediction; in the dtype that prediction and target promote to.

    Raises:
        ValueError: a shape or the reduction does not fit.
        TypeError: an argument is not floating point.

    Example:
        >>> squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
        Array(4.5, dtype=float32)
    """
    require_floating("squared_error", prediction=prediction, target=target, weights=weights)
    for name, value in (("target", target), ("weights", weights)):
        require_shape("squared_error", name, value, jnp.shape(prediction), "the shape of prediction")
    require_reduction("squared_error", reduction)
    return _compiled(prediction, target, weights, reduction)


@ft.partial(jax.jit, static_argnums=3)
def _compiled(prediction, target, weights, reduction: str):
    return reduced(_squared_error(prediction, target), weights, None, reduction).astype(dtypes(prediction, target)[0])


@jax.custom_vjp
def _squared_error(prediction: Array, target: Array) -> Array:
    return _forward(prediction, target)[0]


def _forward(prediction: Array, target: Array) -> tuple[Array, tuple[Array, Array]]:
    return difference(prediction, target) ** 2, (prediction, target)


def _backward(residuals: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    prediction, target = residuals
    prediction_ct = 2 * difference(prediction, target) * ct
    return prediction_ct.astype(prediction.dtype), (-prediction_ct).astype(target.dtype)


_squared_error.defvjp(_forward, _backward)


def reference(prediction, target, weights=None, *, reduction="mean"):
    """The textbook formula."""
    return plain_reduced((prediction - target) ** 2, weights, reduction)


SPEC = Spec(
    name="squared_error",
    fn=squared_error,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"prediction": Arg(dims="*shape"), "target": Arg(dims="*shape"), "weights": Arg(dims="*shape", optional=True, low=0.0, high=2.0)},
    sizes={"shape": (0, 40)},
    options={"reduction": ("mean", "sum", "none")},
    source="Legendre (1805)",
)
