"""Convolutions and pooling: flips, strides, dilation, borders."""

from __future__ import annotations

import jax.numpy as jnp

from tests.power.entry import argument, entry
from verify import Arg


def windows(x, size, stride=1, dilation=1):
    """x[i * stride + j * dilation] as a matrix over i and j."""
    count = (x.size - dilation * (size - 1) - 1) // stride + 1
    return x[stride * jnp.arange(count)[:, None] + dilation * jnp.arange(size)]


def scatter(ct, size, length, stride=1, dilation=1):
    """The transpose of `windows`: rows are added where they came from."""
    at = stride * jnp.arange(ct.shape[0])[:, None] + dilation * jnp.arange(size)
    return jnp.zeros(length, ct.dtype).at[at].add(ct)


def correlate(x, k, stride, dilation):
    return windows(x, k.size, stride, dilation) @ k


def correlate_forward(x, k, stride, dilation):
    return correlate(x, k, stride, dilation), (x, k)


def correlate_backward(stride, dilation, residuals, ct):
    x, k = residuals
    return scatter(ct[:, None] * k, k.size, x.size, stride, dilation), windows(x, k.size, stride, dilation).T @ ct


def kernel_not_flipped(stride, dilation, residuals, ct):
    x, k = residuals
    return scatter(ct[:, None] * k[::-1], k.size, x.size, stride, dilation), correlate_backward(stride, dilation, residuals, ct)[1]


def stride_ignored(stride, dilation, residuals, ct):
    x, k = residuals
    return scatter(ct[:, None] * k, k.size, x.size, 1, dilation), correlate_backward(stride, dilation, residuals, ct)[1]


def dilation_ignored(stride, dilation, residuals, ct):
    x, k = residuals
    x_ct = correlate_backward(stride, dilation, residuals, ct)[0]
    return x_ct, windows(x, k.size, stride)[: ct.size].T @ ct


def same(x, k):
    """As long as x; an even kernel reaches one further to the right."""
    return windows(jnp.pad(x, ((k.size - 1) // 2, k.size // 2)), k.size) @ k


def same_forward(x, k):
    return same(x, k), (x, k)


def same_backward(residuals, ct):
    x, k = residuals
    before = (k.size - 1) // 2
    x_ct = scatter(ct[:, None] * k, k.size, x.size + k.size - 1)[before : before + x.size]
    return x_ct, windows(jnp.pad(x, (before, k.size // 2)), k.size).T @ ct


def even_kernel_shifted(residuals, ct):
    """k // 2 on the left, as in the text on odd kernels."""
    x, k = residuals
    before = k.size // 2
    x_ct = scatter(ct[:, None] * k, k.size, x.size + k.size - 1)[before : before + x.size]
    return x_ct, same_backward(residuals, ct)[1]


def counts(n):
    """How many of three neighbours exist."""
    return 3 - (jnp.arange(n) == 0) - (jnp.arange(n) == n - 1)


def average_pool(x):
    return windows(jnp.pad(x, 1), 3).sum(1) / counts(x.size).astype(x.dtype)


def average_pool_forward(x):
    return average_pool(x), None


def average_pool_backward(_, ct):
    return (windows(jnp.pad(ct / counts(ct.size).astype(ct.dtype), 1), 3).sum(1),)


def border_divided_by_three(_, ct):
    return (windows(jnp.pad(ct, 1), 3).sum(1) / 3,)


def max_pool(x):
    return x.reshape(-1, 2).max(1)


def max_pool_forward(x):
    return max_pool(x), x


def max_pool_backward(x, ct):
    pairs = x.reshape(-1, 2)
    first = pairs[:, :1] >= pairs[:, 1:]
    return ((ct[:, None] * jnp.concatenate([first, ~first], 1)).reshape(-1),)


def both_of_a_tie(x, ct):
    pairs = x.reshape(-1, 2)
    return ((ct[:, None] * (pairs == pairs.max(1, keepdims=True))).reshape(-1),)


def correlate_entry(name, wrong, dims, options, **more):
    args = {"x": Arg(dims=dims), "k": Arg(dims="m")}
    return entry(
        name,
        "convolution",
        correlate,
        correlate_forward,
        wrong,
        correlate_backward,
        args,
        "gradient",
        static=(2, 3),
        options=options,
        **more,
    )


ENTRIES = (
    correlate_entry("kernel-not-flipped", kernel_not_flipped, "n+m", {"stride": (1,), "dilation": (1,)}),
    correlate_entry("stride-ignored", stride_ignored, "n+m", {"stride": (1, 2), "dilation": (1,)}, trigger=True),
    correlate_entry("dilation-ignored", dilation_ignored, "n+2*m", {"stride": (1,), "dilation": (1, 2)}, trigger=True),
    entry("even-kernel-shifted", "convolution", same, same_forward, even_kernel_shifted, same_backward, {"x": Arg(dims="n"), "k": Arg(dims="m")},
          "gradient", sizes={"m": (1, 7)}, trigger=True),
    entry("border-of-average-pool", "convolution", average_pool, average_pool_forward, border_divided_by_three, average_pool_backward, argument(),
          "gradient", sizes={"n": (2, 130)}),
    entry("max-pool-both-of-a-tie", "tie", max_pool, max_pool_forward, both_of_a_tie, max_pool_backward, argument("2*n"), ("kinks", "gradient"),
          trigger=True),
)  # fmt: skip
