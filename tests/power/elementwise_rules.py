"""One number in, one number out: special values, saturation, overflow, kinks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry, pair, rule
from verify import Arg


def scalar_entry(name, kind, primal, wrong, right, check, args=None, **more):
    """wrong and right are derivatives, functions of x alone."""
    functions = (rule(primal, lambda x: (primal(x), x), lambda x, ct, slope=slope: (ct * slope(x),)) for slope in (wrong, right))
    return pair(name, kind, *functions, args or argument("*shape"), check, **more)


def clip(x):
    return jnp.clip(x, -1.0, 1.0)


def clip_slope(x):
    return jnp.where(jnp.abs(x) <= 1, 1.0, 0.0).astype(x.dtype)


def sine_forward(x):
    return jnp.sin(x), x


def sine_backward(x, ct):
    return (ct * jnp.cos(x),)


def float32_cotangent(x, ct):
    return ((ct * jnp.cos(x)).astype(jnp.promote_types(x.dtype, "float32")),)


def one_wrong_element(x, ct):
    return ((ct * jnp.cos(x)).reshape(-1).at[40_000].multiply(1.1).reshape(x.shape),)


def legendre(x):
    return (5 * x**3 - 3 * x) / 2


def legendre_slope(x):
    """The usual recurrence divides by x^2 - 1, and somebody must say what it is at the ends."""
    return (15 * x**2 - 3) / 2


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


def quotient_sign(residuals, ct):
    x, y = residuals
    return ct / y, -ct * jnp.abs(x) / y**2


def power(x, y):
    return x**y


def power_forward(x, y):
    return x**y, (x, y)


def power_backward(residuals, ct):
    x, y = residuals
    return ct * y * x ** (y - 1), ct * x**y * jnp.log(jnp.where(x > 0, x, 1))


def power_of_zero(residuals, ct):
    """0 * log(0) is NaN."""
    x, y = residuals
    return ct * y * x ** (y - 1), ct * x**y * jnp.log(x)


def hypot(x, y):
    """Without a square of anything large, also in its derivative by JAX: that of `jnp.hypot` divides by a square, and is 1.4 where it should be 0.7."""
    m = jax.lax.stop_gradient(jnp.maximum(jnp.abs(x), jnp.abs(y)))
    m = jnp.where(m > 0, m, 1)
    squares = (x / m) ** 2 + (y / m) ** 2
    return m * jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def hypot_forward(x, y):
    return hypot(x, y), (x, y)


def hypot_backward(residuals, ct):
    x, y = residuals
    r = hypot(x, y)
    r = jnp.where(r > 0, r, 1)
    return ct * (x / r), ct * (y / r)


def hypot_of_squares(residuals, ct):
    x, y = residuals
    r = jnp.sqrt(x * x + y * y)
    r = jnp.where(r > 0, r, 1)
    return ct * (x / r), ct * (y / r)


def leaky(x):
    return jnp.where(x > 0, x, 0.1 * x)


def log_cosh(x):
    return jax.nn.softplus(2 * x) - x - jnp.log(2.0).astype(x.dtype)


def swish(x):
    return x * jax.nn.sigmoid(x)


def gelu_forward(x, approximate):
    return jax.nn.gelu(x, approximate), x


def gelu_backward(approximate, x, ct):
    return (ct * jax.grad(lambda x: jax.nn.gelu(x, approximate).sum())(x),)


def gelu_tanh_always(approximate, x, ct):
    return gelu_backward(True, x, ct)


def certainty(x):
    """The entropy of softmax(x)."""
    log_p = jax.nn.log_softmax(x)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def certainty_forward(x):
    return certainty(x), x


def certainty_backward(x, ct):
    log_p = jax.nn.log_softmax(x)
    p = jnp.exp(log_p)
    return (-ct[..., None] * p * (log_p - (p * log_p).sum(-1, keepdims=True)),)


def log_of_zero(x, ct):
    p = jax.nn.softmax(x)
    log_p = jnp.log(p)
    return (-ct[..., None] * p * (log_p - (p * log_p).sum(-1, keepdims=True)),)


def soft_maximum(x):
    return jnp.logaddexp(x, 0.0)  # autodiff of max and abs inside of it is wrong at 0


def quartic(x):
    return x**4 + x * x


def quartic_slope(x):
    return 4 * x**3 + 2 * x


def weighted_log(x, y):
    return x * jnp.log(y)


def weighted_log_forward(x, y):
    return weighted_log(x, y), (x, y)


def weighted_log_backward(residuals, ct):
    x, y = residuals
    return ct * jnp.log(y), ct * x / y


def nothing_of_nothing(residuals, ct):
    x, y = residuals
    return jnp.where(x == 0, 0, ct * jnp.log(y)), ct * x / y


def smooth_l1(x, target, beta):
    difference = x - target
    size = jnp.abs(difference)
    return jnp.where(size < beta, 0.5 * difference**2 / beta, size - 0.5 * beta)


def smooth_l1_forward(x, target, beta):
    return smooth_l1(x, target, beta), x - target


def smooth_l1_backward(beta, difference, ct):
    slope = jnp.where(jnp.abs(difference) < beta, difference / beta, jnp.sign(difference))
    return ct * slope, -ct * slope


def signed_border(beta, difference, ct):
    slope = jnp.where(difference < beta, difference / beta, 1)
    return ct * slope, -ct * slope


SINE = argument("*shape")
POSITIVE = argument("n", low=0.0, high=4.0)
TWO = {"x": Arg(dims="n"), "y": Arg(dims="n")}


def softened(x, t):
    return jnp.tanh(x / t)


def of_temperature(power):
    """dy/dt = -(1 - y^2) x / t^2."""

    def backward(residuals, ct):
        x, t = residuals
        z_ct = ct * (1 - softened(x, t) ** 2)
        return z_ct / t, -jnp.sum(z_ct * x) / t**power

    return backward


def gated(p, q):
    """p times the tanh of its product with q, plus q^2."""
    gate = jnp.tanh((p * q).sum(-1, keepdims=True))
    return gate * p + q**2


def gated_backward(through_q):
    """The gate depends on both; through_q = 0 forgets that it does on q."""

    def backward(residuals, ct):
        p, q = residuals
        gate = jnp.tanh((p * q).sum(-1, keepdims=True))
        s_ct = (ct * p).sum(-1, keepdims=True) * (1 - gate**2)
        return ct * gate + s_ct * q, 2 * ct * q + through_q * s_ct * p

    return backward


ENTRIES = (
    entry("float32-cotangent", "dtype", jnp.sin, sine_forward, float32_cotangent, sine_backward, SINE, "structure", cases=40, trigger=True),
    entry("one-in-65536", "size", jnp.sin, sine_forward, one_wrong_element, sine_backward, argument("n m"), "gradient", sizes={"n": (256, 256), "m": (256, 256)}, cases=4, trigger=True),
    entry("safe-at-zero", "special value", quotient, quotient_forward, safe_at_zero, quotient_backward,
          {"x": Arg(dims="n"), "y": Arg(dims="n", low=0.5, high=2.0)}, "gradient", cases=40, trigger=True),
    entry("quotient-of-negative", "sign", quotient, quotient_forward, quotient_sign, quotient_backward,
          {"x": Arg(dims="n"), "y": Arg(dims="n", low=0.5, high=2.0)}, "gradient"),
    entry("power-of-zero", "special value", power, power_forward, power_of_zero, power_backward,
          {"x": Arg(dims="n", low=0.0, high=4.0, special=(0.0,)), "y": Arg(dims="n", low=1.0, high=3.0)}, ("gradient", "extremes"), trigger=True),
    entry("hypot-of-squares", "magnitude", hypot, hypot_forward, hypot_of_squares, hypot_backward, TWO, "precision", cases=40, trigger=True),
    scalar_entry("leaky-relu-negative", "sign", leaky, lambda x: jnp.where(x > 0, 1, -0.1).astype(x.dtype),
                 lambda x: jnp.where(x > 0, 1, 0.1).astype(x.dtype), "gradient"),
    scalar_entry("relu-at-zero-2", "kink", jax.nn.relu, lambda x: jnp.where(x > 0, 1, jnp.where(x == 0, 2, 0)).astype(x.dtype),
                 lambda x: (x > 0).astype(x.dtype), ("kinks", "gradient"), trigger=True),
    scalar_entry("relu-at-zero-minus-1", "kink", jax.nn.relu, lambda x: jnp.sign(x) * (x >= 0) - (x == 0),
                 lambda x: jnp.sign(x) * (x >= 0), ("kinks", "gradient"), trigger=True),
    scalar_entry("abs-at-zero-3", "kink", jnp.abs, lambda x: jnp.sign(x) + 3 * (x == 0), jnp.sign, ("kinks", "gradient"), trigger=True),
    scalar_entry("clip-passes-everything", "dropped term", lambda x: jnp.clip(x, -1, 1), jnp.ones_like,
                 lambda x: (jnp.abs(x) < 1).astype(x.dtype), "gradient"),
    scalar_entry("signed-square-at-zero", "special value", lambda x: x * jnp.abs(x), lambda x: 2 * x * (x / jnp.abs(x)),
                 lambda x: 2 * jnp.abs(x), ("gradient", "extremes"), trigger=True),
    scalar_entry("softplus-of-large", "magnitude", jax.nn.softplus, lambda x: jnp.exp(x) / (1 + jnp.exp(x)), jax.nn.sigmoid, "extremes",
                 trigger=True),
    scalar_entry("log-cosh-of-large", "magnitude", log_cosh, lambda x: jnp.sinh(x) / jnp.cosh(x), jnp.tanh, "extremes", trigger=True),
    scalar_entry("log-of-clamped", "magnitude", jnp.log, lambda x: 1 / jnp.maximum(x, 1e-12), lambda x: 1 / x, ("extremes", "gradient"), args=POSITIVE,
                 trigger=True),
    scalar_entry("swish-gate-only", "dropped term", swish, jax.nn.sigmoid,
                 lambda x: jax.nn.sigmoid(x) * (1 + x * jax.nn.sigmoid(-x)), "gradient"),
    scalar_entry("input-for-output-of-tanh", "stale residual", jnp.tanh, lambda x: 1 - x**2, lambda x: 1 - jnp.tanh(x) ** 2, "gradient"),
    entry("gelu-of-one-kind", "option", jax.nn.gelu, gelu_forward, gelu_tanh_always, gelu_backward, argument(), "gradient", static=(1,),
          options={"approximate": (True, False)}, trigger=True),
    entry("smooth-l1-of-signed", "dropped term", smooth_l1, smooth_l1_forward, signed_border, smooth_l1_backward,
          {"x": Arg(dims="n d"), "target": Arg(dims="n d")}, "gradient", static=(2,), options={"beta": (1.0, 0.5)}),
    scalar_entry("softplus-flat-at-0", "special value", soft_maximum, lambda x: jnp.where(x == 0, 0, jax.nn.sigmoid(x)), jax.nn.sigmoid, "gradient",
                 trigger=True),
    scalar_entry("slope-lost-at-the-ends", "special value", legendre, lambda x: jnp.where(jnp.abs(x) == 1, 0, legendre_slope(x)), legendre_slope, "gradient",
                 args={"x": Arg(dims="n", low=-1.0, high=1.0)}, trigger=True),
    scalar_entry("clip-turned-back-at-its-ends", "special value", clip, lambda x: jnp.where(jnp.abs(x) == 1, -1, clip_slope(x)), clip_slope, ("gradient", "kinks"),
                 args={"x": Arg(dims="n", special=(-1.0, 1.0))}, trigger=True),
    scalar_entry("dead-zone-of-abs", "special value", jnp.abs, lambda x: jnp.where(jnp.abs(x) < 1e-6, 0, jnp.sign(x)), jnp.sign, "gradient",
                 args={"x": Arg(dims="n", low=-3.0, high=3.0)}, trigger=True),
    scalar_entry("curvature-lost-at-0", "second order", quartic, lambda x: jnp.where(x == 0, 0, quartic_slope(x)), quartic_slope, "second-order",
                 trigger=True),
    entry("xlogy-at-the-bound", "special value", weighted_log, weighted_log_forward, nothing_of_nothing, weighted_log_backward,
          {"x": Arg(dims="n", low=0.0, high=1.0), "y": Arg(dims="n", low=0.1, high=1.0)}, "gradient", trigger=True),
    entry("power-at-the-bound", "special value", power, power_forward, power_of_zero, power_backward,
          {"x": Arg(dims="n", low=0.0, high=4.0), "y": Arg(dims="n", low=1.0, high=3.0)}, ("gradient", "extremes"), trigger=True),
    entry("temperature-once", "scale", softened, lambda x, t: (softened(x, t), (x, t)), of_temperature(1), of_temperature(2),
          {"x": Arg(dims="n"), "t": Arg(low=0.5, high=3.0)}, "gradient"),
    entry("angle-of-one-argument", "dropped term", gated, lambda p, q: (gated(p, q), (p, q)), gated_backward(0), gated_backward(1),
          {"p": Arg(dims="n d"), "q": Arg(dims="n d")}, "gradient"),
    entry("entropy-of-the-certain", "magnitude", certainty, certainty_forward, log_of_zero, certainty_backward, argument("n d"),
          "extremes", trigger=True),
)  # fmt: skip
