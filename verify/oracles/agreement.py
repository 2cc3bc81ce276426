"""Do the oracles agree? If not, nobody is accused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verify.observation import Observation
from verify.oracles.autodiff import at_kink, gradient
from verify.oracles.finite_difference import slope
from verify.tolerance import CANNOT_TELL, EPS, NOISE_FACTOR, RELATIVE_64
from verify.values import largest, wide

DISAGREE = "the oracles disagree"
ORDINARY = (1e-2, 1e2)  # magnitudes of inputs that are neither tiny nor huge


def contradiction(observation: Observation) -> str:
    """How finite differences contradict autodiff of the reference on this case, or "". Nearly every check asks; it is computed once."""
    if "contradiction" not in observation.found:
        observation.found["contradiction"] = _contradiction(observation)
    found: str = observation.found["contradiction"]
    return found


def _contradiction(observation: Observation) -> str:
    if "finite-difference" in observation.spec.known_gaps:  # it is meant, and autodiff judges alone
        return ""
    if observation.truth is None or not observation.slopes or not differences_tell(observation) or at_kink(observation):
        return ""
    measured = observation.slopes[0]
    value, error = slope(measured)
    known, size = project(observation.truth["base"]["reference"], measured.direction)
    relative = RELATIVE_64 if observation.reference_limit == "float64" else NOISE_FACTOR * EPS[observation.reference_limit]
    bound = error + relative * size
    if not np.isfinite(bound) or bound > CANNOT_TELL * max(size, abs(value)) or abs(known - value) <= bound:
        return ""
    if observation.measured and observation.measured[0].dtype == "float64":  # JAX's derivative of expm1 has nine digits at -20
        errors = gradient(observation, observation.measured[0], rough=True).error
        _, room = project([np.where(np.isfinite(e), e, 0.0) for e in errors], measured.direction)
        if abs(known - value) <= bound + room:
            return ""
    return (
        f"{DISAGREE} (along a random direction, finite differences say {value:.10g} +- {bound:.2g}, autodiff of the reference "
        f"{known:.10g}): the reference's own derivative is not that of the function's values. Does it use stop_gradient, rounding, bits, an index out of range or a custom "
        f"rule, or is this a kink? If it is meant (a straight-through estimator), say so in known_gaps, for finite-difference, taylor, adjoint, complex-step and second-order: then autodiff judges alone"
    )


def differences_tell(observation: Observation) -> bool:
    """Whether a slope along a direction says something.

    Of huge inputs an oscillating function turns round between any two steps, and residues of rounding where a softmax is saturated are multiplied by huge
    moves. Tiny inputs vanish beside a 1 inside the function (log cosh), and with them every difference of its values. (Bounds may keep arguments ordinary in such cases.)
    """
    sizes = [largest(x) for x in observation.diff if x.size]
    if observation.case.style == "huge":
        return max(sizes, default=0.0) < ORDINARY[1]
    return observation.case.style != "tiny" or min(sizes, default=1.0) >= ORDINARY[0]


def project(gradient: Sequence[np.ndarray], direction: Sequence[np.ndarray]) -> tuple[float, float]:
    """<gradient, direction>, and the sum of the magnitudes of its terms."""
    terms = [wide(g) * v for g, v in zip(gradient, direction, strict=True)]
    return float(sum(np.sum(term) for term in terms)), float(sum(np.sum(np.abs(term)) for term in terms))
