"""JAX differentiates the reference in float64; its rounding noise is measured, not guessed (see `verify.tolerance`).

At a kink (relu at 0, a tie of max) autodiff picks one of many subgradients, and so may the rule. A kink shows as a gradient that jumps between the two
sides of the inputs, however near: there the oracle knows the interval between the one-sided gradients, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verify.noise import exact_noise
from verify.observation import Measured, Observation, natural_scale, sides_of
from verify.oracles.doubt import denied, denied_at, kept_together, rough_noise, settled, with_settled, without
from verify.oracles.sides import Around, look_around, sides_at, sides_in
from verify.oracles.ties import apart
from verify.records import Estimate
from verify.slopes import direction_through
from verify.tolerance import (
    EPS,
    FLOOR_ULPS,
    LOW_FACTOR,
    LOW_ULPS,
    SATURATION,
    SINGULAR_DRIFT,
    STEEPEST,
    UNMEASURED,
    abstain,
    noise_bound,
)
from verify.values import all_finite, largest, rms, wide


def gradient(observation: Observation, measured: Measured, rough: bool = False) -> Estimate:
    """The cotangent of each argument leaf, and how far from it a right rule may lie when run in `measured.dtype`.

    `rough`, before anybody is accused in float64: allow for the reference's rounding as `noise.roughened` measures it, too, and look at ties in every order.
    """
    assert observation.truth is not None
    scales: list[Any] = [observation.scale(leaf) for leaf in range(len(observation.diff))]
    wants = observation.truth["base"]["reference"]
    if "around" not in observation.found:
        observation.found["around"] = look_around(observation, observation.diff, observation.cts["base"], wants, observation.sides, scales)
    dtype = coarsest(observation, measured)
    if dtype != "float64":
        scales = [low_scale(observation, leaf) for leaf in range(len(observation.diff))]
    visible = [observation.visible(leaf) for leaf in range(len(observation.diff))]
    sound = all_finite(observation.truth["base"]["reference_out"])
    noise = measured.noise
    if dtype == "float64" and settled(observation) is not None:
        noise = kept_together(observation, noise)
    if rough and dtype == "float64":
        noise = rough_noise(observation, noise, observation.diff, observation.cts["base"])
    kinks = observation.found["around"]
    if rough and observation.exact_program is not None:
        kinks = apart(observation.exact_program, observation.diff, observation.rest, observation.cts["base"], wants, kinks)
    estimate = _estimate(wants, noise, observation.sides, kinks, scales, visible, dtype, sound)
    if dtype == "float64":
        estimate = with_settled(observation, estimate, scales)
    elif measured.dtype != "float64":
        estimate = replace(
            estimate, error=tuple(e + own for e, own in zip(estimate.error, _lost_forward(observation, measured, dtype), strict=True))
        )
    return without(estimate, denied(observation))


def _lost_forward(observation: Observation, measured: Measured, dtype: str) -> list[float]:
    """In low precision: what the rule's own output lost more than autodiff's did, in the gradient's units. Whether it may lose that is for `primal` to say, once.

    Such as exp(score - logsumexp) of scores of fifty in 16 bits: a row of it sums to 1.1, in the output and in all that is computed from it.
    """
    assert observation.truth is not None
    outs = zip(measured.runs["base"]["out"], observation.truth["base"]["reference_out"], measured.out_noise, strict=True)
    with np.errstate(invalid="ignore"):
        lost = [np.maximum(np.abs(wide(out) - want) - noise, 0.0) for out, want, noise in outs]
    lost = [np.where(np.isfinite(some), some, 0.0) for some in lost]
    return [LOW_FACTOR[dtype] * natural_scale(x, observation.cts["base"], lost, 1.0) for x in observation.diff]


def low_scale(observation: Observation, leaf: int) -> np.ndarray:
    """In low precision: the natural size of the gradient by each element. A function that knows no float64 is asked at values for which others are in float64.

    Where the gradient is 0, as that of a softmax of one class, it is that of the terms that cancel, each of which may be a sum over the longest axis.
    """
    most, more = (SATURATION, UNMEASURED) if observation.no_float64 else (1.0, 1.0)
    size: Any = observation.natural(leaf, most)
    if observation.truth is not None:
        longest = max((axis for x in (*observation.diff, *observation.cts["base"]) for axis in x.shape), default=1)
        terms = longest if observation.case.long else longest**0.5  # of one sign, or of both
        size = np.where(observation.truth["base"]["reference"][leaf] == 0, max(size, observation.hidden) * terms, size)
    return np.asarray(more * size * _steepness(observation.diff[leaf]))


def _steepness(x: np.ndarray) -> np.ndarray:
    """How much larger an element's gradient may be than the array's typical one: a small x next to large ones (1/x, x/|x|), up to a limit."""
    typical = rms(x)
    return typical / np.clip(np.abs(x), typical / STEEPEST, typical) if typical > 0 else np.ones(x.shape)


def gradient_at(observation: Observation, diff: list[np.ndarray], cts: list[np.ndarray], rough: bool = False) -> Estimate:
    """The same at other float64 inputs of the same shapes: the case's program runs again."""
    program, rest, dtype = observation.exact_program, observation.rest, coarsest(observation, observation.measured[0])
    assert program is not None
    base = program(diff, rest, cts)
    sides = sides_of(program, direction_through(observation.case, diff), diff, rest, cts)
    scales = [max(natural_scale(x, cts, base["reference_out"]), observation.hidden) for x in diff]
    kinks = look_around(observation, diff, cts, base["reference"], sides, scales)
    if rough:
        kinks = apart(program, diff, rest, cts, base["reference"], kinks)
    noise, _ = exact_noise(program, observation.case, observation.reference_limit, diff, rest, cts, (base,))
    estimate = _estimate(
        base["reference"],
        rough_noise(observation, noise, diff, cts) if rough else noise,
        sides,
        kinks,
        scales,
        [natural_scale(x, cts, base["reference_out"]) if observation.case.stress else scale for x, scale in zip(diff, scales, strict=True)],
        dtype,
        all_finite(base["reference_out"]),
    )
    return without(estimate, denied_at(observation, diff, cts, base["reference"]))


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
    beside_1 = LOW_ULPS * EPS[dtype] * min(inputs, 1.0)  # log(1 - small) and log1p(-small): a 1 inside, which the value does not show
    errors = []
    for want, noise in zip(value, measured.out_noise, strict=True):
        bound = noise_bound(want, noise, largest(want), dtype) + beside_1
        errors.append(abstain(want, np.where(np.abs(want) <= nothing, bound + nothing, bound), dtype, max(largest(want), inputs)))
    return Estimate(value=value, error=tuple(errors))


