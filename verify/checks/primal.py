"""Is the value right, with and without differentiation?

A `custom_vjp` has two forwards: the primal, used when nobody differentiates, and the forward rule. JAX does not compare them, so a training step may
compute another function than the one that was tested. Both are compared with the reference, or with each other where there is no reference.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from verify.checks.compare import compare
from verify.observe import Measured, Observation
from verify.oracles import autodiff
from verify.records import Estimate, Finding, Status
from verify.tolerance import noise_bound
from verify.values import largest, wide

CODE, NAME, TITLE = "V002", "primal", "the value is the reference's, with and without differentiation"


def applies(observation: Observation) -> bool:
    return bool(observation.measured)


def judge(observation: Observation) -> list[Finding]:
    findings = [finding for measured in observation.measured for finding in _judge(observation, measured)]
    if not any(jnp.issubdtype(array.dtype, jnp.integer) for array in observation.rest):
        return findings
    hint = '. If an integer argument is an index, give its range: Arg(dtype="int32", low=0, high=...) or sample='
    return [replace(f, message=f.message + hint) if f.status is Status.INCONCLUSIVE else f for f in findings]


def _judge(observation: Observation, measured: Measured) -> list[Finding]:
    base, address = measured.runs["base"], observation.case.address
    if observation.truth is not None:
        value = autodiff.primal(observation, measured)
    else:
        plain = tuple(wide(out) for out in base["primal"])
        error = tuple(noise_bound(out, 0 * out, largest(out), autodiff.coarsest(observation, measured)) for out in plain)
        value = Estimate(value=plain, error=error)
    names = ["output"] if len(value.value) == 1 else [f"output{k}" for k in range(len(value.value))]
    plain_findings = compare(NAME, "the primal", names, base["primal"], value, measured.dtype, address)
    ruled = compare(NAME, "the forward rule's", names, base["out"], value, measured.dtype, address)
    if any(finding.status is Status.FAIL for finding in plain_findings):
        return plain_findings  # then the forward rule is judged against a value that is in doubt
    return (
        ruled + _not_finite(observation, measured, value) if _failed(ruled) else plain_findings + _not_finite(observation, measured, value)
    )


def _failed(findings: list[Finding]) -> bool:
    return any(finding.status is Status.FAIL for finding in findings)


def _not_finite(observation: Observation, measured: Measured, value: Estimate) -> list[Finding]:
    """A value that is NaN or infinite in function and reference alike has no derivative to judge."""
    if measured.dtype != "float64":
        return []
    for k, want in enumerate(value.value):
        if (count := int((~np.isfinite(want)).sum())) and count < want.size:
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(want))[0])
            message = (
                f"output {k}{list(index)} is {want[index]:.6g} in function and reference alike ({count} of {want.size} elements): nothing to judge there. "
                f"Keep the draws inside the function's domain with Arg(low=, high=), or verify it on example arrays"
            )
            return [
                Finding(check=NAME, status=Status.INCONCLUSIVE, message=message, address=observation.case.address, dtype=measured.dtype)
            ]
    return []
