"""What a backward may not do to the upstream cotangent: assume it constant, clip it, flush it, normalise it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import expm

from tests.power.entry import argument, entry
from verify import Arg


def sine_forward(x):
    return jnp.sin(x), x


def sine_backward(x, ct):
    return (ct * jnp.cos(x),)


def of(change):
    """The right backward of another cotangent."""
    return lambda x, ct: sine_backward(x, change(ct))


def flat_sum(x):
    return (x * x).sum(-1)


def flat_sum_forward(x):
    return flat_sum(x), x


def flat_sum_backward(x, ct):
    return (2 * x * ct[:, None],)


def first_of_cotangent(x, ct):
    return (2 * x * ct[0],)


def sum_over_size(x, ct):
    return (2 * x * (ct.sum() / ct.size),)


def clipped_at_1000(x, ct):
    """Gradient clipping does not belong into a rule."""
    return (jnp.clip(sine_backward(x, ct)[0], -1e3, 1e3),)


def normalised(ct):
    return ct / jnp.maximum(jnp.sqrt((ct * ct).sum()), 1)


def flushed(ct):
    return jnp.where(jnp.abs(ct) < 1e-6, 0, ct)


def without_nan(ct):
    """Overflow in mixed-precision training is to be seen by the loss scaling, not hidden."""
    return jnp.where(jnp.abs(ct) > 1e4, 0, ct)


def eps_in_cotangent(ct):
    return ct + 1e-8


def positive_part(ct):
    """Guided backpropagation, a way to draw pictures, is no derivative."""
    return jax.nn.relu(ct)


VECTOR = argument()


def sine_entry(name, wrong, check, **more):
    return entry(name, "cotangent", jnp.sin, sine_forward, wrong, sine_backward, VECTOR, check, **more)


def sum_entry(name, wrong, check):
    return entry(name, "cotangent", flat_sum, flat_sum_forward, wrong, flat_sum_backward, argument("n d"), check)


def by_a_block(a, ct):
    """The derivative of exp is a block of exp of a larger matrix, which JAX gives up to compute (NaN) where its norm is above 3e5."""
    n = len(a)
    larger = jnp.block([[a.T, ct], [jnp.zeros_like(a), a.T]])
    return (expm(larger)[:n, n:],)


def by_a_block_of_its_size(a, ct):
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(ct)))
    size = jnp.where(size > 0, size, 1)
    return (size * by_a_block(a, ct / size)[0],)


ENTRIES = (
    sine_entry("cotangent-averaged", of(lambda ct: jnp.full_like(ct, ct.mean())), "gradient"),
    sine_entry("largest-cotangent", of(lambda ct: jnp.full_like(ct, jnp.max(ct, initial=0))), ("gradient", "linearity")),
    sum_entry("first-cotangent", first_of_cotangent, "gradient"),
    sum_entry("cotangent-sum-over-size", sum_over_size, "gradient"),
    sine_entry("clipped-at-1000", clipped_at_1000, ("linearity", "extremes"), trigger=True),
    sine_entry("cotangent-normalised", of(normalised), ("linearity", "gradient")),
    sine_entry("tiny-cotangents-flushed", of(flushed), ("linearity", "extremes"), trigger=True),
    sine_entry("large-cotangents-dropped", of(without_nan), ("linearity", "extremes"), trigger=True),
    entry("exponential-by-a-block", "cotangent", expm, lambda a: (expm(a), a), by_a_block, by_a_block_of_its_size, {"a": Arg(dims="d d", low=-1.0, high=1.0)},
          "linearity", sizes={"d": (1, 4)}, dtypes=("float32",), trigger=True),
    sine_entry("eps-in-cotangent", of(eps_in_cotangent), "zero-cotangent"),
    sine_entry("guided-backpropagation", of(positive_part), ("linearity", "gradient")),
)  # fmt: skip
