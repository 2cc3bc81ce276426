"""What recurrent layers share: a walk over time in blocks, forward and back; what happens in one step comes from the layer.

Arrays of a whole sequence are (B, T, F). A block of them is (size, B, F), in the order of the walk, which is that of time or, reversed, the other. A block
stays in the caches, so that no array of the whole sequence is transposed; and the products with inputs and weights are one for each block: only that of
the state with w_h is one for each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._blocks import over_blocks, put, take
from manual_vjp._rule import dtypes, match, require_floating, require_shape, varied

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
        w_x, w_h, b, b_h, *state = (None if a is None else a.astype(self.compute) for a in (*self[1:5], *self.state))
        assert w_x is not None and w_h is not None
        return Arrays(self.x, w_x, w_h, b, b_h, tuple(state), self.lengths)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One step of a layer, in which u = x w_x + b and v = h w_h + b_h are given.

    step: `(u, v, state) -> state` after it, h first.
    slopes: `(products, start, before, after, alive) -> ` what `pull` needs, for all steps of a block at once. `products()` are u and v; h is known before and
        after each step, the other parts of the state at the start of the block; steps that are not alive (None: all are) change no state.
    pull: `(slopes, cotangents of the state after a step) -> ` those of u, of v, and of the state before it without what comes through v. Elementwise.
    """

    step: Callable[[Array, Array, State], State]
    slopes: Callable[..., Any]
    pull: Callable[[Any, State], tuple[Array, Array, tuple[Array | int, ...]]]


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


def where(alive: Array | None, a: Array, b: Array | int) -> Array:
    return a if alive is None else jnp.where(alive, a, b)


Residuals = tuple[Arrays, Array | None, State]  # arguments, hs or None, states between blocks


def forward(cell: Cell, walk: Walk, arrays: Arrays) -> tuple[tuple[Array, State], Residuals]:
    """All h and the last state. Kept are h, and of the states between blocks all but h; or these states alone, if `walk.checkpoint`."""
    wide = arrays.wide()
    shape = (arrays.x.shape[0], arrays.w_h.shape[0])
    state = tuple(jnp.zeros(shape, arrays.compute) if part is None else part for part in wide.state)
    first = 0 if walk.checkpoint else 1
    starts = tuple(jnp.zeros((walk.blocks, *shape), arrays.compute) for _ in state[first:])
    hs = jnp.zeros((*arrays.x.shape[:2], shape[1]), arrays.compute)

    def block(carry, place, size):
        state, hs, starts = carry
        starts = tuple(put(kept, part[None], walk.number(place)) for kept, part in zip(starts, state[first:], strict=True))
        state, after = _steps(cell, walk, wide, state, place, size)
        return state, walk.put(hs, after, place), starts

    state, hs, starts = walk.forth(block, (state, hs, starts), jax.tree.leaves(arrays))
    out = hs.astype(arrays.result), tuple(part.astype(arrays.result) for part in state)
    return out, (arrays, None if walk.checkpoint else hs, starts)


def _steps(cell: Cell, walk: Walk, wide: Arrays, state: State, place: Any, size: int) -> tuple[State, Array]:
    """The state after a block, and each h in it: 0 where a sequence has ended."""
    alive = walk.alive(wide.lengths, place, size)

    def step(state, at):
        u, alive = at
        new = cell.step(u, _plus(state[0] @ wide.w_h, wide.b_h), state)
        return tuple(where(alive, *pair) for pair in zip(new, state, strict=True)), where(alive, new[0], 0)

    return jax.lax.scan(step, state, (_plus(_inputs(walk, wide, alive, place, size) @ wide.w_x, wide.b), alive))


