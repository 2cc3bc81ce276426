"""One spec through all stages: draw, observe, judge, merge; then, for a wrong rule, shrink and diagnose. No input or output here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType

from verify import checks as all_checks
from verify.blame import explained
from verify.cases import Case, draw
from verify.checks import finite_difference
from verify.judging import ENOUGH_FAILURES, Judged, judge, verdict_of
from verify.observe import forget
from verify.oracles.agreement import DISAGREE
from verify.profiles import case_count
from verify.records import Finding, Status, Verdict
from verify.spec import Spec, SpecError
from verify.turns import SHAPE_CASES

THREADS = 2  # one traces (Python) while another compiles (XLA, which releases the interpreter lock)
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
    forget()
    selected = all_checks.select(list(checks) if checks is not None else None)
    try:
        all_checks.select(list(spec.known_gaps))
    except SpecError as error:
        raise SpecError(f"{spec.name}: known_gaps: {error}") from None
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
    verdict = verdict_of(spec.name, judged, stopped=len(judged) < len(cases))
    if verdict.status is Status.FAIL:
        verdict = explained(spec, verdict, judged, selected)
    return replace(verdict, seconds=time.perf_counter() - start)


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
