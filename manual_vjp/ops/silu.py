r"""Sigmoid linear unit (swish).

Source: Elfwing, Uchibe & Doya, "Sigmoid-weighted linear units" (2017), arXiv:1702.03118; Ramachandran et al. (2017), arXiv:1710.05941.

Forward, for each element, with s the logistic function:
    y = x s(x)
Derivation.  s'(x) = s(x) s(-x),  so  dy = s(x) dx + x s(x) s(-x) dx.
Backward, with y_ct given:
    x_ct = y_ct s(x) (1 + x s(-x)),  and  s(-x) = 1 - s(x): where that loses digits, x s(-x) is small beside 1
Validity: everywhere. 16-bit inputs compute in float32.
Residuals: x, which the caller holds, so no memory of its own (autodiff keeps x and two more arrays).
Cost, forward, backward:  products none, none     elementary functions E, E
    for E elements.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, require_floating
from verify.spec import Arg, Spec


def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x * sigmoid(x)` for each element.

    Args:
        x: array of any shape and floating dtype.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> x = jnp.array([-1.0, 0.0, 2.0])
        >>> silu(x).round(3)
        Array([-0.269,  0.   ,  1.762], dtype=float32)
        >>> jax.grad(lambda x: silu(x).sum())(x).round(3)
        Array([0.072, 0.5  , 1.091], dtype=float32)
    """
    require_floating("silu", x=x)
    return _compiled(x)


@jax.custom_vjp
def _silu(x: Array) -> Array:
    return _forward(x)[0]


def _forward(x: Array) -> tuple[Array, Array]:
    result, compute = dtypes(x)
    wide = x.astype(compute)
    return (wide * jax.nn.sigmoid(wide)).astype(result), x


def _backward(x: Array, y_ct: Array) -> tuple[Array]:
    result, compute = dtypes(x)
    x, y_ct = x.astype(compute), y_ct.astype(compute)
    s = jax.nn.sigmoid(x)  # as in the forward, so that one program computes it once
    return ((y_ct * (s * (1 + x * (1 - s)))).astype(result),)


_silu.defvjp(_forward, _backward)
_compiled = jax.jit(_silu)


def reference(x):
    """The textbook formula."""
    return x / (1 + jnp.exp(-x))


SPEC = Spec(
    name="silu",
    fn=silu,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*shape", special=(0.0,))},
    sizes={"shape": (0, 40)},
    source="arXiv:1702.03118",
)
