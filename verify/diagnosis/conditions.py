"""What may be true of elements or rows: certain values of an argument, in words, and how likely luck alone makes it so.

A condition is worth saying where luck hardly separates the wrong elements from the right ones; of a single number that no random value meets, always.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from verify.diagnosis.evidence import Evidence

FEW_ROWS = 5
CHANCE = 1e-4  # of a sign or a threshold to separate as many wrong elements from as many right ones by luck
CHANCE_OF_NORM = 0.02  # rows are fewer than elements, and there are two conditions only
SURE = 1e-9  # the same of a threshold of finite errors; of none in a matrix: its diagonal may be large, too
MATRIX = 2
NEVER = 0.0  # the chance of random numbers to equal one that was named before
Arrays = Sequence[np.ndarray]  # of each case
Told = tuple[str, Callable[[np.ndarray], np.ndarray], float]  # words, what is true, the chance that luck makes it so


@dataclass(frozen=True)
class Condition:
    """In words, and the elements of each case in which it holds; or of rows, of which a wrong one may hold right elements."""

    words: str
    holds: list[np.ndarray]
    of_rows: bool = False

    def tells(self, wrong: Arrays, known: Arrays) -> bool:
        """Whether it holds exactly where something is wrong, among the elements that are known."""
        if self.of_rows:
            return all(np.array_equal(rows(h), rows(w)) for h, w in zip(self.holds, wrong, strict=True))
        return all(np.array_equal(h & k, w) for h, w, k in zip(self.holds, wrong, known, strict=True))


def separating(cases: Sequence[Evidence], leaf: int, wrong: Arrays) -> Iterator[Condition]:
    """Conditions on arguments and cotangents, those on single numbers first."""
    overflow = not any(np.isfinite(e.got[leaf][w]).any() for e, w in zip(cases, wrong, strict=True))
    of_case = [dict(aligned(e, leaf)) for e in cases]
    shared = {name: [arrays[name] for arrays in of_case] for name in of_case[0] if all(name in arrays for arrays in of_case)}
    pairs = list(itertools.combinations([name for name in cases[0].names if name in shared], 2))
    for a, b in pairs:
        yield Condition(f"{a} equals {b}", [x == y for x, y in zip(shared[a], shared[b], strict=True)])
    for name, values in shared.items():
        whole = values[0].dtype.kind in "iu"
        limits = CHANCE, CHANCE if overflow or whole else SURE * all(v.ndim < MATRIX for v in values)
        for told, limit in zip((_of_values(values, wrong), _thresholds(values, wrong)), limits, strict=True):
            yield from (Condition(f"{name} {words}", [holds(v) for v in values]) for words, holds, luck in told if luck < limit)
        if whole and sum(_units(values, wrong)) >= FEW_ROWS:
            yield from (Condition(f"{name} {words}", holds) for words, holds in _of_indices(cases, values))
    for a, b in pairs:
        differences = [x - y for x, y in zip(shared[a], shared[b], strict=True)]
        for words, holds, luck in _signs(differences, wrong):
            if luck < CHANCE:
                words = words.replace("negative", f"below {b}").replace("positive", f"above {b}").replace("not 0", f"not {b}")
                yield Condition(f"{a} {words}", [holds(v) for v in differences])
        for words, holds, luck in _thresholds(differences, wrong):
            if luck < SURE:
                yield Condition(f"{a} - {b} {words}", [holds(v) for v in differences])
    clauses = [dict(_clauses(e, leaf)) for e in cases]
    for words in clauses[0] if sum(rows(w).size for w in wrong) >= FEW_ROWS else ():
        if all(words in arrays for arrays in clauses):
            yield Condition(words, [arrays[words] for arrays in clauses], of_rows=True)
    yield from _of_norms(cases, leaf, wrong)


def aligned(e: Evidence, leaf: int) -> Iterator[tuple[str, np.ndarray]]:
    """Arguments and cotangents of the cotangent's shape, the argument itself first, or of its first or last axes."""
    shape = e.got[leaf].shape
    for name, values in _named(e, leaf):
        if (values.ndim or not shape) and values.shape == shape[len(shape) - values.ndim :]:
            yield name, np.broadcast_to(values, shape)
        if 0 < values.ndim < len(shape) and values.shape == shape[: values.ndim]:
            yield f"{name} at its row", _along_rows(values, shape)


