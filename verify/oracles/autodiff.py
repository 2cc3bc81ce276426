"""JAX differentiates the reference in float64; its rounding noise is measured, not guessed (see `verify.tolerance`).

At a kink (relu at 0, a tie of max) autodiff picks one of many subgradients, and so may the rule. A kink shows as a gradient that jumps between the two
sides of the inputs, however near: there the oracle knows the interval between the one-sided gradients, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verify import tolerance
from verify.noise import jittered, rounding_noise
from verify.observe import Measured, Observation, natural_scale, sides_of
from verify.records import Estimate
from verify.slopes import direction_through
from verify.tolerance import EPS, FAR_SIDE, FLOOR_ULPS, KINK_HALVES, KINK_JUMP, SINGULAR_DRIFT, STEEPEST, STEP_RATIO, abstain, noise_bound
from verify.values import all_finite, largest, rms


def gradient(observation: Observation, measured: Measured) -> Estimate:
    """The cotangent of each argument leaf, and how far from it a right rule may lie when run in `measured.dtype`."""
    assert observation.truth is not None
    scales: list[Any] = [observation.scale(leaf) for leaf in range(len(observation.diff))]
    wants = observation.truth["base"]["reference"]
    if "around" not in observation.found:
        observation.found["around"] = _look_around(observation, observation.diff, observation.cts["base"], wants, observation.sides, scales)
    dtype = coarsest(observation, measured)
    if dtype != "float64":
        scales = [observation.natural(leaf, most=1.0) * _steepness(x) for leaf, x in enumerate(observation.diff)]
    visible = [observation.visible(leaf) for leaf in range(len(observation.diff))]
    sound = all_finite(observation.truth["base"]["reference_out"])
    return _estimate(wants, measured.noise, observation.sides, observation.found["around"], scales, visible, dtype, sound)


def _steepness(x: np.ndarray) -> np.ndarray:
    """How much larger an element's gradient may be than the array's typical one: a small x next to large ones (1/x, x/|x|), up to a limit."""
    typical = rms(x)
    return typical / np.clip(np.abs(x), typical / STEEPEST, typical) if typical > 0 else np.ones(x.shape)


def gradient_at(observation: Observation, diff: list[np.ndarray], cts: list[np.ndarray]) -> Estimate:
    """The same at other float64 inputs of the same shapes: the case's program runs again."""
    program, rest, dtype = observation.exact_program, observation.rest, coarsest(observation, observation.measured[0])
    assert program is not None
    base = program(diff, rest, cts)
    moved = [jittered(program, observation.case, k, observation.reference_limit, diff, rest, cts) for k in range(tolerance.JITTERS)]
    sides = sides_of(program, direction_through(observation.case, diff), diff, rest, cts)
    scales = [max(natural_scale(x, cts, base["reference_out"]), observation.hidden) for x in diff]
    kinks = _look_around(observation, diff, cts, base["reference"], sides, scales)
    return _estimate(
        base["reference"],
        rounding_noise(base, moved, stress=observation.case.stress),
        sides,
        kinks,
        scales,
        [natural_scale(x, cts, base["reference_out"]) if observation.case.stress else scale for x, scale in zip(diff, scales, strict=True)],
        dtype,
        all_finite(base["reference_out"]),
    )


def stacked(estimates: Sequence[Estimate]) -> Estimate:
    """Several examples along a new first axis."""
    return Estimate(
        value=tuple(np.stack(leaf) for leaf in zip(*(e.value for e in estimates), strict=True)),
        error=tuple(np.stack(leaf) for leaf in zip(*(e.error for e in estimates), strict=True)),
    )


def primal(observation: Observation, measured: Measured) -> Estimate:
    """The value of each output, likewise."""
    assert observation.truth is not None
    value = tuple(observation.truth["base"]["reference_out"])
    dtype = coarsest(observation, measured)
    inputs = max((largest(x) for x in observation.diff), default=0.0)
    nothing = (
        FLOOR_ULPS * EPS["float64"] * inputs if dtype == "float64" else 0.0
    )  # a value that is 0 by cancellation is small beside the inputs
    errors = []
    for want, noise in zip(value, measured.out_noise, strict=True):
        bound = noise_bound(want, noise, largest(want), dtype)
        errors.append(abstain(want, np.where(np.abs(want) <= nothing, bound + nothing, bound), dtype, max(largest(want), inputs)))
    return Estimate(value=value, error=tuple(errors))


