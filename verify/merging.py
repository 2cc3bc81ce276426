"""Findings of many cases as one for each check, argument and dtype; and verdicts on parts of the cases as one verdict on all. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from verify.records import Finding, Status, Verdict

NONE_APPLIES = "none of the checks that were asked for applies to this operation; verify explain CHECK says what it is for"
JUDGES = (
    "gradient",
    "precision",
    "finite-difference",
    "adjoint",
    "complex-step",
)  # checks that compare a gradient with an oracle: PASS needs one
NOTHING_COMPARED = "no gradient was compared with an oracle; the reasons stand below the table"
BAD = (Status.FAIL, Status.ERROR)
_DTYPE_ORDER = (None, "float64", "float32", "bfloat16", "float16", "mixed")


def merged(findings: Iterable[Finding], checks: Sequence[str]) -> tuple[Finding, ...]:
    """One finding for each check, status, argument and dtype, in the order of `checks`; the worst case speaks for a failure."""
    groups: dict[tuple[str, Status, str | None, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.check, finding.status, finding.argument, finding.dtype), []).append(finding)
    order = {check: position for position, check in enumerate(checks)}

    def place(finding: Finding) -> tuple[int, int, int, str]:
        return (order.get(finding.check, 99), -finding.status.badness, _DTYPE_ORDER.index(finding.dtype), finding.argument or "")

    return tuple(sorted(map(_one, groups.values()), key=place))


def _one(group: Sequence[Finding]) -> Finding:
    worst = max(group, key=lambda finding: (finding.wrong / max(finding.comparisons, 1), -finding.comparisons))
    detectable = [finding.detectable for finding in group if finding.detectable is not None]
    cases = sum({finding.address: finding.cases for finding in group}.values())
    comparisons = sum(finding.comparisons for finding in group)
    return replace(worst, cases=cases, comparisons=comparisons, detectable=float(np.median(detectable)) if detectable else None)


def status(findings: Iterable[Finding]) -> Status:
    """The worst of all findings; PASS only if a gradient was really compared with an oracle."""
    found = list(findings)
    worst = max((finding.status for finding in found), key=lambda status: status.badness, default=Status.SKIP)
    if worst in (Status.PASS, Status.SKIP):
        judged = any(f.status is Status.PASS and f.check in JUDGES and f.comparisons for f in found)
        compared = any(f.status is Status.PASS and f.comparisons for f in found)
        return Status.PASS if judged else Status.INCONCLUSIVE if compared else Status.SKIP
    return worst


def detectable(findings: Iterable[Finding]) -> float | None:
    """The sensitivity of the most exact gradient comparison: the median over its cases."""
    known = [
        f.detectable
        for f in findings
        if f.check in ("gradient", "precision", "finite-difference") and f.status is Status.PASS and f.detectable is not None
    ]
    return min(known) if known else None


def why_nothing(verdict: Status, findings: Sequence[Finding]) -> tuple[str, ...]:
    """A note for a verdict that is undecided although no check is: nothing was compared."""
    if verdict not in (Status.INCONCLUSIVE, Status.SKIP) or any(finding.status is Status.INCONCLUSIVE for finding in findings):
        return ()
    return (NOTHING_COMPARED if findings else NONE_APPLIES,)


def merge_verdicts(parts: Sequence[Verdict], checks: Sequence[str]) -> Verdict:
    """One verdict of those on disjoint cases of one operation, in the order of the cases. The first FAIL, else the first of the worst, speaks for all.

    Numbers are sums, but for the smallest detectable error, a median of medians; a shape that two parts drew counts twice.
    """
    findings = merged([finding for part in parts for finding in part.findings], checks)
    verdict = max([status(findings), *(part.status for part in parts if part.status in BAD)], key=lambda status: status.badness)
    speaker = next((part for part in parts if part.status is verdict), parts[0])
    notes = [note for part in parts for note in part.notes if note not in (NOTHING_COMPARED, NONE_APPLIES)]
    notes += why_nothing(verdict, findings)
    timings: dict[str, float] = {}
    for part in parts:
        for phase, seconds in part.timings.items():
            timings[phase] = timings.get(phase, 0.0) + seconds
    return replace(
        speaker, status=verdict, findings=findings, comparisons=sum(part.comparisons for part in parts), cases=sum(part.cases for part in parts),
        shapes=sum(part.shapes for part in parts), smallest_detectable=detectable(findings), notes=tuple(dict.fromkeys(notes)), timings=timings,
        seconds=sum(part.seconds for part in parts),
    )  # fmt: skip
