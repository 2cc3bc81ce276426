"""Values of the function along a direction, for finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify import engine, tolerance
from verify.cases import Case


@dataclass(frozen=True, kw_only=True)
class Slope:
    """<cotangent, f(x + step v) - f(x)> along one direction v, for each step ahead and behind.

    rounding: the noise of each of these numbers, in the same units.
    """

    direction: list[np.ndarray]
    steps: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray
    rounding: float


def slopes_along(
    program: engine.Program, case: Case, diff: list[Any], rest: list[Any], ct: list[Any], key: str, dtype: str, every: bool
) -> tuple[Slope, ...]:
    center = program(diff, rest, ct)[key]
    rounding = tolerance.EPS[dtype] * float(np.sqrt(sum(np.sum((c * o) ** 2) for c, o in zip(ct, center, strict=True))))
    steps = tolerance.FIRST_STEP * tolerance.STEP_RATIO ** -np.arange(tolerance.STEPS)

    def rise(direction: list[np.ndarray], step: float) -> float:
        out = program([x + step * v for x, v in zip(diff, direction, strict=True)], rest, ct)[key]
        return float(sum(np.sum(c * (o - o0)) for c, o, o0 in zip(ct, out, center, strict=True)))

    with np.errstate(invalid="ignore", over="ignore"):
        return tuple(
            Slope(
                direction=v, steps=steps, rounding=rounding,
                ahead=np.array([rise(v, step) for step in steps]), behind=np.array([rise(v, -step) for step in steps]),
            )
            for v in _directions(case, diff, every)
        )  # fmt: skip


def _directions(case: Case, diff: list[np.ndarray], every: bool) -> list[list[np.ndarray]]:
    """One random direction through all arguments; with `every`, single elements too, as no other oracle looks at them.

    Steps are relative to each element, so that a positive argument stays positive; an element at 0 moves by a twentieth of the typical size.
    """
    rng = case.rng("directions")
    full = []
    for x in diff:
        finite = x[np.isfinite(x)]
        typical = float(np.sqrt(np.mean(finite**2))) if finite.size else 1.0
        move = np.abs(x) + 0.05 * (typical or 1.0)
        full.append(
            np.where(np.isfinite(x), move, 0.0) * np.where(rng.integers(2, size=x.shape), 1.0, -1.0) * rng.uniform(0.5, 1.0, size=x.shape)
        )
    directions = [full]
    if every:
        elements = [(leaf, index) for leaf, x in enumerate(diff) for index in np.ndindex(x.shape)]
        chosen = (
            elements
            if len(elements) <= tolerance.COORDINATES
            else [elements[i] for i in rng.permutation(len(elements))[: tolerance.COORDINATES]]
        )
        for leaf, index in chosen:
            single = [np.zeros_like(x) for x in diff]
            single[leaf][index] = full[leaf][index]
            directions.append(single)
    return directions
