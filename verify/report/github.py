"""Annotations for GitHub: a line that it shows beside the rule's source, for each that is wrong. Only rules that were found in a program have a line."""

from __future__ import annotations

from verify.printable import clean
from verify.records import Report, Status

LEVELS = {Status.FAIL: "error", Status.ERROR: "error", Status.INCONCLUSIVE: "warning"}


def render(report: Report) -> str:
    """Workflow commands, one a line; "" if there is nothing to say.

    Source: GitHub's "Workflow commands for GitHub Actions", which also says what is to be escaped.
    """
    lines = []
    for verdict in report.verdicts:
        file, _, line = verdict.location.rpartition(":")
        if verdict.status not in LEVELS or not line.isdigit():
            continue
        first = next((finding.message for finding in verdict.findings if finding.status is verdict.status), "")
        message = "; ".join(part for part in (verdict.diagnosis, first) if part) or "; ".join(verdict.notes)
        title = f"{verdict.name}: {verdict.status}"
        lines.append(f"::{LEVELS[verdict.status]} file={_property(file)},line={line},title={_property(title)}::{_data(message)}")
    return "\n".join(lines)


def _data(text: str) -> str:
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
