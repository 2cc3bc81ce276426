"""The report as one JSON object, for machines, and back."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from verify.records import Finding, Report, Verdict

SCHEMA = "verify-report/1"  # what each field means: schema.json beside this file


class NotAReport(ValueError):
    """The text is no report of verify; the message says why in one line."""


def render(report: Report) -> str:
    """The object of `record` as text. Numbers that JSON does not know (NaN, infinity) are text."""
    return json.dumps(record(report), indent=2, allow_nan=False) + "\n"


def record(report: Report) -> dict[str, Any]:
    """`{"schema", "environment", "run", "verdicts": [...]}`, of what JSON knows alone."""
    verdicts = [verdict_record(verdict) for verdict in report.verdicts]
    return {"schema": SCHEMA, "environment": dict(report.environment), "run": dict(report.run), "verdicts": verdicts}


def read(text: str | bytes) -> Report:
    """A report from its JSON text. Raises NotAReport for anything else: foreign or truncated text, other types, values that no report has."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAReport(f"no JSON, or cut off: {error}") from None
    return convert(value)


def convert(value: Any) -> Report:
    """A report from the object of `record`. Raises NotAReport."""
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        found = f'its schema is "{schema}"' if isinstance(schema, str) else 'it has no "schema"'
        raise NotAReport(f'not a report of verify ("{SCHEMA}"): {found}')
    try:
        report = msgspec.convert(value, Report, strict=False)
    except msgspec.ValidationError as error:
        raise NotAReport(f"not a whole report of verify: {error}") from None
    for verdict in report.verdicts:
        if wrong := _impossible(verdict):
            raise NotAReport(f'not a report of verify: {wrong} of "{verdict.name}" are not such as verify writes')
    return report


def _impossible(verdict: Verdict) -> str:
    """What has the right types and yet cannot be: the pictures rely on it. "" where nothing is."""
    if not all(math.isfinite(seconds) for seconds in (verdict.seconds, *verdict.timings.values())):
        return "the times"
    evidence = verdict.evidence
    for errors in evidence.errors if evidence else ():
        (row, column), width = errors.cell, len(errors.cells[0]) if errors.cells else 0
        whole = all(len(cells) == width and not any(value is not None and math.isnan(value) for value in cells) for cells in errors.cells)
        if not whole or not 0 <= row < len(errors.cells) or not 0 <= column < width or min(*errors.block, *errors.shape, 1) < 1:
            return "the errors"
    if evidence and (curve := evidence.curve):
        steps = curve.steps
        if not steps or not len(steps) == len(curve.ahead) == len(curve.behind) or not all(0 < h < math.inf for h in steps):
            return "the steps"
    return ""


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
        "smallest_detectable": _plain(verdict.smallest_detectable),
        "seconds": round(verdict.seconds, 3),
        "timings": {phase: round(seconds, 3) for phase, seconds in verdict.timings.items()},
        "notes": list(verdict.notes),
        "findings": [_finding(finding) for finding in verdict.findings],
        "evidence": _plain(verdict.evidence),
        "location": verdict.location,
        "calls": verdict.calls,
        "installed": verdict.installed,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "status": str(finding.status),
        "argument": finding.argument,
        "index": _plain(finding.index),
        "got": _plain(finding.got),
        "want": _plain(finding.want),
        "bound": _plain(finding.bound),
        "units": _plain(finding.units),
        "message": finding.message,
        "wrong": finding.wrong,
        "comparisons": finding.comparisons,
        "cases": finding.cases,
        "detectable": _plain(finding.detectable),
        "dtype": finding.dtype,
        "address": finding.address,
    }


def _plain(value: Any) -> Any:
    """Records as objects, tuples as arrays, numbers that JSON does not know as text."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
