"""One spec through all stages: draw, observe, judge, merge; then, for a wrong rule, shrink and diagnose. No input or output here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import ModuleType

import jax
import numpy as np

from verify import checks as all_checks
from verify import diagnosis, merging, unknown_dtypes
from verify.cases import SHAPE_CASES, Case, draw, elements
from verify.checks import finite_difference, gradient, purity, repeatability
from verify.checks.structure import user_line
from verify.evidence import evidence
from verify.merging import NOTHING_COMPARED
from verify.observation import Observation, add_seconds
from verify.observe import observe
from verify.oracles.agreement import DISAGREE
from verify.printable import short
from verify.profiles import case_count as case_count
from verify.programs import StageError
from verify.records import Finding, Status, Verdict
from verify.shrink import shrink
from verify.spec import Spec

THREADS = 2  # one traces (Python) while another compiles (XLA, which releases the interpreter lock)
BY_CHANCE = (
    "the case that failed does not fail when it runs alone: what the rule computes depends on the calls before it (state outside of the residuals), on the time "
    "or on chance"
)
BLURRED = "the function knows no 64-bit types, and too few digits are left here to compare; `extremes` asks for finite numbers"
EXACT = ("structure", "zero-cotangent", "repeatability", "extremes", "residuals", "portability", "purity")  # that need none of these digits
NO_DERIVATIVE = "JAX's autodiff of the primal is not the derivative of its values, as finite-difference says of other cases, and nothing else can tell here. Give reference="
WITHOUT_AUTODIFF = (
    "structure",
    "primal",
    "finite-difference",
    "taylor",
    "linearity",
    "zero-cotangent",
    "repeatability",
    "residuals",
    "portability",
    "purity",
)
ENOUGH_FAILURES = 8  # failing cases after which a rule is known to be wrong


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
    judged = _without_autodiff(spec, judged)
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
        if told := unknown_dtypes.skipped(spec, case, error):
            judged = _judge(spec, unknown_dtypes.in_float64(case), selected)
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


def _without_autodiff(spec: Spec, judged: list[Judged]) -> list[Judged]:
    """Where differences showed in some case that JAX's autodiff of the primal is none of its derivative (a bisection), it accuses nobody in the others.

    With a reference of their own, functions say what is right.
    """
    found = [finding for result in judged for finding in result.findings]
    if spec.reference is not None or not any(f.check == finite_difference.NAME and DISAGREE in f.message for f in found):
        return judged

    def excused(finding: Finding) -> Finding:
        accused = finding.status is Status.FAIL and finding.check not in WITHOUT_AUTODIFF
        return replace(finding, status=Status.SKIP, message=NO_DERIVATIVE) if accused else finding

    return [replace(result, findings=tuple(map(excused, result.findings))) for result in judged]


def _merge(name: str, judged: Sequence[Judged], stopped: bool) -> Verdict:
    """One finding for each check, status, argument and dtype; the worst case speaks for a failure."""
    merged = merging.merged([finding for result in judged for finding in result.findings], [check.NAME for check in all_checks.ALL])
    seconds: dict[str, float] = {}
    for result in judged:
        add_seconds(seconds, result.seconds)
    status = merging.status(merged)
    notes = (f"stopped after {ENOUGH_FAILURES} failing cases",) if stopped else ()
    if status in (Status.INCONCLUSIVE, Status.SKIP) and not any(finding.status is Status.INCONCLUSIVE for finding in merged):
        notes = (*notes, NOTHING_COMPARED)
    return Verdict(
        name=name, status=status, findings=merged, comparisons=sum(f.comparisons for f in merged), cases=len(judged),
        shapes=len({tuple(result.case.sizes.items()) for result in judged}), smallest_detectable=merging.detectable(merged), notes=notes, timings=seconds,
    )  # fmt: skip


def _explain(spec: Spec, verdict: Verdict, judged: Sequence[Judged], selected: Sequence[ModuleType]) -> Verdict:
    """Shrink the smallest failing case of the first check that fails, and say what is wrong.

    A check whose case fails alone as well comes before one that failed among other cases only, as the report's address must show the mistake again.
    """

    def fails(case: Case, check: ModuleType) -> bool:
        return check.NAME in _failing_checks(judge(spec, case, [check]))

    failing = {check: [result.case for result in judged if check.NAME in _failing_checks(result)] for check in selected}
    smallest = {check: min(cases, key=elements) for check, cases in failing.items() if cases}
    chance = [check for check in smallest if check is repeatability]  # what differs from call to call fails other checks, too
    state = [check for check in smallest if check is purity and fails(smallest[check], check)]  # and so does what a call leaves behind
    responsible = next(itertools.chain(chance, state, (check for check, case in smallest.items() if fails(case, check))), None)
    unsteady = gradient not in smallest or responsible is not next(iter(smallest))
    if unsteady and not chance and purity in selected and purity not in smallest:
        alone = _judged_alone(spec, judged, purity)
        if any(purity.NAME in _failing_checks(result) for result in alone):
            return _explain(spec, _merge(spec.name, alone, stopped=bool(verdict.notes)), alone, selected)
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


def _failing_checks(result: Judged) -> set[str]:
    return {finding.check for finding in result.findings if finding.status is Status.FAIL}


def _telling(case: Case) -> tuple[bool, bool, int, int, int]:
    """Cases whose sizes are all different and above 1 show patterns best; in a case of a single element everything looks like a factor."""
    sizes = [n for size in case.sizes.values() for n in (size if isinstance(size, tuple) else (size,))]
    return (case.stress, elements(case) <= 1, sum(size <= 1 for size in sizes), len(sizes) - len(set(sizes)), elements(case))
