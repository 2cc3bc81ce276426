"""JAX differentiates the reference in float64; its rounding noise is measured, not guessed (see `verify.tolerance`).

At a kink (relu at 0, a tie of max) autodiff picks one of many subgradients, and so may the rule. A kink shows as a gradient that jumps between the two
sides of the inputs, however near: there the oracle knows the interval between the one-sided gradients, and no more.
"""

from __future__ import annotations

import numpy as np

from verify.observe import Measured, Observation
from verify.records import Estimate
from verify.tolerance import EPS, KINK_JUMP, STEP_RATIO, abstain, noise_bound
from verify.values import largest


def gradient(observation: Observation, measured: Measured) -> Estimate:
    """The cotangent of each argument leaf, and how far from it a right rule may lie when run in `measured.dtype`."""
    assert observation.truth is not None
    values, errors = [], []
    dtype = coarsest(observation, measured)
    for leaf, (want, noise) in enumerate(zip(observation.truth["base"]["reference"], measured.noise, strict=True)):
        error = abstain(want, noise_bound(want, noise, observation.scale(leaf), dtype), dtype)
        low, high, jumps = _between(observation, leaf, want)
        values.append(np.where(jumps, (low + high) / 2, want))
        errors.append(np.where(jumps, error + (high - low) / 2, error))
    return Estimate(value=tuple(values), error=tuple(errors))


def primal(observation: Observation, measured: Measured) -> Estimate:
    """The value of each output, likewise."""
    assert observation.truth is not None
    value = tuple(observation.truth["base"]["reference_out"])
    dtype = coarsest(observation, measured)
    error = tuple(
        abstain(want, noise_bound(want, noise, largest(want), dtype), dtype) for want, noise in zip(value, measured.out_noise, strict=True)
    )
    return Estimate(value=value, error=error)


def at_kink(observation: Observation) -> bool:
    """Whether the inputs lie on a kink of the reference."""
    return observation.truth is not None and any(
        bool(_between(observation, leaf, want)[2].any()) for leaf, want in enumerate(observation.truth["base"]["reference"])
    )


def _between(observation: Observation, leaf: int, want: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smallest and largest of the gradient and its one-sided limits, and where it jumps.

    A smooth gradient's difference between the sides shrinks with the distance; extrapolated to distance 0 it vanishes. A jump does not.
    """
    far_ahead, far_behind, ahead, behind = (side[leaf] for side in observation.sides)
    with np.errstate(invalid="ignore"):
        jump = np.abs(STEP_RATIO * (ahead - behind) - (far_ahead - far_behind)) / (STEP_RATIO - 1)
        size = np.maximum(np.maximum(np.abs(ahead), np.abs(behind)), np.abs(want))
        jumps = jump > KINK_JUMP * np.maximum(size, KINK_JUMP * observation.scale(leaf))
    low = np.minimum(np.minimum(ahead, behind), want)
    high = np.maximum(np.maximum(ahead, behind), want)
    return low, high, jumps


def coarsest(observation: Observation, measured: Measured) -> str:
    """The least precise dtype among the arguments, and in the reference itself: its rounding enters every result."""
    return max((*measured.dtypes, observation.reference_limit), key=lambda name: EPS[name])
