"""Where a report goes besides the terminal: `--json`, `--junit`, `--html` and `--summary`, the same for every command that has a report."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from verify import files
from verify.spec import SpecError

if TYPE_CHECKING:
    from verify.records import Report

Outputs = Mapping[str, str | None]  # kind -> the file, "-" for stdout
HELP = {
    "json": "Write the report as JSON (- for stdout).",
    "junit": "Write the report as JUnit XML.",
    "html": "Write the report as one page with pictures of each failure.",
    "summary": 'Append a summary in Markdown, as to "$GITHUB_STEP_SUMMARY".',
}


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of click commands that adds an option for each kind; the command takes them as `**outputs`."""
    for kind, text in reversed(HELP.items()):
        command = click.option(f"--{kind}", kind, type=click.Path(), metavar="FILE", help=text)(command)
    return command


def require_writable(outputs: Outputs) -> None:
    """Raises SpecError for what could not be written in the end."""
    if len(mixed := [f"--{kind} -" for kind, path in outputs.items() if path == files.STDOUT]) > 1:
        raise SpecError(f"{' and '.join(mixed)} would mix two reports on stdout; write one of them to a file")
    for path in outputs.values():
        if path:
            files.require_writable(path)


def deliver(report: Report, outputs: Outputs, verbose: bool) -> None:
    """Write all that was asked for, and the text to the terminal unless stdout is taken."""
    for kind, path in outputs.items():
        if path:
            (files.append if kind == "summary" else files.write)(path, _render(report, kind))
    if files.STDOUT not in outputs.values():
        from verify.report.text import render_report

        width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 140))
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        click.echo(render_report(report, width=width, colour=colour, verbose=verbose))


def _render(report: Report, kind: str) -> str:
    if kind == "html":
        return report.to_html()
    from verify.report import json, junit, summary

    return {"json": json, "junit": junit, "summary": summary}[kind].render(report)
