"""JAX differentiates the reference in float64; its rounding noise is measured, not guessed (see `verify.tolerance`)."""

from __future__ import annotations

from verify.observe import Measured, Observation, largest
from verify.records import Estimate
from verify.tolerance import EPS, noise_bound


def gradient(observation: Observation, measured: Measured) -> Estimate:
    """The cotangent of each argument leaf, and how far from it a right rule may lie when run in `measured.dtype`."""
    assert observation.truth is not None
    value = tuple(observation.truth["base"]["reference"])
    error = tuple(
        noise_bound(want, noise, observation.scale(leaf), widest(measured)) for leaf, (want, noise) in enumerate(zip(value, measured.noise, strict=True))
    )
    return Estimate(value=value, error=error)


def primal(observation: Observation, measured: Measured) -> Estimate:
    """The value of each output, likewise."""
    assert observation.truth is not None
    value = tuple(observation.truth["base"]["reference_out"])
    error = tuple(noise_bound(want, noise, largest(want), widest(measured)) for want, noise in zip(value, measured.out_noise, strict=True))
    return Estimate(value=value, error=error)


def widest(measured: Measured) -> str:
    """The least precise dtype among the arguments: its rounding enters every result."""
    return max(measured.dtypes, key=lambda name: EPS[name])
