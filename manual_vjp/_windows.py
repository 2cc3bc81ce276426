"""What convolution and pooling share: the arithmetic of a window that slides along each axis, and the plain formula's patches."""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Numbers = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window along one axis: at output p, its element k lies on place `p * stride + k * dilation - low` of the input.

    The input has `length` elements, `input_dilation` places apart; a place that holds none is padding. `low` and `high` are the places
    added before and after; where they are negative, places are left out.
    """

    length: int
    size: int
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1
    input_dilation: int = 1

    @property
    def places(self) -> int:
        """How many places the input takes, without padding."""
        return span(self.length, self.input_dilation)

    @property
    def reach(self) -> int:
        """How many places the window takes, from its first element to its last."""
        return span(self.size, self.dilation)

    @property
    def outputs(self) -> int:
        """How often the window fits; what is left over at the end is not looked at."""
        return max((self.low + self.places + self.high - self.reach) // self.stride + 1, 0)


def cropped(x: Array, windows: Sequence[Window]) -> tuple[Array, tuple[Window, ...]]:
    """x `(N, *space, C)` without the elements on places that negative padding leaves out, and windows whose padding is not negative.

    XLA's convolution on CPU reads beyond the array where padding in front is negative and that behind is not (openxla/xla#48713, JAX before 0.12).
    """
    if not x.size or all(min(v.low, v.high) >= 0 for v in windows) or any(v.outputs == 0 for v in windows):
        return x, tuple(windows)
    bounds, left, nothing = [], [], False
    for v in windows:
        first, last = (-(min(edge, 0) // v.input_dilation) for edge in (v.low, v.high))
        if first + last < v.length:
            bounds.append((first, v.length - last))
            low, high = v.low + first * v.input_dilation, v.high + last * v.input_dilation
            left.append(replace(v, length=v.length - first - last, low=low, high=high))
        else:  # no element is left: one that is 0 stands for them
            nothing = True
            bounds.append((0, 1))
            left.append(replace(v, length=1, low=v.low + v.places + v.high - 1, high=0))
    kept = lax.slice(x, *zip((0, x.shape[0]), *bounds, (0, x.shape[-1]), strict=True))
    return jnp.where(False, kept, 0) if nothing else kept, tuple(left)


def span(count: int, step: int) -> int:
    """From the first of `count` elements to the last, `step` apart."""
    return max((count - 1) * step + 1, 0)


def require_windows(
    op: str,
    shape: Sequence[int],
    size: Sequence[int],
    strides: Numbers,
    padding: Padding,
    kernel_dilation: Numbers = 1,
    input_dilation: Numbers = 1,
) -> tuple[Window, ...]:
    """A window for each spatial axis; `shape` and `size` are those of the input and the window along them. ValueError if an option does not fit."""
    rank = len(shape)
    steps = require_numbers(op, "strides", strides, rank)
    dilations = require_numbers(op, "kernel_dilation", kernel_dilation, rank)
    input_dilations = require_numbers(op, "input_dilation", input_dilation, rank)
    bare = [
        Window(length=n, size=k, stride=s, dilation=e, input_dilation=d)
        for n, k, s, e, d in zip(shape, size, steps, dilations, input_dilations, strict=True)
    ]
    return tuple(replace(w, low=low, high=high) for w, (low, high) in zip(bare, _pairs(op, padding, bare), strict=True))


def require_numbers(op: str, name: str, value: Numbers, rank: int) -> tuple[int, ...]:
    """`value` as a whole number of at least 1 for each spatial axis; one number stands for all of them."""
    numbers = _whole(value, rank)
    if numbers is None or len(numbers) != rank or any(n < 1 for n in numbers):
        raise ValueError(
            f"{op}: {name} is {value!r}, wanted a whole number of at least 1, or {rank} of them, one for each spatial dimension"
        )
    return numbers


def _pairs(op: str, padding: Padding, windows: Sequence[Window]) -> list[tuple[int, ...]]:
    if padding == "VALID":
        return [(0, 0)] * len(windows)
    if padding == "SAME":  # one output for each stride, also for the last that is not full; of an odd number of places, the odd one after
        missing = [max((math.ceil(w.places / w.stride) - 1) * w.stride + w.reach - w.places, 0) for w in windows]
        return [(m // 2, m - m // 2) for m in missing]
    each = [padding] * len(windows) if isinstance(padding, str | int) else list(padding)
    pairs = [_whole(pair, 2) for pair in each]
    if len(pairs) != len(windows) or any(pair is None or len(pair) != 2 for pair in pairs):
        wanted = f'"SAME", "VALID", a whole number, or {len(windows)} numbers or pairs (before, after), one for each spatial dimension'
        raise ValueError(f"{op}: padding is {padding!r}, wanted {wanted}")
    return [pair for pair in pairs if pair is not None]


def _whole(value: Any, count: int) -> tuple[int, ...] | None:
    """`value` as a tuple of whole numbers, one number `count` times; None if it is something else."""
    try:
        return (operator.index(value),) * count if not isinstance(value, tuple | list) else tuple(operator.index(n) for n in value)
    except TypeError:
        return None


MANY = 64  # elements of a window beyond which pooling goes along one axis after the other: each element is an operation of the program


def require_pool(op: str, shape: Sequence[int], window_shape: Numbers, strides: Numbers, padding: Padding) -> tuple[Window, ...]:
    """A window for each spatial axis of a pooling operation on x `(*batch, *space, C)` of this shape. ValueError if something does not fit."""
    size = _whole(window_shape, 0) or ()
    if len(size) not in (1, 2, 3) or min(size) < 1:
        wanted = "a tuple of one to three whole numbers of at least 1, one for each spatial dimension, such as (2, 2)"
        raise ValueError(f"{op}: window_shape is {window_shape!r}, wanted {wanted}")
    if len(shape) < len(size) + 1:
        raise ValueError(
            f"{op}: x has shape {tuple(shape)}, wanted (*batch, *space, C) with {len(size)} spatial dimensions because window_shape is {size}"
        )
    return require_windows(op, shape[-len(size) - 1 : -1], size, strides, padding)


def steps(windows: tuple[Window, ...]) -> list[tuple[Window, ...]]:
    """The windows of the poolings that make up one: itself, or if that has many elements, one along each axis, the last axis first."""
    if math.prod(w.size for w in windows) <= MANY:
        return [windows]
    return [
        (
            *(Window(length=w.length, size=1) for w in windows[:axis]),
            windows[axis],
            *(Window(length=w.outputs, size=1) for w in windows[axis + 1 :]),
        )
        for axis in reversed(range(len(windows)))
    ]


def flattened(fn: Callable[[Array], Array], x: Array, rank: int) -> Array:
    """`fn` of x with one batch dimension in front of its `rank` spatial ones, and all batch dimensions back."""
    batch = x.shape[: x.ndim - rank - 1]
    y = fn(x.reshape(math.prod(batch), *x.shape[len(batch) :]))
    return y.reshape(*batch, *y.shape[1:])


def offsets(windows: Sequence[Window]) -> list[tuple[int, ...]]:
    """The elements of a window, the last axis fastest."""
    return list(itertools.product(*(range(w.size) for w in windows)))


def padded(x: Array, windows: Sequence[Window], fill: float = 0.0) -> Array:
    """x `(N, *lengths, C)` with all the places that a window looks at, and no others; `fill` where nothing is."""
    edges = [(w.low, span(w.outputs, w.stride) + w.reach - 1 - w.low - w.places, w.input_dilation - 1) for w in windows]
    return lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def taps(places: Array, windows: Sequence[Window]) -> Iterator[Array]:
    """For each of the `offsets`, what lies there at all outputs, `(N, *outputs, C)`; of the places that `padded` gives."""
    for offset in offsets(windows):
        start = [k * w.dilation for k, w in zip(offset, windows, strict=True)]
        stop = [first + span(w.outputs, w.stride) for first, w in zip(start, windows, strict=True)]
        yield lax.slice(places, (0, *start, 0), (places.shape[0], *stop, places.shape[-1]), (1, *(w.stride for w in windows), 1))


def untap(term: Callable[..., Array], arrays: Sequence[Array], windows: Sequence[Window]) -> Array:
    """The transpose of `taps`: for each input element, the sum of `term(number of the offset, *arrays at the output)` over the windows on it.

    All arrays are `(N, *outputs, C)`, the windows are not dilated, and `term` is 0 where all arrays are 0. An input at place q * stride + r lies under
    the elements r, r + stride, ... of the windows of the outputs q, q - 1, ...: one sum for each r, of arrays shifted by whole outputs, and these sums
    interleaved. (A sum of arrays that are padded, one for each offset, is up to 80 times as slow on CPU.)
    """
    turns = [-(-w.size // w.stride) for w in windows]
    rows = [w.outputs + turn - 1 for w, turn in zip(windows, turns, strict=True)]
    edges = [(0, 0, 0), *((turn - 1, turn - 1, 0) for turn in turns), (0, 0, 0)]
    wide = [lax.pad(a, jnp.zeros((), a.dtype), edges) for a in arrays]
    number = {offset: i for i, offset in enumerate(offsets(windows))}
    batch, channels = arrays[0].shape[0], arrays[0].shape[-1]

    def shifted(a: Array, turn: tuple[int, ...]) -> Array:
        start = [most - 1 - t for most, t in zip(turns, turn, strict=True)]
        return lax.slice(a, (0, *start, 0), (batch, *(s + n for s, n in zip(start, rows, strict=True)), channels))

    def of(phase: tuple[int, ...]) -> Array:
        if len(phase) < len(windows):
            axis = len(phase)
            return jnp.stack([of((*phase, r)) for r in range(windows[axis].stride)], axis=2 + axis)
        found = [
            term(number[offset], *(shifted(a, turn) for a in wide))
            for turn in itertools.product(*map(range, turns))
            if (offset := tuple(r + t * w.stride for r, t, w in zip(phase, turn, windows, strict=True))) in number
        ]
        return sum(found[1:], found[0]) if found else jnp.zeros_like(term(0, *(shifted(a, (0,) * len(turns)) for a in wide)))

    full = of(()).reshape(batch, *(n * w.stride for n, w in zip(rows, windows, strict=True)), channels)
    crop = [(-w.low, w.low + w.length - n * w.stride, 0) for n, w in zip(rows, windows, strict=True)]
    return lax.pad(full, jnp.zeros((), full.dtype), [(0, 0, 0), *crop, (0, 0, 0)])


def plain_patches(
    x: Array, size: Sequence[int], strides: Any, padding: Any, kernel_dilation: Any = 1, input_dilation: Any = 1, fill: float = 0.0
) -> Array:
    """im2col, for references: `(N, *outputs, C, *size)`, the patch of x under each window, gathered by index. Shares nothing with the rules."""
    rank = len(size)
    s, e, d = (np.broadcast_to(value, rank).tolist() for value in (strides, kernel_dilation, input_dilation))
    explicit = 0 if isinstance(padding, str) else padding
    pairs = np.broadcast_to(np.reshape(explicit, (-1, 1)) if np.ndim(explicit) == 1 else explicit, (rank, 2)).tolist()
    for axis in range(rank):
        length = x.shape[1 + axis]
        places, reach = (length - 1) * d[axis] + 1 if length else 0, (size[axis] - 1) * e[axis] + 1
        before, after = pairs[axis]
        if padding == "SAME":
            missing = max((-(-places // s[axis]) - 1) * s[axis] + reach - places, 0)
            before, after = missing // 2, missing - missing // 2
        count = len(range(0, before + places + after - reach + 1, s[axis]))
        place = np.arange(count)[:, None] * s[axis] + np.arange(size[axis]) * e[axis] - before
        held = (place >= 0) & (place < places) & (place % d[axis] == 0)
        x = jnp.take(x, np.where(held, place // d[axis], length), axis=1 + axis, mode="fill", fill_value=fill)
        x = jnp.moveaxis(x, 2 + axis, -1)
    return x