def rows(elements: np.ndarray) -> np.ndarray:
    """Which rows have such an element."""
    return np.asarray(elements.any(-1)) if elements.ndim else elements


def _named(e: Evidence, leaf: int) -> list[tuple[str, np.ndarray]]:
    diff = e.observation.diff
    named = [(e.names[leaf], diff[leaf])]
    named += [(name, x) for k, (name, x) in enumerate(zip(e.names, diff, strict=True)) if k != leaf]
    named += [(f"upstream cotangent {k}" if k else "the upstream cotangent", ct) for k, ct in enumerate(e.cotangents)]
    return named + [(name, x) for name, x in e.others if isinstance(x, np.ndarray)]


def _clauses(e: Evidence, leaf: int) -> Iterator[tuple[str, np.ndarray]]:
    """What may be true of whole rows: zeros in one of an argument, or an index that names it."""
    shape = e.got[leaf].shape
    for name, values in _named(e, leaf):
        if values.ndim > 1 and values.shape[:-1] == shape[: values.ndim - 1]:
            empty = "False" if values.dtype == bool else "0"
            yield f"the whole row of {name} is {empty}", _along_rows(np.asarray(~values.any(-1)), shape)
            if values.dtype.kind == "f":
                yield f"the row of {name} holds a 0", _along_rows(np.asarray((values == 0).any(-1)), shape)
                yield f"the row of {name} holds more than one 0", _along_rows(np.asarray((values == 0).sum(-1) > 1), shape)
    for name, values in e.others:
        if not (isinstance(values, np.ndarray) and values.dtype.kind == "i" and shape and values.size) or np.max(np.abs(values)) > shape[0]:
            continue
        index, flat = np.arange(shape[0])[:, None], values.reshape(-1)
        yield f"{name} names its row by a negative number", _along_rows((flat == index - shape[0]).any(1), shape)
        yield f"{name} names its row more than once", _along_rows(((flat % shape[0]) == index).sum(1) > 1, shape)
        yield f"{name} names its row", _along_rows(((flat % shape[0]) == index).any(1), shape)


def _of_norms(cases: Sequence[Evidence], leaf: int, wrong: Arrays) -> Iterator[Condition]:
    """Of rows whose norm lies above or below some border."""
    shapes = [e.got[leaf].shape for e in cases]
    for k, name in enumerate(cases[0].names):
        values = [e.observation.diff[k] for e in cases]
        if all(v.ndim > 1 and v.shape[:-1] == shape[: v.ndim - 1] for v, shape in zip(values, shapes, strict=True)):
            norms = [np.sqrt((v * v).sum(-1)) for v in values]
            of_row = [np.asarray(w.reshape(*norm.shape, -1).any(-1)) for w, norm in zip(wrong, norms, strict=True)]
            for words, holds, luck in _thresholds(norms, of_row):
                if luck < CHANCE_OF_NORM and not words.endswith("magnitude"):
                    found = [_along_rows(holds(norm), shape) for norm, shape in zip(norms, shapes, strict=True)]
                    yield Condition(f"the norm of its row of {name} {words}", found, of_rows=True)


def _along_rows(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)


def _units(values: Arrays, wrong: Arrays) -> tuple[int, int]:
    """How many different values are wrong, and how many right. A case that is wrong or right as a whole is one: that has other reasons."""
    bad = good = 0
    for v, w in zip(values, wrong, strict=True):
        mixed = w.any() and not w.all()
        if mixed and v.dtype.kind in "iu":  # whole numbers repeat
            bad, good = bad + int(rows(w).sum()), good + int((~rows(w)).sum())
            continue
        bad += len(np.unique(v[w])) if mixed else int(w.any())
        good += len(np.unique(v[~w])) if mixed else int(w.size > 0 and not w.any())
    return bad, good


