r"""Rectified linear unit.

Source: Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines" (ICML 2010).

Forward, for each element:
    y = max(x, 0)
Derivation.  dy = dx where x > 0, dy = 0 where x < 0; and y = 0 exactly where x <= 0, so y alone tells which.
Backward, with y_ct given:
    x_ct = 0 where y = 0, y_ct elsewhere
Validity: x = 0 is a kink; the derivative there is 0 by convention, a member of the subdifferential [0, 1], as in `jax.nn.relu`
    (Bertoin et al. 2021, "Numerical influence of ReLU'(0) on backpropagation"). NaN stays NaN and passes the cotangent on.
Residuals: y, which the next layer keeps anyway, so no memory of its own.
Cost, forward, backward:  products none, none     elementary functions none, none
    one comparison for each element.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import require_floating
from verify.spec import Arg, Spec


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`max(x, 0)` for each element, with derivative 0 at 0.

    Args:
        x: array of any shape and floating dtype.

    Returns:
        An array of the shape and dtype of x; NaN where x is NaN.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> x = jnp.array([-1.0, 0.0, 2.0])
        >>> relu(x)
        Array([0., 0., 2.], dtype=float32)
        >>> jax.grad(lambda x: relu(x).sum())(x)
        Array([0., 0., 1.], dtype=float32)
    """
    require_floating("relu", x=x)
    return _compiled(x)


@jax.custom_vjp
def _relu(x: Array) -> Array:
    return _forward(x)[0]


def _forward(x: Array) -> tuple[Array, Array]:
    y = jnp.maximum(x, 0)
    return y, y


def _backward(y: Array, y_ct: Array) -> tuple[Array]:
    return (jnp.where(y == 0, 0, y_ct),)


_relu.defvjp(_forward, _backward)
_compiled = jax.jit(_relu)


def reference(x):
    """The textbook formula; written with `x <= 0` so that NaN, which compares false, stays NaN."""
    return jnp.where(x <= 0, 0, x)


SPEC = Spec(
    name="relu",
    fn=relu,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*shape", special=(0.0,))},
    sizes={"shape": (0, 40)},
    kinks={"x": (0.0,)},
    source="Nair & Hinton (ICML 2010)",
)
