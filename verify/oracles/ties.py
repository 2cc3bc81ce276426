"""Equal values apart, in many orders: of 16 zeros any one may be the median, and what picks one of them has a kink in each.

A random direction makes an element the median of its row once in 16 times, so some never show their jump. Here each of them takes each rank in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verify.engine import Program
from verify.oracles.sides import Around
from verify.tolerance import KINK_JUMP, SIDE_STEPS
from verify.values import largest

MOST_RANKS = 64  # of longer axes, as many orders evenly spread


def apart(
    program: Program, diff: list[np.ndarray], rest: list[Any], cts: list[np.ndarray], wants: Sequence[Any], around: list[Around]
) -> list[Around]:
    """What these orders show beside the other directions; nothing is computed where no two values are equal, or nothing jumps."""
    values = np.concatenate([x.reshape(-1) for x in diff])
    if (
        not any(one.shared.any() or one.wider.any() or (one.high > one.low).any() for one in around)
        or np.unique(values).size == values.size
    ):
        return around
    found = list(around)
    typical = largest(values[np.isfinite(values)]) or 1.0
    steps = [SIDE_STEPS[0] * np.where(x == 0, typical, np.abs(x)) for x in diff]  # no small one leaves its neighbourhood
    for order in _orders(diff):
        gradient = program([x + step * ranks for x, step, ranks in zip(diff, steps, order, strict=True)], rest, cts)["reference"]
        for leaf, (got, want) in enumerate(zip(gradient, wants, strict=True)):
            one = found[leaf]
            with np.errstate(invalid="ignore"):
                jumps = np.abs(got - want) > KINK_JUMP * max(largest(want), largest(got))
            found[leaf] = replace(
                one,
                low=np.where(jumps, np.minimum(one.low, got), one.low),
                high=np.where(jumps, np.maximum(one.high, got), one.high),
                wider=one.wider | jumps,
            )
    return found


def _orders(diff: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """A rank between -1 and 1 for each element, along one axis (from the last) or by argument; each rotation of the ranks."""
    if len(diff) > 1:
        for turn in range(len(diff)):
            yield [np.full(x.shape, ((leaf + turn) % len(diff)) * 2 / len(diff) - 1) for leaf, x in enumerate(diff)]
    for axis in range(-1, -1 - max((x.ndim for x in diff), default=0), -1):
        longest = max(x.shape[axis] for x in diff if x.ndim >= -axis)
        for turn in range(0, longest, -(-longest // MOST_RANKS)):
            yield [_ranks(x, axis, turn) if x.ndim >= -axis else np.zeros_like(x) for x in diff]


def _ranks(x: np.ndarray, axis: int, turn: int) -> np.ndarray:
    size = x.shape[axis]
    ranks = (np.arange(size) + turn) % max(size, 1) * 2 / max(size, 1) - 1
    return np.broadcast_to(ranks.reshape(-1, *(1,) * (-1 - axis)), x.shape)