def at_kink(observation: Observation) -> bool:
    """Whether the inputs lie on a kink of the reference, or on a point where its autodiff is wrong."""
    if observation.truth is None:
        return False
    around = (
        _sides(observation.sides, leaf, want, observation.scale(leaf)) for leaf, want in enumerate(observation.truth["base"]["reference"])
    )
    return any(bool(sides.jumps.any() or sides.singular.any()) for sides in around)


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


def _look_around(
    observation: Observation,
    diff: list[np.ndarray],
    cts: list[np.ndarray],
    wants: Sequence[Any],
    around: Sequence[Any],
    scales: Sequence[float],
) -> list[Around]:
    """Half of the elements stay and the others move, then the other half; nothing is computed where the first direction shows no kink."""
    seen = [_sides(around, leaf, want, scale) for leaf, (want, scale) in enumerate(zip(wants, scales, strict=True))]
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
                found[leaf] = _widened(found[leaf], seen[leaf], _sides(others, leaf, want, scale), half[leaf], want)
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


def _estimate(
    wants: Sequence[Any],
    noises: Sequence[Any],
    around: Sequence[Any],
    kinks: Sequence[Around],
    scales: Sequence[float],
    visible: Sequence[float],
    dtype: str,
    sound: bool,
) -> Estimate:
    """At a jump the noise is that of inputs moved across it, and the interval between the sides says more.

    Where anything jumps (a tie), a common limit of the sides elsewhere is a coincidence of the direction, and says nothing. Where the function has no
    finite value (not `sound`), a gradient that is not finite is nobody's mistake.
    """
    values, errors = [], []
    seen = [_sides(around, leaf, want, scale) for leaf, (want, scale) in enumerate(zip(wants, scales, strict=True))]
    tie = any(bool(sides.jumps.any()) for sides in seen)
    for want, noise, scale, size, sides, kink in zip(wants, noises, scales, visible, seen, kinks, strict=True):
        singular, jumps = sides.singular & ~kink.wider & ~kink.doubtful, sides.jumps | kink.wider
        value = np.where(singular, sides.limit, want)
        size = size if np.any(want) else scale  # a derivative that is 0 everywhere hides nothing
        error = abstain(value, noise_bound(value, noise, scale, dtype), dtype, size)
        error = np.where(singular, np.inf if tie else error + sides.drift, error)
        error = np.where((np.isfinite(want) | sound) & ~kink.doubtful, error, np.inf)
        middle, half = (kink.low + kink.high) / 2, (kink.high - kink.low) / 2
        at_jump = abstain(middle, noise_bound(middle, 0 * middle, scale, dtype), dtype, size) + half + sides.drift
        values.append(np.where(jumps, middle, value))
        errors.append(np.where(jumps, np.where(kink.shared, np.inf, at_jump), error))
    return Estimate(value=tuple(values), error=tuple(errors))


def jumps_along(observation: Observation, direction: list[np.ndarray]) -> bool:
    """Whether the reference's gradient jumps anywhere when the inputs move along the direction."""
    assert observation.truth is not None
    assert observation.exact_program is not None
    around = sides_of(observation.exact_program, direction, observation.diff, observation.rest, observation.cts["base"])
    wants = observation.truth["base"]["reference"]
    seen = [_sides(around, leaf, want, observation.scale(leaf)) for leaf, want in enumerate(wants)]
    return any(bool(sides.jumps.any() or sides.singular.any() or not np.isfinite(sides.low).all()) for sides in seen)


def sides_at(observation: Observation, leaf: int) -> Sides:
    """The one-sided gradients at the case's inputs."""
    assert observation.truth is not None
    return _sides(observation.sides, leaf, observation.truth["base"]["reference"][leaf], observation.scale(leaf))


def _sides(around: Sequence[Any], leaf: int, want: np.ndarray, scale: float) -> Sides:
    """A smooth gradient's difference between the sides shrinks with the distance; extrapolated to distance 0 it vanishes. A jump does not."""
    far_ahead, far_behind, ahead, behind = (side[leaf] for side in around)
    with np.errstate(all="ignore"):
        jump = np.abs(STEP_RATIO * (ahead - behind) - (far_ahead - far_behind)) / (STEP_RATIO - 1)
        size = np.maximum(np.maximum(np.abs(ahead), np.abs(behind)), np.abs(want))
        notable = KINK_JUMP * np.maximum(size, KINK_JUMP * scale)
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


def coarsest(observation: Observation, measured: Measured) -> str:
    """The least precise dtype among the arguments, and in the reference itself: its rounding enters every result."""
    return max((*measured.dtypes, observation.reference_limit), key=lambda name: EPS[name])
