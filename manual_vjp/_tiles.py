"""The logits of attention as tiles: what is allowed in them, and loops that hold only a few of them at a time (`_tile_places`: which there are).

A unit is a batch and a key head, with the rows of all query heads that share it. Arrays of units are (U, blocks, rows of a block, H) for queries and (U, columns, H)
for keys; a tile is the product of a block of rows, (U, R, H), with one of columns, (U, bs, H), or with two of them where all is allowed: products are faster for it.
Units go through in groups, and for each group the tiles one after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._rule import dtypes, varied
from manual_vjp._tile_places import count, places

AT_ONCE = 2  # so many units at a time, and more of them where tiles are small: one for each core of a small machine

Own = tuple[Any, Any, int, int]  # of a group of units: its first batch and key head, and how many of each


class Tile(NamedTuple):
    """Where a tile is: its block of rows, its first block of columns and how many of them; and whether it is at an edge, where position alone forbids some of it."""

    i: Any
    j: Any
    wide: int
    edge: bool


Step = Callable[[Any, Tile], Any]  # carry, tile -> carry


@dataclass(frozen=True)
class Tiles:
    """Sizes as in `attention`; bt, bs: rows of one head and columns of a tile. bias, mask: (B, K, G, T, S), padded, any of which may be 1."""

    b: int
    k: int
    g: int
    t: int
    s: int
    bt: int
    bs: int
    at_once: int
    result: jnp.dtype
    compute: jnp.dtype
    bias: Array | None
    mask: Array | None
    query_lengths: Array | None
    key_lengths: Array | None
    is_causal: bool
    window: tuple[int, int] | None

    @classmethod
    def of(cls, query, key, value, bias, mask, query_lengths, key_lengths, static) -> "Tiles":
        _, is_causal, window, (bt, bs), target = static
        b, t, n, _ = query.shape
        s, k = key.shape[1:3]
        g = n // max(k, 1)
        result, compute = dtypes(query, key, value)
        at_once = max(AT_ONCE * target**2 // max(g * bt * bs, 1), 1)
        bias, mask = (None if a is None else _padded(_split_heads(a, k), bt, bs) for a in (bias, mask))
        return cls(b, k, g, t, s, bt, bs, at_once, result, compute, bias, mask, query_lengths, key_lengths, is_causal, window)

    # Arrays of units

    def rows(self, a: Array) -> Array:
        """(b, T, k * G, H) as (u, blocks, G * bt, H), with u = b * k."""
        (b, _, n, h), blocks = a.shape, count(self.t, self.bt)
        k = n // max(self.g, 1)
        a = _pad(a.astype(self.compute), 1, blocks * self.bt).reshape(b, blocks, self.bt, k, self.g, h)
        return a.transpose(0, 3, 1, 4, 2, 5).reshape(b * k, blocks, self.g * self.bt, h)

    def unrows(self, a: Array, own: Own) -> Array:
        (b, k), h, blocks = own[2:], a.shape[-1], count(self.t, self.bt)
        a = a.reshape(b, k, blocks, self.g, self.bt, h).transpose(0, 2, 4, 1, 3, 5)
        return a.reshape(b, blocks * self.bt, k * self.g, h)[:, : self.t]

    def columns(self, a: Array) -> Array:
        """(b, S, k, H) as (u, blocks * bs, H)."""
        (b, _, k, h), size = a.shape, count(self.s, self.bs) * self.bs
        return _pad(a.astype(self.compute), 1, size).transpose(0, 2, 1, 3).reshape(b * k, size, h)

    def uncolumns(self, a: Array, own: Own) -> Array:
        return a.reshape(*own[2:], *a.shape[1:]).transpose(0, 2, 1, 3)[:, : self.s]

    def take(self, a: Array, tile: Tile, axis: int = 1) -> Array:
        """The columns of a tile."""
        return jax.lax.dynamic_slice_in_dim(a, tile.j * self.bs, tile.wide * self.bs, axis)

    def put(self, a: Array, block: Array, tile: Tile) -> Array:
        """`a` with those columns replaced."""
        return jax.lax.dynamic_update_slice_in_dim(a, block, tile.j * self.bs, 1)

    # Loops

    def over_units(self, function: Callable[..., Any], carry: Any, *arrays: Array) -> Any:
        """`(carry, *results) = function(own, carry, *parts)` for each group of units; arrays and results are (B, length, heads, H), parts of them a group's.

        On CPU a group at a time, so that what it makes stays in the caches. Accelerators take all units at once, which also splits over devices.
        """
        heads = _divisor(self.k, self.at_once)
        batches = _divisor(self.b, self.at_once // heads) if heads == self.k else 1
        across = self.k // max(heads, 1)
        groups = self.b // max(batches, 1) * across
        carry = jax.tree.map(lambda leaf: varied(leaf, *arrays), carry)

        def whole(carry: Any, *arrays: Array) -> Any:
            return function((0, 0, self.b, self.k), carry, *arrays)

        def grouped(carry: Any, *arrays: Array) -> Any:
            shapes = jax.eval_shape(whole, carry, *arrays)[1:]

            def body(held: Any, index: Any) -> Any:
                own = (index // across * batches, index % across * heads, batches, heads)
                inner, *parts = function(own, held[0], *(self._part(a, own) for a in arrays))
                places = [(own[0], 0, own[1] * (a.shape[2] // self.k), 0) for a in held[1]]
                return (
                    inner,
                    [
                        jax.lax.dynamic_update_slice(a, part, place, allow_negative_indices=False)
                        for a, part, place in zip(held[1], parts, places, strict=True)
                    ],
                ), None

            empty = [varied(jnp.zeros(shape.shape, shape.dtype), *arrays) for shape in shapes]
            (carry, results), _ = jax.lax.scan(body, (carry, empty), jnp.arange(groups))
            return carry, *results

        if groups <= 1:
            return whole(carry, *arrays)
        return jax.lax.platform_dependent(carry, *arrays, cpu=grouped, default=whole)

    def _part(self, a: Array, own: Own) -> Array:
        each = a.shape[2] // self.k  # query heads of a key head, or 1
        sizes = (own[2], a.shape[1], own[3] * each, a.shape[3])
        return jax.lax.dynamic_slice(a, (own[0], 0, own[1] * each, 0), sizes, allow_negative_indices=False)

    def over_tiles(self, step: Step, carry: Any, *like: Array) -> Any:
        """Every tile in which something is allowed: the inner ones first, then those at an edge. `like`: see `_blocks.over_blocks`."""
        kinds = places(self.t, self.s, self.bt, self.bs, self.is_causal, self.window)
        if sum(map(len, kinds.values())) == 1:
            ((wide, edge), ((i, j), *_)), *_ = kinds.items()
            return step(carry, Tile(i, j, wide, edge))
        carry = jax.tree.map(lambda leaf: varied(leaf, *like), carry)
        for (wide, edge), where in kinds.items():
            carry, _ = jax.lax.scan(lambda held, ij: (step(held, Tile(ij[0], ij[1], wide, edge)), None), carry, jnp.asarray(where))  # noqa: B023
        return carry

    # Inside of a tile

    def masked(self, logits: Array, own: Own, tile: Tile, transposed: bool = False) -> Array:
        """Logits (u, rows, columns), or (u, columns, rows) if transposed, with the bias added and -inf where not allowed."""
        allowed = self._allowed(own, tile)
        if self.bias is None and allowed is None:
            return logits
        order = (0, 1, 4, 2, 3) if transposed else (0, 1, 2, 3, 4)
        sizes = (*own[2:], self.g, self.bt, tile.wide * self.bs)
        spread = logits.reshape([sizes[axis] for axis in order])
        if self.bias is not None:
            spread += self._part_of(self.bias, own, tile).astype(logits.dtype).transpose(order)
        if allowed is not None:
            spread = jnp.where(allowed.transpose(order), spread, -jnp.inf)
        return spread.reshape(logits.shape)

    def _allowed(self, own: Own, tile: Tile) -> Array | None:
        """What is allowed in a tile, (b, k, G, bt, columns) or 1 for any of these; None for all. In an inner tile only lengths and mask can forbid."""
        rows = tile.i * self.bt + jnp.arange(self.bt)[:, None]
        columns = tile.j * self.bs + jnp.arange(tile.wide * self.bs)
        allowed: Array | None = None
        if tile.edge:
            allowed = columns < self.s
            if self.is_causal:
                allowed = _both(allowed, rows >= columns)
            if self.window is not None:
                allowed = _both(allowed, columns >= rows - self.window[0])
                allowed = _both(allowed, columns <= rows + self.window[1])
        if self.query_lengths is not None:
            allowed = _both(allowed, rows < _own_lengths(self.query_lengths, own))
        if self.key_lengths is not None:
            allowed = _both(allowed, columns < _own_lengths(self.key_lengths, own))
        if self.mask is not None:
            allowed = _both(allowed, self._part_of(self.mask, own, tile))
        return None if allowed is None else allowed.reshape((1,) * (5 - allowed.ndim) + allowed.shape)

    def _place(self, a: Array, own: Own, tile: Tile) -> tuple[list[Any], list[int]]:
        """Where the tile's part of bias or mask begins, and its sizes; 0 and 1 along axes of size 1."""
        starts = (own[0], own[1], 0, tile.i * self.bt, tile.j * self.bs)
        sizes = (own[2], own[3], self.g, self.bt, tile.wide * self.bs)
        one = [size == 1 for size in a.shape]
        return [0 if flat else start for flat, start in zip(one, starts, strict=True)], [
            1 if flat else size for flat, size in zip(one, sizes, strict=True)
        ]

    def _part_of(self, a: Array, own: Own, tile: Tile) -> Array:
        return jax.lax.dynamic_slice(a, *self._place(a, own, tile), allow_negative_indices=False)

    def no_bias_ct(self) -> Array | None:
        return None if self.bias is None else jnp.zeros(self.bias.shape, self.compute)

    def add_to_bias(self, bias_ct: Array | None, l_ct: Array, own: Own, tile: Tile) -> Array | None:
        """The tile's cotangent (u, columns, rows), summed over what the bias was broadcast along, added in its place."""
        if bias_ct is None:
            return None
        starts, sizes = self._place(bias_ct, own, tile)
        part = l_ct.reshape(*own[2:], l_ct.shape[1], self.g, self.bt).transpose(0, 1, 3, 4, 2)
        stretched = tuple(axis for axis, size in enumerate(sizes) if size == 1)
        part = self._part_of(bias_ct, own, tile) + jnp.sum(part, axis=stretched, keepdims=True)
        return jax.lax.dynamic_update_slice(bias_ct, part, starts, allow_negative_indices=False)

    def whole_bias_ct(self, bias_ct: Array, bias: Array) -> Array:
        """(B, K, G, T, S) as (B, N, T, S), without what was padded."""
        return bias_ct[..., : bias.shape[2], : bias.shape[3]].reshape(bias.shape)


