"""Blocks, tails and padding: right where the sizes fit, wrong at the edge."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry
from tests.power.precision_rules import wide
from verify import Arg


def weigh(x, w):
    return x * w


def weigh_forward(x, w):
    return x * w, (x, w)


def weigh_backward(residuals, ct):
    x, w = residuals
    return ct * w, (ct * x).sum(0)


def by_blocks(block: int, tail: bool):
    """The gradient of w from blocks of rows."""

    def backward(residuals, ct):
        x, w = residuals
        rows = x.shape[0]
        w_ct = wide(jnp.zeros_like(w))
        for start in range(0, rows if tail else rows - rows % block, block):
            w_ct += wide(ct[start : start + block] * x[start : start + block]).sum(0)
        return ct * w, w_ct.astype(w.dtype)

    return backward


def tail_of_long_ones_dropped(residuals, ct):
    """Short inputs take another path, so tests on small sizes see nothing."""
    return by_blocks(32, tail=ct.shape[0] < 32)(residuals, ct)


def first_block_only(residuals, ct):
    x, w = residuals
    return ct * w, (ct[:128] * x[:128]).sum(0)


def rows_up_to(last):
    """The gradient of w in a loop over all rows but the last ones."""

    def backward(residuals, ct):
        x, w = residuals
        total = jax.lax.fori_loop(0, ct.shape[0] - last, lambda i, total: total + wide(ct[i] * x[i]), wide(jnp.zeros_like(w)))
        return ct * w, total.astype(w.dtype)

    return backward


def unrolled_by_four(residuals, ct):
    x, w = residuals
    quarter = (ct * x)[: ct.shape[0] // 4 * 4].reshape(-1, 4, w.size)
    return ct * w, quarter.sum((0, 1))


def padded(x, block, value):
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % block)), constant_values=value)


def softmax(x):
    return jax.nn.softmax(x)


def softmax_forward(x):
    return jax.nn.softmax(x), x


def softmax_of_padded(value: float):
    """Probabilities again, in blocks of 8 columns; the padding must weigh nothing."""

    def backward(x, ct):
        wide, wide_ct = padded(x, 8, value), padded(ct, 8, 0)
        p = jnp.exp(wide - wide.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return ((p * (wide_ct - (p * wide_ct).sum(-1, keepdims=True)))[:, : x.shape[1]],)

    return backward


def rotate(x, angle):
    """Neighbouring entries are turned in pairs; the last of an odd number stays."""
    first, second = x[: x.size // 2 * 2 : 2], x[1::2]
    c, s = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.stack([c * first - s * second, s * first + c * second], -1).reshape(-1)
    return jnp.concatenate([turned, x[turned.size :]])


def rotate_forward(x, angle):
    return rotate(x, angle), (x, angle)


def rotate_backward(residuals, ct):
    x, angle = residuals
    even = x.size // 2 * 2
    quarter = jnp.stack([-x[1::2], x[:even:2]], -1).reshape(-1)
    return rotate(ct, -angle), (rotate(ct, -angle)[:even] * quarter).sum()


def last_of_odd_lost(residuals, ct):
    x_ct, angle_ct = rotate_backward(residuals, ct)
    return x_ct.at[x_ct.size // 2 * 2 :].set(0), angle_ct


def differences(x):
    return x[1:] - x[:-1]


def differences_forward(x):
    return differences(x), None


def differences_backward(_, ct):
    return (jnp.pad(ct, (1, 0)) - jnp.pad(ct, (0, 1)),)


def differences_wrapped(_, ct):
    """roll in place of a shift: the ends meet."""
    around = jnp.pad(ct, (1, 0))
    return (around - jnp.roll(around, -1) + jnp.zeros_like(around).at[0].set(ct[-1]),)


def outer_rows(x, y):
    return jnp.outer(x, y).sum(1)


def outer_forward(x, y):
    return outer_rows(x, y), (x, y)


def outer_backward(residuals, ct):
    x, y = residuals
    return ct * y.sum(), jnp.full_like(y, (ct * x).sum())


def grid_transposed(residuals, ct):
    """One program of the grid for each pair (i, j) with i, j < len(x): the tail of a longer y gets nothing."""
    x, y = residuals
    return ct * y.sum(), jnp.where(jnp.arange(y.size) < x.size, (ct * x).sum(), 0)


def half_sum(x):
    return (x * x).sum() / 2


def tree_reduced(x, ct):
    """Halving, as in a reduction by warps: right for powers of two."""
    lanes = 1 << (x.size.bit_length() - 1)
    return (ct * jnp.where(jnp.arange(x.size) < lanes, x, 0),)


def interact(x, y):
    return jnp.tanh(x[:, None] * y).sum(1)


def interact_forward(x, y):
    return interact(x, y), (x, y)


def in_tiles(last_row):
    """`last_row(i, j)`: the row of tiles whose cotangent is read in the tile (i, j)."""

    def backward(residuals, ct):
        x, y = residuals
        x_ct, y_ct = jnp.zeros_like(x), jnp.zeros_like(y)
        for i in range(0, len(x), 64):
            rows = slice(i, i + 64)
            for j in range(0, len(y), 64):
                columns, read = slice(j, j + 64), last_row(i, j)
                own = ct[read : read + len(x[rows]), None] * (1 - jnp.tanh(x[rows, None] * y[columns]) ** 2)
                x_ct = x_ct.at[rows].add((own * y[columns]).sum(1))
                y_ct = y_ct.at[columns].add((own * x[rows, None]).sum(0))
        return x_ct, y_ct

    return backward


def biased(x, bias, causal, window, scale):
    """Rows of scores with a bias that may be stretched, summed where they are allowed."""
    return jnp.where(_allowed(x, causal, window), jnp.tanh(scale * x if bias is None else scale * x + bias), 0).sum(-1)


def _allowed(x, causal, window):
    row, column = jnp.arange(x.shape[0])[:, None], jnp.arange(x.shape[1])
    allowed = row >= column if causal else row >= 0
    return allowed if window is None else allowed & (abs(row - column) <= window)


def biased_backward(columns):
    """`columns(n)`: up to which of the n columns of a bias its cotangent is written."""

    def backward(causal, window, scale, residuals, ct):
        x, bias = residuals
        slope = 1 - jnp.tanh(scale * x if bias is None else scale * x + bias) ** 2
        own = jnp.where(_allowed(x, causal, window), ct[:, None] * slope, 0)
        if bias is None:
            return scale * own, None
        stretched = tuple(axis for axis in (0, 1) if bias.shape[axis] < x.shape[axis])
        total = own.sum(stretched, keepdims=True)
        return scale * own, jnp.where(jnp.arange(bias.shape[1]) < columns(bias.shape[1]), total, 0)

    return backward


WEIGHED = {"x": Arg(dims="n d"), "w": Arg(dims="d")}


def weigh_entry(name, wrong, right=weigh_backward, **more):
    return entry(name, "block", weigh, weigh_forward, wrong, right, WEIGHED, "gradient", **more)


ENTRIES = (
    weigh_entry("tail-of-8-dropped", by_blocks(8, tail=False), by_blocks(8, tail=True), trigger=True),
    weigh_entry("tail-dropped-past-32", tail_of_long_ones_dropped, by_blocks(32, tail=True), trigger=True),
    weigh_entry("first-block-of-128-only", first_block_only, trigger=True),
    weigh_entry("last-row-missed", rows_up_to(1), rows_up_to(0)),
    weigh_entry("unrolled-by-four", unrolled_by_four, trigger=True),
    entry("padding-weighs", "block", softmax, softmax_forward, softmax_of_padded(0), softmax_of_padded(-jnp.inf), argument("n d"), "gradient",
          trigger=True),
    entry("last-of-odd-lost", "block", rotate, rotate_forward, last_of_odd_lost, rotate_backward, {"x": Arg(dims="n"), "angle": Arg()}, "gradient",
          trigger=True),
    entry("ends-meet", "block", differences, differences_forward, differences_wrapped, differences_backward, argument(), "gradient", sizes={"n": (2, 130)}),
    entry("grid-of-the-other-size", "block", outer_rows, outer_forward, grid_transposed, outer_backward, {"x": Arg(dims="n"), "y": Arg(dims="m")},
          "gradient", trigger=True),
    entry("second-tile-of-both", "block", interact, interact_forward, in_tiles(lambda i, j: 0 if j else i), in_tiles(lambda i, j: i),
          {"x": Arg(dims="n"), "y": Arg(dims="m")}, "gradient", trigger=True),
    entry("bias-of-one-block", "block", biased, lambda x, bias, *static: (biased(x, bias, *static), (x, bias)), biased_backward(lambda n: 64),
          biased_backward(lambda n: n), {"x": Arg(dims="t s"), "bias": Arg(dims="#t #s", optional=True)}, "gradient", static=(2, 3, 4),
          options={"causal": (False, True), "window": (None, 3, 70), "scale": (1.0, 0.5)}, trigger=True),
    entry("powers-of-two-only", "block", half_sum, lambda x: (half_sum(x), x), tree_reduced, lambda x, ct: (ct * x,), argument(), "gradient", trigger=True),
)  # fmt: skip
