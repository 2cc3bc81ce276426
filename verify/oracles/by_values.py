"""Where autodiff of the reference is in doubt, the function's own values may know its derivative.

(exp(x) - exp(y)) / (x - y) with a branch at x = y is smooth, but its formula cancels near the tie, and autodiff of the branch gives the whole derivative to x: the
gradient seems to jump, as at a kink. Differences over long steps see through that. They are believed only if the function is smooth along random directions, too,
and its slope there is what the single elements add up to: then there is no kink, and one derivative alone is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from verify.cases import Case
from verify.engine import Program
from verify.oracles.finite_difference import slope
from verify.slopes import direction_through, slope_along
from verify.tolerance import CANNOT_TELL, DOUBTED, EPS, FIRST_STEP, LONG_RATIO, LONG_STEPS, NEAR_0

DIRECTIONS = 2
STEPS = FIRST_STEP * LONG_RATIO ** -np.arange(LONG_STEPS)


def partials(
    program: Program, case: Case, diff: list[np.ndarray], rest: list[Any], cts: list[np.ndarray], wants: Sequence[np.ndarray], doubted: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]] | None:  # fmt: skip
    """The derivative by each doubted element and a bound on its error, per leaf (`wants` and 0 elsewhere); None where the values do not tell."""
    chosen = [(leaf, tuple(index)) for leaf, doubt in enumerate(doubted) for index in np.argwhere(doubt)]
    if not 0 < len(chosen) <= DOUBTED:
        return None
    center = program(diff, rest, cts)["reference_out"]

    def along(v: list[np.ndarray]) -> tuple[float, float]:
        return slope(slope_along(program, diff, rest, cts, "reference_out", "float64", v, center, STEPS))

    directions = [direction_through(case, diff, k) for k in range(DIRECTIONS)]
    known = [along(v) for v in directions]
    if not all(_clear(want, error, v, wants) for (want, error), v in zip(known, directions, strict=True)):
        return None
    values, errors = [np.array(want, np.float64) for want in wants], [np.zeros(np.shape(want)) for want in wants]
    for leaf, index in chosen:
        single = [np.zeros_like(x) for x in diff]
        single[leaf][index] = step = directions[0][leaf][index]
        rise, error = along(single)
        if not _clear(
            rise, error, single, wants
        ):  # a kink, though random directions may show none (the middle one of three equal arguments)
            return None
        values[leaf][index], errors[leaf][index] = rise / step, error / abs(step)
    for (want, error), v in zip(known, directions, strict=True):
        total = sum(float(np.sum(g * move)) for g, move in zip(values, v, strict=True))
        unsure = sum(float(np.sum(e * np.abs(move))) for e, move in zip(errors, v, strict=True))
        if not abs(total - want) <= error + unsure + EPS["float64"] ** 0.5 * _size(values, v):
            return None
    return list(zip(values, errors, strict=True))


def denied(
    program: Program, case: Case, diff: list[np.ndarray], rest: list[Any], cts: list[np.ndarray], gradient: Sequence[np.ndarray]
) -> list[np.ndarray] | None:
    """Which elements are so small that the gradient there is not what the values say, if any: their slope along steps that leave the neighbourhood of 0.

    A formula that cancels near 0 ((1 - cos x) / x at 1e-10) is wrong there without any jump, and its autodiff with it. A narrow feature that is real, such as that of
    sqrt(x^2 + 1e-12), bends the values between the steps, and then they deny nothing.
    """
    small = [np.abs(x) < NEAR_0 for x in diff]
    if not any(some.any() for some in small):
        return None
    rng = case.rng("away")
    v = [
        np.where(some, rng.choice((-1.0, 1.0), size=x.shape) * rng.uniform(0.5, 1.0, size=x.shape), 0.0)
        for some, x in zip(small, diff, strict=True)
    ]
    center = program(diff, rest, cts)["reference_out"]
    want, error = slope(slope_along(program, diff, rest, cts, "reference_out", "float64", v, center, STEPS))
    total = sum(float(np.sum(g * move)) for g, move in zip(gradient, v, strict=True))
    wrong = _clear(want, error, v, gradient) and abs(total - want) > error + CANNOT_TELL**2 * _size(gradient, v)
    return small if wrong else None


def _clear(want: float, error: float, v: list[np.ndarray], gradient: Sequence[np.ndarray]) -> bool:
    """Whether a slope is known well beside what it is the sum of: half a jump of the derivative is part of its error."""
    return bool(error <= CANNOT_TELL * max(abs(want), _size(gradient, v)))


def _size(gradient: Sequence[np.ndarray], v: Sequence[np.ndarray]) -> float:
    return sum(float(np.sum(np.abs(np.where(np.isfinite(g), g, 0.0) * move))) for g, move in zip(gradient, v, strict=True))
