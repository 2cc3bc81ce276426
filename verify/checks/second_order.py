"""Is the derivative of the gradient right too (reverse over reverse)?

Gradient penalties, implicit layers and Hessian-vector products differentiate the backward again. A backward whose values are right can still be wrong
there, for example when it treats a residual as a constant. Compared with reverse over reverse of the reference, with respect to arguments and cotangent, and along a direction
with differences of the gradient, which know better where a `where` gives one point a branch of its own, or JAX's second derivative is wrong. A rule that
cannot be differentiated twice is reported as SKIP with JAX's reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from verify import engine, programs, tolerance
from verify.cases import Case
from verify.checks.compare import compare, failed
from verify.noise import roughened, rounding_noise
from verify.observation import Observation, add_seconds
from verify.oracles.agreement import contradiction, project
from verify.oracles.autodiff import at_kink
from verify.oracles.finite_difference import slope
from verify.printable import short
from verify.records import Estimate, Finding, Status
from verify.slopes import direction_through, slope_along
from verify.values import all_finite, largest

CODE, NAME, TITLE = "V008", "second-order", "reverse over reverse is right"
EVERY, OFFSET = 8, 3
# Looked at in every case: with zeros, special values and equal entries a first derivative may be right, and the second not.
POINTS = ("edges", "ties")


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and looked_at(observation.case) and not contradiction(observation)


def looked_at(case: Case) -> bool:
    """Second derivatives are dear to trace: of ordinary cases some are looked at, of those with extreme values none."""
    return case.thorough or case.style in POINTS or (case.index % EVERY == OFFSET and not case.stress)


def judge(observation: Observation) -> list[Finding]:
    address = observation.case.address
    limit = max(observation.limit, observation.reference_limit, key=lambda name: tolerance.EPS[name])
    if observation.truth is None or limit != "float64":
        reason = observation.no_truth or f"rule or reference computes in {limit}, whose noise hides second derivatives"
        return [Finding(check=NAME, status=Status.SKIP, message=reason, address=address)]
    rng = observation.case.rng("weights")
    weights = [rng.integers(-3072, 3073, size=x.shape) / 1024 for x in observation.diff]
    inputs = (observation.diff, observation.rest, observation.cts["base"], weights)
    try:
        program = engine.exact(programs.second_order(observation.call), *inputs)
    except programs.StageError as error:
        whose = "the rule" if error.stage == "rule" else "the reference"
        return [Finding(check=NAME, status=Status.SKIP, message=f"{whose} cannot be differentiated twice: {short(error)}", address=address)]
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
    sound = all_finite(observation.truth["base"]["reference_out"])  # else a derivative that is not finite is nobody's mistake

    def compared() -> list[Finding]:
        error = tuple(
            np.where(np.isfinite(got) | sound, tolerance.noise_bound(value, own, _scale(observation, leaf), second=True) + jump, np.inf)
            for leaf, (got, value, own, jump) in enumerate(zip(result["rule"], want, noise, jumps, strict=True))
        )
        estimate = Estimate(value=tuple(want), error=error)
        return compare(NAME, "the derivative of the gradient by", names, result["rule"], estimate, "float64", address)

    if at_kink(observation):
        message = "the inputs lie on a kink, where there is no second derivative"
        findings = [Finding(check=NAME, status=Status.SKIP, message=message, address=address)]
    else:
        findings = compared()
    if failed(findings):  # nobody is accused of the reference's rounding, or at its kinks
        jumps = _jumps(observation, program, weights, want)
        noise = roughened(noise, lambda diff: program(diff, *inputs[1:])["reference"], observation.case, observation.diff)
        findings = compared()
    failing = [finding for finding in findings if finding.status is Status.FAIL]
    if failing and (reason := _contradiction(observation, failing[0], weights, want)):
        findings = [Finding(check=NAME, status=Status.SKIP, message=reason, address=address)]
    add_seconds(observation.seconds, program.seconds)
    if failed(findings):
        return findings
    return _contradicts_itself(observation, weights, result["rule"], want, noise) or findings


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


def _contradicts_itself(
    observation: Observation, weights: list[np.ndarray], own: list[np.ndarray], want: list[np.ndarray], noise: list[np.ndarray]
) -> list[Finding]:
    """Where the rule's second derivative is not that of its first. A value that a `where` patches, sin x / x at 0, has the derivative of a constant there, in the
    reference as in the rule; many a right rule is written so, and is not accused: but nothing was compared. A reference that is smooth there tells.
    """
    direction = direction_through(observation.case, observation.diff)
    found = _slope(observation, "rule", weights, direction, observation.measured[0].noise)
    known, size = project(own[: len(direction)], direction)
    if found is None or not np.isfinite(known):
        return []
    value, error = found
    rounding = sum(
        float(np.sum(np.abs(v) * tolerance.noise_bound(g, own_noise, _scale(observation, leaf), second=True)))
        for leaf, (v, g, own_noise) in enumerate(zip(direction, own[: len(direction)], noise[: len(direction)], strict=True))
    )
    bound = error + tolerance.RELATIVE_64_SECOND * size + rounding
    if not bound <= tolerance.SMOOTH_SECOND * max(size, abs(value)) or abs(known - value) <= bound:
        return []
    address, grows = (
        observation.case.address,
        f"along a random direction it says {known:.10g}, and the gradient grows by {value:.10g} +- {bound:.2g}",
    )
    if abs(project(want[: len(direction)], direction)[0] - value) <= bound:
        message = f"the derivative of the backward is not that of the backward's values, as the reference's is ({grows})"
        return [
            Finding(
                check=NAME, status=Status.FAIL, message=message, got=known, want=value, bound=bound, wrong=1, comparisons=1, dtype="float64", address=address
            )
        ]  # fmt: skip
    message = (
        f"in rule and reference alike the derivative of the gradient is not that of its values here ({grows}): does a where give this point a branch of its own? "
        f"A reference= that is smooth here would tell"
    )
    return [Finding(check=NAME, status=Status.SKIP, message=message, address=address)]


def _contradiction(observation: Observation, accused: Finding, weights: list[np.ndarray], want: list[np.ndarray]) -> str:
    """How differences of the reference's first derivative contradict its second, or "": JAX's trigamma is wrong below -8, and a rule of digamma need not be."""
    names = observation.call.names
    if accused.argument not in names or accused.index is None:
        return ""
    alone = [np.zeros_like(x) for x in observation.diff]
    leaf, index = names.index(accused.argument), accused.index
    alone[leaf][index] = direction_through(observation.case, observation.diff)[leaf][index]
    found = _slope(observation, "reference", weights, alone, [np.zeros_like(x) for x in observation.diff])
    known = float(want[leaf][index] * alone[leaf][index])
    if found is None or abs(known - found[0]) <= found[1] + tolerance.RELATIVE_64_SECOND * abs(known):
        return ""
    return (
        f"JAX's second derivative of the reference is wrong here (moving {accused.argument}{list(index)}, it says {known:.10g}, and differences of the first "
        f"{found[0]:.10g} +- {found[1]:.2g}): nobody is accused"
    )


def _slope(
    observation: Observation, whose: str, weights: list[np.ndarray], direction: list[np.ndarray], noise: list[np.ndarray]
) -> tuple[float, float] | None:
    """How <weights, gradient> grows along a direction, and a bound of its error, by differences; None where they do not tell."""
    exact, cts = observation.exact_program, observation.cts["base"]
    if exact is None or whose not in (base := exact(observation.diff, observation.rest, cts)):
        return None
    sound = [np.isfinite(g) for g in base[whose]]  # other elements may lie on a pole

    def gradient(diff: list[np.ndarray], rest: list[Any], _: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
        return {"gradient": [np.where(ok, g, 0.0) for ok, g in zip(sound, exact(diff, rest, cts)[whose], strict=True)]}

    center = [np.where(ok, g, 0.0) for ok, g in zip(sound, base[whose], strict=True)]
    measured = slope_along(gradient, observation.diff, observation.rest, weights, "gradient", "float64", direction, center)
    rough = float(np.sqrt(sum(np.sum((w * np.where(np.isfinite(n), n, 0.0)) ** 2) for w, n in zip(weights, noise, strict=True))))
    value, error = slope(replace(measured, rounding=max(measured.rounding, rough)))
    return (value, error) if np.isfinite(error) else None


def _scale(observation: Observation, leaf: int) -> float:
    """The size of a second derivative: a gradient's, divided once more by an argument's (taken as 1)."""
    return max([observation.scale(k) for k in range(len(observation.diff))]) if leaf < len(observation.diff) else observation.scale(0)
