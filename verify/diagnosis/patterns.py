"""Patterns of the error of one cotangent: what is it instead of what it should be? Each returns a sentence, or None."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from verify.diagnosis.evidence import Evidence
from verify.diagnosis.factors import constant_ratio
from verify.observation import MIX
from verify.tolerance import EPS

ZERO = "it is zero everywhere"
SEVERAL = 3  # different numbers, of which an order is no accident
CLEAR = 1e-3  # two factors that differ by more are two
SMALL = 1e-3  # an error, relative to the size of what is wrong, that a missing term or factor seldom leaves


def zero(e: Evidence, leaf: int) -> str | None:
    if e.got[leaf].size and not e.got[leaf].any() and e.want[leaf].any():
        why = "the rule leaves out the tangent of" if e.observation.call.forward_rules else "the backward returns None or zeros for"
        return f"{ZERO}: {why} an argument that matters"
    return None


def lumped(e: Evidence, leaf: int) -> str | None:
    """What belongs to two arguments is given to one of them."""
    for other, name in enumerate(e.names):
        alike = other != leaf and e.got[other].shape == e.got[leaf].shape
        if alike and not e.got[other].any() and e.want[other].any() and e.same(e.got[leaf], e.want[leaf] + e.want[other]):
            own = e.names[leaf]
            if e.observation.call.forward_rules:
                return f"it is the right one and that of {name} together: the tangent of {own} stands where that of {name} is wanted"
            return f"it is the right one and that of {name} together, which itself is zero: both terms are given to {own}"
    return None


def not_finite(e: Evidence, leaf: int) -> str | None:
    bad = ~np.isfinite(e.got[leaf]) & np.isfinite(e.want[leaf])
    if bad.any():
        return f"it is NaN or infinite in {int(bad.sum())} of {bad.size} elements where the derivative is finite"
    return None


def ignores_cotangent(e: Evidence, leaf: int) -> str | None:
    runs = e.observation.measured[0].runs
    first, other = (np.asarray(runs[key]["rule"][leaf], np.float64) for key in ("base", "other"))
    if e.observation.exact_program is None:
        return None
    ones = [np.ones_like(ct) for ct in e.cotangents]
    summed = e.observation.exact_program(e.observation.diff, e.observation.rest, ones)["reference"][leaf]
    if np.array_equal(first, other) and first.any():
        if e.same(first, summed):
            return "it ignores the upstream cotangent: it equals the gradient for a cotangent of all ones (a loss that sums the output)"
        return "it ignores the upstream cotangent: two different cotangents give the same result"
    return None


def not_linear(e: Evidence, leaf: int) -> str | None:
    runs = e.observation.measured[0].runs
    base, other, mix = (np.asarray(runs[key]["rule"][leaf], np.float64) for key in ("base", "other", "mix"))
    zero = np.asarray(runs["zero"]["rule"][leaf], np.float64)
    if zero.any():
        return "it has a term that is not multiplied by the upstream cotangent: it is not zero for a zero cotangent"
    if not e.same(base + MIX * other, mix):
        off = float(np.max(np.abs(base + MIX * other - mix)) / np.max(np.abs(mix), initial=1e-300))
        if off < 10 * SMALL:
            return f"it is linear in the upstream cotangent up to {off:.1g} of its size only: {_rounded(off)}"
        return "it is not linear in the upstream cotangent, as every derivative is: something clips, squares, rounds or takes a sign"
    return None


def permuted(e: Evidence, leaf: int) -> str | None:
    for other, name in enumerate(e.names):
        if other != leaf and e.same(e.got[leaf], e.want[other]) and e.want[other].any() and not e.same(e.want[leaf], e.want[other]):
            why = (
                "what lies between the two is left out"
                if e.same(e.got[other], e.want[other])
                else "the backward returns its cotangents in the wrong order"
            )
            return f"it equals the cotangent of {name}: {why}"
    return None


def conjugate(e: Evidence, leaf: int) -> str | None:
    """Complex arguments are pairs (real, imaginary) here."""
    got, want = e.got[leaf], e.want[leaf]
    if leaf in e.observation.call.call.pair_leaves and e.same(got, want * np.array([1.0, -1.0])):
        return "it is the complex conjugate of the right cotangent (JAX's convention has no conjugation in a VJP)"
    return None


def transposed(e: Evidence, leaf: int) -> str | None:
    got, want = e.got[leaf], e.want[leaf]
    if got.ndim >= 2 and got.shape[-1] == got.shape[-2] > 1 and e.same(got, np.swapaxes(want, -1, -2)):
        return "it is the transpose of the right cotangent"
    return None


def reduced(e: Evidence, leaf: int) -> str | None:
    """A bias-like cotangent: the upstream cotangent summed over some axes. Over which?"""
    got, want = e.got[leaf], e.want[leaf]
    for ct in e.cotangents:
        right = next((axes for axes, value in sums(ct, want.shape) if e.same(value, want)), None)
        if right is None:
            continue
        for axes, value in sums(ct, got.shape):
            if e.same(value, got) and axes != right:
                return f"it sums the upstream cotangent over {_axes(axes)} where {_axes(right)} is wanted"
        if len(right) == 1:
            partial = np.cumsum(np.moveaxis(ct, right[0], 0), axis=0)[:-1]
            for k, value in enumerate(partial.reshape(len(partial), *want.shape)):
                if e.same(value, got):
                    first = f"first {k + 1}" if k else "first"
                    return f"it sums only the {first} of {ct.shape[right[0]]} entries of the upstream cotangent along {_axes(right)}"
        count = np.prod([ct.shape[axis] for axis in right])
        if right and e.same(got * count, want):
            return f"it is the mean of the upstream cotangent over {_axes(right)} where the sum is wanted"
        for index in range(ct.shape[0] if ct.ndim > want.ndim else 0):
            if e.same(ct[index], got):
                return f"it takes one row of the upstream cotangent where the sum over {_axes(right)} is wanted"
    return None


def spread(e: Evidence, leaf: int) -> str | None:
    """A sum over an axis that the argument has: each element has what belongs to all of them."""
    got, want = e.got[leaf], e.want[leaf]
    long = [axis for axis in range(want.ndim) if want.shape[axis] > 1]
    for axes in (axes for count in range(1, len(long) + 1) for axes in itertools.combinations(long, count)):
        total = want.sum(axis=axes, keepdims=True)
        for value, what in ((total, "sum"), (want.mean(axis=axes, keepdims=True), "mean")):
            if value.any() and e.same(got, np.broadcast_to(value, want.shape)):
                return (
                    f"each of its elements is the {what} of the right ones along an axis that the argument itself has (over {_axes(axes)})"
                )
    return None


def right_sum(e: Evidence, leaf: int) -> str | None:
    for ct in e.cotangents:
        if (right := next((axes for axes, value in sums(ct, e.want[leaf].shape) if e.same(value, e.want[leaf])), None)) is not None:
            return f"the right one is the upstream cotangent{f' summed over {_axes(right)}' if right else ''}"
    return None


def sums(ct: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    for count in range(ct.ndim + 1):
        for axes in itertools.combinations(range(ct.ndim), count):
            value = ct.sum(axis=axes)
            if value.size == int(np.prod(shape)):
                yield axes, value.reshape(shape)


def _axes(axes: tuple[int, ...]) -> str:
    if not axes:
        return "no axis"
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def nearly(e: Evidence, leaf: int) -> str | None:
    """Right to many digits: something is rounded, or a constant is not exact."""
    got, want = e.got[leaf], e.want[leaf]
    size = float(np.max(np.abs(want), initial=0.0))
    error = float(np.max(np.abs(got - want), initial=0.0))
    if not e.slack[leaf] < error < SMALL * size:
        return None
    coarse = next((dtype for dtype in ("float32", "float16", "bfloat16") if EPS[dtype] / 32 < error / size < EPS[dtype]), None)
    rounded = f"something is rounded (to {coarse}?)" if coarse else "something is rounded"
    return f"it is right up to {error / size:.1g} of its size: {rounded}, a constant has too few digits, a series or an iteration ends too early, or an eps stands in the wrong place"


def _rounded(error: float) -> str:
    """What a relative error looks like."""
    coarse = next((dtype for dtype in ("float32", "float16", "bfloat16") if EPS[dtype] / 32 < error < EPS[dtype]), None)
    return f"something is rounded (to {coarse}?)" if coarse else "something is rounded"


def rows(e: Evidence, leaf: int) -> str | None:
    """A factor that is one number along an axis, and another one from row to row."""
    got, want = e.got[leaf], e.want[leaf]
    if got.ndim < 2:
        return None
    for axis in range(got.ndim):
        g, w = (np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in (got, want))
        ratios = [constant_ratio(a, b) for a, b in zip(g, w, strict=True) if b.any()]
        if got.shape[axis] > 1 and len(ratios) > 1 and all(ratios) and np.ptp(np.array(ratios, float)) > CLEAR:
            return f"it is the right one times a factor that is one number along axis {axis} and differs from row to row: {_of_rows(np.array(ratios, float))}"
    return None


def _of_rows(ratios: np.ndarray) -> str:
    right = np.abs(ratios - 1) < CLEAR
    others = ratios[~right]
    if right.any() and np.ptp(others) < CLEAR:
        return f"{others[0]:.6g} in {others.size} of {ratios.size}, and 1 in the others"
    return "a norm or a count of each row"


def backwards(e: Evidence, leaf: int) -> str | None:
    got, want = e.got[leaf], e.want[leaf]
    if len(np.unique(want[want != 0])) < SEVERAL:  # a number or two are soon in each other's place
        return None
    axes = (axis for axis in range(got.ndim) if got.shape[axis] > 2 and e.same(got, np.flip(want, axis)))
    return next((f"it is the right one reversed along axis {axis}" for axis in axes), None)


def shifted(e: Evidence, leaf: int) -> str | None:
    for axis in range(e.got[leaf].ndim):
        g, w = (np.moveaxis(a, axis, 0) for a in (e.got[leaf], e.want[leaf]))
        if len(g) < 5:  # of three, a permutation is soon a shift
            continue
        if w[1:].any() and e.same(g[:-1], w[1:]):
            return f"it is the right one shifted by one along axis {axis}: each index has what belongs to the next"
        if w[:-1].any() and e.same(g[1:], w[:-1]):
            return f"it is the right one shifted by one along axis {axis}: each index has what belongs to the one before"
    return None


def elsewhere(e: Evidence, leaf: int) -> str | None:
    got, want = e.got[leaf], e.want[leaf]
    if got.size > 2 and e.same(np.sort(got, axis=None), np.sort(want, axis=None)):
        return "it holds the right numbers in the wrong places: a permutation or an index that is the other way round"
    return None


def asymmetric(e: Evidence, leaf: int) -> str | None:
    got, want = e.got[leaf], e.want[leaf]
    if got.ndim >= 2 and got.shape[-1] == got.shape[-2] > 1 and e.same((got + np.swapaxes(got, -1, -2)) / 2, want):
        return "its symmetric part is right: it is not symmetrised"
    return None


def identity(e: Evidence, leaf: int) -> str | None:
    for ct in e.cotangents:
        if ct.any() and e.same(e.got[leaf], ct):
            return "it is the upstream cotangent itself, as if the function were the identity"
    return None


def constant_error(e: Evidence, leaf: int) -> str | None:
    """An error that does not vary along an axis: a mean or a sum over that axis is missing or added."""
    error = e.got[leaf] - e.want[leaf]
    if not np.isfinite(error).all() or error.size < 2:
        return None
    for axis in range(error.ndim):
        if error.shape[axis] > 1 and e.same(error, np.broadcast_to(error.mean(axis=axis, keepdims=True), error.shape)):
            return f"the error is constant along axis {axis}: a term that is a sum or mean over axis {axis} is missing or added"
    return None
