"""Wrong rules, each with the right one beside it, and the words that its diagnosis must hold.

The mistakes are those of public bug reports and of textbooks; the right rule differs from the wrong one in the mistake alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from verify import Arg, Spec


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`check` is the check that must fail, `words` what diagnosis or message must say."""

    name: str
    wrong: Spec
    right: Spec
    check: str
    words: tuple[str, ...]
    cases: int = 40


def rule(primal: Callable[..., Any], forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function


def entry(
    name: str, primal: Any, wrong: tuple[Any, Any], right: tuple[Any, Any], args: Any, check: str, words: tuple[str, ...], **more: Any
) -> Entry:
    cases = more.pop("cases", 40)
    specs = {
        kind: Spec(name=f"{name}-{kind}", fn=rule(primal, *pair), args=args, **more) for kind, pair in (("wrong", wrong), ("right", right))
    }
    return Entry(name=name, check=check, words=words, cases=cases, **specs)


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


RIGHT_LINEAR = (linear_forward, linear_backward)


def linear_entry(name: str, backward: Any, args: Any, check: str, *words: str, forward: Any = linear_forward, **more: Any) -> Entry:
    return entry(name, linear, (forward, backward), RIGHT_LINEAR, args, check, words, **more)


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


def normalise(x, g):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return g * centred / jnp.sqrt(variance + 1e-5)


def normalise_forward(x, g):
    centred = x - x.mean(-1, keepdims=True)
    r = 1 / jnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return g * centred * r, (centred * r, r, g)


def normalise_backward(residuals, ct):
    xh, r, g = residuals
    h = g * ct
    x_ct = r * (h - h.mean(-1, keepdims=True) - xh * (xh * h).mean(-1, keepdims=True))
    return x_ct, (ct * xh).reshape(-1, g.size).sum(0)


def constant_variance(residuals, ct):
    xh, r, g = residuals
    h = g * ct
    return r * (h - h.mean(-1, keepdims=True)), (ct * xh).reshape(-1, g.size).sum(0)


def sine_forward(x):
    return jnp.sin(x), x


def sine_backward(x, ct):
    return (ct * jnp.cos(x),)


def float32_cotangent(x, ct):
    return ((ct * jnp.cos(x)).astype(jnp.promote_types(x.dtype, "float32")),)


def one_wrong_element(x, ct):
    return ((ct * jnp.cos(x)).reshape(-1).at[40_000].multiply(1.1).reshape(x.shape),)


def quotient(x, y):
    return x / y


def quotient_forward(x, y):
    return x / y, (x, y)


def quotient_backward(residuals, ct):
    x, y = residuals
    return ct / y, -ct * x / y**2


def safe_at_zero(residuals, ct):
    """ "Safe" division: finite, and wrong exactly where x is 0."""
    x, y = residuals
    return jnp.where(x == 0, 0, ct / y), -ct * x / y**2


def stopped_forward(x):
    return x**3, x


def stopped_backward(x, ct):
    return (ct * 3 * jax.lax.stop_gradient(x) ** 2,)


def cube_backward(x, ct):
    return (ct * 3 * x**2,)


SINE = {"x": Arg(dims="*shape")}
CORPUS = (
    linear_entry("published-slip", published_slip, SQUARE_WEIGHT, "gradient", "y_ct @ w where y_ct @ w^T is wanted", "a transpose is forgotten"),
    linear_entry("forgotten-transpose-rectangular", published_slip, RECTANGULAR, "structure", "raises TypeError", "return ct @ w, x.T @ ct"),
    linear_entry("transposed-weight", transposed_weight, SQUARE_WEIGHT, "gradient", "of w: it is the transpose of the right cotangent"),
    linear_entry("bias-over-wrong-axis", bias_over_columns, ALL_SQUARE, "gradient", "sums the upstream cotangent over axis 1 where axis 0 is wanted"),
    linear_entry("bias-mean", bias_mean, RECTANGULAR, "gradient", "of b: it is the right one times 1/n"),
    linear_entry("elementwise-product", elementwise, ALL_SQUARE, "gradient", "an elementwise product instead of a matrix product"),
    linear_entry("all-ones-cotangent", all_ones, RECTANGULAR, "gradient", "ignores the upstream cotangent", "all ones"),
    linear_entry("wrong-sign", wrong_sign, RECTANGULAR, "gradient", "of w: it has the wrong sign"),
    linear_entry("wrong-at-size-1", wrong_at_size_one, RECTANGULAR, "gradient", "times 2", "only when n is 1"),
    linear_entry("wrong-past-64", wrong_past_64, RECTANGULAR, "gradient", "sums only the first 64", "only when n >= "),
    linear_entry("forgotten-argument", forgotten_weight, RECTANGULAR, "gradient", "of w: it is zero everywhere"),
    linear_entry("clipped-cotangent", clipped, RECTANGULAR, "linearity", "not linear in the upstream cotangent"),
    linear_entry("constant-added", constant_added, RECTANGULAR, "zero-cotangent", "not multiplied by the upstream cotangent"),
    linear_entry("cotangents-swapped", swapped, ALL_SQUARE, "gradient", "equals the cotangent of w", "wrong order"),
    linear_entry("forward-times-3", linear_backward, RECTANGULAR, "primal", "returns 3 times what the primal returns", forward=forward_times_three),
    linear_entry("off-by-1e-9", slightly_wrong, RECTANGULAR, "gradient", "cotangent of x"),
    entry("input-for-activation", hidden_layer, (hidden_forward, input_for_activation), (hidden_forward, hidden_backward),
          {"x": Arg(dims="n d"), "w1": Arg(dims="d d"), "w2": Arg(dims="d k")}, "gradient", ("x^T @ y_ct where", "wrong or stale residual", "tanh")),
    entry("missing-scale", attend, (attend_forward, unscaled_attend_backward), (attend_forward, attend_backward),
          {"q": Arg(dims="T H"), "k": Arg(dims="S H"), "v": Arg(dims="S E")}, "gradient", ("times sqrt(H)", "a factor 1/sqrt(H) is missing")),
    entry("constant-variance", normalise, (normalise_forward, constant_variance), (normalise_forward, normalise_backward),
          {"x": Arg(dims="*batch D"), "g": Arg(dims="D")}, "gradient", ("treats the reference's", "variance = (centred * centred).mean", "as a constant")),
    entry("float32-cotangent", jnp.sin, (sine_forward, float32_cotangent), (sine_forward, sine_backward), SINE, "structure",
          ("float32 where x is bfloat16", "astype")),
    entry("one-in-65536", jnp.sin, (sine_forward, one_wrong_element), (sine_forward, sine_backward), {"x": Arg(dims="n m")}, "gradient",
          ("only one of 65536 elements is wrong: x[156, 64]",), sizes={"n": (256, 256), "m": (256, 256)}, cases=4),
    entry("safe-at-zero", quotient, (quotient_forward, safe_at_zero), (quotient_forward, quotient_backward),
          {"x": Arg(dims="n"), "y": Arg(dims="n", low=0.5, high=2.0)}, "gradient", ("cotangent of x",)),
    entry("stale-at-second-order", lambda x: x**3, (stopped_forward, stopped_backward), (stopped_forward, cube_backward), SINE, "second-order",
          ("the derivative of the gradient by x",)),
)  # fmt: skip
