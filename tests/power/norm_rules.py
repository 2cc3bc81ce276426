"""Normalisations: statistics that were treated as constants, eps in the wrong place, rows without any variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry, pair, rule
from verify import Arg

EPS = 1e-5


def normalise(x, g):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return g * centred / jnp.sqrt(variance + 1e-5)


def normalise_forward(x, g):
    centred = x - x.mean(-1, keepdims=True)
    r = 1 / jnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return g * centred * r, (centred * r, r, g)


def gain_cotangent(xh, g, ct):
    return (ct * xh).reshape(-1, g.size).sum(0)


def normalise_backward(residuals, ct):
    xh, r, g = residuals
    h = g * ct
    x_ct = r * (h - h.mean(-1, keepdims=True) - xh * (xh * h).mean(-1, keepdims=True))
    return x_ct, gain_cotangent(xh, g, ct)


def constant_variance(residuals, ct):
    xh, r, g = residuals
    h = g * ct
    return r * (h - h.mean(-1, keepdims=True)), gain_cotangent(xh, g, ct)


def constant_mean(residuals, ct):
    xh, r, g = residuals
    h = g * ct
    return r * (h - xh * (xh * h).mean(-1, keepdims=True)), gain_cotangent(xh, g, ct)


def gain_over_first_axis(residuals, ct):
    """Written for a batch of vectors; x may have any rank."""
    xh, r, g = residuals
    return normalise_backward(residuals, ct)[0], (ct * xh).sum(0)


def batch_norm(x):
    centred = x - x.mean(0)
    return centred * jax.lax.rsqrt((centred * centred).mean(0) + EPS)


def batch_norm_forward(x):
    centred = x - x.mean(0)
    r = jax.lax.rsqrt((centred * centred).mean(0) + EPS)
    return centred * r, (centred * r, r)


def batch_norm_backward(residuals, ct):
    xh, r = residuals
    return (r * (ct - ct.mean(0) - xh * (xh * ct).mean(0)),)


def as_in_inference(residuals, ct):
    _, r = residuals
    return (r * ct,)


def rms_norm(x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPS)


def rms_forward(x):
    r = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPS)
    return x * r, (x, r)


def rms_backward(residuals, ct):
    x, r = residuals
    return (r * ct - x * r**3 * (x * ct).mean(-1, keepdims=True),)


def constant_rms(residuals, ct):
    return (residuals[1] * ct,)


def rms_summed(residuals, ct):
    x, r = residuals
    return (r * ct - x * r**3 * (x * ct).sum(-1, keepdims=True),)


def eps_outside(residuals, ct):
    x, _ = residuals
    return rms_backward((x, 1 / (jnp.sqrt((x * x).mean(-1, keepdims=True)) + EPS)), ct)


def unit(x):
    """x / max(|x|, 1e-6)"""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def unit_forward(x):
    return unit(x), x


def unit_backward(x, ct):
    squares = (x * x).sum(-1, keepdims=True)
    r = jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    return (jnp.where(squares > 1e-12, r * ct - x * r**3 * (x * ct).sum(-1, keepdims=True), r * ct),)


def unit_without_floor(x, ct):
    r = jax.lax.rsqrt((x * x).sum(-1, keepdims=True))
    return (r * ct - x * r**3 * (x * ct).sum(-1, keepdims=True),)


def cosine(x, y):
    return (x * y).sum(-1) / jnp.sqrt((x * x).sum(-1) * (y * y).sum(-1) + 1e-6)


def cosine_forward(x, y):
    return cosine(x, y), (x, y)


def cosine_backward(residuals, ct):
    x, y = residuals
    xx, yy, xy = ((a * b).sum(-1, keepdims=True) for a, b in ((x, x), (y, y), (x, y)))
    r, ct = jax.lax.rsqrt(xx * yy + 1e-6), ct[..., None]
    return ct * (r * y - xy * r**3 * yy * x), ct * (r * x - xy * r**3 * xx * y)


def cosine_of_fixed_norm(residuals, ct):
    x, y = residuals
    r, ct = jax.lax.rsqrt((x * x).sum(-1, keepdims=True) * (y * y).sum(-1, keepdims=True) + 1e-6), ct[..., None]
    return ct * r * y, ct * r * x


def weight_norm(v, g):
    return g * v / jnp.sqrt((v * v).sum(0) + 1e-6)


def weight_norm_forward(v, g):
    r = jax.lax.rsqrt((v * v).sum(0) + 1e-6)
    return g * v * r, (v, g, r)


def weight_norm_backward(residuals, ct):
    v, g, r = residuals
    along = (ct * v).sum(0)
    return g * (r * ct - v * r**3 * along), along * r


def direction_not_removed(residuals, ct):
    v, g, r = residuals
    return g * r * ct, (ct * v).sum(0) * r


def group_norm(x, groups):
    split = x.reshape(x.shape[0], groups, -1)
    centred = split - split.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPS)).reshape(x.shape)


def group_norm_forward(x, groups):
    split = x.reshape(x.shape[0], groups, -1)
    centred = split - split.mean(-1, keepdims=True)
    r = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPS)
    return (centred * r).reshape(x.shape), (centred * r, r)


def group_norm_backward(groups, residuals, ct):
    xh, r = residuals
    h = ct.reshape(xh.shape)
    return ((r * (h - h.mean(-1, keepdims=True) - xh * (xh * h).mean(-1, keepdims=True))).reshape(ct.shape),)


def over_all_groups(groups, residuals, ct):
    xh, r = residuals
    h = ct.reshape(xh.shape)
    return ((r * (h - h.mean((1, 2), keepdims=True) - xh * (xh * h).mean((1, 2), keepdims=True))).reshape(ct.shape),)


def norm(x):
    """|x|, with gradient 0 at x = 0."""
    squares = (x * x).sum(-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def norm_backward(x, ct):
    y = norm(x)
    return ((ct / jnp.where(y > 0, y, 1))[..., None] * x,)


def norm_divided(x, ct):
    return ((ct / norm(x))[..., None] * x,)


ROWS = {"x": Arg(dims="*batch D"), "g": Arg(dims="D")}
NORMALISE = (normalise, normalise_forward)
ENTRIES = (
    entry("constant-variance", "constant statistic", *NORMALISE, constant_variance, normalise_backward, ROWS, "gradient", cases=40),
    entry("constant-mean", "constant statistic", *NORMALISE, constant_mean, normalise_backward, ROWS, "gradient"),
    entry("gain-over-first-axis", "reduction", *NORMALISE, gain_over_first_axis, normalise_backward, ROWS, "structure", trigger=True),
    entry("batch-norm-as-in-inference", "constant statistic", batch_norm, batch_norm_forward, as_in_inference, batch_norm_backward,
          argument("n d"), "gradient"),
    entry("constant-rms", "constant statistic", rms_norm, rms_forward, constant_rms, rms_backward, argument("*batch d"), "gradient"),
    entry("rms-term-summed", "scale", rms_norm, rms_forward, rms_summed, rms_backward, argument("*batch d"), "gradient"),
    entry("eps-outside-the-root", "scale", rms_norm, rms_forward, eps_outside, rms_backward, argument("*batch d"), "gradient"),
    entry("unit-vector-at-zero", "special value", unit, unit_forward, unit_without_floor, unit_backward, argument("n d"),
          ("gradient", "extremes"), trigger=True),
    entry("cosine-of-fixed-norm", "constant statistic", cosine, cosine_forward, cosine_of_fixed_norm, cosine_backward,
          {"x": Arg(dims="n d"), "y": Arg(dims="n d")}, "gradient"),
    entry("weight-norm-direction", "constant statistic", weight_norm, weight_norm_forward, direction_not_removed, weight_norm_backward,
          {"v": Arg(dims="d k"), "g": Arg(dims="k")}, "gradient"),
    entry("group-norm-over-all-groups", "option", group_norm, group_norm_forward, over_all_groups, group_norm_backward, argument("n 2*c"),
          "gradient", static=(1,), options={"groups": (1, 2)}, trigger=True),
    pair("norm-at-zero", "special value", rule(norm, lambda x: (norm(x), x), norm_divided), rule(norm, lambda x: (norm(x), x), norm_backward),
         argument("*batch d"), ("gradient", "extremes", "kinks"), trigger=True),
)  # fmt: skip
