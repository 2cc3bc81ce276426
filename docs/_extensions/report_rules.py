"""The rules of the example report: one right, two wrong. Loaded by `generated`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp.ops.relu import SPEC as RELU
from verify import Spec


@jax.custom_vjp
def scaled_sum(x: Float[Array, "n d"], w: Float[Array, "d"]) -> Float[Array, "n"]:
    return x @ w / x.shape[1] ** 0.5


def scaled_sum_forward(x, w):
    return scaled_sum(x, w), (x, w)


def scaled_sum_backward(residuals, y_ct):
    x, w = residuals
    return y_ct[:, None] * w, x.T @ y_ct / x.shape[1] ** 0.5  # the first lacks 1 / sqrt(d)


scaled_sum.defvjp(scaled_sum_forward, scaled_sum_backward)


@jax.custom_vjp
def softplus(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return jnp.logaddexp(x, 0)


def softplus_forward(x):
    return softplus(x), x


def softplus_backward(x, y_ct):
    return (y_ct * jnp.where(x > 1, 1, jax.nn.sigmoid(x)),)  # "saturates to 1", where it does not yet


softplus.defvjp(softplus_forward, softplus_backward)

SPECS = (RELU, Spec(name="scaled_sum", fn=scaled_sum), Spec(name="softplus", fn=softplus))
