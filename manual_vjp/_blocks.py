"""Loops over blocks of a long axis, for backward passes that never hold the whole of an intermediate array."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._rule import varied

Carry = Any
Step = Callable[[Carry, Any, int], Carry]


def over_blocks(step: Step, carry: Carry, length: int, block: int, like: tuple[Array, ...]) -> Carry:
    """`carry = step(carry, start, size)` for blocks of an axis of `length`: full ones in a loop, what is left over at the end.

    No block is padded and none computed twice, so an odd length costs no more than its share. `like` are the arrays that the steps read: under
    `jax.shard_map` the carry differs from device to device as they do.
    """
    full, rest = divmod(length, block)
    carry = jax.tree.map(lambda leaf: varied(leaf, *like), carry)
    if full == 1:
        carry = step(carry, 0, block)
    elif full:
        carry, _ = jax.lax.scan(lambda held, k: (step(held, k * block, block), None), carry, jnp.arange(full))
    return step(carry, full * block, rest) if rest else carry


def take(array: Array, start: Any, size: int, axis: int = 0) -> Array:
    """The block of `array` along `axis`."""
    return jax.lax.dynamic_slice_in_dim(array, start, size, axis)


def put(array: Array, block: Array, start: Any, axis: int = 0) -> Array:
    """`array` with the block in its place."""
    return jax.lax.dynamic_update_slice_in_dim(array, block, start, axis)
