"""A few lines of Markdown, for the summary of a CI job: a table of verdicts, and for each that is not PASS what and why."""

from __future__ import annotations

from verify.printable import clean
from verify.records import Report, Status, Verdict
from verify.report.words import error_text, replay, totals

SIGNS = {
    Status.PASS: "✅",
    Status.FAIL: "❌",
    Status.INCONCLUSIVE: "⚠️",
    Status.ERROR: "⛔",
    Status.SKIP: "➖",
}  # beside the word, never alone


def render(report: Report) -> str:
    """Markdown as GitHub reads it; names and messages are shown to the letter, whatever they hold."""
    worst_first = sorted(report.verdicts, key=lambda verdict: -verdict.status.badness)
    lines = ["### Derivatives: " + totals(report), ""]
    if worst_first:
        lines += ["| operation | verdict | cases | comparisons | smallest error caught |", "|---|---|--:|--:|--:|"]
        lines += [_row(verdict) for verdict in worst_first]
    for verdict in worst_first:
        if verdict.status is not Status.PASS:
            lines += ["", *_details(verdict)]
    if versions := ", ".join(f"{key} {value}" for key, value in report.environment.items() if isinstance(value, str)):
        lines += ["", f"<sub>{_text(versions)}</sub>"]
    return "\n".join(lines) + "\n\n"


def _row(verdict: Verdict) -> str:
    caught = error_text(verdict.smallest_detectable) if verdict else ""
    cells = (_text(verdict.name), f"{SIGNS[verdict.status]} {verdict.status}", f"{verdict.cases:,}", f"{verdict.comparisons:,}", caught)
    return f"| {' | '.join(cells)} |"


def _details(verdict: Verdict) -> list[str]:
    first = next((finding for finding in verdict.findings if finding.status is verdict.status), None)
    lines = [f"**{verdict.status} {_text(verdict.name)}**" + (f": {_text(verdict.diagnosis)}" if verdict.diagnosis else ""), ""]
    if first:
        lines.append(f"- {_text(first.check)}: {_text(first.message)}")
    if verdict.address:
        lines.append(f"- <code>{_text(replay(verdict.address, verdict.installed))}</code>")
    return lines


def _text(text: str) -> str:
    """On one line, with every character that Markdown or HTML could read as something else written as a number."""
    return "".join(c if c.isalnum() or c in " .,:;=/+-" or ord(c) > 127 else f"&#{ord(c)};" for c in clean(" ".join(text.split())))
