"""Which elements are wrong: those with certain values of an argument (zeros, negative ones, masked ones, large ones)?

The elements of several cases are looked at together, passing ones among them: in a case of one element everything is wrong "exactly where x is negative".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from verify.diagnosis.evidence import Evidence

FEW = 3  # elements that are right, beside those where a value is exactly 0
THRESHOLD = tuple(f"is {begin}" for begin in ("at", *"-0123456789"))  # of finite errors less readily blamed
ROW = "row"  # in what is said of rows: some elements of a wrong one may be right
FEW_ROWS = 5
SEVERAL = 6  # wrong elements, of which a sign is no accident
CHANCE = 1e-4  # of a sign or a threshold to separate as many wrong elements from as many right ones by luck
SURE = 1e-9  # the same of a threshold of finite errors; of none in a matrix: its diagonal may be large, too
MATRIX = 2
EXACT = 1e-6  # relative spread of a ratio that counts as one number
Condition = tuple[str, Callable[[np.ndarray], np.ndarray], float]


def at_values(cases: Sequence[Evidence], leaf: int) -> str | None:
    """A sentence that says where the cotangent of one leaf is wrong, and what it is there; or None."""
    wrong = [e.wrong_elements(leaf) for e in cases]
    count, total = sum(int(w.sum()) for w in wrong), sum(w.size for w in wrong)
    if total - count < FEW or not count:
        return None
    for words, holds in _separating(cases, leaf, wrong):
        of_rows = ROW in words
        judged = [h & e.known[leaf] for h, e in zip(holds, cases, strict=True)] if not of_rows else holds
        if all(np.array_equal(_rows(h), _rows(w)) if of_rows else np.array_equal(h, w) for h, w in zip(judged, wrong, strict=True)):
            return f"it is wrong exactly where {words}{_there(cases, leaf, wrong)}"
    return None


def in_common(cases: Sequence[Evidence], leaf: int) -> str | None:
    """What the wrong elements share, where some right ones share it, too: a sign of an argument, one factor; or None."""
    wrong = [e.wrong_elements(leaf) for e in cases]
    count, total = sum(int(w.sum()) for w in wrong), sum(w.size for w in wrong)
    if count < FEW or count == total:
        return None
    there = _there(cases, leaf, wrong)
    aligned = [dict(_aligned(e, leaf)) for e in cases]
    for name in [name for name in aligned[0] if count >= SEVERAL and all(name in arrays for arrays in aligned)]:
        values = [arrays[name] for arrays in aligned]
        if values[0].dtype == bool:
            continue
        for words, holds in (("is 0", lambda v: v == 0), ("is negative", lambda v: v < 0), ("is positive", lambda v: v > 0)):
            hits = [holds(v) for v in values]
            told = [not h.all() for h, w in zip(hits, wrong, strict=True) if w.any()]  # where all elements are so, it says nothing
            if all(told) and all(h[w].all() for h, w in zip(hits, wrong, strict=True)):
                return f"it is wrong only where {name} {words}{there}, and not everywhere there"
    if not there.startswith(", and "):
        return None
    what = there.removeprefix(", and ").removesuffix(" there")
    return f"where it is wrong, it {what if what.startswith('has') else f'is {what}'}"


def _separating(cases: Sequence[Evidence], leaf: int, wrong: Sequence[np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Conditions in words, with the elements of each case in which they hold, if luck alone hardly makes them separate wrong from right."""
    overflow = not any(np.isfinite(e.got[leaf][w]).any() for e, w in zip(cases, wrong, strict=True))
    aligned = [dict(_aligned(e, leaf)) for e in cases]
    arguments = [name for name in cases[0].names if all(name in arrays for arrays in aligned)]
    for a, b in itertools.combinations(arguments, 2):
        yield f"{a} equals {b}", [arrays[a] == arrays[b] for arrays in aligned]
    for name in [name for name in aligned[0] if all(name in arrays for arrays in aligned)]:
        values = [arrays[name] for arrays in aligned]
        for words, holds, luck in _conditions(values, wrong):
            limit = CHANCE if overflow or not words.startswith(THRESHOLD) else SURE * all(v.ndim < MATRIX for v in values)
            if luck < limit or words == "is 0":
                yield f"{name} {words}", [holds(v) for v in values]
    rows = sum(_rows(w).size for w in wrong)
    clauses = [dict(_clauses(e, leaf)) for e in cases]
    for words in [words for words in clauses[0] if rows >= FEW_ROWS and all(words in arrays for arrays in clauses)]:
        yield words, [arrays[words] for arrays in clauses]


def _aligned(e: Evidence, leaf: int) -> Iterator[tuple[str, np.ndarray]]:
    """Arguments and cotangents of the cotangent's shape, the argument itself first, or of its first or last axes."""
    shape = e.got[leaf].shape
    for name, values in _named(e, leaf):
        if (values.ndim or not shape) and values.shape == shape[len(shape) - values.ndim :]:
            yield name, np.broadcast_to(values, shape)
        if 0 < values.ndim < len(shape) and values.shape == shape[: values.ndim]:
            yield f"{name} at its row", _along_rows(values, shape)


