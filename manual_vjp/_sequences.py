"""Arguments of recurrent layers, and how time is walked through in blocks.

Arrays of a whole sequence are (B, T, F). A block of them is (size, B, F), in the order of the walk, which is that of time or, reversed, the other; so no array
of the whole sequence is transposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from manual_vjp._blocks import over_blocks, put, take
from manual_vjp._rule import dtypes, require_floating, require_shape, varied

State = tuple[Array, ...]  # h first, (B, H) each
BLOCK, MOST = 16, 32  # steps of a block: products are large enough, and blocks small


class Arrays(NamedTuple):
    """The arguments of a layer, with one batch dimension. A state that is None is 0."""

    x: Array
    w_x: Array
    w_h: Array
    b: Array | None
    b_h: Array | None
    state: tuple[Array | None, ...]
    lengths: Array | None

    @property
    def result(self) -> jnp.dtype:
        return dtypes(*self[:5], *self.state)[0]

    @property
    def compute(self) -> jnp.dtype:
        return dtypes(*self[:5], *self.state)[1]

    def wide(self) -> Arrays:
        """All but x in the dtype to compute in, once and not in each step; x is converted in blocks."""

        def cast(a):
            return None if a is None else a.astype(self.compute)

        weights = cast(self.w_x), cast(self.w_h), cast(self.b), cast(self.b_h)
        return Arrays(self.x, *weights, tuple(cast(part) for part in self.state), self.lengths)


class Walk(NamedTuple):
    """How time is walked through: `length` steps in blocks, from the last element to the first if `reverse`. `checkpoint`: only states between blocks are kept."""

    length: int
    block: int
    reverse: bool
    checkpoint: bool

    @property
    def blocks(self) -> int:
        return -(-self.length // self.block)

    def number(self, place: Any) -> Any:
        """Of the block that begins at `place`. A block that is shorter than the others is the first."""
        return (place + self.block - 1) // self.block

    def forth(self, step, carry, like):
        """`carry = step(carry, place, size)` for all blocks; `like` as in `over_blocks`."""
        rest = self.length % self.block
        carry = jax.tree.map(lambda leaf: varied(leaf, *like), carry)
        carry = step(carry, 0, rest) if rest else carry
        return over_blocks(lambda held, place, size: step(held, rest + place, size), carry, self.length - rest, self.block, like)

    def back(self, step, carry, like):
        """The same from the last block to the first."""
        return over_blocks(lambda held, gone, size: step(held, self.length - gone - size, size), carry, self.length, self.block, like)

    def take(self, array: Array, place: Any, size: int) -> Array:
        return self._turned(jnp.swapaxes(take(array, self._time(place, size), size, axis=1), 0, 1))

    def put(self, array: Array, block: Array, place: Any) -> Array:
        return put(array, jnp.swapaxes(self._turned(block), 0, 1), self._time(place, block.shape[0]), axis=1)

    def alive(self, lengths: Array | None, place: Any, size: int) -> Array | None:
        """(size, B, 1): where a sequence has not ended; None for everywhere."""
        if lengths is None:
            return None
        times = self._turned(self._time(place, size) + jnp.arange(size))
        return (times[:, None] < lengths)[..., None]

    def _time(self, place: Any, size: int) -> Any:
        return self.length - place - size if self.reverse else place

    def _turned(self, block: Array) -> Array:
        return block[::-1] if self.reverse else block


def require_arrays(op: str, arrays: Arrays, gates: int, state: tuple[str, ...]) -> None:
    """Raises unless the arguments fit together: w_x is (D, gates H), w_h (H, gates H); `state` are the names of the parts of the state."""
    x, w_x, w_h, b, b_h, first, lengths = arrays
    require_floating(op, x=x, w_x=w_x, w_h=w_h, b=b, b_h=b_h, **dict(zip(state, first, strict=True)))
    if jnp.ndim(x) < 2:
        raise ValueError(f"{op}: x has shape {jnp.shape(x)}, wanted (*batch, T, D): at least two dimensions")
    *batch, _, d = jnp.shape(x)
    require_shape(op, "w_h", w_h, ("H", "H" if gates == 1 else f"{gates}*H"), "for H features of the state")
    h, columns = jnp.shape(w_h)
    if columns != gates * h:
        raise ValueError(f"{op}: w_h has shape {(h, columns)}, wanted {(h, gates * h)} because it has {h} rows")
    require_shape(op, "w_x", w_x, (d, columns), f"because x has shape {jnp.shape(x)} and w_h has shape {(h, columns)}")
    for name, bias in (("b", b), ("b_h", b_h)):
        require_shape(op, name, bias, (columns,), f"because w_h has shape {(h, columns)}")
    for name, part in zip(state, first, strict=True):
        require_shape(op, name, part, (*batch, h), f"because x has shape {jnp.shape(x)} and w_h has shape {(h, columns)}")
    if lengths is not None and not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
        raise TypeError(f"{op}: lengths has dtype {jnp.result_type(lengths)}, wanted integers")
    require_shape(op, "lengths", lengths, tuple(batch), f"because x has shape {jnp.shape(x)}")


def walk_of(op: str, x: Array, reverse: bool, checkpoint: bool, block_size: int | None) -> Walk:
    """How to walk through x. Raises ValueError for an option that has no meaning."""
    if not isinstance(checkpoint, bool):
        raise ValueError(f"{op}: checkpoint is {checkpoint!r}, wanted True or False; the number of steps between checkpoints is block_size")
    if block_size is not None and (not isinstance(block_size, int) or block_size < 1):
        raise ValueError(f"{op}: block_size is {block_size!r}, wanted a number of steps of at least 1, or None")
    length = jnp.shape(x)[-2]
    if block_size is None and checkpoint:
        block_size = math.isqrt(max(length - 1, 0)) + 1
    elif block_size is None:  # blocks without a rest, if it can be: a short block is compiled apart
        block_size = next((size for size in range(BLOCK, MOST + 1) if length % size == 0), BLOCK)
    return Walk(length, max(min(block_size, length), 1), bool(reverse), checkpoint)


def over_batch(rule: Callable[[Arrays], tuple[Array, State]], arrays: Arrays) -> tuple[Array, State]:
    """`rule`, which knows one batch dimension, on any number of them. Without a step there is nothing to differentiate but the first state."""
    *batch, length, d = arrays.x.shape
    h, n = arrays.w_h.shape[0], math.prod(batch)
    if length == 0:
        first = (jnp.zeros((*batch, h)) if part is None else part for part in arrays.state)
        return jnp.zeros((*batch, 0, h), arrays.result), tuple(part.astype(arrays.result) for part in first)
    flat = arrays._replace(
        x=arrays.x.reshape(n, length, d),
        state=tuple(None if part is None else part.reshape(n, h) for part in arrays.state),
        lengths=None if arrays.lengths is None else arrays.lengths.reshape(n),
    )
    hs, state = rule(flat)
    return hs.reshape(*batch, length, h), tuple(part.reshape(*batch, h) for part in state)


def some_lengths(rng: np.random.Generator, sizes: Mapping[str, Any], dtype: str) -> np.ndarray:
    """For the specs: nothing of a sequence, some or all of it; all but a few steps, so that a block of steps holds the end; or blocks of 3, whole ones."""
    length, shape = sizes["T"], sizes["batch"]
    anywhere, near_end = rng.integers(0, length + 1, size=shape), np.maximum(length - rng.integers(3, size=shape), 0)
    return np.choose(rng.integers(3, size=shape), [anywhere, near_end, anywhere // 3 * 3])


def plain(
    step: Callable[..., tuple[Array, ...]],
    state: tuple[Array | None, ...],
    x: Array,
    h: int,
    lengths: Array | None,
    reverse: bool,
    result: Any,
) -> Any:
    """For the references, one step after the other: `step(x_t, *state)`; a sequence that has ended keeps its state, and gives 0."""
    *batch, length, _ = x.shape
    first = tuple(jnp.zeros((*batch, h), result) if part is None else part.astype(result) for part in state)

    def both(state, at):
        x, t = at
        new = tuple(part.astype(result) for part in step(x, *state))
        if lengths is None:
            return new, new[0]
        alive = (t < lengths)[..., None]
        return tuple(jnp.where(alive, *pair) for pair in zip(new, state, strict=True)), jnp.where(alive, new[0], 0)

    last, hs = jax.lax.scan(both, first, (jnp.moveaxis(x, -2, 0), jnp.arange(length)), reverse=reverse)
    return jnp.moveaxis(hs, 0, -2), last
