"""The complex step: f(x + i h v) = f(x) + i h f'(x) v + O(h^2), so the imaginary part gives the slope with no difference and no cancellation.

Squire & Trapp (SIAM Review 40, 1998). With h = 2^-70 the truncation is far below rounding. The NumPy evaluator runs the primal (custom rules left out) on
complex numbers; an operation that is not analytic, or of which it knows no continuation, makes the oracle abstain. At branches (max, where, abs) the real
parts decide, which is right wherever the function is differentiable, but for the branch of a single point (where x == 0): there it abstains, too.
"""

from __future__ import annotations

import jax
import numpy as np

from verify import interpreter
from verify.observation import Observation
from verify.tolerance import COMPLEX_STEP, EPS, TINY


def slope(observation: Observation, direction: list[np.ndarray]) -> tuple[float, float] | None:
    """(<ct, J v>, sum of the magnitudes of its terms), or None where the primal is not known to be analytic at these inputs."""
    jaxpr = observation.call.jaxpr
    smallest = min((float(np.min(np.abs(v[v != 0]))) for v in direction if v.any()), default=1.0)
    if smallest * COMPLEX_STEP < TINY["float64"] / EPS["float64"] or not interpreter.continues(
        jaxpr
    ):  # the step would be lost to underflow
        return None
    moved = [x + 1j * COMPLEX_STEP * v for x, v in zip(observation.diff, direction, strict=True)]
    rest = [np.asarray(leaf) for leaf in jax.tree.leaves(observation.rest)]
    with np.errstate(all="ignore"):
        try:
            out = interpreter.run(jaxpr, [*moved, *rest], interpreter.CONTINUED)
        except interpreter.BoundaryError:
            return None
        terms = [ct * (np.imag(o) / COMPLEX_STEP) for ct, o in zip(observation.cts["base"], out, strict=True)]
    return float(sum(np.sum(term) for term in terms)), float(sum(np.sum(np.abs(term)) for term in terms))
