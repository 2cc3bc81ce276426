"""What every command shares: exit statuses, the progress bar, and how a report is delivered."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from verify import outputs
from verify.printable import clean

if TYPE_CHECKING:
    from verify.records import Report

USAGE, NOTHING, INTERNAL, INTERRUPTED = 2, 3, 4, 130


def finish(
    verdicts: Sequence[Any],
    command: Sequence[str],
    asked: Mapping[str, Any],
    written: Mapping[str, str | None],
    verbose: bool,
    status: Callable[[Report], int] | None = None,
) -> None:
    """Deliver the report and end the process; `status` says with which exit status."""
    from verify.environment import environment
    from verify.records import Report

    date = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(
        verdicts=tuple(verdicts), environment=environment(), run={"command": f"verify {shlex.join(command)}", "date": date, **asked}
    )
    outputs.deliver(report, written, verbose)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from verify.report import github

        sys.stderr.write(github.render(report) + "\n")
    sys.exit((status or exit_status)(report))


def exit_status(report: Report) -> int:
    """The process's exit status for a report of operations: see `verify.cli`."""
    from verify.records import Status

    found = {verdict.status for verdict in report.verdicts}
    if Status.FAIL in found:
        return 1
    if Status.ERROR in found:
        return USAGE
    return 0 if found == {Status.PASS} else NOTHING


@contextlib.contextmanager
def progress_bar(
    quiet: bool, operations: int = 1, cases: int | None = None
) -> Iterator[Callable[[str], Callable[[int, int], None] | None]]:
    """`advance(name)` gives the callback for one operation, of so many. A bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def advance(name: str) -> Callable[[int, int], None]:
            place = f" ({len(bar.tasks) + 1} of {operations})" if operations > 1 else ""
            task = bar.add_task(clean(name) + place, total=cases)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield advance
