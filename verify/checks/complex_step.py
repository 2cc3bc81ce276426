"""Does the gradient agree with the complex step of the function's own values?

An oracle that uses no derivative rule of anybody and subtracts nothing: the primal is evaluated at x + i h v, and its imaginary part divided by h is the slope, to
rounding. It applies where the primal is made of analytic operations that the NumPy evaluator continues to complex numbers, and where differences of the values do
not contradict it.
"""

from __future__ import annotations

import numpy as np

from verify.checks.along import judge_slope
from verify.observation import Observation
from verify.oracles import complex_step, finite_difference
from verify.oracles.agreement import contradiction, differences_tell
from verify.oracles.autodiff import at_kink
from verify.records import Finding, Status
from verify.tolerance import COMPLEX_STEP, EPS, FLOOR_ULPS, RELATIVE_64
from verify.values import largest

CODE, NAME, TITLE = "V013", "complex-step", "the gradient agrees with the complex step of the function's values"


def applies(observation: Observation) -> bool:
    return (
        bool(observation.measured)
        and bool(observation.slopes)
        and observation.limit == "float64"
        and differences_tell(observation)
        and not contradiction(observation)
    )


def judge(observation: Observation) -> list[Finding]:
    address = observation.case.address
    if at_kink(observation):
        return [Finding(check=NAME, status=Status.SKIP, message="the inputs lie on a kink", address=address)]
    direction = observation.slopes[0].direction
    seen = complex_step.slope(observation, direction)
    if seen is None:
        message = (
            "the function holds operations of which no analytic continuation is known here, or the inputs lie where a comparison changes"
        )
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=address)]
    want, size = seen
    seen_in_values, error = finite_difference.slope(observation.slopes[0])
    if abs(want - seen_in_values) > error + RELATIVE_64 * size:
        message = "the complex step goes another way than the function's values: comparisons lead to them (a bisection), and it cannot change their outcome"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=address)]
    truncation = COMPLEX_STEP * sum(float(np.sum(np.abs(ct))) for ct in observation.cts["base"]) * max(largest(v) for v in direction)
    return [judge_slope(NAME, observation, direction, want, FLOOR_ULPS * EPS["float64"] * size + truncation, "the complex step")]
