"""Is the value right, with and without differentiation?

A `custom_vjp` has two forwards: the primal, used when nobody differentiates, and the forward rule. JAX does not compare them, so a training step may
compute another function than the one that was tested. Both are compared with the reference, or with each other where there is no reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from verify._compat import enable_x64
from verify.apart import by_operation
from verify.checks.compare import compare, failed
from verify.noise import roughened
from verify.observation import Measured, Observation
from verify.oracles import autodiff
from verify.programs import rule, trace
from verify.records import Estimate, Finding, Status
from verify.rounding import rounded_inside
from verify.tolerance import noise_bound
from verify.values import cast, largest, wide

CODE, NAME, TITLE = "V002", "primal", "the value is the reference's, with and without differentiation"


def applies(observation: Observation) -> bool:
    return bool(observation.measured)


def judge(observation: Observation) -> list[Finding]:
    findings = [finding for measured in observation.measured for finding in _judge(observation, measured)]
    if observation.fused:
        message = (
            f"at these extreme inputs what {observation.fused} gives depends on how it is compiled: operation by operation it is right"
        )
        findings.append(Finding(check=NAME, status=Status.SKIP, message=message, address=observation.case.address, dtype=observation.fused))
    if not observation.finite_somewhere and not failed(findings):
        said = next(iter(observation.measured[0].runs["base"]["primal"][0].reshape(-1)), None)
        message = f"every element of the value is {said:.6g} or not finite either, in function and reference alike"
        findings = [
            Finding(check=NAME, status=Status.SKIP, message=message, address=observation.case.address, dtype=observation.measured[0].dtype)
        ]
    if not any(jnp.issubdtype(array.dtype, jnp.integer) for array in observation.rest):
        return findings
    hint = '. If an integer argument is an index, give its range: Arg(dtype="int32", low=0, high=...) or sample='
    return [replace(f, message=f.message + hint) if f.status is Status.INCONCLUSIVE else f for f in findings]


def _judge(observation: Observation, measured: Measured, rough: bool = False) -> list[Finding]:
    """`rough`, before anybody is accused in float64: allow for the reference's rounding as `noise.roughened` and `rounding` measure it, too."""
    base, address = measured.runs["base"], observation.case.address
    if observation.truth is not None:
        value = _attainable(observation, measured, autodiff.primal(observation, measured))
    else:
        plain = tuple(wide(out) for out in base["primal"])
        error = tuple(noise_bound(out, 0 * out, largest(out), autodiff.coarsest(observation, measured)) for out in plain)
        value = Estimate(value=plain, error=error)
    names = ["output"] if len(value.value) == 1 else [f"output{k}" for k in range(len(value.value))]
    plain_findings = compare(NAME, "the primal", names, base["primal"], value, measured.dtype, address, infinities=True)
    ruled = compare(NAME, "the forward rule's", names, base["out"], value, measured.dtype, address, infinities=True)
    program, wrong = observation.exact_program, failed(plain_findings) or failed(ruled)
    if wrong and not rough and measured.dtype == "float64" and program is not None and observation.truth:
        case, diff, rest, cts = observation.case, observation.diff, observation.rest, observation.cts["base"]
        noise = roughened(measured.out_noise, lambda diff: program(diff, rest, cts)["reference_out"], case, diff)
        noise = rounded_inside(noise, observation.call.run_reference, case, diff, rest)
        return _judge(observation, replace(measured, out_noise=noise), rough=True)
    if wrong and not _settled(observation, measured, value):
        message = "at these extreme inputs the value depends on how it is compiled (rounding before a difference of huge numbers)"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=address, dtype=measured.dtype)]
    if failed(plain_findings):
        return plain_findings  # then the forward rule is judged against a value that is in doubt
    return (
        ruled + _not_finite(observation, measured, value) if failed(ruled) else plain_findings + _not_finite(observation, measured, value)
    )


def _attainable(observation: Observation, measured: Measured, value: Estimate) -> Estimate:
    """Infinities are asked for only where the reference itself gives them in this precision (a difference of what overflows is NaN), and of tiny and huge
    inputs not of a function that is finite: its formula may be better than one that overflows."""
    base = measured.runs["base"]
    plain = measured.autodiff["base"]["reference_out"] if measured.autodiff else value.value
    extreme = observation.case.style in ("tiny", "huge")
    kept = []
    for want, reference, *own in zip(value.value, plain, base["primal"], base["out"], strict=True):
        better = extreme & np.all([np.isfinite(wide(out)) for out in own], axis=0)
        kept.append(np.where(np.isinf(want) & ((wide(reference) != want) | better), np.nan, want))
    return replace(value, value=tuple(kept))


def _settled(observation: Observation, measured: Measured, value: Estimate) -> bool:
    """Before anyone is accused at extreme inputs: whether, operation by operation, where XLA fuses nothing, the reference is right still and the function still wrong."""
    if not observation.case.stress or observation.truth is None:
        return True

    def right(outputs: Sequence[Any]) -> bool:
        pairs = zip(outputs, value.value, value.error, strict=True)
        return all(
            bool(np.all((np.abs(wide(out) - want) <= error) | ~np.isfinite(want) | ~np.isfinite(error))) for out, want, error in pairs
        )

    try:
        inputs, rest, cts = cast(observation.diff, measured.dtypes), observation.rest, observation.cts["base"]
        with enable_x64("float64" in measured.dtypes):
            traced = trace(observation.call.call, inputs, rest)
        if not right(by_operation(measured, traced.run_reference, inputs, rest)):
            return False
        own = [by_operation(measured, traced.run, inputs, rest), by_operation(measured, rule(traced), inputs, rest, cts)[0]]
    except Exception:  # a function that exists only compiled
        return True
    return not all(map(right, own))


def _not_finite(observation: Observation, measured: Measured, value: Estimate) -> list[Finding]:
    """A value that is NaN in function and reference alike has no derivative to judge. An infinity is a value (log of a masked element): -inf is -inf."""
    if measured.dtype != "float64":
        return []
    for k, want in enumerate(value.value):
        if (count := int(np.isnan(want).sum())) and count < want.size:
            index = tuple(int(i) for i in np.argwhere(np.isnan(want))[0])
            message = (
                f"output {k}{list(index)} is {want[index]:.6g} in function and reference alike ({count} of {want.size} elements): nothing to judge there. "
                f"Keep the draws inside the function's domain with Arg(low=, high=), or verify it on example arrays"
            )
            return [
                Finding(check=NAME, status=Status.INCONCLUSIVE, message=message, address=observation.case.address, dtype=measured.dtype)
            ]
    return []