def _named(e: Evidence, leaf: int) -> list[tuple[str, np.ndarray]]:
    diff = e.observation.diff
    named = [(e.names[leaf], diff[leaf])]
    named += [(name, x) for k, (name, x) in enumerate(zip(e.names, diff, strict=True)) if k != leaf]
    named += [(f"upstream cotangent {k}" if k else "the upstream cotangent", ct) for k, ct in enumerate(e.cotangents)]
    return named + [(name, x) for name, x in e.others if isinstance(x, np.ndarray)]


def _clauses(e: Evidence, leaf: int) -> Iterator[tuple[str, np.ndarray]]:
    """What may be true of whole rows: nothing but zeros in one of an argument, or an index that names it."""
    shape = e.got[leaf].shape
    for name, values in _named(e, leaf):
        if values.ndim > 1 and values.shape[:-1] == shape[: values.ndim - 1]:
            empty = "False" if values.dtype == bool else "0"
            yield f"the whole row of {name} is {empty}", _along_rows(np.asarray(~values.any(-1)), shape)
    for name, values in e.others:
        if (
            not isinstance(values, np.ndarray)
            or values.dtype.kind != "i"
            or not shape
            or not values.size
            or np.max(np.abs(values)) > shape[0]
        ):
            continue
        rows = np.arange(shape[0])[:, None]
        flat = values.reshape(-1)
        yield f"{name} names its row by a negative number", _along_rows((flat == rows - shape[0]).any(1), shape)
        yield f"{name} names its row more than once", _along_rows(((flat % shape[0]) == rows).sum(1) > 1, shape)
        yield f"{name} names its row", _along_rows(((flat % shape[0]) == rows).any(1), shape)


def _rows(elements: np.ndarray) -> np.ndarray:
    """Which rows have such an element."""
    return np.asarray(elements.any(-1)) if elements.ndim else elements


def _along_rows(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)


def _units(values: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many different values are wrong, and how many right. A case that is wrong or right as a whole is one: that has other reasons."""
    bad = good = 0
    for v, w in zip(values, wrong, strict=True):
        mixed = w.any() and not w.all()
        if mixed and v.dtype.kind in "iu":  # whole numbers repeat
            bad, good = bad + int(_rows(w).sum()), good + int((~_rows(w)).sum())
            continue
        bad += len(np.unique(v[w])) if mixed else int(w.any())
        good += len(np.unique(v[~w])) if mixed else int(w.size > 0 and not w.any())
    return bad, good


def _conditions(values: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> Iterator[Condition]:
    bad, good = _units(values, wrong)
    by_sign = 2.0 ** -(bad + good)
    if values[0].dtype == bool:
        mixed = sum(int(w.any() and not w.all()) * w.size for w in wrong)
        yield "is True", lambda v: v, 2.0**-mixed
        yield "is False", lambda v: ~v, 2.0**-mixed
        return
    yield "is 0", lambda v: v == 0, 0
    yield "is negative", lambda v: v < 0, by_sign
    yield "is positive", lambda v: v > 0, by_sign
    yield "is not positive", lambda v: v <= 0, by_sign
    yield "is not negative", lambda v: v >= 0, by_sign
    yield "is not 0", lambda v: v != 0, by_sign
    hit = np.concatenate([v[w] for v, w in zip(values, wrong, strict=True)])
    lowest, highest = float(np.min(hit)), float(np.max(hit))
    smallest, largest = float(np.min(np.abs(hit))), float(np.max(np.abs(hit)))
    luck = 1 / math.comb(bad + good, bad)
    yield f"is {lowest:.4g} or more", lambda v: v >= lowest, luck
    yield f"is {highest:.4g} or less", lambda v: v <= highest, luck
    yield f"is at least {smallest:.4g} in magnitude", lambda v: np.abs(v) >= smallest, luck
    yield f"is at most {largest:.4g} in magnitude", lambda v: np.abs(v) <= largest, luck


def _there(cases: Sequence[Evidence], leaf: int, wrong: Sequence[np.ndarray]) -> str:
    """What the cotangent is where it is wrong, if that is one thing."""
    got, want = (np.concatenate([getattr(e, side)[leaf][w] for e, w in zip(cases, wrong, strict=True)]) for side in ("got", "want"))
    finite = np.isfinite(want)
    if not finite.any():
        return ""
    got, want = got[finite], want[finite]
    if not np.isfinite(got).any():
        return ", and not finite there"
    if not got.any():
        return ", and 0 there"
    if not want.any():
        return ", where it should be 0"
    if not want.all() or not np.isfinite(got).all():
        return ""
    ratio = got / want
    middle = float(np.median(ratio))
    if ratio.size < 2 or np.max(np.abs(ratio - middle)) > EXACT * abs(middle):
        return ""
    return ", and has the wrong sign there" if abs(middle + 1) < EXACT else f", and {middle:.6g} times the right one there"
