"""Which elements of one cotangent are wrong, where that is a pattern: a tail, one index of an axis, a side of the diagonal. Each returns a sentence, or None."""

from __future__ import annotations

import numpy as np

from verify.diagnosis.evidence import Evidence

SINGLE = "only index"
BLOCK = 8  # the smallest size of a block that a kernel may have


def where(e: Evidence, leaf: int) -> str | None:
    """Which elements are wrong, where that is a pattern, and in which case that was seen."""
    sentence, case = _where(e, leaf), e.observation.case
    return f"{sentence} (at {case.describe()})" if sentence and case.sizes else sentence


def late(e: Evidence, leaf: int) -> str | None:
    """The same where it is the tail of an axis, as behind the last block of a kernel."""
    return where(e, leaf) if _late(e.wrong_elements(leaf)) else None


def _late(wrong: np.ndarray) -> str | None:
    for axis in range(wrong.ndim):
        hits = np.flatnonzero(wrong.any(axis=tuple(a for a in range(wrong.ndim) if a != axis)))
        if len(hits) and hits[0] >= BLOCK and len(hits) == wrong.shape[axis] - hits[0]:
            return f"it is wrong only from index {hits[0]} of axis {axis} on (of {wrong.shape[axis]})"
    return None


def _of_diagonal(wrong: np.ndarray) -> str | None:
    """A mask that is off by one, or of the other triangle."""
    if wrong.ndim < 2 or min(wrong.shape[-2:]) < 3:
        return None
    rows, columns = np.indices(wrong.shape[-2:])
    hits = wrong.reshape(-1, *wrong.shape[-2:]).any(axis=0)
    for words, side in (("on", rows == columns), ("above", rows < columns), ("below", rows > columns)):
        missed = [np.count_nonzero(np.any(side, axis) & ~np.any(hits, axis)) for axis in (0, 1)]
        if not (hits & ~side).any() and max(missed) <= 1:  # every row and column but one: no corner that one window touches
            return f"it is wrong {words} the diagonal of the last two axes only"
    return None


def _where(e: Evidence, leaf: int) -> str | None:
    got, want = e.got[leaf], e.want[leaf]
    size = np.max(np.abs(want), initial=0.0)
    wrong = ~(np.abs(got - want) <= e.loose * max(size, 1e-300))
    count = int(wrong.sum())
    if got.ndim == 0 or count == 0 or wrong.all():
        return None
    if late := _late(wrong):
        return late
    if count == 1:
        return f"only one of {wrong.size} elements is wrong: {e.names[leaf]}{np.argwhere(wrong)[0].tolist()}"
    if side := _of_diagonal(wrong):
        return side
    for axis in range(wrong.ndim):
        lines = wrong.any(axis=tuple(a for a in range(wrong.ndim) if a != axis))
        hits = np.flatnonzero(lines)
        if len(hits) == wrong.shape[axis] or not len(hits):
            continue
        if len(hits) == 1:
            return f"{SINGLE} {hits[0]} of axis {axis} is wrong (of {wrong.shape[axis]})"
        if hits[0] > 0 and len(hits) == wrong.shape[axis] - hits[0]:
            return f"it is wrong only from index {hits[0]} of axis {axis} on (of {wrong.shape[axis]})"
        if hits[-1] < wrong.shape[axis] - 1 and len(hits) == hits[-1] + 1:
            return f"it is wrong only up to index {hits[-1]} of axis {axis} (of {wrong.shape[axis]})"
    return None
