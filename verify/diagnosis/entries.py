"""Which entries of the upstream cotangent does an argument's cotangent count?

A gradient is linear in the upstream cotangent, so it is the sum of the reference's gradients for each entry along an axis alone. The rule's may be the
sum over some of them: a loop that stops too early, a tail that no block covers, the first row for all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.diagnosis.evidence import Evidence

LONGEST = 70  # entries along an axis, each of which costs a gradient


def entries(e: Evidence, leaf: int) -> str | None:
    """A sentence that says which entries count, or None."""
    for output, ct in enumerate(e.cotangents):
        for axis, size in enumerate(ct.shape):
            if not 1 < size <= LONGEST:
                continue
            parts = np.stack([_part(e, leaf, output, axis, i) for i in range(size)])
            whose = f"upstream cotangent {output}" if len(e.cotangents) > 1 else "the upstream cotangent"
            for words, chosen in _subsets(size):
                if e.same(e.got[leaf] - e.want[leaf], -parts[~chosen].sum(0), e.slack[leaf]):
                    return f"it counts {words} of the {size} entries of {whose} along axis {axis}"
    return None


def _part(e: Evidence, leaf: int, output: int, axis: int, index: int) -> np.ndarray:
    """The right cotangent if only the entry `index` of one upstream cotangent's axis were there."""
    only = [np.zeros_like(ct) for ct in e.cotangents]
    here = (slice(None),) * axis + (index,)
    only[output][here] = e.cotangents[output][here]
    return np.asarray(e.reference(e.observation.diff, e.observation.rest, only)[leaf])


def _subsets(size: int) -> Iterator[tuple[str, np.ndarray]]:
    """What a mistaken loop may count, and which entries these are; never all of them, never none."""
    index = np.arange(size)
    yield "only the first", index == 0
    yield "only the last", index == size - 1
    yield "all but the last", index < size - 1
    yield "all but the first", index > 0
    for stop in range(2, size - 1):
        yield f"only the first {stop}", index < stop
    for step in range(2, size // 2 + 1):
        yield f"only one in {step}", index % step == 0
