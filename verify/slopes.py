"""Values of the function along a direction, for finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify import engine, tolerance
from verify.cases import Case
from verify.values import rms

STEP_SIZES = tolerance.FIRST_STEP * tolerance.STEP_RATIO ** -np.arange(tolerance.STEPS)


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
    return tuple(slope_along(program, diff, rest, ct, key, dtype, v, center) for v in directions(case, diff, every))


def slope_along(
    program: Callable[..., Mapping[str, list[Any]]], diff: list[Any], rest: list[Any], ct: list[Any], key: str, dtype: str, direction: list[np.ndarray], center: list[Any],
    steps: np.ndarray = STEP_SIZES,
) -> Slope:  # fmt: skip
    """The values of output `key` along one direction; `center` are those at the inputs."""
    rounding = tolerance.EPS[dtype] * float(np.sqrt(sum(np.sum((c * o) ** 2) for c, o in zip(ct, center, strict=True))))

    def rise(step: float) -> float:
        out = program([x + step * v for x, v in zip(diff, direction, strict=True)], rest, ct)[key]
        return float(sum(np.sum(c * (o - o0)) for c, o, o0 in zip(ct, out, center, strict=True)))

    with np.errstate(invalid="ignore", over="ignore"):
        ahead, behind = (np.array([rise(sign * step) for step in steps]) for sign in (1, -1))
    return Slope(direction=direction, steps=steps, rounding=rounding, ahead=ahead, behind=behind)


def direction_through(case: Case, diff: list[np.ndarray], k: int = 0) -> list[np.ndarray]:
    """One random direction through all arguments; other ones for other k.

    Steps are relative to each element, so that it keeps its sign and its magnitude; an element at 0 moves by a twentieth of the typical size.
    """
    rng = case.rng(f"directions{k or ''}")
    full = []
    for x in diff:
        move = np.where(x == 0, 0.05 * (rms(x) or 1.0), np.abs(x))
        full.append(
            np.where(np.isfinite(x), move, 0.0) * np.where(rng.integers(2, size=x.shape), 1.0, -1.0) * rng.uniform(0.5, 1.0, size=x.shape)
        )
    return full


def directions(case: Case, diff: list[np.ndarray], every: bool) -> list[list[np.ndarray]]:
    """One direction through all arguments; with `every`, single elements too, as no other oracle looks at them."""
    full = direction_through(case, diff)
    directions = [full]
    if every:
        rng = case.rng("elements")
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
