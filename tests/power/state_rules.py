"""Python state, chance, and identity of arguments: rules that remember what they should not."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.power.entry import argument, entry, pair, rule
from verify import Arg


class Context:
    """As torch has one for every call; this one is shared by all calls."""

    saved: Any = None


class LastSize:
    value: int = 0


def sine_backward(x, ct):
    return (ct * jnp.cos(x),)


def sine_forward(x):
    return jnp.sin(x), x


def saved_aside(x):
    Context.saved = x
    return jnp.sin(x), None


def read_from_context(_, ct):
    return (ct * jnp.cos(Context.saved),)


def mean(x):
    return x.mean()


def mean_forward(x):
    return x.mean(), x


def mean_backward(x, ct):
    return (jnp.full_like(x, ct / x.size),)


def size_set_aside(x):
    """What is remembered is a Python number, so no tracer escapes; the second call overwrites it."""
    LastSize.value = x.size
    return x.mean(), x


def size_of_last_call(x, ct):
    return (jnp.full_like(x, ct / LastSize.value),)


def prefix(x, strict):
    return jnp.tril(jnp.ones((x.size, x.size), x.dtype), -1 if strict else 0) @ x


def prefix_forward(x, strict):
    return prefix(x, strict), x.size


@functools.cache
def triangle(size, strict):
    return np.tril(np.ones((size, size)), -1 if strict else 0)


TRIANGLES: dict[int, np.ndarray] = {}


def prefix_backward(strict, size, ct):
    return (jnp.asarray(triangle(size, strict), ct.dtype).T @ ct,)


def cached_by_size_alone(strict, size, ct):
    return (jnp.asarray(TRIANGLES.setdefault(size, triangle(size, strict)), ct.dtype).T @ ct,)


@functools.cache
def traced_triangle(size, strict):
    """Made by JAX: inside a trace this caches a tracer, and the next trace that asks for it fails."""
    return jnp.tril(jnp.ones((size, size)), -1 if strict else 0)


def cached_tracer(strict, size, ct):
    return (traced_triangle(size, strict).astype(ct.dtype).T @ ct,)


SEEN: list[Any] = []


def kept_in_a_list(x):
    SEEN.append(x)
    return jnp.sin(x), x


def on_host(function):
    """ct * function(x) by a Python callback."""

    def backward(x, ct):
        out = jax.ShapeDtypeStruct(ct.shape, ct.dtype)
        return (
            jax.pure_callback(
                lambda x, ct: np.asarray(function(np.asarray(x), np.asarray(ct)), ct.dtype), out, x, ct, vmap_method="expand_dims"
            ),
        )

    return backward


def rounded_by_chance(x, ct):
    """Stochastic rounding from NumPy's global generator."""
    return np.floor(ct * np.cos(x) * 256 + np.random.random(ct.shape)) / 256


CALLS = itertools.count()


def annealed(x, ct):
    """A scale that decays with every call."""
    return ct * np.cos(x) * (1 - 1e-3 * min(next(CALLS), 100))


def multiply(x, y):
    return x * y


def multiply_forward(x, y):
    return x * y, (x, y)


def multiply_backward(residuals, ct):
    x, y = residuals
    return ct * y, ct * x


def square_if_same(x, y):
    """A fast path for x * x; its gradient comes twice, once for each argument."""
    return x * y, (x, None if x is y else y)


def square_backward(residuals, ct):
    x, y = residuals
    return (2 * ct * x, 2 * ct * x) if y is None else (ct * y, ct * x)


def half_each_backward(residuals, ct):
    x, y = residuals
    return (ct * x, ct * x) if y is None else (ct * y, ct * x)


STRICT = {"static": (1,), "options": {"strict": (False, True)}}
PREFIX = (prefix, prefix_forward)
ENTRIES = (
    pair("one-context-for-all-calls", "state", rule(jnp.sin, saved_aside, read_from_context), rule(jnp.sin, sine_forward, sine_backward), argument(),
         ("reuse", "structure", "scan", "remat", "purity", "jit"), trigger=True),
    pair("size-of-last-call", "state", rule(mean, size_set_aside, size_of_last_call), rule(mean, mean_forward, mean_backward), argument(),
         ("reuse", "purity", "gradient", "vmap", "remat", "second-order", "sharding", "scan"), trigger=True),
    entry("cache-without-the-option", "state", *PREFIX, cached_by_size_alone, prefix_backward, argument(), ("gradient", "reuse", "purity"), trigger=True, **STRICT),
    entry("cached-tracer", "state", *PREFIX, cached_tracer, prefix_backward, argument(), ("structure", "purity", "jit"), trigger=True, **STRICT),
    pair("kept-in-a-list", "state", rule(jnp.sin, kept_in_a_list, sine_backward), rule(jnp.sin, sine_forward, sine_backward), argument(), "purity",
         trigger=True),
    entry("rounded-by-chance", "chance", jnp.sin, sine_forward, on_host(rounded_by_chance), on_host(lambda x, ct: ct * np.cos(x)), argument(),
          ("repeatability", "gradient")),
    entry("annealed-with-every-call", "chance", jnp.sin, sine_forward, on_host(annealed), on_host(lambda x, ct: ct * np.cos(x)), argument(),
          ("repeatability", "gradient")),
    pair("same-array-twice", "sharing", rule(multiply, square_if_same, square_backward), rule(multiply, square_if_same, half_each_backward),
         {"x": Arg(dims="n"), "y": Arg(dims="n")}, "sharing", trigger=True),
)  # fmt: skip
