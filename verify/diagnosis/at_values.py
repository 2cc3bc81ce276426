"""Which elements are wrong: those with certain values of an argument (zeros, negative ones, masked ones, large ones)?

The elements of several cases are looked at together, passing ones among them: in a case of one element everything is wrong "exactly where x is negative".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verify.diagnosis.conditions import aligned, separating
from verify.diagnosis.evidence import Evidence

FEW = 3  # elements that are right, beside those where a value is exactly 0
SEVERAL = 6  # wrong elements, of which a sign is no accident
SHOULD_BE_0 = ", where it should be 0"
EXACT = 1e-6  # relative spread of a ratio that counts as one number


def at_values(cases: Sequence[Evidence], leaf: int) -> str | None:
    """A sentence that says where the cotangent of one leaf is wrong, and what it is there; or None."""
    wrong = [e.wrong_elements(leaf) for e in cases]
    known = [e.known[leaf] & ((e.want[leaf] != 0) | (e.got[leaf] != 0)) for e in cases]  # what is 0 anyway may be so for another reason
    if not any(w.any() for w in wrong) or sum(int((k & ~w).sum()) for k, w in zip(known, wrong, strict=True)) < FEW:
        return None
    for condition in separating(cases, leaf, wrong):
        if condition.tells(wrong, known):
            return f"it is wrong exactly where {condition.words}{value_there(cases, leaf, wrong)}"
    return None


def only_at(cases: Sequence[Evidence], leaf: int) -> str | None:
    """The one or two values that an argument has at all wrong elements, though some right ones have them, too, as a kink's derivative may be many; or None."""
    wrong = [e.wrong_elements(leaf) for e in cases]
    if sum(int(w.sum()) for w in wrong) < FEW:
        return None
    for name, values in _shared(cases, leaf):
        hit, often = np.unique(np.concatenate([v[w] for v, w in zip(values, wrong, strict=True)]), return_counts=True)
        varied = all(np.unique(v).size > 1 for v, w in zip(values, wrong, strict=True) if w.any())
        if values[0].dtype.kind == "f" and len(hit) <= 2 and often.min() > 1 and varied:
            either = " or ".join(f"{value + 0.0:.6g}" for value in hit)  # + 0: never "-0"
            everywhere = all(w[np.isin(v, hit)].all() for v, w in zip(values, wrong, strict=True))
            how, rest = ("exactly", "") if everywhere else ("only", ", and not everywhere there")
            return f"it is wrong {how} where {name} is {either}{value_there(cases, leaf, wrong)}{rest}"
    return None


def in_common(cases: Sequence[Evidence], leaf: int) -> str | None:
    """What the wrong elements share, where some right ones share it, too: a sign of an argument, one factor; or None."""
    wrong = [e.wrong_elements(leaf) for e in cases]
    count, total = sum(int(w.sum()) for w in wrong), sum(w.size for w in wrong)
    if count < FEW or count == total:
        return None
    there = value_there(cases, leaf, wrong)
    for name, values in _shared(cases, leaf) if count >= SEVERAL else ():
        if values[0].dtype == bool:
            continue
        for words, holds in (("is 0", lambda v: v == 0), ("is negative", lambda v: v < 0), ("is positive", lambda v: v > 0)):
            hits = [holds(v) for v in values]
            told = [not h.all() for h, w in zip(hits, wrong, strict=True) if w.any()]  # where all elements are so, it says nothing
            if all(told) and all(h[w].all() for h, w in zip(hits, wrong, strict=True)):
                return f"it is wrong only where {name} {words}{there}, and not everywhere there"
    if there == SHOULD_BE_0:
        return "it is not 0 in some elements where it should be"
    if not there.startswith(", and "):
        return None
    what = there.removeprefix(", and ").removesuffix(" there")
    return f"where it is wrong, it {what if what.startswith('has') else f'is {what}'}"


def _shared(cases: Sequence[Evidence], leaf: int) -> list[tuple[str, list[np.ndarray]]]:
    """Arguments and cotangents that lie along this one in every case."""
    of_case = [dict(aligned(e, leaf)) for e in cases]
    return [(name, [arrays[name] for arrays in of_case]) for name in of_case[0] if all(name in arrays for arrays in of_case)]


def value_there(cases: Sequence[Evidence], leaf: int, wrong: Sequence[np.ndarray]) -> str:
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
        return SHOULD_BE_0
    if not want.all() or not np.isfinite(got).all():
        return ""
    ratio = got / want
    middle = float(np.median(ratio))
    if ratio.size < 2 or np.max(np.abs(ratio - middle)) > EXACT * abs(middle):
        return ""
    return ", and has the wrong sign there" if abs(middle + 1) < EXACT else f", and {middle:.6g} times the right one there"
