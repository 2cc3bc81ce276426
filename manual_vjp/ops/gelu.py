r"""Gaussian error linear unit, exact or with tanh.

Source: Hendrycks & Gimpel, "Gaussian error linear units" (2016), arXiv:1606.08415.

Forward, for each element, with Phi and phi the distribution and density of the standard normal, and s the logistic function:
    exact:        y = x Phi(x)
    approximate:  y = x s(v)     v = 2 c (x + a x^3)     c = sqrt(2 / pi)     a = 0.044715     s(v) = (1 + tanh(v / 2)) / 2
Derivation.  dy = Phi(x) dx + x phi(x) dx;  and  s'(v) = s(v) s(-v),  so  dy = s(v) dx + x s(v) s(-v) 2 c (1 + 3 a x^2) dx.
Backward, with y_ct given:
    exact:        x_ct = y_ct (Phi(x) + x phi(x))
    approximate:  x_ct = y_ct s(v) (1 + x s(-v) 2 c (1 + 3 a x^2))
    where s(-v) = 1 - s(v): where that loses digits, x s(-v) is small beside 1.
Validity: everywhere. Beyond |x| = 50 the derivative is 0 or 1 in every dtype; there x^2, which may overflow, is replaced. 16-bit inputs compute in float32.
Residuals: x, which the caller holds, so no memory of its own (autodiff keeps x and two more arrays).
Cost, forward, backward:  products none, none     elementary functions E, E
    for E elements; the exact form has an exponential and erf in the backward, so 2 E.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, require_floating
from verify.spec import Arg, Spec

C, A = math.sqrt(2 / math.pi), 0.044715
FLAT = 1e4  # from this square of x on the derivative is 0 or 1; the square itself may overflow


def gelu(x: Float[Array, "*shape"], *, approximate: bool = True) -> Float[Array, "*shape"]:
    """`x * Phi(x)` for each element, Phi the distribution function of the standard normal; names and default of `jax.nn.gelu`.

    Args:
        x: array of any shape and floating dtype.
        approximate: with tanh in the place of Phi; a Python bool.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> x = jnp.array([-1.0, 0.0, 2.0])
        >>> gelu(x, approximate=False).round(3)
        Array([-0.159,  0.   ,  1.954], dtype=float32)
        >>> jax.grad(lambda x: gelu(x, approximate=False).sum())(x).round(3)
        Array([-0.083,  0.5  ,  1.085], dtype=float32)
    """
    require_floating("gelu", x=x)
    return _compiled(x, bool(approximate))


@ft.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gelu(x: Array, approximate: bool) -> Array:
    return _forward(x, approximate)[0]


def _forward(x: Array, approximate: bool) -> tuple[Array, Array]:
    result, compute = dtypes(x)
    wide = x.astype(compute)
    weight = _logistic(wide) if approximate else jax.scipy.special.ndtr(wide)
    return (wide * weight).astype(result), x


def _backward(approximate: bool, x: Array, y_ct: Array) -> tuple[Array]:
    result, compute = dtypes(x)
    x, y_ct = x.astype(compute), y_ct.astype(compute)
    square = jnp.minimum(x * x, FLAT)
    if approximate:
        s = _logistic(x)  # as in the forward, so that one program computes it once
        slope = s * (1 + x * (1 - s) * (2 * C * (1 + 3 * A * square)))
    else:
        slope = jax.scipy.special.ndtr(x) + x * jnp.exp(-square / 2) / math.sqrt(2 * math.pi)
    return ((y_ct * slope).astype(result),)


def _logistic(x: Array) -> Array:
    """s(v); by tanh, which XLA computes faster."""
    return 0.5 + 0.5 * jnp.tanh(C * (x + A * x * x * x))


_gelu.defvjp(_forward, _backward)
_compiled = jax.jit(_gelu, static_argnums=1)


def reference(x, *, approximate=True):
    """The textbook formula."""
    if approximate:
        return x / 2 * (1 + jnp.tanh(C * (x + A * x**3)))
    return x / 2 * (1 + jax.scipy.special.erf(x / math.sqrt(2)))


SPEC = Spec(
    name="gelu",
    fn=gelu,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*shape", special=(0.0,))},
    sizes={"shape": (0, 40)},
    options={"approximate": (True, False)},
    source="arXiv:1606.08415",
)
