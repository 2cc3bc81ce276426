"""Convolution in which each channel is a group of its own (depthwise), as sums of shifted arrays: on CPU XLA's convolution takes 5 to 40 times as long.

x is (N, *space, G), and its channel g makes the M outputs g M, ..., g M + M - 1 of w, (*kernel, 1, G M).
"""

import functools as ft
import math
import operator
from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array

from manual_vjp._blocks import over_blocks, take
from manual_vjp._windows import Window, padded, taps

BLOCK = 2**16  # elements of x at a time for the cotangent of w: one product and what it is made of stay in a core's cache

Windows = tuple[Window, ...]


def spread(x: Array, w: Array, windows: Windows, compute: jnp.dtype) -> Array:
    """The convolution of x with w: y[g M + m] = sum_k x[at k, g] w[k, g M + m]."""
    groups, out = x.shape[-1], w.shape[-1]
    kernel = w.astype(compute).reshape(-1, groups, out // groups)
    y = _sum(tap[..., None] * row for tap, row in _pairs(x.astype(compute), kernel, windows))
    return y.reshape(*y.shape[:-2], out)


def gather(y_ct: Array, w: Array, windows: Windows, compute: jnp.dtype, groups: int) -> Array:
    """The same from outputs to channels: x_ct[g] = sum_k sum_m y_ct[at k, g M + m] w[k, g M + m]; `windows` and w as the cotangent's convolution has them."""
    kernel = w.astype(compute).reshape(-1, w.shape[-1])
    products = _sum(tap * row for tap, row in _pairs(y_ct.astype(compute), kernel, windows))
    return jnp.sum(products.reshape(*products.shape[:-1], groups, -1), axis=-1)


def w_ct(x: Array, y_ct: Array, windows: Windows, compute: jnp.dtype) -> Array:
    """w_ct[k, g M + m] = sum_n sum_p x[n, at k, g] y_ct[n, p, g M + m], a few examples at a time; (K, G M)."""
    groups, out = x.shape[-1], y_ct.shape[-1]
    each = math.prod(v.outputs for v in windows) * out

    def add(total: Array, start: Array, size: int) -> Array:
        own = take(y_ct, start, size).astype(compute).reshape(size, *y_ct.shape[1:-1], groups, out // groups)
        ones = jnp.ones(own.size // out, compute)  # a product with them is the fastest sum over all axes but the last
        places = padded(take(x, start, size).astype(compute), windows)
        return total + jnp.stack([ones @ (tap[..., None] * own).reshape(-1, out) for tap in taps(places, windows)])

    none = jnp.zeros((math.prod(v.size for v in windows), out), compute)
    return over_blocks(add, none, len(x), max(BLOCK // max(each, 1), 1), (x, y_ct))


def _pairs(x: Array, kernel: Array, windows: Windows) -> Iterator[tuple[Array, Array]]:
    return zip(taps(padded(x, windows), windows), kernel, strict=True)


_sum = ft.partial(ft.reduce, operator.add)
