"""Where autodiff of the reference in float64 is not the last word: the function's values contradict it, or it rounds more than moved inputs show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verify import tolerance
from verify.noise import jittered_together, roughened, rounding_noise
from verify.observation import Observation
from verify.oracles import by_values
from verify.oracles.sides import sides_at
from verify.programs import reference
from verify.records import Estimate
from verify.rounding import rounded_inside
from verify.styles import EXTREME
from verify.tolerance import CANNOT_TELL, NEARLY_0, abstain


def settled(observation: Observation) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Where the gradient jumps near the inputs, or is doubtful, and the function's values say that there is no kink: see `by_values.partials`."""
    program, case, truth = observation.exact_program, observation.case, observation.truth
    if (
        program is None
        or truth is None
        or case.style in EXTREME
        or observation.reference_limit != "float64"
        or "around" not in observation.found
    ):
        return None
    if "settled" not in observation.found:
        sides = [sides_at(observation, leaf) for leaf in range(len(observation.diff))]
        doubted = [s.jumps | s.singular | kink.wider | kink.doubtful for s, kink in zip(sides, observation.found["around"], strict=True)]
        wants = truth["base"]["reference"]
        found = by_values.partials(program, case, observation.diff, observation.rest, observation.cts["base"], wants, doubted)
        observation.found["settled"] = found and [
            (value, np.where(doubt, error, np.nan)) for (value, error), doubt in zip(found, doubted, strict=True)
        ]
    return observation.found["settled"]


def with_settled(observation: Observation, estimate: Estimate, scales: Sequence[float]) -> Estimate:
    """The estimate, but where the values know better."""
    known = settled(observation)
    if known is None:
        return estimate
    values, errors = [], []
    for (value, error), old, old_error, scale in zip(known, estimate.value, estimate.error, scales, strict=True):
        told = np.isfinite(error) & ~(old_error <= error)
        coarse = CANNOT_TELL**2 * np.maximum(np.abs(value), scale)  # where a formula cancels, differences do not know their own noise
        bound = abstain(value, error + coarse, "float64", scale)
        values.append(np.where(told, value, old))
        errors.append(np.where(told, bound, old_error))
    return Estimate(value=tuple(values), error=tuple(errors))


def denied(observation: Observation) -> list[np.ndarray] | None:
    """Which elements of the inputs are so small that the function's values contradict its autodiff there, if any."""
    if observation.truth is None:
        return None
    if "denied" not in observation.found:
        observation.found["denied"] = denied_at(
            observation, observation.diff, observation.cts["base"], observation.truth["base"]["reference"]
        )
    found: list[np.ndarray] | None = observation.found["denied"]
    return found


def denied_at(
    observation: Observation, diff: list[np.ndarray], cts: list[np.ndarray], wants: Sequence[np.ndarray]
) -> list[np.ndarray] | None:
    """The same at other inputs."""
    program = observation.exact_program
    if program is None or observation.case.style not in ("tiny", "spread") or observation.reference_limit != "float64":
        return None
    return by_values.denied(program, observation.case, diff, observation.rest, cts, wants)


def without(estimate: Estimate, small: list[np.ndarray] | None) -> Estimate:
    """The estimate, which says nothing of the elements that are denied."""
    if small is None:
        return estimate
    return replace(estimate, error=tuple(np.where(some, np.inf, error) for some, error in zip(small, estimate.error, strict=True)))


def kept_together(observation: Observation, noise: list[np.ndarray]) -> list[np.ndarray]:
    """The noise where equal values stay equal: beside a tie a formula that cancels has none to speak of."""
    program, cts, truth = observation.exact_program, observation.cts["base"], observation.truth
    if program is None or truth is None:
        return noise
    moved = [jittered_together(program, observation.case, k, observation.diff, observation.rest, cts) for k in range(tolerance.JITTERS)]
    return rounding_noise(truth["base"], moved)


def rough_noise(observation: Observation, noise: list[np.ndarray], diff: list[np.ndarray], cts: list[np.ndarray]) -> list[np.ndarray]:
    """The noise, or the rounding inside of the reference where that is larger: of numbers nearly 0 also what no step shows."""
    program, rest = observation.exact_program, observation.rest
    if program is None:
        return noise
    noise = roughened(noise, lambda moved: program(moved, rest, cts)["reference"], observation.case, diff)
    if not any(bool(np.any((x != 0) & (np.abs(x) < NEARLY_0))) for x in diff):
        return noise
    return rounded_inside(noise, lambda *args: reference(observation.call)(*args)[1], observation.case, diff, rest, cts)
