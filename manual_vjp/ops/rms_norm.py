r"""Root mean square normalisation over the last axis, or over any.

Source: Zhang & Sennrich, "Root mean square layer normalization" (2019), arXiv:1910.07467.

Forward, for each row x in R^D, with mean = (1/D) sum over the row:
    rstd = (mean(x^2) + eps)^(-1/2)     xh = rstd x     y = scale xh
Derivation.  drstd = -rstd^3 mean(x dx), hence  dxh = J dx = rstd [dx - xh mean(xh dx)], and J is symmetric, so it is its own VJP.
Backward, with y_ct given and xh_ct = scale y_ct:
    x_ct = rstd [xh_ct - xh mean(xh xh_ct)]     scale_ct = sum_rows y_ct xh
Validity: no kinks; every eps > 0 (eps = 0 where no row is 0). 16-bit inputs compute in float32.
Residuals: x, which the caller holds, rstd, one number a row, and scale (autodiff keeps two arrays of x's size).
Cost, forward, backward:  products none, 4 R D     elementary functions R, none
    for R rows: the sums of the backward are products with a vector. Beside them a few passes over x.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rows import BLOCK, along, as_rows, column_sum, in_blocks, require_eps, require_row, row_mean, to_weights
from manual_vjp._rule import dtypes, require_floating
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array | None]  # x, rstd, scale


def rms_norm(
    x: Float[Array, "*shape"], scale: Float[Array, "..."] | None = None, *, axis: int | tuple[int, ...] = -1, eps: float = 1e-6
) -> Float[Array, "*shape"]:
    """Divide `x` by its root mean square along `axis`, then multiply by `scale`.

    Args:
        x: input, of any shape and floating dtype, as is scale. A row is what lies along `axis`, D numbers.
        scale: of the shape of a row (`x.shape[a]` for each axis a, in ascending order), or None for 1.
        axis: one axis or several.
        eps: added to the mean square; a Python number, not an array.

    Returns:
        An array of the shape of x, in the dtype that x and scale promote to.

    Raises:
        ValueError: a shape or an axis does not fit, or eps is negative.
        TypeError: an argument is not floating point, or eps is traced.

    Example:
        >>> rms_norm(jnp.array([1.0, 7.0]), eps=0.0)
        Array([0.2, 1.4], dtype=float32)
    """
    require_floating("rms_norm", x=x, scale=scale)
    axes = require_row("rms_norm", x, axis, scale=scale)
    return _compiled(x, scale, axes, require_eps("rms_norm", eps), BLOCK)


@ft.partial(jax.jit, static_argnums=(2, 3, 4))
def _compiled(x, scale, axes: tuple[int, ...], eps: float, block: int):
    rows, back = as_rows(x, axes)
    return back(_rms_norm(rows, None if scale is None else scale.reshape(-1), eps, block))


@ft.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _rms_norm(x: Array, scale: Array | None, eps: float, block: int) -> Array:
    return _forward(x, scale, eps, block)[0]


def _forward(x: Array, scale: Array | None, eps: float, block: int) -> tuple[Array, Residuals]:
    del block  # the sums of the forward run along rows only: XLA does well
    result, compute = dtypes(x, scale)
    wide = x.astype(compute)
    rstd = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    y = wide * rstd
    y = y if scale is None else y * scale.astype(compute)
    return y.astype(result), (x, rstd, scale)


def _backward(eps: float, block: int, residuals: Residuals, y_ct: Array) -> tuple[Array, Array | None]:
    del eps  # it is in rstd
    x, rstd, scale = residuals
    weights = jnp.ones(x.shape[-1:], rstd.dtype) if scale is None else scale.astype(rstd.dtype)

    def sums(x, rstd, y_ct):
        product = y_ct.astype(rstd.dtype) * (x.astype(rstd.dtype) * rstd)
        return (row_mean(product, weights),), (None if scale is None else column_sum(product),)

    (first,), (scale_ct,) = in_blocks(sums, (x, rstd, y_ct), block)
    x_ct = rstd * (y_ct.astype(rstd.dtype) * weights - x.astype(rstd.dtype) * rstd * first)
    return x_ct.astype(x.dtype), to_weights(scale_ct, scale)


_rms_norm.defvjp(_forward, _backward)


def reference(x, scale=None, *, axis=-1, eps=1e-6):
    """The textbook formula."""
    y = x / jnp.sqrt(jnp.mean(x**2, axis, keepdims=True) + eps)
    return y if scale is None else along(scale, x, axis) * y


SPEC = Spec(
    name="rms_norm",
    fn=rms_norm,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*batch D"), "scale": Arg(dims="D", optional=True)},
    sizes={"batch": (0, 9), "D": (0, 130)},
    options={"eps": (1e-6, 1e-3)},
    source="arXiv:1910.07467",
)
