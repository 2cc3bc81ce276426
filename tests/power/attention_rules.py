"""Attention: scale, masks, biases and shared heads."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from tests.power.entry import entry, pair, rule
from verify import Arg

QKV = {"q": Arg(dims="T H"), "k": Arg(dims="S H"), "v": Arg(dims="S E")}


def attend(q, k, v):
    return jax.nn.softmax(q @ k.T / q.shape[-1] ** 0.5) @ v


def attend_forward(q, k, v):
    p = jax.nn.softmax(q @ k.T / q.shape[-1] ** 0.5)
    return p @ v, (q, k, v, p)


def attend_backward(residuals, ct):
    q, k, v, p = residuals
    p_ct = ct @ v.T
    s_ct = p * (p_ct - (p * p_ct).sum(-1, keepdims=True)) / q.shape[-1] ** 0.5
    return s_ct @ k, s_ct.T @ q, p.T @ ct


def unscaled_attend_backward(residuals, ct):
    q, k, v, p = residuals
    p_ct = ct @ v.T
    s_ct = p * (p_ct - (p * p_ct).sum(-1, keepdims=True))
    return s_ct @ k, s_ct.T @ q, p.T @ ct


def twice_scaled(residuals, ct):
    q, k, v, p = residuals
    q_ct, k_ct, v_ct = attend_backward(residuals, ct)
    return q_ct / q.shape[-1] ** 0.5, k_ct, v_ct


def softmax_denominator_constant(residuals, ct):
    q, k, v, p = residuals
    s_ct = p * (ct @ v.T) / q.shape[-1] ** 0.5
    return s_ct @ k, s_ct.T @ q, p.T @ ct


# A kernel, which is compiled for 32-bit types only and has no derivative of its own: the reference says what is right.


def kernel(q, k, v):
    if jax.config.jax_enable_x64:  # as Pallas kernels raise whose index arithmetic is in int32
        raise TypeError("the kernel takes 32-bit types only")
    s = q @ k.T / q.shape[-1] ** 0.5
    lse = jax.nn.logsumexp(s, -1, keepdims=True)
    return jnp.exp(jnp.minimum(s - lse, 0)) @ v, lse  # of large scores the difference is above 0 by rounding, and exp would overflow


def kernel_forward(q, k, v):
    out, lse = kernel(q, k, v)
    return out, (q, k, v, out, lse)


def kernel_backward(residuals, ct):
    q, k, v, out, lse = residuals
    p = jnp.exp(jnp.minimum(q @ k.T / q.shape[-1] ** 0.5 - lse, 0))
    s_ct = p * (ct @ v.T - (out * ct).sum(-1, keepdims=True)) / q.shape[-1] ** 0.5
    return s_ct @ k, s_ct.T @ q, p.T @ ct


def kernel_without_row_sums(residuals, ct):
    q, k, v, out, lse = residuals
    return kernel_backward((q, k, v, 0 * out, lse), ct)


# With a mask, the probabilities are computed again in the backward.


def masked_weights(q, k, mask):
    """Rows with nothing to look at have weights 0."""
    scores = jnp.where(mask, q @ k.T / q.shape[-1] ** 0.5, -jnp.inf)
    top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, scores - jnp.where(top > -jnp.inf, top, 0), 0)), 0)
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def masked_attend(q, k, v, mask):
    return masked_weights(q, k, mask) @ v


def masked_forward(q, k, v, mask):
    return masked_attend(q, k, v, mask), (q, k, v, mask)


def masked_backward(residuals, ct):
    q, k, v, mask = residuals
    return *attend_backward((q, k, v, masked_weights(q, k, mask)), ct), None


def mask_forgotten(residuals, ct):
    q, k, v, _ = residuals
    return *attend_backward((q, k, v, jax.nn.softmax(q @ k.T / q.shape[-1] ** 0.5)), ct), None


def softmax_of_nothing(residuals, ct):
    q, k, v, mask = residuals
    return *attend_backward((q, k, v, jax.nn.softmax(jnp.where(mask, q @ k.T / q.shape[-1] ** 0.5, -jnp.inf))), ct), None


def tril(q, k, shift=0):
    return jnp.tril(jnp.ones((q.shape[0], k.shape[0]), bool), shift)


def causal_attend(q, k, v, causal):
    return masked_weights(q, k, tril(q, k) if causal else jnp.ones((q.shape[0], k.shape[0]), bool)) @ v


def causal_forward(q, k, v, causal):
    return causal_attend(q, k, v, causal), (q, k, v)


def causal_backward(causal, residuals, ct, shift=0):
    q, k, v = residuals
    mask = tril(q, k, shift) if causal else jnp.ones((q.shape[0], k.shape[0]), bool)
    return attend_backward((q, k, v, masked_weights(q, k, mask)), ct)


def always_causal(causal, residuals, ct):
    """Triton's tutorial once: the backward was written for causal=True alone."""
    return causal_backward(True, residuals, ct)