def at(a: Array, i: Any) -> Array:
    """`a[:, i]`, as a slice. (Told that i is not negative, XLA makes a program that is 2 % slower on CPU.)"""
    return jax.lax.dynamic_index_in_dim(a, i, 1, keepdims=False)


def put_at(a: Array, block: Array, i: Any) -> Array:
    """`a` with `a[:, i]` replaced."""
    return jax.lax.dynamic_update_index_in_dim(a, block, i, 1)


def _both(allowed: Array | None, condition: Array) -> Array:
    return condition if allowed is None else allowed & condition


def _own_lengths(lengths: Array, own: Own) -> Array:
    """(b, 1, 1, 1, 1)."""
    return jax.lax.dynamic_slice_in_dim(lengths, own[0], own[2], allow_negative_indices=False)[:, None, None, None, None]


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is not above `most`, at least 1."""
    return max((d for d in range(1, min(number, max(most, 1)) + 1) if number % d == 0), default=1)


def _pad(a: Array, axis: int, size: int) -> Array:
    return a if a.shape[axis] == size else jnp.pad(a, [(0, size - n if d == axis else 0) for d, n in enumerate(a.shape)])


def _padded(a: Array, bt: int, bs: int) -> Array:
    for axis, size in ((3, bt), (4, bs)):
        if a.shape[axis] > 1:
            a = _pad(a, axis, count(a.shape[axis], size) * size)
    return a


def _split_heads(a: Array, k: int) -> Array:
    """(b, n, t, s) as (b, k, g, t, s), and (b, 1, t, s) as (b, 1, 1, t, s)."""
    k = min(k, a.shape[1])
    return a.reshape(a.shape[0], k, a.shape[1] // max(k, 1), *a.shape[2:])