def _of_values(values: Arrays, wrong: Arrays) -> Iterator[Told]:
    if values[0].dtype == bool:
        mixed = sum(int(w.any() and not w.all()) * w.size for w in wrong)
        yield "is True", lambda v: v, 2.0**-mixed
        yield "is False", lambda v: ~v, 2.0**-mixed
        return
    yield "is 0", lambda v: v == 0, NEVER
    yield from _signs(values, wrong)
    hit = np.unique(np.concatenate([v[w] for v, w in zip(values, wrong, strict=True)]))
    if len(hit) == 1 and values[0].dtype.kind == "f" and (float(hit[0]).is_integer() or sum(int(w.sum()) for w in wrong) > 1):
        yield f"is {hit[0]:.6g}", lambda v: v == hit[0], NEVER


def _signs(values: Arrays, wrong: Arrays) -> Iterator[Told]:
    luck = 2.0 ** -sum(_units(values, wrong))
    yield "is negative", lambda v: v < 0, luck
    yield "is positive", lambda v: v > 0, luck
    yield "is not positive", lambda v: v <= 0, luck
    yield "is not negative", lambda v: v >= 0, luck
    yield "is not 0", lambda v: v != 0, luck


def _thresholds(values: Arrays, wrong: Arrays) -> Iterator[Told]:
    if values[0].dtype == bool:
        return
    bad, good = _units(values, wrong)
    luck = 1 / math.comb(bad + good, bad)
    hit, missed = (np.concatenate([v[w if which else ~w] for v, w in zip(values, wrong, strict=True)]) for which in (True, False))
    for words, of in (("", lambda v: v), (" in magnitude", np.abs)):
        for more in (True, False):
            edge = border(of(hit), of(missed), more)
            least = f"at {'least' if more else 'most'} {edge:.6g}{words}" if words else f"{edge:.6g} or {'more' if more else 'less'}"
            yield f"is {least}", lambda v, of=of, more=more, edge=edge: of(v) >= edge if more else of(v) <= edge, luck


def border(hit: np.ndarray, missed: np.ndarray, more: bool) -> float:
    """The number of the fewest digits that may separate what is hit from what is missed; the hit one next to it, where they are not apart."""
    inside = float(np.min(hit)) if more else float(np.max(hit))
    beyond = missed[missed < inside] if more else missed[missed > inside]
    if not beyond.size:
        return inside
    outside = float(np.max(beyond)) if more else float(np.min(beyond))
    return roundest(inside, outside)


def roundest(inside: float, outside: float) -> float:
    """The number of the fewest digits between two numbers, which may be the first and not the second."""
    low, high = sorted((inside, outside))
    for digits in range(1, 7):
        for number in (inside, (inside + outside) / 2):
            rounded = float(f"{number:.{digits}g}")
            if low <= rounded <= high and rounded != outside:
                return rounded
    return inside


def _of_indices(cases: Sequence[Evidence], values: Arrays) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Of whole numbers that count something: beyond a size of the case, or the number of another element, too."""
    sizes = [e.observation.case.sizes for e in cases]
    for name in sizes[0]:
        if all(isinstance(of.get(name), int) for of in sizes):
            yield f"is {name} or more, which is no index", [v >= of[name] for v, of in zip(values, sizes, strict=True)]  # type: ignore[operator]
    for side, words in (
        (0, "the number of another element, too"),
        (1, "repeated by a later element"),
        (-1, "that of an earlier element, too"),
    ):
        yield f"is {words}", [_repeated(v, side) for v in values]


def _repeated(values: np.ndarray, side: int) -> np.ndarray:
    """Whether a number of a vector is found again in it: anywhere (0), later (1), or earlier (-1). Of whole rows, where they hold one number each."""
    first = values.reshape(len(values), -1)[:, :1] if values.size else values.reshape(len(values), 0)
    if not (values.size and np.array_equal(np.broadcast_to(first, (len(values), values[0].size)), values.reshape(len(values), -1))):
        return np.zeros(values.shape, bool)
    order = np.arange(len(values))[None] - np.arange(len(values))[:, None]
    found = ((first == first.T) & (order * side > 0 if side else order != 0)).any(1)
    return _along_rows(found, values.shape)
