"""A case, observed and judged by each check; and the judgments of many cases as one verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import jax
import numpy as np

from verify import checks as all_checks
from verify import merging, unknown_dtypes
from verify.cases import Case
from verify.checks.structure import user_line
from verify.observation import Observation, add_seconds
from verify.observe import observe
from verify.printable import short
from verify.programs import StageError
from verify.records import Finding, Status, Verdict
from verify.spec import Spec

BLURRED = "the function knows no 64-bit types, and too few digits are left here to compare; `extremes` asks for finite numbers"
EXACT = ("structure", "zero-cotangent", "repeatability", "extremes", "residuals", "portability", "purity")  # that need none of these digits
ENOUGH_FAILURES = 8  # failing cases after which a rule is known to be wrong


@dataclass(frozen=True)
class Judged:
    """A case and what the checks found in it."""

    case: Case
    findings: tuple[Finding, ...]
    seconds: dict[str, float]

    @property
    def failed(self) -> bool:
        return bool(self.failing_checks)

    @property
    def failing_checks(self) -> set[str]:
        return {finding.check for finding in self.findings if finding.status is Status.FAIL}


@np.errstate(all="ignore")  # overflow and NaN are findings here, not warnings
def judge(spec: Spec, case: Case, selected: Sequence[ModuleType]) -> Judged:
    """All selected checks on one case."""
    try:
        observation = observe(spec, case)
    except StageError as error:
        if told := unknown_dtypes.skipped(spec, case, error):
            judged = judge(spec, unknown_dtypes.in_float64(case), selected)
            if all(finding.status is not Status.ERROR for finding in judged.findings):  # else the dtype is not the reason
                return replace(judged, findings=(*judged.findings, told))
        return Judged(case, (_excused(case, _unusable(case, error)),), {})
    except jax.errors.JaxRuntimeError as error:  # an assertion in the function (equinox.error_if) raises when it runs
        return Judged(case, (_excused(case, _unusable(case, StageError("primal", error))),), {})
    if observation.another_function:
        message = "at huge inputs the function's values have nothing to do with the reference's (a mask of -1e9 is no longer far away): nothing is judged there"
        return Judged(case, (Finding(check="primal", status=Status.SKIP, message=message, address=case.address),), observation.seconds)
    findings: list[Finding] = []
    for check in selected:
        if not check.applies(observation) or (check.NAME in all_checks.JUDGES and not observation.finite_somewhere):
            continue  # without a finite value there is no derivative to judge: `primal` says so
        left_out = BLURRED if observation.blurred and check.NAME not in EXACT else ""
        if reason := f"declared gap: {spec.known_gaps[check.NAME]}" if check.NAME in spec.known_gaps else left_out:
            findings.append(Finding(check=check.NAME, status=Status.SKIP, message=reason, address=case.address))
        else:
            findings += (
                _excused(case, finding, observation.raised is not None, len(observation.measured)) for finding in _found(check, observation)
            )
    return Judged(case, tuple(findings), observation.seconds)


def _found(check: ModuleType, observation: Observation) -> list[Finding]:
    """What a check finds; it abstains where the function raises at values near the case's, where it is run too."""
    try:
        return check.judge(observation)
    except jax.errors.JaxRuntimeError as error:
        text = short(error)
        message = f"the function raises when it runs near these inputs: {text}"
        return [Finding(check=check.NAME, status=Status.SKIP, message=message, address=observation.case.address)]


def _excused(case: Case, finding: Finding, raised: bool = False, judged_in: int = 1) -> Finding:
    """At stress values a function may have no derivative, and at sizes that nobody declared it may not work at all: no accusation, no verdict.

    Where low precision cannot tell anything, float64 may still have judged the same case (`judged_in` two dtypes).
    """
    if case.beyond and (finding.status is Status.ERROR or raised):
        where = f"at {case.describe()}, which the spec does not mention" if case.describe() else "at sizes or dtypes that nobody declared"
        message = f"{where}: {finding.message}"
        return replace(finding, status=Status.SKIP, message=message)
    unclear = finding.status is Status.INCONCLUSIVE
    low = finding.dtype not in (None, "float64") and judged_in > 1
    return replace(finding, status=Status.SKIP) if unclear and (case.stress or low) else finding


def _unusable(case: Case, error: StageError) -> Finding:
    who = {"primal": "the function itself", "reference": "the reference"}.get(
        error.stage, f"JAX cannot compile the function in {case.dtype}: it"
    )
    line = user_line(error.cause)
    text = short(error.cause, 500).rstrip(". ")
    if "defvjp" in text or "defjvp" in text:
        advice = (
            f"Give the rule its derivative with {'defjvp(rule)' if 'defjvp' in text else 'defvjp(forward, backward)'} before it is called"
        )
    elif case.sizes:
        advice = f"The inputs were {case.describe()}. {_one_size(case, text)}If such inputs are not meant to work, say so with sizes=, domain=, dtypes= or args= in the spec"
    else:
        shapes = ", ".join(
            f"{name} {np.shape(value)}" for name, value in zip(case.argument_names, case.args, strict=True) if np.ndim(value)
        )
        advice = f"The inputs were the given arrays{': ' if shapes else ''}{shapes}"
    message = f"{who} raises {type(error.cause).__name__}{' at ' + line if line else ''}: {text}. {advice}"
    return Finding(check="structure", status=Status.ERROR, message=message, address=case.address)


def _one_size(case: Case, text: str) -> str:
    """Two dimensions whose sizes stand in an error about shapes may be meant to be one."""
    named: dict[str, list[str]] = {}
    for name, size in case.sizes.items():
        named.setdefault(str(size), []).append(name)
    met = [named[size] for size in dict.fromkeys(re.findall(r"\d+", text)) if size in named]
    if "shape" not in text or len(met) != 2 or any(len(names) > 1 for names in met):
        return ""
    return f"If {met[0][0]} and {met[1][0]} are one size, give them one name in dims. "


def verdict_of(name: str, judged: Sequence[Judged], stopped: bool) -> Verdict:
    """The judgments of a spec's cases as one verdict; `stopped`: more cases were to come."""
    merged = merging.merged([finding for result in judged for finding in result.findings], [check.NAME for check in all_checks.ALL])
    seconds: dict[str, float] = {}
    for result in judged:
        add_seconds(seconds, result.seconds)
    status = merging.status(merged)
    notes: tuple[str, ...] = (f"stopped after {ENOUGH_FAILURES} failing cases",) if stopped else ()
    notes += merging.why_nothing(status, merged)
    return Verdict(
        name=name, status=status, findings=merged, comparisons=sum(f.comparisons for f in merged), cases=len(judged),
        shapes=len({tuple(result.case.sizes.items()) for result in judged}), smallest_detectable=merging.detectable(merged), notes=notes, timings=seconds,
    )  # fmt: skip
