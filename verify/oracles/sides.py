"""On both sides of the inputs: where the reference's gradient jumps, and what its one-sided limits say.

A kink shows as a gradient that is another one on the two sides of the inputs, however near; the interval between the sides is what a rule may choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verify.observation import Observation, sides_of
from verify.slopes import direction_through
from verify.tolerance import FAR_SIDE, KINK_FLOOR, KINK_HALVES, KINK_JUMP, SINGULAR_DRIFT, STEP_RATIO


@dataclass(frozen=True)
class Sides:
    """The gradient a little ahead of and behind the inputs, per element.

    jumps: it has different limits from both sides, and low, high enclose them and the gradient at the inputs.
    singular: the limits agree with each other and not with autodiff at the inputs; then the limit is the derivative (mean value theorem), and
        autodiff of the formula is wrong in this point (xlogy at 0, logaddexp of equals).
    drift: a bound of the error of limit, or of low and high.
    notable: what would be a jump here.
    """

    low: np.ndarray
    high: np.ndarray
    jumps: np.ndarray
    limit: np.ndarray
    drift: np.ndarray
    singular: np.ndarray
    notable: np.ndarray


@dataclass(frozen=True)
class Around:
    """What other directions than the first show of a gradient near a kink, per element.

    shared: it jumps although the element stays and others move: then the kink is not its own, and the two sides do not enclose what is right (the gradient of
        a weight behind several relus at 0 is a sum, each term of which may be there or not).
    low, high: what all directions enclose; wider: where that is more than the first one did. Of four equal values each may be one of the middle two.
    doubtful: the limit of a singular point is another one further away: the formula cancels near it ((1 - cos x) / x at 0), and nobody can tell.
    """

    shared: np.ndarray
    low: np.ndarray
    high: np.ndarray
    wider: np.ndarray
    doubtful: np.ndarray


def look_around(
    observation: Observation,
    diff: list[np.ndarray],
    cts: list[np.ndarray],
    wants: Sequence[Any],
    around: Sequence[Any],
    scales: Sequence[float],
) -> list[Around]:
    """Half of the elements stay and the others move, then the other half; nothing is computed where the first direction shows no kink."""
    seen = [
        sides_in(around, leaf, want, scale, observation.reference_limit)
        for leaf, (want, scale) in enumerate(zip(wants, scales, strict=True))
    ]
    found = [
        Around(np.zeros(np.shape(want), bool), s.low, s.high, np.zeros(np.shape(want), bool), np.zeros(np.shape(want), bool))
        for want, s in zip(wants, seen, strict=True)
    ]
    program = observation.exact_program
    if program is None or not any(sides.jumps.any() or sides.singular.any() for sides in seen):
        return found
    if any((sides.singular & np.isfinite(want)).any() for sides, want in zip(seen, wants, strict=True)):
        far = [
            program(
                [x + sign * FAR_SIDE * v for x, v in zip(diff, direction_through(observation.case, diff), strict=True)],
                observation.rest,
                cts,
            )
            for sign in (1, -1)
        ]
        for leaf, (sides, want) in enumerate(zip(seen, wants, strict=True)):
            middle = (far[0]["reference"][leaf] + far[1]["reference"][leaf]) / 2
            agrees = np.abs(middle - sides.limit) <= SINGULAR_DRIFT * np.abs(want - sides.limit)
            found[leaf] = replace(found[leaf], doubtful=sides.singular & np.isfinite(want) & ~agrees)
    rng = observation.case.rng("halves")
    for k in range(KINK_HALVES):
        direction = direction_through(observation.case, diff, k)
        moving = [rng.integers(2, size=x.shape).astype(bool) for x in diff]
        for half in (moving, [~moves for moves in moving]):
            v = [np.where(moves, move, 0.0) for moves, move in zip(half, direction, strict=True)]
            others = sides_of(program, v, diff, observation.rest, cts)
            for leaf, (want, scale) in enumerate(zip(wants, scales, strict=True)):
                found[leaf] = _widened(
                    found[leaf], seen[leaf], sides_in(others, leaf, want, scale, observation.reference_limit), half[leaf], want
                )
    return found


def _widened(found: Around, first: Sides, other: Sides, moved: np.ndarray, want: np.ndarray) -> Around:
    """Smooth gradients differ between directions by their drift; at an isolated singular point (want is not finite) the limit says what is right."""
    with np.errstate(invalid="ignore"):
        beyond = (other.low < first.low - first.notable) | (other.high > first.high + first.notable)
        other_limit = np.abs(other.limit - first.limit) > first.notable + other.drift + first.drift
        other_limit &= moved | (np.abs(other.limit - want) > first.notable)  # an element that stays repeats what autodiff says there
    wider = beyond | (other_limit & ~other.jumps & ~first.jumps & np.isfinite(want))
    return replace(
        found,
        shared=found.shared | (~moved & other.jumps),
        low=np.where(wider, np.minimum(found.low, other.low), found.low),
        high=np.where(wider, np.maximum(found.high, other.high), found.high),
        wider=found.wider | wider,
    )


def rounding_along(observation: Observation, direction: list[np.ndarray]) -> list[np.ndarray] | None:
    """How far the reference's gradient moves over the shortest steps along the direction, per element: rounding, where it is smooth. None where it jumps anywhere."""
    assert observation.truth is not None
    assert observation.exact_program is not None
    around = sides_of(observation.exact_program, direction, observation.diff, observation.rest, observation.cts["base"])
    wants = observation.truth["base"]["reference"]
    seen = [sides_in(around, leaf, want, observation.scale(leaf), observation.reference_limit) for leaf, want in enumerate(wants)]
    if any(bool(sides.jumps.any() or sides.singular.any() or not np.isfinite(sides.low).all()) for sides in seen):
        return None
    return [sides.high - sides.low for sides in seen]


def sides_at(observation: Observation, leaf: int) -> Sides:
    """The one-sided gradients at the case's inputs."""
    assert observation.truth is not None
    return sides_in(
        observation.sides, leaf, observation.truth["base"]["reference"][leaf], observation.scale(leaf), observation.reference_limit
    )


def sides_in(around: Sequence[Any], leaf: int, want: np.ndarray, scale: float, dtype: str) -> Sides:
    """A smooth gradient's difference between the sides shrinks with the distance; extrapolated to distance 0 it vanishes. A jump does not."""
    far_ahead, far_behind, ahead, behind = (side[leaf] for side in around)
    with np.errstate(all="ignore"):
        jump = np.abs(STEP_RATIO * (ahead - behind) - (far_ahead - far_behind)) / (STEP_RATIO - 1)
        size = np.maximum(np.maximum(np.abs(ahead), np.abs(behind)), np.abs(want))
        notable = np.maximum(KINK_JUMP * size, KINK_FLOOR[dtype] * scale)
        jumps = jump > notable
        near, far = (ahead + behind) / 2, (far_ahead + far_behind) / 2
        limit = near + (near - far) / (STEP_RATIO**2 - 1)
        drift = np.where(jumps, np.abs(ahead - far_ahead) + np.abs(behind - far_behind), np.abs(near - far) + np.abs(ahead - behind))
        off = np.abs(want - limit)
        settled = drift < np.where(np.isfinite(want), SINGULAR_DRIFT * off, KINK_JUMP * np.abs(limit))
        singular = ~jumps & np.isfinite(limit) & settled & ((off > notable) | ~np.isfinite(want))
    low = np.minimum(np.minimum(ahead, behind), want)
    high = np.maximum(np.maximum(ahead, behind), want)
    return Sides(low, high, jumps, limit, drift, singular, notable)
