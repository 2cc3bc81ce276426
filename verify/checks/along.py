"""What the checks share that project the gradient on a direction v: the slope <J^T ct, v> that the rule claims, beside an oracle's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verify.observation import Measured, Observation
from verify.oracles.agreement import project
from verify.records import Finding, Status
from verify.tolerance import CANNOT_TELL, EPS, FLOOR_ULPS, LOW_FACTOR, LOW_FLOOR_ULPS, RELATIVE_64, UNDERFLOW_64


def own_error(observation: Observation, rule: Measured, direction: Sequence[np.ndarray], size: float) -> float:
    """How far rounding in the rule may move its slope. `size` is the sum of the magnitudes of the slope's terms."""
    noise = float(sum(np.sum(noise * np.abs(v)) for noise, v in zip(rule.noise, direction, strict=True)))
    if rule.dtype == "float64":
        floor = sum(observation.scale(leaf) * float(np.sqrt(np.sum(v**2))) for leaf, v in enumerate(direction))
        return RELATIVE_64 * size + noise + FLOOR_ULPS * EPS["float64"] * floor + UNDERFLOW_64
    factor, eps = LOW_FACTOR[observation.limit], EPS[observation.limit]
    floor = sum(observation.natural(leaf, most=1.0) * float(np.sqrt(np.sum(v**2))) for leaf, v in enumerate(direction))
    return factor * (eps * size + noise) + LOW_FLOOR_ULPS[observation.limit] * eps * floor  # one element may be small by cancellation


def judge_slope(
    check: str, observation: Observation, direction: Sequence[np.ndarray], want: float, error: float, oracle: str, abstains: Status = Status.SKIP,
    own: float | None = None,
) -> Finding:  # fmt: skip
    """Compare the rule's slope with `want` +- `error`; `oracle` names who says so. Where the bound is too wide: `abstains`.

    `own` is how far rounding in the rule may move its slope, by default what was measured at the case's inputs.
    """
    rule, address = observation.measured[0], observation.case.address
    got, size = project(rule.runs["base"]["rule"], direction)
    bound = error + (own_error(observation, rule, direction, size) if own is None else own)
    lost = (
        max((float(np.max(np.abs(v), initial=0.0)) for v in direction), default=0.0) < UNDERFLOW_64
    )  # denormal numbers have no digits to project
    if (
        lost
        or not np.isfinite(want)
        or not np.isfinite(bound)
        or (size > 0 and bound > (CANNOT_TELL if rule.dtype == "float64" else 0.1) * size)
    ):
        message = f"{oracle} cannot bound the error here (a kink or a value that is not finite near the inputs)"
        return Finding(check=check, status=abstains, message=message, address=address, dtype=rule.dtype)
    if abs(got - want) <= bound:
        detectable = bound / size if size else None
        return Finding(check=check, status=Status.PASS, comparisons=1, detectable=detectable, address=address, dtype=rule.dtype)
    name, index, where = _single(observation.call.names, direction)
    message = f"the gradient does not follow the function's values; slope along a random direction: rule {got:.10g}, {oracle} {want:.10g} +- {bound:.2g}{where}"
    return Finding(
        check=check, status=Status.FAIL, message=message, argument=name, index=index, got=got, want=want, bound=bound, wrong=1, comparisons=1,
        address=address, dtype=rule.dtype,
    )  # fmt: skip


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """The first failure, or one PASS for all directions that could be judged, or the first reason why none could."""
    failures = [finding for finding in findings if finding.status is Status.FAIL]
    passed = [finding for finding in findings if finding.status is Status.PASS]
    if failures or not passed:
        return list((failures or findings)[:1])
    detectable = max((finding.detectable for finding in passed if finding.detectable), default=None)
    return [
        Finding(
            check=passed[0].check,
            status=Status.PASS,
            comparisons=len(passed),
            detectable=detectable,
            dtype=passed[0].dtype,
            address=passed[0].address,
        )
    ]


def _single(names: Sequence[str], direction: Sequence[np.ndarray]) -> tuple[str | None, tuple[int, ...] | None, str]:
    """Which argument and element, if the direction moves one element only."""
    moved = [(name, index) for name, v in zip(names, direction, strict=True) for index in np.argwhere(v)]
    if len(moved) != 1:
        return None, None, ""
    name, index = moved[0][0], tuple(int(i) for i in moved[0][1])
    return name, index, f" (only {name}{list(index)} moves)"
