"""The report as one JSON object, for machines."""

from __future__ import annotations

import json
import math
from typing import Any

from verify.records import Finding, Report, Verdict

SCHEMA = "verify-report/1"


def render(report: Report) -> str:
    """`{"schema", "environment", "verdicts": [...]}`; numbers that JSON does not know (NaN, infinity) are text."""
    verdicts = [verdict_record(verdict) for verdict in report.verdicts]
    return json.dumps({"schema": SCHEMA, "environment": dict(report.environment), "verdicts": verdicts}, indent=2, allow_nan=False) + "\n"


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "status": str(verdict.status),
        "address": verdict.address,
        "smallest_case": verdict.smallest_case,
        "diagnosis": verdict.diagnosis,
        "comparisons": verdict.comparisons,
        "cases": verdict.cases,
        "shapes": verdict.shapes,
        "smallest_detectable": _number(verdict.smallest_detectable),
        "seconds": round(verdict.seconds, 3),
        "notes": list(verdict.notes),
        "findings": [_finding(finding) for finding in verdict.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "status": str(finding.status),
        "argument": finding.argument,
        "index": list(finding.index) if finding.index is not None else None,
        "got": _number(finding.got),
        "want": _number(finding.want),
        "bound": _number(finding.bound),
        "message": finding.message,
        "wrong": finding.wrong,
        "comparisons": finding.comparisons,
        "cases": finding.cases,
        "detectable": _number(finding.detectable),
        "dtype": finding.dtype,
        "address": finding.address,
    }


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
