r"""Layer normalisation over the last axis, or over any.

Source: Ba, Kiros & Hinton, "Layer normalization" (2016), arXiv:1607.06450.

Forward, for each row x in R^D, with mean = (1/D) sum over the row:
    c = x - mean(x)     rstd = (mean(c^2) + eps)^(-1/2)     xh = rstd c     y = scale xh + bias
Derivation.  drstd = -rstd^3 mean(c dx), hence  dxh = J dx = rstd [dx - mean(dx) - xh mean(xh dx)].
    J is symmetric, term by term (I, 1 1^T / D, xh xh^T / D), so J is its own VJP.
Backward, with y_ct given and xh_ct = scale y_ct:
    x_ct = rstd [xh_ct - mean(xh_ct) - xh mean(xh xh_ct)]     scale_ct = sum_rows y_ct xh     bias_ct = sum_rows y_ct
    The sums are products with a vector of the weights or of ones (mean(xh_ct) = y_ct scale / D), which is faster than to form what is summed; these and
    the forward's are taken in blocks of rows where arrays are large, on CPU.
Validity: no kinks; every eps > 0 (eps = 0 where no row is constant). The variance is taken in two passes, after the mean is removed,
    so a row far from zero keeps its digits. 16-bit inputs compute in float32.
Residuals: x, which the caller holds, and mean and rstd, two numbers a row (autodiff keeps three arrays of x's size);
    scale (D numbers), and bias for its dtype and devices.
Cost, forward, backward:  products none, 8 R D     elementary functions R, none
    for R rows: the sums of the backward are products with a vector. Beside them a few passes over x.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rows import BLOCK, along, as_rows, column_sum, in_blocks, require_eps, require_row, row_mean, to_weights
from manual_vjp._rule import dtypes, require_floating
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array | None]  # x, mean, rstd, scale, bias


def layer_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
) -> Float[Array, "*shape"]:
    """Normalise `x` along `axis` to mean 0 and variance 1, then multiply by `scale` and add `bias`.

    Args:
        x: input, of any shape and floating dtype, as are the others. A row is what lies along `axis`, D numbers.
        scale: of the shape of a row (`x.shape[a]` for each axis a, in ascending order), or None for 1.
        bias: likewise, or None for 0.
        axis: one axis or several.
        eps: added to the variance; a Python number, not an array.

    Returns:
        An array of the shape of x, in the dtype that x, scale and bias promote to.

    Raises:
        ValueError: a shape or an axis does not fit, or eps is negative.
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
    axes = require_row("layer_norm", x, axis, scale=scale, bias=bias)
    return _compiled(x, scale, bias, axes, require_eps("layer_norm", eps), BLOCK)


@ft.partial(jax.jit, static_argnums=(3, 4, 5))
def _compiled(x, scale, bias, axes: tuple[int, ...], eps: float, block: int):
    rows, back = as_rows(x, axes)
    y = _layer_norm(rows, *(None if a is None else a.reshape(-1) for a in (scale, bias)), eps, block)
    return back(y)


@ft.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _layer_norm(x: Array, scale: Array | None, bias: Array | None, eps: float, block: int) -> Array:
    return _forward(x, scale, bias, eps, block)[0]


def _forward(x: Array, scale: Array | None, bias: Array | None, eps: float, block: int) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, scale, bias)

    def statistics(x):
        wide = x.astype(compute)
        mean = jnp.mean(wide, axis=-1, keepdims=True)
        centred = wide - mean
        return (mean, jnp.mean(centred * centred, axis=-1, keepdims=True)), ()

    (mean, variance), _ = in_blocks(statistics, (x,), block)  # a block is in the cache when its mean is known
    rstd = jax.lax.rsqrt(variance + eps)
    y = (x.astype(compute) - mean) * rstd
    y = y if scale is None else y * scale.astype(compute)
    y = y if bias is None else y + bias.astype(compute)
    return y.astype(result), (x, mean, rstd, scale, bias)


def _backward(eps: float, block: int, residuals: Residuals, y_ct: Array) -> tuple[Array, Array | None, Array | None]:
    del eps  # it is in rstd
    x, mean, rstd, scale, bias = residuals
    weights = jnp.ones(x.shape[-1:], mean.dtype) if scale is None else scale.astype(mean.dtype)

    def normalised(x, mean, rstd):
        return (x.astype(mean.dtype) - mean) * rstd

    def sums(x, mean, rstd, y_ct):
        y_ct = y_ct.astype(mean.dtype)
        product = y_ct * normalised(x, mean, rstd)
        over_rows = None if scale is None else column_sum(product), None if bias is None else column_sum(y_ct)
        return (row_mean(y_ct, weights), row_mean(product, weights)), over_rows

    (first, second), (scale_ct, bias_ct) = in_blocks(sums, (x, mean, rstd, y_ct), block)
    x_ct = rstd * (y_ct.astype(mean.dtype) * weights - first - normalised(x, mean, rstd) * second)
    return x_ct.astype(x.dtype), to_weights(scale_ct, scale), to_weights(bias_ct, bias)


_layer_norm.defvjp(_forward, _backward)


def reference(x, scale=None, bias=None, *, axis=-1, eps=1e-5):
    """The textbook formula."""
    y = (x - x.mean(axis, keepdims=True)) / jnp.sqrt(x.var(axis, keepdims=True) + eps)
    y = y if scale is None else along(scale, x, axis) * y
    return y if bias is None else y + along(bias, x, axis)


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
