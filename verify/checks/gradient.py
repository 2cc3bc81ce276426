"""Is every element of every cotangent what JAX derives from the reference?

The reference is differentiated in float64, and its rounding noise is measured on the same inputs: a wrong formula stands out of it by a factor of a
million and more. One wrong element among 65,536 is a FAIL: nothing is averaged. At a kink any value between the one-sided derivatives is right. How
the rule rounds in float32, bfloat16 and float16 is another question, see `precision`. (A kernel that knows no 64-bit types is judged here in float32.)
"""

from __future__ import annotations

import functools
from dataclasses import replace

from verify.checks.compare import compare_twice
from verify.observation import Observation
from verify.oracles import autodiff
from verify.oracles.agreement import contradiction
from verify.records import Finding, Status

CODE, NAME, TITLE = "V003", "gradient", "every cotangent is what JAX derives from the reference, element by element"


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and not contradiction(observation)


def judge(observation: Observation) -> list[Finding]:
    call, address = observation.call, observation.case.address
    if observation.truth is None:
        message = f"{observation.no_truth}; finite differences and forward mode judge alone. Give reference="
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=address)]
    if not observation.rules and not call.has_reference:
        message = "the function calls no custom rule (a forgotten @jax.custom_vjp?) and has no reference: there is no hand-written derivative here"
        return [Finding(check=NAME, status=Status.INCONCLUSIVE, message=message, address=address)]
    measured = observation.measured[0]  # float64, or what the function itself computes in

    want = functools.partial(autodiff.gradient, observation, measured)
    findings = compare_twice(NAME, "the cotangent of", call.names, measured.runs["base"]["rule"], want, measured.dtype, address)
    unclear = any(finding.status is Status.INCONCLUSIVE for finding in findings)
    if not (unclear and autodiff.at_kink(observation)):
        return findings
    return [replace(finding, status=Status.SKIP) if finding.status is Status.INCONCLUSIVE else finding for finding in findings]
