"""Functions whose textbook formula cancels, or divides 0 by 0, exactly where their derivative is easily got wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry
from verify import Arg


def mean_exponential(x, y):
    """The mean of exp between x and y."""
    same = x == y
    return jnp.where(same, jnp.exp(x), (jnp.exp(x) - jnp.exp(y)) / jnp.where(same, 1, x - y))


def mean_exponential_forward(x, y):
    return mean_exponential(x, y), (x, y)


def between(share):
    """At x = y the derivative is exp(x) / 2 by each: x has `share` of exp(x) here."""

    def backward(residuals, ct):
        x, y = residuals
        same, mean = x == y, mean_exponential(x, y)
        gap = jnp.where(same, 1, x - y)
        by_x = jnp.where(same, share * jnp.exp(x), (jnp.exp(x) - mean) / gap)
        by_y = jnp.where(same, (1 - share) * jnp.exp(x), (mean - jnp.exp(y)) / gap)
        return ct * by_x, ct * by_y

    return backward


def lift(x):
    """(1 - cos x) / x, and its limit at 0."""
    return jnp.where(x == 0, 0, (1 - jnp.cos(x)) / jnp.where(x == 0, 1, x))


def lifted(at_zero):
    def backward(x, ct):
        safe = jnp.where(x == 0, 1, x)
        stable = 2 * jnp.sin(x / 2) ** 2 / safe
        series = 0.5 - x**2 / 8 + x**4 / 144 - x**6 / 5760
        slope = jnp.where(jnp.abs(x) < 0.01, series, (jnp.sin(x) - stable) / safe)
        return (ct * jnp.where(x == 0, at_zero, slope).astype(x.dtype),)

    return backward


def cube(a):
    """s^3 of the symmetric part s."""
    s = (a + a.T) / 2
    return s @ s @ s


def cube_forward(a):
    return cube(a), (a + a.T) / 2


def cube_backward(s, ct):
    c = (ct + ct.T) / 2
    return (s @ s @ c + s @ c @ s + c @ s @ s,)


def without_equal_eigenvalues(s, ct):
    """Divided differences of equal eigenvalues are 0 / 0, and "safely" 0."""
    w, v = jnp.linalg.eigh(s)
    gap = w[:, None] - w
    near = jnp.abs(gap) < 1e-6
    quotient = jnp.where(near, 0, (w[:, None] ** 3 - w**3) / jnp.where(near, 1, gap))
    quotient = jnp.where(jnp.eye(w.size, dtype=bool), 3 * w**2, quotient)
    return (v @ (quotient * (v.T @ ((ct + ct.T) / 2) @ v)) @ v.T,)


def mean(x):
    return x.mean()


def mean_forward(x):
    return x.mean(), x


def counted_in(dtype):
    """1 / n, where n is counted one by one: bfloat16 knows 256 and 258, and nothing between."""

    def backward(x, ct):
        count = jax.lax.fori_loop(0, x.size, lambda _, count: count + 1, jnp.zeros((), dtype or x.dtype))
        return (jnp.full_like(x, ct / count),)

    return backward


def distance(x, y):
    return jnp.abs(x - y)


def distance_forward(x, y):
    return distance(x, y), x - y


def sign_as(sign):
    def backward(gap, ct):
        by_x = (ct * sign(gap)).astype(gap.dtype)
        return by_x, -by_x

    return backward


def far_at_a_tie(gap):
    return jnp.where(gap == 0, 100, jnp.sign(gap))


def clipped(x):
    """x, or of a longer x what has length 1."""
    length = jnp.sqrt(jnp.where((x == 0).all(), 1, (x * x).sum()))
    return jnp.where(length > 1, x / length, x)


def clipped_backward(x, ct):
    square = jnp.where((x == 0).all(), 1, (x * x).sum())
    length = jnp.sqrt(square)
    return (jnp.where(length > 1, (ct - x * (x * ct).sum() / square) / length, ct),)


def clipped_from_zero(x, ct):
    """min(1, 1 / length), differentiated as a product: 0 * inf where all of x is 0."""
    length = jnp.sqrt((x * x).sum())
    scale = jnp.minimum(1, 1 / length)
    slope = jnp.where(length > 1, -1, 0) * (x * ct).sum() / length**3
    return (scale * ct + slope * x,)


PAIR = {"x": Arg(dims="n"), "y": Arg(dims="n")}
ENTRIES = (
    entry("tie-of-a-quotient", "special value", mean_exponential, mean_exponential_forward, between(1.0), between(0.5),
          PAIR, "gradient", dtypes=("float32",), trigger=True),
    entry("flat-at-0-of-a-quotient", "special value", lift, lambda x: (lift(x), x), lifted(0.0), lifted(0.5), argument(), "gradient", trigger=True),
    entry("nan-at-a-tie", "special value", distance, distance_forward, sign_as(lambda gap: gap / jnp.abs(gap)), sign_as(jnp.sign), PAIR, "extremes",
          trigger=True),
    entry("far-at-a-tie", "special value", distance, distance_forward, sign_as(far_at_a_tie), sign_as(jnp.sign), PAIR, "kinks", trigger=True),
    entry("nan-where-all-is-0", "special value", clipped, lambda x: (clipped(x), x), clipped_from_zero, clipped_backward, argument("n d"), ("extremes", "gradient"),
          sizes={"n": (1, 8), "d": (1, 8)}, dtypes=("float32",), trigger=True),
    entry("equal-eigenvalues", "special value", cube, cube_forward, without_equal_eigenvalues, cube_backward, argument("d d"), "gradient",
          sizes={"d": (1, 8)}, dtypes=(), trigger=True),
    entry("count-in-own-dtype", "precision", mean, mean_forward, counted_in(None), counted_in("float32"), argument(), "precision",
          dtypes=("bfloat16",), trigger=True),
)  # fmt: skip
