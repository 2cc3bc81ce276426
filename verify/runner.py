"""One spec through all stages: draw, observe, judge, merge; then, for a wrong rule, shrink and diagnose. No input or output here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from verify import checks as all_checks
from verify import diagnosis
from verify.cases import SHAPE_CASES, Case, draw, elements
from verify.checks.structure import user_line
from verify.evidence import evidence
from verify.observe import add_seconds, observe
from verify.programs import StageError
from verify.records import Finding, Status, Verdict
from verify.shrink import shrink
from verify.signature import nearest
from verify.spec import Spec, SpecError

PROFILES = {"quick": 28, "default": 104, "deep": 728}  # cases of an operation
THREADS = 2  # one traces (Python) while another compiles (XLA, which releases the interpreter lock)
BY_CHANCE = (
    "the case that failed does not fail when it runs alone: what the rule computes depends on the calls before it (state outside of the residuals), on the time "
    "or on chance"
)
ENOUGH_FAILURES = 8  # failing cases after which a rule is known to be wrong


_DTYPE_ORDER = (None, "float64", "float32", "bfloat16", "float16", "mixed")


@dataclass(frozen=True)
class Judged:
    """A case and what the checks found in it."""

    case: Case
    findings: tuple[Finding, ...]
    seconds: dict[str, float]

    @property
    def failed(self) -> bool:
        return bool(_failing_checks(self))


Judges = Callable[[Spec, Sequence[Case], Sequence[ModuleType]], Iterator[Judged]]


def run_spec(
    spec: Spec,
    cases: int | None = None,
    seed: int = 0,
    checks: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    judges: Judges | None = None,
    profile: str = "default",
) -> Verdict:
    """Verify a spec on random cases. `progress(done, total)` is called after each; `judges` says where the work is done (in threads here).

    Raises SpecError for a spec that cannot be drawn from. A function or reference that raises gives a verdict ERROR.
    """
    count = case_count(cases, seed, profile)
    return run_cases(spec, list(draw(spec, seed, range(count))), checks, progress, judges)


def case_count(cases: int | None, seed: int, profile: str = "default") -> int:
    """The number of cases to run: `cases`, or else what the profile says. Raises SpecError for numbers and names that make no sense."""
    if profile not in PROFILES:
        raise SpecError(
            f"there is no profile {profile!r}.{nearest(profile, PROFILES)} Known: {', '.join(f'{k} ({v} cases)' for k, v in PROFILES.items())}"
        )
    if cases is not None and cases < 1:
        raise SpecError(f"cases must be at least 1, got {cases}")
    if not 0 <= seed < 2**63:
        raise SpecError(f"seed must be between 0 and 2**63 - 1, got {seed}")
    return PROFILES[profile] if cases is None else cases


def run_cases(
    spec: Spec,
    cases: Sequence[Case],
    checks: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    judges: Judges | None = None,
) -> Verdict:
    """Verify a spec on the given cases, in order."""
    start = time.perf_counter()
    selected = all_checks.select(list(checks) if checks is not None else None)
    all_checks.select(list(spec.known_gaps))
    judged: list[Judged] = []
    failures = 0
    for result in (judges or in_threads)(spec, cases, selected):
        judged.append(result)
        failures += result.failed
        if progress:
            progress(len(judged), len(cases))
        if failures >= ENOUGH_FAILURES:
            break
    verdict = _merge(spec.name, judged, stopped=len(judged) < len(cases))
    if verdict.status is Status.FAIL:
        verdict = _explain(spec, verdict, judged, selected)
    return replace(verdict, seconds=time.perf_counter() - start)


def judge(spec: Spec, case: Case, selected: Sequence[ModuleType]) -> Judged:
    """All selected checks on one case."""
    with np.errstate(all="ignore"):  # overflow and NaN are findings here, not warnings
        return _judge(spec, case, selected)


def _judge(spec: Spec, case: Case, selected: Sequence[ModuleType]) -> Judged:
    try:
        observation = observe(spec, case)
    except StageError as error:
        return Judged(case, (_excused(case, _unusable(case, error)),), {})
    findings: list[Finding] = []
    for check in selected:
        if not check.applies(observation) or (check.NAME in all_checks.JUDGES and not observation.finite_somewhere):
            continue  # without a finite value there is no derivative to judge: `primal` says so
        if check.NAME in spec.known_gaps:
            findings.append(
                Finding(check=check.NAME, status=Status.SKIP, message=f"declared gap: {spec.known_gaps[check.NAME]}", address=case.address)
            )
        else:
            findings += (
                _excused(case, finding, observation.raised is not None, len(observation.measured)) for finding in check.judge(observation)
            )
    return Judged(case, tuple(findings), observation.seconds)


def _excused(case: Case, finding: Finding, raised: bool = False, judged_in: int = 1) -> Finding:
    """At stress values a function may have no derivative, and at sizes that nobody declared it may not work at all: no accusation, no verdict.

    Where low precision cannot tell anything, float64 may still have judged the same case (`judged_in` two dtypes).
    """
    if case.beyond and (finding.status is Status.ERROR or raised):
        message = f"at {case.describe()}, which the spec does not mention: {finding.message}"
        return replace(finding, status=Status.SKIP, message=message)
    unclear = finding.status is Status.INCONCLUSIVE
    low = finding.dtype not in (None, "float64") and judged_in > 1
    return replace(finding, status=Status.SKIP) if unclear and (case.stress or low) else finding


def _unusable(case: Case, error: StageError) -> Finding:
    who = {"primal": "the function itself", "reference": "the reference"}.get(
        error.stage, f"JAX cannot compile the function in {case.dtype}: it"
    )
    line = user_line(error.cause)
    text = " ".join(str(error.cause).split())[:500].rstrip(".")
    if "defvjp" in text or "defjvp" in text:
        advice = (
            f"Give the rule its derivative with {'defjvp(rule)' if 'defjvp' in text else 'defvjp(forward, backward)'} before it is called"
        )
    elif case.sizes:
        advice = f"The inputs were {case.describe()}. If such inputs are not meant to work, say so with sizes=, domain=, dtypes= or args= in the spec"
    else:
        advice = "The inputs were the given arrays"
    message = f"{who} raises {type(error.cause).__name__}{' at ' + line if line else ''}: {text}. {advice}"
    return Finding(check="structure", status=Status.ERROR, message=message, address=case.address)


def in_threads(spec: Spec, cases: Sequence[Case], selected: Sequence[ModuleType]) -> Iterator[Judged]:
    """Results in order, computed a few ahead: one thread traces while another compiles. Leaving the loop early drops what has not begun."""
    with ThreadPoolExecutor(THREADS) as pool:
        same_shape = [list(group) for _, group in itertools.groupby(cases, key=lambda case: (case.seed, case.index // SHAPE_CASES))]
        pending = [pool.submit(lambda group=group: [judge(spec, case, selected) for case in group]) for group in same_shape]
        try:
            for future in pending:
                yield from future.result()
        finally:
            for future in pending:
                future.cancel()


def _merge(name: str, judged: Sequence[Judged], stopped: bool) -> Verdict:
    """One finding for each check, status, argument and dtype; the worst case speaks for a failure."""
    groups: dict[tuple[Any, ...], list[Finding]] = {}
    for result in judged:
        for finding in result.findings:
            key = (finding.check, finding.status, finding.argument, finding.dtype)
            groups.setdefault(key, []).append(finding)
    order = {check.NAME: position for position, check in enumerate(all_checks.ALL)}
    merged = [_merged(group) for group in groups.values()]
    merged.sort(
        key=lambda finding: (
            order.get(finding.check, 99),
            -finding.status.badness,
            _DTYPE_ORDER.index(finding.dtype),
            finding.argument or "",
        )
    )
    seconds: dict[str, float] = {}
    for result in judged:
        add_seconds(seconds, result.seconds)
    status = _status(merged)
    notes = (f"stopped after {ENOUGH_FAILURES} failing cases",) if stopped else ()
    if status in (Status.INCONCLUSIVE, Status.SKIP) and not any(finding.status is Status.INCONCLUSIVE for finding in merged):
        notes = (*notes, "no gradient was compared with an oracle; the reasons stand below the table")
    return Verdict(
        name=name, status=status, findings=tuple(merged), comparisons=sum(f.comparisons for f in merged), cases=len(judged),
        shapes=len({tuple(result.case.sizes.items()) for result in judged}), smallest_detectable=_detectable(merged), notes=notes, timings=seconds,
    )  # fmt: skip


def _merged(group: Sequence[Finding]) -> Finding:
    worst = max(group, key=lambda finding: (finding.wrong / max(finding.comparisons, 1), -finding.comparisons))
    detectable = [finding.detectable for finding in group if finding.detectable is not None]
    cases = len({finding.address for finding in group})
    comparisons = sum(finding.comparisons for finding in group)
    return replace(worst, cases=cases, comparisons=comparisons, detectable=float(np.median(detectable)) if detectable else None)


def _status(findings: Iterable[Finding]) -> Status:
    """The worst of all findings; PASS only if a gradient was really compared with an oracle."""
    found = list(findings)
    worst = max((finding.status for finding in found), key=lambda status: status.badness, default=Status.SKIP)
    if worst in (Status.PASS, Status.SKIP):
        judged = any(f.status is Status.PASS and f.check in all_checks.JUDGES and f.comparisons for f in found)
        compared = any(f.status is Status.PASS and f.comparisons for f in found)
        return Status.PASS if judged else Status.INCONCLUSIVE if compared else Status.SKIP
    return worst


def _detectable(findings: Iterable[Finding]) -> float | None:
    """The sensitivity of the most exact gradient comparison: the median over its cases."""
    known = [
        f.detectable
        for f in findings
        if f.check in ("gradient", "precision", "finite-difference") and f.status is Status.PASS and f.detectable is not None
    ]
    return min(known) if known else None


def _explain(spec: Spec, verdict: Verdict, judged: Sequence[Judged], selected: Sequence[ModuleType]) -> Verdict:
    """Shrink the smallest failing case of the first check that fails, and say what is wrong.

    A check whose case fails alone as well comes before one that failed among other cases only, as the report's address must show the mistake again.
    """

    def fails(case: Case, check: ModuleType) -> bool:
        return check.NAME in _failing_checks(judge(spec, case, [check]))

    failing = {check: [result.case for result in judged if check.NAME in _failing_checks(result)] for check in selected}
    smallest = {check: min(cases, key=elements) for check, cases in failing.items() if cases}
    chance = [check for check in smallest if check.NAME == "repeatability"]  # what differs from call to call fails other checks, too
    responsible = next(itertools.chain(chance, (check for check, case in smallest.items() if fails(case, check))), None)
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


def _put_first(findings: Sequence[Finding], shown: Finding) -> tuple[Finding, ...]:
    """The findings that explain the verdict before all others; the shrunken case's numbers speak for the one they belong to."""
    spoken = [
        replace(shown, cases=f.cases, comparisons=f.comparisons)
        if (f.check, f.status, f.argument, f.dtype) == (shown.check, shown.status, shown.argument, shown.dtype)
        else f
        for f in findings
    ]
    return tuple(sorted(spoken, key=lambda f: (f.check, f.status) != (shown.check, shown.status)))


def _failing_checks(result: Judged) -> set[str]:
    return {finding.check for finding in result.findings if finding.status is Status.FAIL}


def _telling(case: Case) -> tuple[bool, bool, int, int, int]:
    """Cases whose sizes are all different and above 1 show patterns best; in a case of a single element everything looks like a factor."""
    sizes = [n for size in case.sizes.values() for n in (size if isinstance(size, tuple) else (size,))]
    return (case.stress, elements(case) <= 1, sum(size <= 1 for size in sizes), len(sizes) - len(set(sizes)), elements(case))
