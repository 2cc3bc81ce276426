"""Which elements are wrong: those with certain values of an argument (zeros, negative ones, masked ones, large ones)?

The elements of several cases are looked at together, passing ones among them: in a case of one element everything is wrong "exactly where x is negative".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from verify.diagnosis.evidence import Evidence

FEW = 3  # wrong and right elements that a condition on the sign must separate
MANY = 8  # the same for a threshold, which is chosen after the fact
EXACT = 1e-6  # relative spread of a ratio that counts as one number
Condition = tuple[str, Callable[[np.ndarray], np.ndarray], int]


def at_values(cases: Sequence[Evidence], leaf: int) -> str | None:
    """A sentence that says where the cotangent of one leaf is wrong, and what it is there; or None."""
    wrong = [e.wrong_elements(leaf) for e in cases]
    count, total = sum(int(w.sum()) for w in wrong), sum(w.size for w in wrong)
    aligned = [dict(_aligned(e, leaf)) for e in cases]
    for name in aligned[0] if 0 < count < total else ():
        if not all(name in arrays for arrays in aligned):
            continue
        values = [arrays[name] for arrays in aligned]
        for words, holds, enough in _conditions(values, wrong):
            if min(count, total - count) >= enough and all(np.array_equal(holds(v), w) for v, w in zip(values, wrong, strict=True)):
                return f"it is wrong exactly where {name} {words}{_there(cases, leaf, wrong)}"
    return None


def _aligned(e: Evidence, leaf: int) -> Iterator[tuple[str, np.ndarray]]:
    """Arguments and cotangents that broadcast to the cotangent's shape, the argument itself first; then what is true of whole rows of them."""
    observation, shape = e.observation, e.got[leaf].shape
    named = [(e.names[leaf], observation.diff[leaf])]
    named += [(name, x) for k, (name, x) in enumerate(zip(e.names, observation.diff, strict=True)) if k != leaf]
    named += [(f"upstream cotangent {k}" if k else "the upstream cotangent", ct) for k, ct in enumerate(e.cotangents)]
    named += [(name, x) for name, x in e.others if isinstance(x, np.ndarray)]
    for name, values in named:
        if values.ndim and values.shape[-1:] == shape[-1:] and values.ndim <= len(shape):
            try:
                yield name, np.broadcast_to(values, shape)
            except ValueError:
                continue
    for name, values in named:
        if values.ndim > 1 and values.shape[:-1] == shape[: values.ndim - 1] and len(shape) == values.ndim:
            empty = ~values.any(-1, keepdims=True)
            yield f"the whole row of {name}", np.broadcast_to(np.where(empty, 0.0, 1.0), shape)


def _conditions(values: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> Iterator[Condition]:
    if values[0].dtype == bool:
        yield "is True", lambda v: v, 1
        yield "is False", lambda v: ~v, 1
        return
    yield "is 0", lambda v: v == 0, 1
    yield "is negative", lambda v: v < 0, FEW
    yield "is positive", lambda v: v > 0, FEW
    yield "is not positive", lambda v: v <= 0, FEW
    yield "is not 0", lambda v: v != 0, FEW
    hit = np.concatenate([v[w] for v, w in zip(values, wrong, strict=True)])
    lowest, highest = float(np.min(hit)), float(np.max(hit))
    smallest, largest = float(np.min(np.abs(hit))), float(np.max(np.abs(hit)))
    yield f"is {lowest:.4g} or more", lambda v: v >= lowest, MANY
    yield f"is {highest:.4g} or less", lambda v: v <= highest, MANY
    yield f"is at least {smallest:.4g} in magnitude", lambda v: np.abs(v) >= smallest, MANY
    yield f"is at most {largest:.4g} in magnitude", lambda v: np.abs(v) <= largest, MANY


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
    if np.max(np.abs(ratio - middle)) > EXACT * abs(middle):
        return ""
    return ", and has the wrong sign there" if abs(middle + 1) < EXACT else f", and {middle:.6g} times the right one there"
