"""Does the gradient agree with differences of the function's own values?

Independent of JAX's autodiff, of the reference's derivative and of any custom rule: only values of the function enter. The rule's gradient is projected on a
random direction through all arguments and compared with the extrapolated central difference. Where that cannot bound its own error (a kink nearby,
a value that is not finite) it abstains. Where it contradicts both the rule and the reference's autodiff, the oracles disagree and nobody is accused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verify.observe import Measured, Observation
from verify.oracles.agreement import contradiction, project
from verify.oracles.autodiff import at_kink
from verify.oracles.finite_difference import slope
from verify.records import Finding, Status
from verify.slopes import Slope
from verify.tolerance import CANNOT_TELL, EPS, LOW_FACTOR, RELATIVE_64

CODE, NAME, TITLE = "V004", "finite-difference", "the gradient agrees with differences of the function's values"


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and bool(observation.slopes)


def judge(observation: Observation) -> list[Finding]:
    if at_kink(observation):
        message = "the inputs lie on a kink, where differences to both sides disagree"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=observation.case.address)]
    if not any(x.size for x in observation.diff):
        return [Finding(check=NAME, status=Status.SKIP, message="the arrays have no elements", address=observation.case.address)]
    if disagreement := contradiction(observation):
        return [Finding(check=NAME, status=Status.INCONCLUSIVE, message=disagreement, address=observation.case.address)]
    findings = [_judge(observation, observation.measured[0], measured) for measured in observation.slopes]
    failures = [finding for finding in findings if finding.status is Status.FAIL]
    if failures:
        return failures[:1]
    passed = [finding for finding in findings if finding.status is Status.PASS]
    if not passed:
        return findings[:1]
    detectable = max((finding.detectable for finding in passed if finding.detectable), default=None)
    return [
        Finding(
            check=NAME, status=Status.PASS, comparisons=len(passed), detectable=detectable, dtype=passed[0].dtype, address=passed[0].address
        )
    ]


def _judge(observation: Observation, rule: Measured, measured: Slope) -> Finding:
    address, dtype = observation.case.address, rule.dtype
    want, error = slope(measured)
    gradient = rule.runs["base"]["rule"]
    got, size = project(gradient, measured.direction)
    own = (
        RELATIVE_64 if dtype == "float64" else LOW_FACTOR * EPS[observation.limit] + LOW_FACTOR * _noise(rule, measured) / max(size, 1e-300)
    )
    bound = error + own * size
    alone = observation.truth is None
    if not np.isfinite(bound) or (size > 0 and bound > (CANNOT_TELL if dtype == "float64" else 0.1) * size):
        message = "finite differences cannot bound their own error here (a kink or a value that is not finite near the inputs)"
        return Finding(check=NAME, status=Status.INCONCLUSIVE if alone else Status.SKIP, message=message, address=address, dtype=dtype)
    if abs(got - want) <= bound:
        return Finding(
            check=NAME, status=Status.PASS, comparisons=1, detectable=bound / size if size else None, address=address, dtype=dtype
        )
    numbers = f"slope along a random direction: rule {got:.10g}, finite differences {want:.10g} +- {bound:.2g}"
    where = _single(observation.call.names, measured)
    return Finding(
        check=NAME, status=Status.FAIL, message=f"the gradient does not follow the function's values; {numbers}{where[2]}", argument=where[0],
        index=where[1], got=got, want=want, bound=bound, wrong=1, comparisons=1, address=address, dtype=dtype,
    )  # fmt: skip


def _noise(rule: Measured, measured: Slope) -> float:
    return float(sum(np.sum(noise * np.abs(v)) for noise, v in zip(rule.noise, measured.direction, strict=True)))


def _single(names: Sequence[str], measured: Slope) -> tuple[str | None, tuple[int, ...] | None, str]:
    """Which argument and element, if the direction moves one element only."""
    moved = [(name, index) for name, v in zip(names, measured.direction, strict=True) for index in np.argwhere(v)]
    if len(moved) != 1:
        return None, None, ""
    name, index = moved[0][0], tuple(int(i) for i in moved[0][1])
    return name, index, f" (only {name}{list(index)} moves)"