def backward(cell: Cell, walk: Walk, residuals: Residuals, cts: tuple[Array, State]) -> tuple[Arrays]:
    """The cotangents of the arguments."""
    arrays, hs, starts = residuals
    hs_ct, last_ct = cts
    wide, compute = arrays.wide(), arrays.compute
    w_x_t, w_h_t = wide.w_x.T, wide.w_h.T  # here and not in each step: products like it
    sums = [None if a is None else jnp.zeros(a.shape, compute) for a in arrays[1:5]]

    def block(carry, place, size):
        state_ct, x_ct, (w_x_ct, w_h_ct, b_ct, b_h_ct) = carry
        alive = walk.alive(wide.lengths, place, size)
        start = tuple(take(part, walk.number(place), 1)[0] for part in starts)
        if hs is None:
            _, after = _steps(cell, walk, wide, start, place, size)
        else:
            after, start = walk.take(hs, place, size), (_h_before(walk, wide, hs, place), *start)
        before = jnp.concatenate([start[0][None], where(None if alive is None else alive[:-1], after[:-1], start[0])])
        x = _inputs(walk, wide, alive, place, size)
        slopes = cell.slopes(lambda: (_plus(x @ wide.w_x, wide.b), _plus(before @ wide.w_h, wide.b_h)), start[1:], before, after, alive)

        def step(state_ct, at):
            slopes, h_ct, alive = at
            state_ct = state_ct[0] + where(alive, h_ct, 0), *state_ct[1:]
            _, v_ct, (h_ct, *rest) = cell.pull(slopes, state_ct)
            before_ct = h_ct + v_ct @ w_h_t, *rest
            return tuple(where(alive, *pair) for pair in zip(before_ct, state_ct, strict=True)), state_ct

        at = slopes, walk.take(hs_ct, place, size).astype(compute), alive
        state_ct, states_ct = jax.lax.scan(step, state_ct, at, reverse=True)
        u_ct, v_ct = (where(alive, ct, 0) for ct in cell.pull(slopes, states_ct)[:2])
        w_x_ct, w_h_ct = w_x_ct + _outer(x, u_ct), w_h_ct + _outer(before, v_ct)
        b_ct, b_h_ct = (None if ct is None else ct + jnp.sum(of, axis=(0, 1)) for ct, of in ((b_ct, u_ct), (b_h_ct, v_ct)))
        return state_ct, walk.put(x_ct, u_ct @ w_x_t, place), [w_x_ct, w_h_ct, b_ct, b_h_ct]

    carry = tuple(ct.astype(compute) for ct in last_ct), jnp.zeros(arrays.x.shape, compute), sums
    state_ct, x_ct, sums = walk.back(block, carry, jax.tree.leaves((arrays, hs_ct, last_ct)))
    x_ct, *weights_ct = (None if a is None else match(ct, a) for ct, a in zip((x_ct, *sums), arrays[:5], strict=True))
    state_ct = tuple(None if a is None else match(ct, a) for ct, a in zip(state_ct, arrays.state, strict=True))
    return (Arrays(x_ct, *weights_ct, state_ct, None),)


def _inputs(walk: Walk, wide: Arrays, alive: Array | None, place: Any, size: int) -> Array:
    """x in a block, 0 where a sequence has ended: whatever stands there, NaN perhaps, takes part in no sum."""
    return where(alive, walk.take(wide.x, place, size).astype(wide.compute), 0)


def _h_before(walk: Walk, wide: Arrays, hs: Array, place: Any) -> Array:
    """h before the step at `place`: the first one, until a step was alive."""
    first = jnp.zeros((), hs.dtype) if wide.state[0] is None else wide.state[0]
    earlier = jnp.maximum(place - 1, 0)
    alive = walk.alive(wide.lengths, earlier, 1)
    return jnp.where((place > 0) & (True if alive is None else alive[0]), walk.take(hs, earlier, 1)[0], first)


def _plus(product: Array, b: Array | None) -> Array:
    return product if b is None else product + b


def _outer(a: Array, ct: Array) -> Array:
    return jnp.tensordot(a, ct, axes=((0, 1), (0, 1)))


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


def walk_of(op: str, x: Array, reverse: bool, checkpoint: bool | int) -> Walk:
    """How to walk through x. Raises ValueError for a checkpoint that is no number of steps."""
    length = jnp.shape(x)[-2]
    if checkpoint is False:  # blocks without a rest, if it can be: a short block is compiled apart
        block = next((size for size in range(BLOCK, MOST + 1) if length % size == 0), BLOCK)
        return Walk(length, max(min(block, length), 1), bool(reverse), False)
    steps = math.isqrt(max(length - 1, 0)) + 1 if checkpoint is True else checkpoint
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"{op}: checkpoint is {checkpoint!r}, wanted True, False or a number of steps of at least 1")
    return Walk(length, max(min(steps, length), 1), bool(reverse), True)


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


def plain(step: Callable[..., tuple[Array, ...]], state: tuple[Array | None, ...], x: Array, h: int, lengths: Array | None, reverse: bool, result: Any) -> Any:
    """For the references, one step after the other: `step(x_t, *state)`; a sequence that has ended keeps its state, and gives 0."""
    *batch, length, _ = x.shape
    first = tuple(jnp.zeros((*batch, h), result) if part is None else part.astype(result) for part in state)
    alive = jnp.ones((length, *batch), bool) if lengths is None else jnp.arange(length).reshape(-1, *(1 for _ in batch)) < lengths

    def both(state, at):
        x, alive = at
        new = tuple(jnp.where(alive[..., None], a, b).astype(result) for a, b in zip(step(x, *state), state, strict=True))
        return new, jnp.where(alive[..., None], new[0], 0)

    last, hs = jax.lax.scan(both, first, (jnp.moveaxis(x, -2, 0), alive), reverse=reverse)
    return jnp.moveaxis(hs, 0, -2), last
