"""Rules that are wrong only where two numbers are equal, at one point, or at sizes that only one option allows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.elementwise_rules import scalar_entry
from tests.power.entry import argument, entry
from verify import Arg


def added(x, y):
    return 3 * x + jnp.sin(y)


def added_backward(residuals, ct):
    _, y = residuals
    return 3 * ct, ct * jnp.cos(y)


def nothing_where_equal(residuals, ct):
    x, y = residuals
    return jnp.where(x == y, 0, 3 * ct), ct * jnp.cos(y)


def triplet(a, p, n):
    near, far = ((a - p) ** 2).sum(-1), ((a - n) ** 2).sum(-1)
    return jnp.maximum(near - far + 0.2, 0)


def triplet_backward_of(share):
    """`share`: which part of the cotangent of a row counts, by its two distances."""

    def backward(residuals, ct):
        a, p, n = residuals
        near, far = ((a - p) ** 2).sum(-1), ((a - n) ** 2).sum(-1)
        row_ct = 2 * jnp.where(near - far + 0.2 > 0, ct, 0)[:, None]
        return share(near, far) * row_ct * (n - p), row_ct * (p - a), row_ct * (a - n)

    return backward


def sinc(x):
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.sin(safe) / safe)


def sinc_slope_with_series(x):
    """Near 0 the series, which is the same function on both sides of the border up to 1e-16."""
    near = jnp.abs(x) < 0.5
    s = jnp.where(near, x * x, 0)
    series = -x / 3 * (1 - s / 10 * (1 - s / 28 * (1 - s / 54 * (1 - s / 88 * (1 - s / 130 * (1 - s / 180))))))
    safe = jnp.where(near, 1, x)
    return jnp.where(near, series, (jnp.cos(safe) - jnp.sin(safe) / safe) / safe)


def sinc_slope(x):
    """The value at 0 is right, and its own derivative is that of a constant, where -1/3 is."""
    return jnp.where(x == 0, 0, sinc_slope_with_series(x))


def group_norm(x, groups):
    rows = x.reshape(x.shape[0], groups, -1)
    centred = rows - rows.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)).reshape(x.shape)


def group_norm_backward_of(channels):
    """`channels`: what becomes of the cotangent in the end."""

    def backward(groups, x, ct):
        rows, ct = x.reshape(x.shape[0], groups, -1), ct.reshape(x.shape[0], groups, -1)
        centred = rows - rows.mean(-1, keepdims=True)
        rstd = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        xh = centred * rstd
        x_ct = rstd * (ct - ct.mean(-1, keepdims=True) - xh * (ct * xh).mean(-1, keepdims=True))
        return (channels(x_ct.reshape(x.shape)),)

    return backward


def two_at_a_time(x_ct):
    """Loses the last channel of an odd number: only one group allows that."""
    return x_ct.at[:, -1].set(0) if x_ct.shape[1] % 2 else x_ct


def max_plus(a, b):
    """The tropical product, summed in float32 at least, as half precision makes ties."""
    return sums_of(a, b).max(1).astype(jnp.result_type(a, b))


def sums_of(a, b):
    wide = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return a.astype(wide)[:, :, None] + b.astype(wide)


def max_plus_backward_of(shares):
    """`shares`: what each sum gets of its row's cotangent, by which of them are the largest."""

    def backward(residuals, ct):
        sums = sums_of(*residuals)
        sums_ct = shares(sums == sums.max(1, keepdims=True)) * ct[:, None, :]
        return tuple(total.astype(x.dtype) for total, x in zip((sums_ct.sum(2), sums_ct.sum(0)), residuals, strict=True))

    return backward


ROWS = {name: Arg(dims="b d") for name in ("a", "p", "n")}
ENTRIES = (
    entry("nothing-where-equal", "ties", added, lambda x, y: (added(x, y), (x, y)), nothing_where_equal, added_backward, {"x": Arg(dims="n"), "y": Arg(dims="n")},
          "gradient", trigger=True),
    entry("equal-distances", "ties", triplet, lambda a, p, n: (triplet(a, p, n), (a, p, n)), triplet_backward_of(lambda near, far: (near != far)[:, None]),
          triplet_backward_of(lambda near, far: 1), ROWS, ("gradient", "second-order"), sizes={"b": (1, 20), "d": (1, 12)}, dtypes=("float32",), trigger=True),
    entry("max-plus-to-every-tie", "tie", max_plus, lambda a, b: (max_plus(a, b), (a, b)), max_plus_backward_of(lambda largest: largest),
          max_plus_backward_of(lambda largest: largest / largest.sum(1, keepdims=True)), {"a": Arg(dims="n k"), "b": Arg(dims="k m")}, ("kinks", "gradient"),
          sizes={"n": (1, 12), "k": (1, 12), "m": (1, 12)}, trigger=True),
    scalar_entry("slope-of-a-patched-point", "second order", sinc, sinc_slope, sinc_slope_with_series, "second-order",
                 reference=lambda x: jnp.sinc(x / jnp.pi), trigger=True),
    entry("odd-channels", "option", group_norm, lambda x, groups: (group_norm(x, groups), x), group_norm_backward_of(two_at_a_time),
          group_norm_backward_of(lambda x_ct: x_ct), argument("n C L"), "gradient", static=(1,), sizes={"n": (1, 4), "C": (1, 16), "L": (2, 12)},
          options={"groups": (1, 2, 4)}, domain=lambda sizes, options: sizes["C"] % options["groups"] == 0, trigger=True),
)  # fmt: skip
