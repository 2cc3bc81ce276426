"""Is the backward linear in the upstream cotangent?

A derivative is a linear map, so bwd(a - 2 b) = bwd(a) - 2 bwd(b) and bwd(2^k a) = 2^k bwd(a) whatever the function. A backward that clips, squares, takes a
sign, adds a constant, or treats very large and very small cotangents apart is no derivative. No oracle is needed: the rule is compared with itself.
"""

from __future__ import annotations

import numpy as np

from verify.checks.compare import compare, failed
from verify.observation import MIX, Measured, Observation
from verify.oracles.autodiff import coarsest, low_scale
from verify.records import Estimate, Finding, Status
from verify.tolerance import HUGE, UNMEASURED, noise_bound
from verify.values import wide

CODE, NAME, TITLE = "V005", "linearity", "the backward is linear in the upstream cotangent"


def applies(observation: Observation) -> bool:
    return bool(observation.measured)


def judge(observation: Observation) -> list[Finding]:
    findings = []
    for measured in observation.measured:
        if observation.case.style == "huge" and measured.dtype != "float64":
            continue  # sums and multiples of huge numbers overflow in a coarse dtype, in any order
        runs = measured.runs
        first, second, mixed = ([wide(g) for g in runs[key]["rule"]] for key in ("base", "other", "mix"))
        want = tuple(a + MIX * b for a, b in zip(first, second, strict=True))
        parts = 1 + abs(MIX)
        dtype = coarsest(observation, measured)
        bounds = (
            noise_bound(abs(a) + abs(MIX * b), parts * noise, parts * _scale(observation, leaf, dtype), dtype)
            for leaf, (a, b, noise) in enumerate(zip(first, second, measured.noise, strict=True))
        )
        error = tuple(
            np.where((abs(value) + bound > HUGE[dtype]) | ~measured.attainable("mix", leaf), np.inf, bound)
            for leaf, (value, bound) in enumerate(zip(want, bounds, strict=True))
        )
        names, address = observation.call.names, observation.case.address
        what = "bwd(a - 2 b) differs from bwd(a) - 2 bwd(b): the cotangent of"
        found = compare(NAME, what, names, mixed, Estimate(value=want, error=error), measured.dtype, address)
        if not failed(found):
            for run, factor in (("large", observation.ct_scale), ("small", 1 / observation.ct_scale)):
                found += _scaled(observation, measured, run, factor, dtype)
        findings += found
    message = "huge values in low precision, whose multiples overflow"
    return findings or [Finding(check=NAME, status=Status.SKIP, message=message, address=observation.case.address)]


def _scale(observation: Observation, leaf: int, dtype: str) -> float | np.ndarray:
    if dtype == "float64":
        return observation.scale(leaf)
    unmeasured = UNMEASURED if observation.truth is None else 1.0  # nobody's rounding in this dtype is known to compare with
    return unmeasured * np.maximum(observation.scale(leaf), low_scale(observation, leaf))


def _scaled(observation: Observation, measured: Measured, run: str, factor: float, dtype: str) -> list[Finding]:
    """bwd(2^k a) = 2^k bwd(a), up to what the dtype can hold."""
    want = tuple(factor * wide(g) for g in measured.runs["base"]["rule"])
    error = tuple(
        np.where(
            ~measured.must_be_finite(run, leaf, value), np.inf, noise_bound(value, factor * noise, factor * _scale(observation, leaf, dtype), dtype)
        )
        for leaf, (value, noise) in enumerate(zip(want, measured.noise, strict=True))
    )  # fmt: skip
    power = f"2^{round(np.log2(factor))}"
    what = f"bwd({power} a) differs from {power} bwd(a): the cotangent of"
    got = measured.runs[run]["rule"]
    return compare(NAME, what, observation.call.names, got, Estimate(value=want, error=error), measured.dtype, observation.case.address)
