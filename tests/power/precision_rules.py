"""Rounding: residuals, sums and cotangents in a dtype that holds too little."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry
from verify import Arg


def wide(x):
    return x.astype(jnp.promote_types(x.dtype, "float32"))


def sine_forward(x):
    return jnp.sin(x), x


def sine_backward(x, ct):
    return (ct * jnp.cos(x),)


def residual_rounded(x, ct):
    """Memory saved: the residual is kept in bfloat16."""
    return (ct * jnp.cos(x.astype("bfloat16").astype(x.dtype)),)


def residual_in_float32(x, ct):
    return (ct * jnp.cos(x.astype("float32")).astype(x.dtype),)


def cotangent_rounded(x, ct):
    return (ct.astype("bfloat16").astype(x.dtype) * jnp.cos(x),)


def bfloat16_cotangent(x, ct):
    return ((ct * jnp.cos(x)).astype("bfloat16"),)


def bias(x, b):
    return x + b


def bias_forward(x, b):
    return x + b, None


def added_up(start, rows):
    """One row after the other, in the dtype of `start`."""
    return jax.lax.scan(lambda total, row: (total + row.astype(total.dtype), None), start, rows)[0]


def row_by_row(start):
    def backward(_, ct):
        total = added_up(start(ct), ct)
        return ct, total.astype(ct.dtype)

    return backward


def gain(x, w):
    return x * w


def gain_forward(x, w):
    return x * w, (x, w)


def gain_summed(start):
    """Row after row; the products have both signs, so that random ones cancel and the sum stays small enough for any dtype."""

    def backward(residuals, ct):
        x, w = residuals
        total = added_up(start(jnp.zeros_like(w)), wide(x) * wide(ct))
        return ct * w, total.astype(w.dtype)

    return backward


def rms(x):
    """Computes in float32 at least, whatever x is."""
    wide_x = wide(x)
    return (wide_x * jax.lax.rsqrt((wide_x * wide_x).mean(-1, keepdims=True) + 1e-6)).astype(x.dtype)


def rms_forward(x):
    return rms(x), x


def rms_backward_in(cast):
    def backward(x, ct):
        x, dtype = cast(x), x.dtype
        ct = ct.astype(x.dtype)
        r = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + jnp.asarray(1e-6, x.dtype))
        return ((r * ct - (x * r) * r * ((x * r) * ct).mean(-1, keepdims=True)).astype(dtype),)

    return backward


def softmax(x):
    return jax.nn.softmax(x)


def softmax_forward(x):
    p = jax.nn.softmax(x)
    return p, p


def softmax_backward(p, ct):
    return (p * (ct - (p * ct).sum(-1, keepdims=True)),)


def float16_inside(p, ct):
    """A kernel's accumulator, one size too small."""
    small, small_ct = p.astype("float16"), ct.astype("float16")
    return (p * (ct - (small * small_ct).sum(-1, keepdims=True).astype(ct.dtype)),)


def difference_of_squares(x, y):
    return (x - y) * (x + y)


def difference_forward(x, y):
    return difference_of_squares(x, y), (x, y)


def difference_backward(residuals, ct):
    x, y = residuals
    return 2 * ct * x, -2 * ct * y


def wrong_dtype_for_y(residuals, ct):
    x_ct, y_ct = difference_backward(residuals, ct)
    return x_ct, y_ct.astype(jnp.promote_types(y_ct.dtype, "float32"))


SINE = ("precision", jnp.sin, sine_forward)
ENTRIES = (
    entry("residual-in-bfloat16", *SINE, residual_rounded, sine_backward, argument("*shape"), ("precision", "gradient")),
    entry("residual-in-float32", *SINE, residual_in_float32, sine_backward, argument("*shape"), ("precision", "gradient"), dtypes=(), trigger=True),
    entry("cotangent-rounded", *SINE, cotangent_rounded, sine_backward, argument("*shape"), ("precision", "gradient")),
    entry("bfloat16-cotangent", "dtype", jnp.sin, sine_forward, bfloat16_cotangent, sine_backward, argument("*shape"), "structure"),
    entry("long-sum-in-own-dtype", "precision", bias, bias_forward, row_by_row(lambda ct: jnp.zeros_like(ct[0])),
          row_by_row(lambda ct: wide(jnp.zeros_like(ct[0]))), {"x": Arg(dims="n d"), "b": Arg(dims="d")}, "precision", sizes={"n": (1, 4000)}, trigger=True),
    entry("gain-summed-in-own-dtype", "precision", gain, gain_forward, gain_summed(lambda x: x), gain_summed(wide),
          {"x": Arg(dims="n d"), "w": Arg(dims="d")}, "precision", trigger=True),
    entry("squares-overflow-in-float16", "magnitude", rms, rms_forward, rms_backward_in(lambda x: x), rms_backward_in(wide), argument("n d"),
          ("precision", "extremes"), dtypes=("float16",), trigger=True),
    entry("overflow-as-in-the-reference", "magnitude", rms, rms_forward, rms_backward_in(lambda x: x), rms_backward_in(wide), argument("n d"), "precision",
          reference=lambda x: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6), trigger=True),
    entry("accumulator-in-float16", "precision", softmax, softmax_forward, float16_inside, softmax_backward, argument("n d"),
          ("precision", "gradient")),
    entry("float32-for-second-argument", "dtype", difference_of_squares, difference_forward, wrong_dtype_for_y, difference_backward,
          {"x": Arg(dims="n"), "y": Arg(dims="n")}, "structure", trigger=True),
)  # fmt: skip