def biased(scores, bias):
    return jax.nn.softmax(scores + bias)


def biased_forward(scores, bias):
    p = biased(scores, bias)
    return p, (p, bias)


def biased_backward(residuals, ct):
    p, bias = residuals
    s_ct = p * (ct - (p * ct).sum(-1, keepdims=True))
    b_ct = s_ct.sum(0)
    return s_ct, b_ct.sum(0, keepdims=True) if bias.shape[0] == 1 else b_ct


def bias_of_first_head(residuals, ct):
    p, bias = residuals
    s_ct = p * (ct - (p * ct).sum(-1, keepdims=True))
    return s_ct, s_ct.sum(0)[: bias.shape[0]]


def bias_of_first_batch(residuals, ct):
    p, bias = residuals
    s_ct = p * (ct - (p * ct).sum(-1, keepdims=True))
    return s_ct, s_ct[0].sum(0, keepdims=True) if bias.shape[0] == 1 else s_ct[0]


def grouped(q, k):
    """Scores of query heads, r of them for each key head."""
    return jnp.einsum("tgd,sgd->gts", q, jnp.repeat(k, q.shape[1] // k.shape[1], axis=1))


def grouped_forward(q, k):
    return grouped(q, k), (q, k)


def grouped_backward(residuals, ct, gather=lambda heads, s, g, r, d: heads.reshape(s, g, r, d).sum(2)):
    q, k = residuals
    s, g, d = k.shape
    r = q.shape[1] // g
    heads = jnp.einsum("gts,tgd->sgd", ct, q)
    return jnp.einsum("gts,sgd->tgd", ct, jnp.repeat(k, r, axis=1)), gather(heads, s, g, r, d)


first_of_group = partial(grouped_backward, gather=lambda heads, s, g, r, d: heads[:, ::r])
heads_in_other_order = partial(grouped_backward, gather=lambda heads, s, g, r, d: heads.reshape(s, r, g, d).sum(1))


def softcap(x):
    return 5 * jnp.tanh(x / 5)


MASKED = {**QKV, "mask": Arg(dims="T S", dtype="bool")}
GROUPED = {"q": Arg(dims="t kv*r d"), "k": Arg(dims="s kv d")}
BIASED = {"scores": Arg(dims="b h t s"), "bias": Arg(dims="#h t s")}
SMALL = {"kv": (1, 4), "r": (1, 4)}


def attention_entry(name, kind, wrong, check, **more):
    return entry(name, kind, attend, attend_forward, wrong, attend_backward, QKV, check, **more)


def masked_entry(name, kind, wrong, **more):
    return entry(name, kind, masked_attend, masked_forward, wrong, masked_backward, MASKED, "gradient", **more)


def causal_entry(name, kind, wrong, **more):
    return entry(name, kind, causal_attend, causal_forward, wrong, causal_backward, QKV, "gradient", static=(3,), **more)


def grouped_entry(name, wrong):
    return entry(name, "grouped heads", grouped, grouped_forward, wrong, grouped_backward, GROUPED, "gradient", sizes=SMALL, trigger=True)


def biased_entry(name, wrong, **more):
    return entry(name, "reduction", biased, biased_forward, wrong, biased_backward, BIASED, "gradient", **more)


ENTRIES = (
    attention_entry("missing-scale", "scale", unscaled_attend_backward, "gradient", cases=40),
    attention_entry("scale-twice", "scale", twice_scaled, "gradient"),
    attention_entry("constant-denominator", "constant statistic", softmax_denominator_constant, "gradient"),
    entry("kernel-without-row-sums", "dropped term", lambda q, k, v: kernel(q, k, v)[0], kernel_forward, kernel_without_row_sums, kernel_backward, QKV, "gradient",
          reference=attend, dtypes=("float32",)),
    masked_entry("mask-forgotten", "mask", mask_forgotten),
    masked_entry("nothing-to-look-at", "mask", softmax_of_nothing, trigger=True),
    causal_entry("causal-off-by-one", "mask", partial(causal_backward, shift=1), options={"causal": (True,)}),
    causal_entry("causal-flag-ignored", "option", always_causal, options={"causal": (True, False)}, trigger=True),
    grouped_entry("first-head-of-group", first_of_group),
    grouped_entry("heads-in-other-order", heads_in_other_order),
    biased_entry("bias-of-first-head", bias_of_first_head, trigger=True),
    biased_entry("bias-of-first-batch", bias_of_first_batch),
    pair("softcap-dropped", "dropped term", rule(softcap, lambda x: (softcap(x), x), lambda x, ct: (ct,)),
         rule(softcap, lambda x: (softcap(x), x), lambda x, ct: (ct * (1 - jnp.tanh(x / 5) ** 2),)), {"x": Arg(dims="T S")}, "gradient"),
)  # fmt: skip
