"""Indices, labels, masks, dropout: what is picked, and what is left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.power.entry import entry, indices
from verify import Arg


def embed(table, ids):
    return table[ids]


def embed_forward(table, ids):
    return table[ids], (table, ids)


def embed_backward(residuals, ct):
    table, ids = residuals
    return jnp.zeros_like(table).at[ids].add(ct), None


def overwritten(residuals, ct):
    table, ids = residuals
    return jnp.zeros_like(table).at[ids].set(ct), None


def negative_lost(residuals, ct):
    table, ids = residuals
    return jax.ops.segment_sum(ct, ids, table.shape[0]), None


def one_hot_from_one(residuals, ct):
    table, ids = residuals
    return jax.nn.one_hot(ids - 1, table.shape[0], dtype=ct.dtype).T @ ct, None


def integers_left_out(residuals, ct):
    """Integers have no derivative, but they are arguments: they want None."""
    return embed_backward(residuals, ct)[:1]


def segment_mean(x, ids):
    return _segment_mean(x, ids)[0]


def _segment_mean(x, ids):
    total = jnp.zeros((8, *x.shape[1:]), x.dtype).at[ids].add(x)
    count = jnp.maximum(jnp.zeros((8,), x.dtype).at[ids].add(1), 1)[:, None]
    return total / count, count


def segment_mean_forward(x, ids):
    y, count = _segment_mean(x, ids)
    return y, (count, ids)


def segment_mean_backward(residuals, ct):
    count, ids = residuals
    return (ct / count)[ids], None


def segment_sum_gradient(residuals, ct):
    count, ids = residuals
    return ct[ids], None


# Cross entropy with integer labels; label -1 counts for nothing.


def cross_entropy(logits, labels, smoothing):
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, jnp.maximum(labels, 0)[:, None], -1)[:, 0]
    loss = -(1 - smoothing) * picked - smoothing * log_p.mean(-1)
    return jnp.where(labels >= 0, loss, 0)


def cross_entropy_forward(logits, labels, smoothing):
    return cross_entropy(logits, labels, smoothing), (logits, labels)


def cross_entropy_backward(smoothing, residuals, ct):
    logits, labels = residuals
    target = (1 - smoothing) * jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype) + smoothing / logits.shape[1]
    return (ct * (labels >= 0))[:, None] * (jax.nn.softmax(logits) - target), None


def not_ignored(smoothing, residuals, ct):
    logits, labels = residuals
    target = (1 - smoothing) * jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype) + smoothing / logits.shape[1]
    return ct[:, None] * (jax.nn.softmax(logits) - target), None


def never_smoothed(smoothing, residuals, ct):
    return cross_entropy_backward(0.0, residuals, ct)


def squared_error(x, y, reduction):
    return {"mean": jnp.mean, "sum": jnp.sum, "none": lambda z: z}[reduction]((x - y) ** 2)


def squared_error_forward(x, y, reduction):
    return squared_error(x, y, reduction), (x, y)


def squared_error_backward(reduction, residuals, ct):
    x, y = residuals
    g = ct * 2 * (x - y) / (x.size if reduction == "mean" else 1)
    return g, -g


def mean_over_batch(reduction, residuals, ct):
    x, y = residuals
    g = ct * 2 * (x - y) / (x.shape[0] if reduction == "mean" else 1)
    return g, -g


def masked_mean(x, mask):
    return (x * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1).astype(x.dtype)


def masked_mean_forward(x, mask):
    return masked_mean(x, mask), (mask, jnp.maximum(mask.sum(-1), 1))


def masked_mean_backward(residuals, ct):
    mask, count = residuals
    return (ct / count.astype(ct.dtype))[:, None] * mask, None


def divided_by_nothing(residuals, ct):
    mask, _ = residuals
    return (ct / mask.sum(-1).astype(ct.dtype))[:, None] * mask, None


def divided_by_all(residuals, ct):
    mask, _ = residuals
    return (ct / mask.shape[-1])[:, None] * mask, None


def mean_of_labelled(logits, labels):
    count = jnp.maximum((labels >= 0).sum(), 1).astype(logits.dtype)
    return cross_entropy(logits, labels, 0.0).sum() / count


def mean_of_labelled_forward(logits, labels):
    return mean_of_labelled(logits, labels), (logits, labels)


def mean_of_labelled_backward(residuals, ct):
    labels = residuals[1]
    return cross_entropy_backward(0.0, residuals, jnp.full(labels.shape, ct / jnp.maximum((labels >= 0).sum(), 1).astype(ct.dtype)))


def mean_of_all(residuals, ct):
    labels = residuals[1]
    return cross_entropy_backward(0.0, residuals, jnp.full(labels.shape, ct / labels.size))


# Dropout keeps the key, and draws its mask again in the backward.


def dropout(x, key, rate):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def dropout_forward(x, key, rate):
    return dropout(x, key, rate), key


def no_key_cotangent(key):
    return np.zeros(key.shape, jax.dtypes.float0)


def dropout_backward(rate, key, ct):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, ct.shape), ct / (1 - rate), 0), no_key_cotangent(key)


def another_mask(rate, key, ct):
    return dropout_backward(rate, jax.random.split(key)[0], ct)


def not_rescaled(rate, key, ct):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, ct.shape), ct, 0), no_key_cotangent(key)


def interpolate(values, at):
    """Linear interpolation between neighbours; positions outside continue the line."""
    low = jnp.clip(jnp.floor(at), 0, values.size - 2).astype(int)
    part = at - low
    return (1 - part) * values[low] + part * values[low + 1]


def interpolate_forward(values, at):
    return interpolate(values, at), (values, at)


def interpolate_backward(residuals, ct, swap=False):
    values, at = residuals
    low = jnp.clip(jnp.floor(at), 0, values.size - 2).astype(int)
    part = at - low
    weights = (part, 1 - part) if swap else (1 - part, part)
    v_ct = jnp.zeros_like(values).at[low].add(weights[0] * ct).at[low + 1].add(weights[1] * ct)
    return v_ct, ct * (values[low + 1] - values[low])


def weights_swapped(residuals, ct):
    return interpolate_backward(residuals, ct, swap=True)


def causal_softmax(scores):
    """Of matrices in any number of examples; a row sees itself and those before it."""
    return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf))


def causal_softmax_forward(scores):
    return causal_softmax(scores), causal_softmax(scores)


def causal_softmax_backward(p, ct, shift=0):
    seen = jnp.tril(jnp.ones(p.shape[-2:], bool), k=shift)
    return (jnp.where(seen, p * (ct - jnp.sum(p * ct, -1, keepdims=True)), 0),)


def without_itself(p, ct):
    return causal_softmax_backward(p, ct, shift=-1)


def fill(table, ids, value):
    return table.at[ids].set(value)


def fill_forward(table, ids, value):
    return fill(table, ids, value), (table.shape, ids)


def fill_backward(saved, ct):
    shape, ids = saved
    filled = jnp.zeros(shape[:1], bool).at[ids].set(True)
    return jnp.where(filled[:, None], 0, ct), None, jnp.where(filled[:, None], ct, 0).sum()


def once_per_index(saved, ct):
    return fill_backward(saved, ct)[0], None, ct[saved[1]].sum()


TABLE = Arg(dims="v d")
EMBED = (embed, embed_forward)
IDS = {"table": TABLE, "ids": indices("v")}
LABELS = Arg(dims="n", dtype="int32", sample=lambda rng, sizes, dtype: rng.integers(-1, sizes["classes"], sizes["n"], "int32"))
LOSS = {"logits": Arg(dims="n classes"), "labels": LABELS}
SMOOTHING = {"static": (2,), "options": {"smoothing": (0.0, 0.1)}}
RATES = {"static": (2,), "options": {"rate": (0.0, 0.25)}}
ENTROPY = (cross_entropy, cross_entropy_forward)
DROPOUT = (dropout, dropout_forward)
DROPPED = {"x": Arg(dims="n d"), "key": Arg(dtype="key")}
ENTRIES = (
    entry("repeated-index-overwritten", "indices", *EMBED, overwritten, embed_backward, IDS, "gradient", trigger=True),
    entry("negative-index-lost", "indices", *EMBED, negative_lost, embed_backward,
          {"table": TABLE, "ids": Arg(dims="n", dtype="int32", sample=lambda rng, sizes, dtype: rng.integers(-sizes["v"], sizes["v"], sizes["n"], "int32"))},
          "gradient", trigger=True),
    entry("one-hot-from-one", "indices", *EMBED, one_hot_from_one, embed_backward, IDS, "gradient"),
    entry("integers-left-out", "integer argument", *EMBED, integers_left_out, embed_backward, IDS, ("structure", "nondifferentiable")),
    entry("fill-once-per-index", "indices", fill, fill_forward, once_per_index, fill_backward, {**IDS, "value": Arg()}, "gradient", trigger=True),
    entry("segment-mean-not-divided", "scale", segment_mean, segment_mean_forward, segment_sum_gradient, segment_mean_backward,
          {"x": Arg(dims="n d"), "ids": Arg(dims="n", dtype="int32", low=0, high=8)}, "gradient"),
    entry("ignored-label-counted", "option", *ENTROPY, not_ignored, cross_entropy_backward, LOSS, "gradient", trigger=True, **SMOOTHING),
    entry("smoothing-forgotten", "option", *ENTROPY, never_smoothed, cross_entropy_backward, LOSS, "gradient", trigger=True, **SMOOTHING),
    entry("mean-over-batch-alone", "option", squared_error, squared_error_forward, mean_over_batch, squared_error_backward,
          {"x": Arg(dims="n d"), "y": Arg(dims="n d")}, "gradient", static=(2,), options={"reduction": ("none", "sum", "mean")}, trigger=True),
    entry("mean-of-nothing", "mask", masked_mean, masked_mean_forward, divided_by_nothing, masked_mean_backward,
          {"x": Arg(dims="n d"), "mask": Arg(dims="n d", dtype="bool")}, "gradient", trigger=True),
    entry("mean-of-the-masked-too", "scale", masked_mean, masked_mean_forward, divided_by_all, masked_mean_backward,
          {"x": Arg(dims="n d"), "mask": Arg(dims="n d", dtype="bool")}, "gradient"),
    entry("mean-of-ignored-labels-too", "scale", mean_of_labelled, mean_of_labelled_forward, mean_of_all, mean_of_labelled_backward, LOSS, "gradient",
          trigger=True),
    entry("causal-without-itself", "mask", causal_softmax, causal_softmax_forward, without_itself, causal_softmax_backward,
          {"scores": Arg(dims="*b t t")}, "gradient"),
    entry("dropout-another-mask", "random key", *DROPOUT, another_mask, dropout_backward, DROPPED, "gradient", trigger=True, **RATES),
    entry("dropout-not-rescaled", "option", *DROPOUT, not_rescaled, dropout_backward, DROPPED, "gradient", trigger=True, **RATES),
    entry("interpolation-weights-swapped", "order", interpolate, interpolate_forward, weights_swapped, interpolate_backward,
          {"values": Arg(dims="n"), "at": Arg(dims="m", low=0.0, high=4.0)}, "gradient", sizes={"n": (2, 130)}),
)  # fmt: skip
