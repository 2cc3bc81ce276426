"""The report as one page that needs nothing else: no network, no script to be read. Made from the JSON record alone, with pictures of each failure.

The pictures are our own SVG: a chart is some hundred bytes of paths in the page's colours, light and dark, where a plotting library's is a hundred kilobytes. A content
security policy lets nothing run or load but the style sheet and the script in the page, named by their hashes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from verify.printable import clean
from verify.records import Status
from verify.report import figures
from verify.report.words import NEXT, elapsed, error_text, explained, next_step, replay

GLYPHS = {
    "FAIL": "✕",
    "ERROR": "▲",
    "INCONCLUSIVE": "?",
    "PASS": "✓",
    "SKIP": "–",
}  # a shape for each, as colour alone says nothing to some
FIRST = 4  # findings of a failure that are spelled out; the table below has all


def render(record: Mapping[str, Any]) -> str:
    """The page for a report as `verify.report.json.record` makes it. The same record gives the same page, byte for byte."""
    record = _cleaned(record)
    verdicts = sorted(enumerate(record["verdicts"]), key=lambda item: -Status(item[1]["status"]).badness)
    found = {finding["check"] for _, verdict in verdicts for finding in verdict["findings"]}
    columns = [check for check in NEXT if check in found] + sorted(found - set(NEXT))
    counts = [(str(s), sum(v["status"] == s for _, v in verdicts)) for s in reversed(Status)]
    style, script = (Markup((files("verify.report") / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    return _template().render(
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        environment=record.get("environment", {}),
        run=record.get("run", {}),
        counts=[(status, count) for status, count in counts if count],
        columns=columns,
        verdicts=[_verdict(position, verdict, columns) for position, verdict in verdicts],
        comparisons=sum(verdict.get("comparisons", 0) for _, verdict in verdicts),
        seconds=elapsed(record.get("run", {}), (verdict.get("seconds", 0.0) for _, verdict in verdicts)),
        glyphs=GLYPHS,
    )


def _verdict(position: int, verdict: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """What the template shows of one operation."""
    findings, status, evidence = verdict["findings"], verdict["status"], verdict.get("evidence") or {}
    worst = {
        check: max((Status(f["status"]) for f in findings if f["check"] == check), key=lambda s: s.badness, default=None)
        for check in columns
    }
    bad = [finding for finding in findings if finding["status"] == status] if status != "PASS" else []
    first = [f for f in bad if (f["check"], f.get("dtype")) == (bad[0]["check"], bad[0].get("dtype"))][:FIRST]
    return {
        **verdict,
        "installed": verdict.get("installed", True),  # reports of earlier versions do not say
        "id": f"op-{position}",
        "cells": [worst[check] for check in columns],
        "bad": first,
        "more": len({f["check"] for f in bad} - {f["check"] for f in first}),
        "explained": explained(verdict["name"], verdict["address"], first[0]["check"]) if first else "",
        "next": next_step(first[0]["check"], first[0]["message"]) if first and status == "FAIL" else "",
        "figures": figures.of(evidence),
        "evidence": evidence,
        "residuals": next((f["message"] for f in findings if f["check"] == "residuals" and f["status"] == "PASS"), ""),
        "rows": _rows(findings),
        "phases": figures.phases(verdict.get("timings") or {}),
    }


def _rows(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One for each check and status: what differs by dtype and argument is said in words."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        groups.setdefault((finding["check"], finding["status"]), []).append(finding)
    return [
        {
            "check": check,
            "status": status,
            "comparisons": sum(f.get("comparisons", 0) for f in group),
            "dtypes": "; ".join(dict.fromkeys(_in_dtype(f) for f in group)),
            "says": ". ".join(dict.fromkeys(f["message"] for f in group if f.get("message"))),
        }
        for (check, status), group in groups.items()
    ]


def _in_dtype(finding: Mapping[str, Any]) -> str:
    """ "float64 28: 1.3e-10", of what is known."""
    caught = _caught(finding.get("detectable"))
    return f"{finding.get('dtype') or ''} {finding.get('cases', 0)}".strip() + (f": {caught}" if caught else "")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, finalize=lambda value: "" if value is None else value, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined,
        loader=jinja2.FunctionLoader(lambda name: (files("verify.report") / name).read_text("utf-8")),
    )  # fmt: skip
    filters: dict[str, Callable[..., str]] = {
        "number": _number,
        "caught": _caught,
        "subscript": _subscript,
        "replay": replay,
        "ticked": _ticked,
    }
    environment.filters.update(filters)
    return environment.get_template("page.html")


def _cleaned(value: Any) -> Any:
    """The record with all text of others without control and direction characters, whatever becomes of it."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def _ticked(text: str) -> Markup:
    """What stands between backticks, as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _number(value: float | str | None) -> str:
    """Ten digits, as in the messages."""
    return "" if value is None else f"{float(value):.10g}"


def _caught(value: float | str | None) -> str:
    return error_text(_float(value))


def _float(value: float | str | None) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _subscript(index: Sequence[int] | None) -> str:
    return f"[{', '.join(map(str, index))}]" if index else ""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
