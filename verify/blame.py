"""What a wrong rule gets beside its FAIL: the check that is responsible, the smallest case, the mistake in words, what shows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from verify import diagnosis
from verify.cases import Case, elements
from verify.checks import gradient, purity, repeatability
from verify.evidence import evidence
from verify.judging import Judged, judge, verdict_of
from verify.records import Finding, Status, Verdict
from verify.shrink import shrink
from verify.spec import Spec

BY_CHANCE = (
    "the case that failed does not fail when it runs alone: what the rule computes depends on the calls before it (state outside of the residuals), on the time "
    "or on chance"
)


def explained(spec: Spec, verdict: Verdict, judged: Sequence[Judged], selected: Sequence[ModuleType]) -> Verdict:
    """Shrink the smallest failing case of the first check that fails, and say what is wrong.

    A check whose case fails alone as well comes before one that failed among other cases only, as the report's address must show the mistake again.
    """

    def fails(case: Case, check: ModuleType) -> bool:
        return check.NAME in judge(spec, case, [check]).failing_checks

    failing = {check: [result.case for result in judged if check.NAME in result.failing_checks] for check in selected}
    smallest = {check: min(cases, key=elements) for check, cases in failing.items() if cases}
    chance = [check for check in smallest if check is repeatability]  # what differs from call to call fails other checks, too
    state = [check for check in smallest if check is purity and fails(smallest[check], check)]  # and so does what a call leaves behind
    responsible = next(itertools.chain(chance, state, (check for check, case in smallest.items() if fails(case, check))), None)
    unsteady = gradient not in smallest or responsible is not next(iter(smallest))
    if unsteady and not chance and purity in selected and purity not in smallest:
        alone = _judged_alone(spec, judged, purity)
        if any(purity.NAME in result.failing_checks for result in alone):
            return explained(spec, verdict_of(spec.name, alone, stopped=bool(verdict.notes)), alone, selected)
    if responsible is None:
        return replace(verdict, address=next(iter(smallest.values())).address, diagnosis=BY_CHANCE)
    case = smallest[responsible]
    outcomes = [(result.case, result.failed) for result in judged]
    if case.sizes:

        def still_fails(smaller: Case) -> bool:
            outcomes.append((smaller, fails(smaller, responsible)))
            return outcomes[-1][1]

        case = shrink(spec, case, still_fails)
    findings = judge(spec, case, [responsible]).findings
    seen_before = (f for f in verdict.findings if f.check == responsible.NAME)
    shown = next((finding for finding in (*findings, *seen_before) if finding.status is Status.FAIL), None)
    telling, *others = sorted(failing[responsible], key=_telling)
    sentence = diagnosis.diagnose(spec, responsible.NAME, shown, [telling, *others], outcomes)
    seen = evidence(
        spec, responsible.NAME, telling, judge(spec, telling, [responsible]).findings, case, shown, [(r.case, r.findings) for r in judged]
    )
    return replace(
        verdict, diagnosis=sentence, address=case.address, smallest_case=case.describe(), evidence=seen,
        findings=_put_first(verdict.findings, shown) if shown else verdict.findings,
    )  # fmt: skip


def _judged_alone(spec: Spec, judged: Sequence[Judged], check: ModuleType) -> list[Judged]:
    """The results, and those of one check anew, as no other case runs now: what a rule keeps between calls may have been overwritten by another thread's."""

    def again(result: Judged) -> Judged:
        others = tuple(finding for finding in result.findings if finding.check != check.NAME)
        ran = len(others) < len(result.findings)
        return replace(result, findings=(*others, *judge(spec, result.case, [check]).findings)) if ran else result

    return [again(result) for result in judged]


def _put_first(findings: Sequence[Finding], shown: Finding) -> tuple[Finding, ...]:
    """The findings that explain the verdict before all others; the shrunken case's numbers speak for the one they belong to."""
    spoken = [
        replace(shown, cases=f.cases, comparisons=f.comparisons)
        if (f.check, f.status, f.argument, f.dtype) == (shown.check, shown.status, shown.argument, shown.dtype)
        else f
        for f in findings
    ]
    return tuple(sorted(spoken, key=lambda f: (f.check, f.status) != (shown.check, shown.status)))


def _telling(case: Case) -> tuple[bool, bool, int, int, int]:
    """Cases whose sizes are all different and above 1 show patterns best; in a case of a single element everything looks like a factor."""
    sizes = [n for size in case.sizes.values() for n in (size if isinstance(size, tuple) else (size,))]
    return (case.stress, elements(case) <= 1, sum(size <= 1 for size in sizes), len(sizes) - len(set(sizes)), elements(case))
