"""Backpropagation through time for layers that say what one step does.

The products with inputs and weights are one for each block of steps, which is in the caches then: only that of the state with w_h is one for each step.
In a step each gate has arrays of its own: XLA's CPU backend makes scalar loops of slices of one array, which take three times as long.
"""

from __future__ import annotations

import functools as ft
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._blocks import put, take
from manual_vjp._rule import match
from manual_vjp._sequences import Arrays, State, Walk

Gates = list[Array]
Residuals = tuple[Arrays, Array | None, State]  # arguments, hs or None, states between blocks


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One step of a layer, in which u = x w_x + b and v = h w_h + b_h are given: lists of arrays, one for each gate.

    gates: how many.
    step: `(u, v, state) -> state` after it, h first.
    slopes: `(products, start, before, after, alive) -> ` what `pull` needs, for all steps of a block at once. `products()` are u and v; h is known before and
        after each step, the other parts of the state at the start of the block; steps that are not alive (None: all are) change no state.
    pull: `(slopes, cotangents of the state after a step) -> ` those of u, of v, and of the state before it without what comes through v. Elementwise.
    """

    gates: int
    step: Callable[[Gates, Gates, State], State]
    slopes: Callable[..., Any]
    pull: Callable[[Any, State], Any]

    def split(self, a: Array | None) -> list[Any]:
        """Of weights, a bias or products, the part of each gate."""
        return [None] * self.gates if a is None else jnp.split(a, self.gates, axis=-1)


def where(alive: Array | None, a: Array, b: Array | int) -> Array:
    return a if alive is None else jnp.where(alive, a, b)


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
    w_h, b_h = cell.split(wide.w_h), cell.split(wide.b_h)

    def step(state, at):
        u, alive = at
        new = cell.step(u, [_plus(state[0] @ w, b) for w, b in zip(w_h, b_h, strict=True)], state)
        return tuple(where(alive, *pair) for pair in zip(new, state, strict=True)), where(alive, new[0], 0)

    u = cell.split(_plus(_inputs(walk, wide, alive, place, size) @ wide.w_x, wide.b))
    return jax.lax.scan(step, state, (u, alive))


def backward(cell: Cell, walk: Walk, residuals: Residuals, cts: tuple[Array, State]) -> tuple[Arrays]:
    """The cotangents of the arguments."""
    arrays, hs, starts = residuals
    hs_ct, last_ct = cts
    wide, compute = arrays.wide(), arrays.compute
    w_x_t, w_h_t = wide.w_x.T, [w.T for w in cell.split(wide.w_h)]  # here and not in each step: products like it
    sums = [None if a is None else jnp.zeros(a.shape, compute) for a in arrays[1:5]]

    def block(carry, place, size):
        state_ct, x_ct, sums = carry
        around = walk.alive(wide.lengths, place - 1, size + 1)
        earlier, alive = (None, None) if around is None else (around[0], around[1:])
        start = tuple(take(part, walk.number(place), 1)[0] for part in starts)
        if hs is None:
            _, after = _steps(cell, walk, wide, start, place, size)
        else:
            after, start = walk.take(hs, place, size), (_h_before(walk, wide, hs, place, earlier), *start)
        before = jnp.concatenate([start[0][None], where(None if alive is None else alive[:-1], after[:-1], start[0])])
        x = _inputs(walk, wide, alive, place, size)

        def products():
            return cell.split(_plus(x @ wide.w_x, wide.b)), cell.split(_plus(before @ wide.w_h, wide.b_h))

        slopes = cell.slopes(products, start[1:], before, after, alive)

        def step(state_ct, at):
            slopes, h_ct, alive = at
            state_ct = state_ct[0] + where(alive, h_ct, 0), *state_ct[1:]
            _, v_ct, (h_ct, *rest) = cell.pull(slopes, state_ct)
            before_ct = ft.reduce(jnp.add, (ct @ w for ct, w in zip(v_ct, w_h_t, strict=True)), h_ct), *rest
            return tuple(where(alive, *pair) for pair in zip(before_ct, state_ct, strict=True)), state_ct

        at = slopes, walk.take(hs_ct, place, size).astype(compute), alive
        state_ct, states_ct = jax.lax.scan(step, state_ct, at, reverse=True)
        u_ct, v_ct = (where(alive, jnp.concatenate(cts, axis=-1), 0) for cts in cell.pull(slopes, states_ct)[:2])
        biases_ct = (None if b is None else jnp.sum(ct, axis=(0, 1)) for b, ct in ((wide.b, u_ct), (wide.b_h, v_ct)))
        own = [_outer(x, u_ct), _outer(before, v_ct), *biases_ct]
        return state_ct, walk.put(x_ct, u_ct @ w_x_t, place), jax.tree.map(jnp.add, sums, own)

    carry = tuple(ct.astype(compute) for ct in last_ct), jnp.zeros(arrays.x.shape, compute), sums
    state_ct, x_ct, (w_x_ct, w_h_ct, b_ct, b_h_ct) = walk.back(block, carry, jax.tree.leaves((arrays, hs_ct, last_ct)))
    state_ct = tuple(None if part is None else ct for ct, part in zip(state_ct, arrays.state, strict=True))
    result = Arrays(x_ct, w_x_ct, w_h_ct, b_ct, b_h_ct, state_ct, None)
    return (jax.tree.map(match, result, arrays._replace(lengths=None)),)


def _inputs(walk: Walk, wide: Arrays, alive: Array | None, place: Any, size: int) -> Array:
    """x in a block, 0 where a sequence has ended: whatever stands there, NaN perhaps, takes part in no sum."""
    return where(alive, walk.take(wide.x, place, size).astype(wide.compute), 0)


def _h_before(walk: Walk, wide: Arrays, hs: Array, place: Any, alive: Array | None) -> Array:
    """h before the step at `place`: the first one, until a step was alive. `alive`: where the step before it was, if there is one."""
    first = jnp.zeros((), hs.dtype) if wide.state[0] is None else wide.state[0]
    return jnp.where((place > 0) & (True if alive is None else alive), walk.take(hs, jnp.maximum(place - 1, 0), 1)[0], first)


def _plus(product: Array, b: Array | None) -> Array:
    return product if b is None else product + b


def _outer(a: Array, ct: Array) -> Array:
    """The cotangent of weights. On CPU along one axis, as XLA copies the operands of a product over two; elsewhere a batch may be split over devices."""

    def along_one(a: Array, ct: Array) -> Array:
        count = math.prod(a.shape[:-1])
        return a.reshape(count, a.shape[-1]).T @ ct.reshape(count, ct.shape[-1])

    return jax.lax.platform_dependent(a, ct, cpu=along_one, default=ft.partial(jnp.tensordot, axes=((0, 1), (0, 1))))
