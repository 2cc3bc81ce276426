"""Does the rule round as well as JAX's own autodiff, in float32, bfloat16 and float16?

Per element, against the float64 truth, in units of the error that JAX's autodiff of the reference makes in the same dtype on the same inputs (or, if larger, of what
one ulp of the inputs does to the truth), at all but huge magnitudes. Accumulating a long sum in bfloat16, saving a residual in a coarser dtype, or subtracting rounded numbers is wrong here and
invisible in float64.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from verify.checks.compare import compare_twice, failed
from verify.observation import Measured, Observation
from verify.oracles import autodiff
from verify.oracles.agreement import contradiction
from verify.records import Estimate, Finding, Status
from verify.tolerance import EPS, GROSS, LOW_FACTOR, SHARED, SHARED_REST, SHARED_ULPS, TINY
from verify.values import rms, wide

CODE, NAME, TITLE = "V020", "precision", "in low precision the rule is as exact as JAX's autodiff, element by element"

SIXTEEN_BITS = ("bfloat16", "float16")


def applies(observation: Observation) -> bool:
    return (
        observation.truth is not None
        and len(observation.measured) > 1
        and (bool(observation.rules) or observation.call.has_reference)
        and not contradiction(observation)
    )


def judge(observation: Observation) -> list[Finding]:
    call, case = observation.call, observation.case
    if case.style == "huge" and case.dtype != "float16":
        message = "at huge magnitudes exact zeros of the derivative are rounding residues of huge terms; there `extremes` asks for finite numbers only"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=case.address)]
    found = []
    for measured in observation.measured[1:]:
        got, want = measured.runs["base"]["rule"], functools.partial(_want, observation, measured)
        findings = compare_twice(NAME, "the cotangent of", call.names, got, want, measured.dtype, case.address)
        if not failed(findings) and not case.stress:
            findings = findings + _common_factor(observation, measured, want())
        found += [_in_units(finding, observation, measured) for finding in findings]
    return found


def _common_factor(observation: Observation, measured: Measured, want: Estimate) -> list[Finding]:
    """Rounding is another one in every element. A whole array that is 17 % too large is none: something that all elements share was summed in 16 bits, and stuck at 256."""
    found = []
    dtype = autodiff.coarsest(observation, measured)
    if dtype not in SIXTEEN_BITS:
        return []
    eps = EPS[dtype]
    for leaf, (name, raw, value) in enumerate(zip(observation.call.names, measured.runs["base"]["rule"], want.value, strict=True)):
        got, plain = wide(raw), wide(measured.autodiff["base"]["reference"][leaf]) if measured.autodiff else value
        if value.size < SHARED or not np.isfinite(value).all() or not np.isfinite(got).all() or rms(value) < TINY[dtype] / eps:
            continue
        factor, rest = _factor(got, value)
        own, own_rest = _factor(plain, value)
        allowed = SHARED_ULPS * eps + LOW_FACTOR[dtype] * (abs(own - 1) + own_rest)
        if abs(factor - 1) > allowed + SHARED_REST * rest:
            message = (
                f"the cotangent of {name} is, in {dtype}, {factor:.4g} times what is right, in every element alike (JAX's autodiff {own:.4g} times): "
                f"something that they share lost digits, such as a count or a mean that was summed in {dtype}"
            )
            found.append(
                Finding(
                    check=NAME,
                    status=Status.FAIL,
                    message=message,
                    argument=name,
                    wrong=value.size,
                    comparisons=value.size,
                    dtype=measured.dtype,
                    address=observation.case.address,
                )
            )
    return found


def _factor(got: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    """How many times `value` an array is, and the size of what that leaves over, relative to `value`."""
    factor = float(np.sum(got * value) / np.sum(value * value))
    return factor, rms(got - factor * value) / rms(value)


def _want(observation: Observation, measured: Measured, rough: bool = False) -> Estimate:
    """At huge float16 values only what is wrong altogether is called wrong, as a square that overflowed is, and is no overflow in the last step."""
    known = autodiff.gradient(observation, measured, rough)
    if observation.case.style != "huge":
        return known
    errors = (
        np.where(measured.must_be_finite("base", leaf, value), error + GROSS * np.abs(value), np.inf)
        for leaf, (value, error) in enumerate(zip(known.value, known.error, strict=True))
    )
    return replace(known, error=tuple(errors))


def _in_units(finding: Finding, observation: Observation, measured: Measured) -> Finding:
    """Say how many times worse than autodiff the worst element is."""
    if (
        finding.status is not Status.FAIL
        or finding.argument is None
        or finding.index is None
        or finding.got is None
        or finding.want is None
    ):
        return finding
    noise = float(measured.noise[observation.call.names.index(finding.argument)][finding.index])
    if not noise or not np.isfinite(finding.got):
        return finding
    ratio = abs(finding.got - finding.want) / noise
    return replace(finding, message=f"{finding.message}; {ratio:.3g} times the error that JAX's autodiff makes here", units=ratio)
