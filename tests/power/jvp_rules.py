"""custom_jvp rules: wrong tangents, and tangents that are not linear."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, jvp_rule, pair
from verify import Arg


def multiply(x, y):
    return x * y


def product_rule(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    return x * y, x_dot * y + x * y_dot


def first_tangent_only(primals, tangents):
    (x, y), (x_dot, _) = primals, tangents
    return x * y, x_dot * y


def first_tangent_twice(primals, tangents):
    (x, y), (x_dot, _) = primals, tangents
    return x * y, x_dot * y + x * x_dot


def quotient(x, y):
    return x / y


def quotient_rule(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    return x / y, (x_dot * y - x * y_dot) / y**2


def quotient_plus(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    return x / y, (x_dot * y + x * y_dot) / y**2


def unary(name, primal, wrong, right, check, args=None, **more):
    """wrong and right are tangents, functions of x and x_dot."""

    def derivative(tangent):
        return lambda primals, tangents: (primal(*primals), tangent(*primals, *tangents))

    return pair(name, "jvp", jvp_rule(primal, derivative(wrong)), jvp_rule(primal, derivative(right)), args or argument(), check, **more)


def square(x):
    return x * x


def square_rule(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return x * x, 2 * x * x_dot


def value_doubled(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return 2 * x * x, 2 * x * x_dot


def sigmoid_tangent(x, x_dot):
    y = jax.nn.sigmoid(x)
    return y * (1 - y) * x_dot


def sigmoid_of_large(x, x_dot):
    return jnp.exp(-x) / (1 + jnp.exp(-x)) ** 2 * x_dot


def largest(x):
    return x.max(-1)


def shared_by_equals(x, x_dot):
    hit = (x == x.max(-1, keepdims=True)).astype(x.dtype)
    return (hit * x_dot).sum(-1) / hit.sum(-1)


def sum_over_equals(x, x_dot):
    return ((x == x.max(-1, keepdims=True)) * x_dot).sum(-1)


def cubic_tangent(x, x_dot):
    return 3 * x * x * x_dot


TWO = {"x": Arg(dims="n"), "y": Arg(dims="n")}
DIVIDED = {"x": Arg(dims="n"), "y": Arg(dims="n", low=0.5, high=2.0)}
ENTRIES = (
    pair("jvp-first-tangent-only", "jvp", jvp_rule(multiply, first_tangent_only), jvp_rule(multiply, product_rule), TWO, ("gradient", "tangent")),
    pair("jvp-first-tangent-twice", "jvp", jvp_rule(multiply, first_tangent_twice), jvp_rule(multiply, product_rule), TWO, ("gradient", "tangent")),
    pair("jvp-plus-for-minus", "jvp", jvp_rule(quotient, quotient_plus), jvp_rule(quotient, quotient_rule), DIVIDED, ("gradient", "tangent")),
    pair("jvp-value-doubled", "jvp", jvp_rule(square, value_doubled), jvp_rule(square, square_rule), argument(), "primal"),
    unary("jvp-factor", square, lambda x, x_dot: x * x_dot, lambda x, x_dot: 2 * x * x_dot, ("gradient", "tangent")),
    unary("jvp-quadratic-tangent", jnp.exp, lambda x, x_dot: jnp.exp(x) * x_dot * x_dot, lambda x, x_dot: jnp.exp(x) * x_dot, ("tangent", "structure")),
    unary("jvp-constant-added", jnp.sin, lambda x, x_dot: jnp.cos(x) * x_dot + 1e-3, lambda x, x_dot: jnp.cos(x) * x_dot, ("tangent", "structure")),
    unary("jvp-tangent-in-float32", jnp.sin, lambda x, x_dot: (jnp.cos(x) * x_dot).astype(jnp.promote_types(x.dtype, "float32")),
          lambda x, x_dot: jnp.cos(x) * x_dot, ("structure", "tangent"), trigger=True),
    unary("jvp-zero-at-zero", lambda x: x**3 + x, lambda x, x_dot: jnp.where(x == 0, 0, 3 * x * x + 1) * x_dot, lambda x, x_dot: (3 * x * x + 1) * x_dot,
          ("gradient", "tangent"), trigger=True),
    unary("jvp-sigmoid-of-large", jax.nn.sigmoid, sigmoid_of_large, sigmoid_tangent, "extremes", trigger=True),
    unary("jvp-max-to-every-tie", largest, sum_over_equals, shared_by_equals, ("kinks", "gradient", "tangent"), args=argument("n d"), trigger=True),
    unary("jvp-stopped", lambda x: x**3, lambda x, x_dot: 3 * jax.lax.stop_gradient(x * x) * x_dot, cubic_tangent, "second-order", trigger=True),
)  # fmt: skip
