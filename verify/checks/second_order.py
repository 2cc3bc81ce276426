"""Is the derivative of the gradient right too (reverse over reverse)?

Gradient penalties, implicit layers and Hessian-vector products differentiate the backward again. A backward whose values are right can still be wrong
there, for example when it treats a residual as a constant. Compared with reverse over reverse of the reference, with respect to arguments and cotangent. A rule that
cannot be differentiated twice is reported as SKIP with JAX's reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from verify import engine, programs, tolerance
from verify.checks.compare import compare
from verify.noise import roughened, rounding_noise
from verify.observation import Observation, add_seconds
from verify.oracles.agreement import contradiction
from verify.oracles.autodiff import at_kink
from verify.oracles.finite_difference import slope
from verify.records import Estimate, Finding, Status
from verify.slopes import direction_through, slope_along
from verify.values import largest

CODE, NAME, TITLE = "V008", "second-order", "reverse over reverse is right"
POINTS = ("edges", "ties")  # styles with zeros, special values and equal entries: a first derivative may be right there, and the second not


def applies(observation: Observation) -> bool:
    case = observation.case
    return (
        bool(observation.measured)
        and (case.thorough or case.index % 8 == 3)
        and (not case.stress or case.style in POINTS)
        and not contradiction(observation)
    )


def judge(observation: Observation) -> list[Finding]:
    address = observation.case.address
    limit = max(observation.limit, observation.reference_limit, key=lambda name: tolerance.EPS[name])
    if observation.truth is None or limit != "float64":
        reason = observation.no_truth or f"rule or reference computes in {limit}, whose noise hides second derivatives"
        return [Finding(check=NAME, status=Status.SKIP, message=reason, address=address)]
    if at_kink(observation):
        return [
            Finding(
                check=NAME, status=Status.SKIP, message="the inputs lie on a kink, where there is no second derivative", address=address
            )
        ]
    rng = observation.case.rng("weights")
    weights = [rng.integers(-3072, 3073, size=x.shape) / 1024 for x in observation.diff]
    inputs = (observation.diff, observation.rest, observation.cts["base"], weights)
    try:
        program = engine.exact(programs.second_order(observation.call), *inputs)
    except programs.StageError as error:
        whose = "the rule" if error.stage == "rule" else "the reference"
        return [
            Finding(check=NAME, status=Status.SKIP, message=f"{whose} cannot be differentiated twice: {str(error)[:300]}", address=address)
        ]
    result = program(*inputs)
    want = result["reference"]
    moved = []
    for k in range(tolerance.JITTERS):
        jitter = observation.case.rng(f"second{k}")
        ulps = tolerance.JITTER_ULPS * tolerance.EPS["float64"]
        diff, cts = ([v * (1 + ulps * jitter.integers(-1, 2, size=v.shape)) for v in arrays] for arrays in (inputs[0], inputs[2]))
        moved.append(program(diff, inputs[1], cts, weights))
    outputs = range(len(inputs[2]))
    names = [*observation.call.names, *(["y_ct"] if len(outputs) == 1 else [f"y{k}_ct" for k in outputs])]
    noise = rounding_noise(result, moved)
    jumps = [np.zeros(np.shape(value)) for value in want]

    def compared() -> list[Finding]:
        error = tuple(
            tolerance.noise_bound(value, own, _scale(observation, leaf), second=True) + jump
            for leaf, (value, own, jump) in enumerate(zip(want, noise, jumps, strict=True))
        )
        estimate = Estimate(value=tuple(want), error=error)
        return compare(NAME, "the derivative of the gradient by", names, result["rule"], estimate, "float64", address)

    findings = compared()
    if any(finding.status is Status.FAIL for finding in findings):  # nobody is accused of the reference's rounding, or at its kinks
        jumps = _jumps(observation, program, weights, want)
        noise = roughened(noise, lambda diff: program(diff, *inputs[1:])["reference"], observation.case, observation.diff)
        findings = compared()
    failing = [finding for finding in findings if finding.status is Status.FAIL]
    if failing and (reason := _contradiction(observation, failing[0], weights, want)):
        findings = [Finding(check=NAME, status=Status.SKIP, message=reason, address=address)]
    add_seconds(observation.seconds, program.seconds)
    return findings


def _jumps(observation: Observation, program: engine.Program, weights: list[np.ndarray], want: list[np.ndarray]) -> list[np.ndarray]:
    """How far the reference's second derivative at zeros and ties is from those just beside them, where it may have another branch; infinite where none is.

    An element may stand behind many kinks at once, as a weight behind a row of relus at 0: then several directions are looked at, and what is right may lie
    further out than any of them shows.
    """
    jumps = [np.zeros(np.shape(value)) for value in want]
    for k in range(tolerance.KINK_HALVES):
        direction = direction_through(observation.case, observation.diff, k)
        for sign in (1, -1):
            moved = [x + sign * tolerance.SIDE_STEPS[0] * v for x, v in zip(observation.diff, direction, strict=True)]
            beside = program(moved, observation.rest, observation.cts["base"], weights)["reference"]
            with np.errstate(invalid="ignore"):
                jumps = [np.maximum(jump, np.abs(other - value)) for jump, other, value in zip(jumps, beside, want, strict=True)]
        if all(largest(jump) <= tolerance.KINK_JUMP * largest(value) for jump, value in zip(jumps, want, strict=True)):
            break
    return [np.where(np.isfinite(jump), tolerance.SHARED_KINK * jump, np.inf) for jump in jumps]


def _contradiction(observation: Observation, accused: Finding, weights: list[np.ndarray], want: list[np.ndarray]) -> str:
    """How differences of the reference's first derivative contradict its second, or "": JAX's trigamma is wrong below -8, and a rule of digamma need not be."""
    exact, cts, names = observation.exact_program, observation.cts["base"], observation.call.names
    if exact is None or accused.argument not in names or accused.index is None:
        return ""

    assert observation.truth is not None
    sound = [np.isfinite(g) for g in observation.truth["base"]["reference"]]  # other elements may lie on a pole

    def gradient(diff: list[np.ndarray], rest: list[Any], _: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
        return {"gradient": [np.where(ok, g, 0.0) for ok, g in zip(sound, exact(diff, rest, cts)["reference"], strict=True)]}

    alone = [np.zeros_like(x) for x in observation.diff]
    leaf, index = names.index(accused.argument), accused.index
    alone[leaf][index] = direction_through(observation.case, observation.diff)[leaf][index]
    center = gradient(observation.diff, observation.rest, [])["gradient"]
    value, error = slope(slope_along(gradient, observation.diff, observation.rest, weights, "gradient", "float64", alone, center))
    known = float(want[leaf][index] * alone[leaf][index])
    if not np.isfinite(error) or abs(known - value) <= error + tolerance.RELATIVE_64_SECOND * abs(known):
        return ""
    return (
        f"JAX's second derivative of the reference is wrong here (moving {accused.argument}{list(index)}, it says {known:.10g}, and differences of the first "
        f"{value:.10g} +- {error:.2g}): nobody is accused"
    )


def _scale(observation: Observation, leaf: int) -> float:
    """The size of a second derivative: a gradient's, divided once more by an argument's (taken as 1)."""
    return max([observation.scale(k) for k in range(len(observation.diff))]) if leaf < len(observation.diff) else observation.scale(0)
