"""Borders: comparisons that stop one further, bounds that cross, indices beyond the end or named again, factors of exactly 0 or 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry
from verify import Arg

SEGMENTS = 4


def band(x, w):
    """Neighbours at a distance below 3."""
    return x**2 @ jnp.where(_distance(x) < 3, w, 0)


def _distance(x):
    index = jnp.arange(x.shape[-1])
    return jnp.abs(index[:, None] - index)


def band_forward(x, w):
    return band(x, w), (x, w)


def band_backward(residuals, ct):
    x, w = residuals
    near = _distance(x) < 3
    return 2 * x * (ct @ jnp.where(near, w, 0).T), jnp.where(near, (x**2).T @ ct, 0)


def band_up_to_3(residuals, ct):
    x, w = residuals
    near = _distance(x) <= 3
    return 2 * x * (ct @ jnp.where(near, w, 0).T), jnp.where(near, (x**2).T @ ct, 0)


def between(x, lo, hi):
    """Where the bounds cross, hi wins."""
    return jnp.minimum(jnp.maximum(x, lo), hi)


def between_forward(x, lo, hi):
    return between(x, lo, hi), (x, lo, hi)


def between_backward(residuals, ct):
    x, lo, hi = residuals
    above = jnp.maximum(x, lo) > hi
    below = ~above & (x < lo)
    return jnp.where(above | below, 0, ct), jnp.where(below, ct, 0), jnp.where(above, ct, 0)


def lower_bound_first(residuals, ct):
    x, lo, hi = residuals
    below = (x < lo) | (lo > hi)
    above = ~below & (x >= hi)
    return jnp.where(above | below, 0, ct), jnp.where(below, ct, 0), jnp.where(above, ct, 0)


def put(x, at, v):
    """Of repeated indices the last one counts."""
    last = ~jnp.any(jnp.triu(at[:, None] == at[None], 1), axis=1)
    return x.at[jnp.where(last, at, x.size)].set(v, mode="drop")


def put_forward(x, at, v):
    return put(x, at, v), at


def put_backward(at, ct):
    last = ~jnp.any(jnp.triu(at[:, None] == at[None], 1), axis=1)
    return ct.at[at].set(0), None, jnp.where(last, ct[at], 0)


def all_that_was_put(at, ct):
    return ct.at[at].set(0), None, ct[at]


def segment_sum(x, ids):
    """Numbers of no segment are dropped."""
    return jax.ops.segment_sum(x, ids, SEGMENTS)


def segment_sum_forward(x, ids):
    return segment_sum(x, ids), ids


def segment_sum_backward(ids, ct):
    return ct.at[ids].get(mode="fill", fill_value=0), None


def of_the_last_segment(ids, ct):
    return ct[ids], None


def running_product(x):
    return jnp.cumprod(x, axis=-1)


def running_product_forward(x):
    return running_product(x), x


def running_product_backward(x, ct):
    """y_ct[j] times the product of all others up to j."""
    n = x.shape[-1]
    i, j, k = jnp.arange(n)[:, None, None], jnp.arange(n)[:, None], jnp.arange(n)
    others = jnp.where((k <= j) & (k != i), x[:, None, None, :], 1).prod(-1)
    return ((jnp.where(i[..., 0] <= k, others, 0) @ ct[..., None])[..., 0],)


def divided_by_each(x, ct):
    later = jnp.cumsum((ct * jnp.cumprod(x, -1))[:, ::-1], -1)[:, ::-1]
    return (jnp.where(x == 0, 0, later / jnp.where(x == 0, 1, x)),)


def row_product(x):
    return jnp.prod(x, -1)


def row_product_forward(x):
    return row_product(x), x


def row_product_backward(x, ct):
    others = jnp.where(jnp.eye(x.shape[-1], dtype=bool), 1, x[..., None, :]).prod(-1)
    return (ct[..., None] * others,)


def nothing_where_two_are_0(x, ct):
    """Right, as another 0 is left in each product; but the derivative of the product by both of them is not 0."""
    (right,) = row_product_backward(x, ct)
    return (jnp.where((x == 0).sum(-1, keepdims=True) > 1, 0, right),)


def light(opacity):
    """How much is seen through all layers."""
    return jnp.prod(1 - opacity, -1)


def light_forward(opacity):
    return light(opacity), opacity


def light_backward(opacity, ct):
    others = jnp.where(jnp.eye(opacity.shape[-1], dtype=bool), 1, (1 - opacity)[:, None, :]).prod(-1)
    return (-ct[:, None] * others,)


def divided_by_what_is_seen(opacity, ct):
    seen = 1 - opacity
    return (-ct[:, None] * jnp.where(seen == 0, 0, light(opacity)[:, None] / jnp.where(seen == 0, 1, seen)),)


ENTRIES = (
    entry("band-one-wider", "mask", band, band_forward, band_up_to_3, band_backward, {"x": Arg(dims="n d"), "w": Arg(dims="d d")}, "gradient", trigger=True),
    entry("crossed-bounds", "special value", between, between_forward, lower_bound_first, between_backward,
          {"x": Arg(dims="n"), "lo": Arg(dims="n", low=-4.0, high=1.0), "hi": Arg(dims="n", low=-1.0, high=4.0)}, "gradient"),
    entry("all-that-was-put", "indices", put, put_forward, all_that_was_put, put_backward,
          {"x": Arg(dims="n"), "at": Arg(dims="m", dtype="int32", low=0, high=12), "v": Arg(dims="m")}, "gradient", sizes={"n": (12, 20), "m": (1, 8)}, trigger=True),
    entry("gathered-beyond-the-end", "indices", segment_sum, segment_sum_forward, of_the_last_segment, segment_sum_backward,
          {"x": Arg(dims="n d"), "ids": Arg(dims="n", dtype="int32", low=0, high=SEGMENTS + 2)}, "gradient", trigger=True),
    entry("running-product-of-a-zero", "special value", running_product, running_product_forward, divided_by_each, running_product_backward,
          argument("n d"), "gradient", sizes={"d": (1, 12)}, trigger=True),
    entry("product-of-two-zeros", "second order", row_product, row_product_forward, nothing_where_two_are_0, row_product_backward,
          argument("n d"), "second-order", sizes={"n": (1, 8), "d": (1, 10)}, trigger=True),
    entry("opaque-layer", "special value", light, light_forward, divided_by_what_is_seen, light_backward,
          {"opacity": Arg(dims="n d", low=0.0, high=1.0)}, "gradient", sizes={"d": (1, 12)}, trigger=True),
)  # fmt: skip
