"""What a picture of a failure needs: where each array is wrong, the function's values along a direction, how wrong every case is. It decides nothing.

It is computed once for a verdict that is FAIL, after everything else; other verdicts cost nothing more.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from verify.cases import Case, elements
from verify.checks.effort import small
from verify.diagnosis.diagnose import GRADIENT_CHECKS
from verify.observation import Observation
from verify.observe import observe
from verify.oracles.agreement import differences_tell, project
from verify.oracles.autodiff import at_kink
from verify.oracles.finite_difference import slope
from verify.records import CaseError, Curve, Evidence, Finding, Status
from verify.reproduce import reproduce
from verify.slopes import slope_along
from verify.spec import Spec

STEPS = 10.0 ** -np.arange(0.5, 13, 0.5)  # from where truncation rules to where rounding does
ARRAYS = 3  # of one failure, that are shown


def evidence(
    spec: Spec, check: str, telling: Case, findings: Sequence[Finding], smallest: Case, shown: Finding | None,
    judged: Iterable[tuple[Case, Sequence[Finding]]],
) -> Evidence | None:  # fmt: skip
    """The evidence that `check` fails. `findings` are those of the case `telling`, `shown` is the worst of the case `smallest`; `judged` are all cases.

    A fault here is a warning: the verdict stands without pictures.
    """
    try:
        with np.errstate(all="ignore"):
            maps = [finding.errors for finding in findings if finding.status is Status.FAIL and finding.errors is not None]
            cases = tuple(_errors(check, judged))
            return Evidence(
                check=check,
                address=telling.address,
                case=telling.describe(),
                errors=tuple(maps[:ARRAYS]),
                curve=_curve(observe(spec, telling)) if check in GRADIENT_CHECKS else None,
                cases=cases if any(case.error is not None for case in cases) else (),
                unit="the error of JAX's autodiff" if check == "precision" else "its bound",
                reproduce=reproduce(spec, smallest, shown),
            )
    except Exception:
        warnings.warn(
            f"no evidence was collected, the verdict stands; please report this:\n{traceback.format_exc()}", RuntimeWarning, stacklevel=2
        )
        return None


def _curve(observation: Observation) -> Curve | None:
    """The function's values at many more steps than a verdict needs, where there is a derivative that differences can approach."""
    program = observation.exact_program
    if program is None or not observation.measured or not observation.slopes or not differences_tell(observation) or at_kink(observation):
        return None
    measured, direction = observation.measured[0], observation.slopes[0].direction
    center = program(observation.diff, observation.rest, observation.cts["base"])
    own = "primal" in center and (measured.dtype == "float64" or observation.truth is None)
    key, limit = ("primal", observation.limit) if own else ("reference_out", observation.reference_limit)
    values = observation.slopes[0]
    if small(observation):  # of large arrays the few values that the verdict needed
        values = slope_along(
            program, observation.diff, observation.rest, observation.cts["base"], key, limit, direction, center[key], STEPS
        )
    rule, size = project(measured.runs["base"]["rule"], direction)
    if observation.truth is not None:
        want, oracle = project(observation.truth["base"]["reference"], direction)[0], "autodiff of the reference"
    else:
        want, oracle = slope(observation.slopes[0])[0], "finite differences, extrapolated"
    finite = np.isfinite(values.ahead) & np.isfinite(values.behind)
    if not finite.any() or not np.isfinite([rule, want]).all():
        return None
    steps, ahead, behind = (tuple(numbers[finite].tolist()) for numbers in (values.steps, values.ahead, values.behind))
    return Curve(steps=steps, ahead=ahead, behind=behind, rule=rule, want=want, size=size, noise=float(values.rounding), oracle=oracle)


def _errors(check: str, judged: Iterable[tuple[Case, Sequence[Finding]]]) -> Iterable[CaseError]:
    for case, findings in judged:
        own = [finding for finding in findings if finding.check == check and finding.status in (Status.PASS, Status.FAIL)]
        failing = [finding for finding in own if finding.status is Status.FAIL]
        sizes = [_size(finding, check) for finding in failing]
        known = [size for size in sizes if size is not None]
        if own and len(known) == len(failing):
            worst = float(f"{max(known):.3g}") if known else None
            yield CaseError(elements=elements(case), dtype=(failing or own)[0].dtype or case.dtype, error=worst)


def _size(finding: Finding, check: str) -> float | None:
    if check == "precision":
        return finding.units
    if finding.got is None or finding.want is None or not finding.bound:
        return None
    return abs(finding.got - finding.want) / finding.bound if np.isfinite(finding.got) else float("inf")


def without_addresses(found: Evidence | None) -> Evidence | None:
    """Of cases that `verify replay` cannot draw, as they are on given arrays."""
    return replace(found, address=None) if found else None
