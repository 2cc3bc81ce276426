r"""Layer normalisation over the last axis.

Source: Ba, Kiros & Hinton, "Layer normalization" (2016), arXiv:1607.06450.

Forward, for each row x in R^D, with mean = (1/D) sum over the row:
    c = x - mean(x)     rstd = (mean(c^2) + eps)^(-1/2)     xh = rstd c     y = scale xh + bias
Derivation.  drstd = -rstd^3 mean(c dx), hence  dxh = J dx = rstd [dx - mean(dx) - xh mean(xh dx)].
    J is symmetric, term by term (I, 1 1^T / D, xh xh^T / D), so J is its own VJP.
Backward, with y_ct given and xh_ct = scale y_ct:
    x_ct = rstd [xh_ct - mean(xh_ct) - xh mean(xh xh_ct)]     scale_ct = sum_rows y_ct xh     bias_ct = sum_rows y_ct
Validity: no kinks; every eps > 0 (eps = 0 where no row is constant). The variance is taken in two passes, after the mean is removed,
    so a row far from zero keeps its digits. 16-bit inputs compute in float32.
Residuals: x, which the caller holds, and mean and rstd, two numbers a row (autodiff keeps three arrays of x's size);
    scale (D numbers), and bias for its dtype and devices.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, match, require_floating, require_shape, static_number
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array | None]  # x, mean, rstd, scale, bias


def layer_norm(
    x: Float[Array, "*batch D"], scale: Float[Array, "D"] | None = None, bias: Float[Array, "D"] | None = None, *, eps: float = 1e-5
) -> Float[Array, "*batch D"]:
    """Normalise each row of `x` to mean 0 and variance 1, then multiply by `scale` and add `bias`.

    Args:
        x: input, `(*batch, D)` with any number of batch dimensions; any floating dtype, as are the others.
        scale: `(D,)`, or None for 1.
        bias: `(D,)`, or None for 0.
        eps: added to the variance; a Python number, not an array.

    Returns:
        An array of the shape of x, in the dtype that x, scale and bias promote to.

    Raises:
        ValueError: a shape does not fit, or eps is negative.
        TypeError: an argument is not floating point, or eps is traced.

    Example:
        >>> x = jnp.array([[1.0, 3.0], [5.0, 5.0]])
        >>> layer_norm(x, scale=jnp.array([2.0, 4.0])).round(3)
        Array([[-2.,  4.],
               [ 0.,  0.]], dtype=float32)
        >>> jax.grad(lambda bias: layer_norm(x, bias=bias).sum())(jnp.zeros(2))
        Array([2., 2.], dtype=float32)
    """
    require_floating("layer_norm", x=x, scale=scale, bias=bias)
    if jnp.ndim(x) == 0:
        raise ValueError("layer_norm: x has shape (), wanted (*batch, D): at least one dimension")
    require_shape("layer_norm", "scale", scale, (jnp.shape(x)[-1],), f"because x has shape {jnp.shape(x)}")
    require_shape("layer_norm", "bias", bias, (jnp.shape(x)[-1],), f"because x has shape {jnp.shape(x)}")
    eps = static_number("layer_norm", "eps", eps)
    if not eps >= 0:
        raise ValueError(f"layer_norm: eps is {eps}, wanted a number of at least 0, such as 1e-5")
    return _compiled(x, scale, bias, eps)


@ft.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: Array, scale: Array | None, bias: Array | None, eps: float) -> Array:
    return _forward(x, scale, bias, eps)[0]


def _forward(x: Array, scale: Array | None, bias: Array | None, eps: float) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, scale, bias)
    wide = x.astype(compute)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    centred = wide - mean
    rstd = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    y = centred * rstd
    y = y if scale is None else y * scale.astype(compute)
    y = y if bias is None else y + bias.astype(compute)
    return y.astype(result), (x, mean, rstd, scale, bias)


def _backward(eps: float, residuals: Residuals, y_ct: Array) -> tuple[Array, Array | None, Array | None]:
    del eps  # it is in rstd
    x, mean, rstd, scale, bias = residuals
    y_ct = y_ct.astype(mean.dtype)
    xh = (x.astype(mean.dtype) - mean) * rstd
    xh_ct = y_ct if scale is None else y_ct * scale.astype(mean.dtype)
    x_ct = rstd * (xh_ct - jnp.mean(xh_ct, axis=-1, keepdims=True) - xh * jnp.mean(xh * xh_ct, axis=-1, keepdims=True))
    return match(x_ct, x), None if scale is None else match(y_ct * xh, scale), None if bias is None else match(y_ct, bias)


_layer_norm.defvjp(_forward, _backward)
_compiled = jax.jit(_layer_norm, static_argnums=3)


def reference(x, scale=None, bias=None, *, eps=1e-5):
    """The textbook formula."""
    y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + eps)
    y = y if scale is None else scale * y
    return y if bias is None else y + bias


SPEC = Spec(
    name="layer_norm",
    fn=layer_norm,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*batch D"), "scale": Arg(dims="D", optional=True), "bias": Arg(dims="D", optional=True)},
    sizes={"batch": (0, 9), "D": (0, 130)},
    options={"eps": (1e-5, 1e-3)},
    source="arXiv:1607.06450",
)