def bounded_jump(observation: Observation, leaf: int) -> np.ndarray:
    """Where the gradient jumps between finite one-sided limits: what is right there is anybody's choice, but NaN and infinity are none."""
    assert observation.truth is not None
    want, sides = observation.truth["base"]["reference"][leaf], sides_at(observation, leaf)
    size = np.maximum(np.abs(sides.low), np.abs(sides.high))
    settles = np.isfinite(want) & np.isfinite(size) & (sides.drift <= SINGULAR_DRIFT * size)  # the slope of a root at 0 grows without bound
    return settles & sides.jumps & all_finite(observation.truth["base"]["reference_out"])


def at_kink(observation: Observation) -> bool:
    """Whether the inputs lie on a kink of the reference, or where its autodiff is wrong."""
    return jumps_here(observation) or denied(observation) is not None


def jumps_here(observation: Observation) -> bool:
    """Whether the reference's gradient is another one beside the inputs, however near."""
    if observation.truth is None:
        return False
    around = (sides_at(observation, leaf) for leaf in range(len(observation.diff)))
    return any(bool(sides.jumps.any() or sides.singular.any()) for sides in around)


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
    seen = [sides_in(around, leaf, want, scale, dtype) for leaf, (want, scale) in enumerate(zip(wants, scales, strict=True))]
    tie = any(bool(sides.jumps.any()) for sides in seen)
    for want, noise, scale, size, sides, kink in zip(wants, noises, scales, visible, seen, kinks, strict=True):
        singular, jumps = sides.singular & ~kink.wider & ~kink.doubtful, sides.jumps | kink.wider
        value = np.where(singular, sides.limit, want)
        size = size if np.any(want) else scale  # a derivative that is 0 everywhere hides nothing
        error = abstain(value, noise_bound(value, noise, scale, dtype), dtype, size)
        error = np.where(singular, np.inf if tie else error + sides.drift, error)
        error = np.where((np.isfinite(want) | sound) & ~kink.doubtful, error, np.inf)
        with np.errstate(invalid="ignore"):
            off = np.abs(want - sides.limit)  # below what is notable, and more than the bound
            error = np.where(~jumps & ~singular & (off > error) & (sides.drift < SINGULAR_DRIFT * off), off + error, error)
        middle, half = (kink.low + kink.high) / 2, (kink.high - kink.low) / 2
        # Of the noisiest kink: rounding looks like one, too, and now and then stays still by luck.
        drift = np.max(sides.drift, initial=0.0, where=sides.jumps & np.isfinite(sides.drift))
        at_jump = abstain(middle, noise_bound(middle, 0 * middle, scale, dtype), dtype, size) + half + np.maximum(sides.drift, drift)
        values.append(np.where(jumps, middle, value))
        nobody_knows = kink.shared | ~np.isfinite(noise)  # read as 0, the inputs may have another kink
        errors.append(np.where(jumps, np.where(nobody_knows, np.inf, at_jump), error))
    return Estimate(value=tuple(values), error=tuple(errors))


def coarsest(observation: Observation, measured: Measured) -> str:
    """The least precise dtype among the arguments, and in the reference itself: its rounding enters every result."""
    return max((*measured.dtypes, observation.reference_limit), key=lambda name: EPS[name])
