"""Which entries of the upstream cotangent does an argument's cotangent count?

A gradient is linear in the upstream cotangent, so it is the sum of the reference's gradients for each entry along an axis alone. The rule's may be the
sum over some of them: a loop that stops too early, a tail that no block covers, the first row for all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.diagnosis.evidence import Evidence

LONGEST = 40  # of longer axes, not every length of a prefix is tried
BLOCKS = (1, 2, 4, 8, 16, 32, 64, 100, 128, 256)


def entries(e: Evidence, leaf: int) -> str | None:
    """A sentence that says which entries count, or None."""
    for output, ct in enumerate(e.cotangents):
        for axis, size in enumerate(ct.shape):
            whose = f"upstream cotangent {output}" if len(e.cotangents) > 1 else "the upstream cotangent"
            for words, chosen in _subsets(size):
                if e.same(e.got[leaf], _gradient(e, leaf, output, axis, chosen), e.slack[leaf]):
                    return f"it counts {words} of the {size} entries of {whose} along axis {axis}"
    return None


def _gradient(e: Evidence, leaf: int, output: int, axis: int, chosen: np.ndarray) -> np.ndarray:
    """The right cotangent if the other entries along one axis of an upstream cotangent were 0."""
    shape = [1] * e.cotangents[output].ndim
    shape[axis] = -1
    cts = [ct * chosen.reshape(shape) if k == output else ct for k, ct in enumerate(e.cotangents)]
    return np.asarray(e.reference(e.observation.diff, e.observation.rest, cts)[leaf])


def _subsets(size: int) -> Iterator[tuple[str, np.ndarray]]:
    """What a mistaken loop may count, and which entries these are; never all of them, never none."""
    index = np.arange(size)
    stops = range(1, size) if size <= LONGEST else sorted({*BLOCKS, *(size - size % block for block in BLOCKS), size - 1} - {0})
    for stop in stops:
        if stop < size:
            yield f"only the first {stop}" if stop > 1 else "only the first", index < stop
    if size > 1:
        yield "only the last", index == size - 1
    if size > 2:
        yield "all but the first", index > 0
    for step in range(2, min(size // 2, LONGEST) + 1):
        yield f"only one in {step}", index % step == 0
