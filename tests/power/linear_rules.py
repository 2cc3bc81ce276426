"""Mistakes in the backward of x @ w + b, the layer that everybody writes first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tests.power.entry import Entry, entry, pair, rule
from verify import Arg

RECTANGULAR = {"x": Arg(dims="n d_in"), "w": Arg(dims="d_in d_out"), "b": Arg(dims="d_out")}
SQUARE_WEIGHT = {"x": Arg(dims="n d"), "w": Arg(dims="d d"), "b": Arg(dims="d")}
ALL_SQUARE = {"x": Arg(dims="d d"), "w": Arg(dims="d d"), "b": Arg(dims="d")}


def linear(x, w, b):
    return x @ w + b


def linear_forward(x, w, b):
    return x @ w + b, (x, w)


def linear_backward(residuals, ct):
    x, w = residuals
    return ct @ w.T, x.T @ ct, ct.sum(0)


def linear_entry(name: str, kind: str, backward: Any, args: Any, check: Any, cases: int | None = 40, **more: Any) -> Entry:
    return entry(name, kind, linear, linear_forward, backward, linear_backward, args, check, cases=cases, **more)


def published_slip(residuals, ct):
    x, w = residuals
    return ct @ w, x.T @ ct, ct.sum(0)


def transposed_weight(residuals, ct):
    x, w = residuals
    return ct @ w.T, (x.T @ ct).T, ct.sum(0)


def bias_over_columns(residuals, ct):
    x, w = residuals
    return ct @ w.T, x.T @ ct, ct.sum(1)


def bias_mean(residuals, ct):
    x, w = residuals
    return ct @ w.T, x.T @ ct, ct.mean(0)


def elementwise(residuals, ct):
    x, w = residuals
    return ct * w, x.T @ ct, ct.sum(0)


def all_ones(residuals, ct):
    return linear_backward(residuals, jnp.ones_like(ct))


def wrong_sign(residuals, ct):
    x, w = residuals
    return ct @ w.T, -(x.T @ ct), ct.sum(0)


def wrong_at_size_one(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct * (2 if ct.shape[0] == 1 else 1), w_ct, b_ct


def wrong_past_64(residuals, ct):
    x_ct, w_ct, _ = linear_backward(residuals, ct)
    return x_ct, w_ct, ct[:64].sum(0)


def forgotten_weight(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct, jnp.zeros_like(w_ct), b_ct


def clipped(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct, w_ct, jnp.clip(ct, -1, 1).sum(0)


def constant_added(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct, w_ct + 1e-3, b_ct


def swapped(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return w_ct, x_ct, b_ct


def forward_times_three(x, w, b):
    return 3 * (x @ w + b), (x, w)


def slightly_wrong(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct * (1 + 1e-9), w_ct, b_ct


def mean_times_size(residuals, ct):
    """0 times the mean of nothing is NaN."""
    x_ct, w_ct, _ = linear_backward(residuals, ct)
    return x_ct, w_ct, ct.mean(0) * ct.shape[0]


def layout_guessed(residuals, ct):
    """The weight may be stored either way round, says the author; with a square one, nothing tells which."""
    x, w = residuals
    w_ct = x.T @ ct
    return ct @ w.T, w_ct.T if w_ct.T.shape == w.shape else w_ct, ct.sum(0)


def only_first_hundred(residuals, ct):
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct.at[100:].set(0), w_ct, b_ct


def lanes(residuals, ct):
    """A kernel of 128 lanes, launched once."""
    x_ct, w_ct, b_ct = linear_backward(residuals, ct)
    return x_ct, w_ct.at[:, 128:].set(0), b_ct


def hidden_layer(x, w1, w2):
    return jnp.tanh(x @ w1) @ w2


def hidden_forward(x, w1, w2):
    h = jnp.tanh(x @ w1)
    return h @ w2, (x, h, w1, w2)


def hidden_backward(residuals, ct):
    x, h, w1, w2 = residuals
    z_ct = (ct @ w2.T) * (1 - h * h)
    return z_ct @ w1.T, x.T @ z_ct, h.T @ ct


def input_for_activation(residuals, ct):
    """The activation was not stored; the input stands in for it."""
    x, h, w1, w2 = residuals
    z_ct = (ct @ w2.T) * (1 - h * h)
    return z_ct @ w1.T, x.T @ z_ct, x.T @ ct


def kinked_layer(x, w1, w2):
    return jax.nn.relu(x @ w1) @ w2


def kinked_forward(x, w1, w2):
    z = x @ w1
    return jax.nn.relu(z) @ w2, (x, z, w1, w2)


def kinked_backward(residuals, ct):
    x, z, w1, w2 = residuals
    z_ct = (ct @ w2.T) * (z > 0)
    return z_ct @ w1.T, x.T @ z_ct, jax.nn.relu(z).T @ ct


def before_activation(residuals, ct):
    """What was stored is the layer before its activation."""
    x, z, w1, w2 = residuals
    z_ct = (ct @ w2.T) * (z > 0)
    return z_ct @ w1.T, x.T @ z_ct, z.T @ ct


HIDDEN = {"x": Arg(dims="n d"), "w1": Arg(dims="d d"), "w2": Arg(dims="d k")}
ENTRIES = (
    linear_entry("published-slip", "transpose", published_slip, SQUARE_WEIGHT, "gradient"),
    linear_entry("forgotten-transpose-rectangular", "transpose", published_slip, RECTANGULAR, "structure"),
    linear_entry("transposed-weight", "transpose", transposed_weight, SQUARE_WEIGHT, "gradient"),
    linear_entry("bias-over-wrong-axis", "reduction", bias_over_columns, ALL_SQUARE, "gradient"),
    linear_entry("bias-mean", "scale", bias_mean, RECTANGULAR, "gradient"),
    linear_entry("elementwise-product", "transpose", elementwise, ALL_SQUARE, "gradient"),
    linear_entry("all-ones-cotangent", "cotangent", all_ones, RECTANGULAR, "gradient"),
    linear_entry("wrong-sign", "sign", wrong_sign, RECTANGULAR, "gradient"),
    linear_entry("wrong-at-size-1", "size", wrong_at_size_one, RECTANGULAR, "gradient", trigger=True),
    linear_entry("wrong-past-64", "size", wrong_past_64, RECTANGULAR, "gradient", trigger=True),
    linear_entry("forgotten-argument", "dropped term", forgotten_weight, RECTANGULAR, "gradient"),
    linear_entry("clipped-cotangent", "cotangent", clipped, RECTANGULAR, "linearity"),
    linear_entry("constant-added", "cotangent", constant_added, RECTANGULAR, "zero-cotangent"),
    linear_entry("cotangents-swapped", "order", swapped, ALL_SQUARE, "gradient"),
    pair("forward-times-3", "forward", rule(linear, forward_times_three, linear_backward), rule(linear, linear_forward, linear_backward),
         RECTANGULAR, "primal", cases=40),
    linear_entry("off-by-1e-9", "scale", slightly_wrong, RECTANGULAR, "gradient"),
    entry("input-for-activation", "stale residual", hidden_layer, hidden_forward, input_for_activation, hidden_backward, HIDDEN, "gradient", cases=40),
    entry("before-the-activation", "stale residual", kinked_layer, kinked_forward, before_activation, kinked_backward, HIDDEN, "gradient"),
    linear_entry("bias-of-empty-batch", "size", mean_times_size, RECTANGULAR, "gradient", trigger=True, cases=None, sizes={"n": (0, 130)}),
    linear_entry("layout-guessed", "equal sizes", layout_guessed, RECTANGULAR, "gradient", trigger=True, cases=None),
    linear_entry("only-first-100-rows", "size", only_first_hundred, RECTANGULAR, "gradient", trigger=True, cases=None),
    linear_entry("only-128-lanes", "size", lanes, RECTANGULAR, "gradient", trigger=True, cases=None),
)  # fmt: skip
