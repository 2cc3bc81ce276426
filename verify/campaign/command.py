"""`verify campaign`, and what `verify report` says of a journal."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from verify import outputs
from verify.campaign.config import Campaign, load
from verify.campaign.executors import NAMES, open_place
from verify.campaign.journal import Journal
from verify.campaign.plan import CASE_SECONDS, Unit, duration, plan, seconds, shard
from verify.campaign.summary import Summary
from verify.campaign.supervisor import Progress, left, prepare, run
from verify.campaign.view import view
from verify.environment import cores
from verify.printable import clean
from verify.records import Report
from verify.spec import SpecError
from verify.terminal import INTERRUPTED, NOTHING, exit_status


@click.command()
@click.argument("file", type=click.Path(), metavar="FILE.toml")
@click.option(
    "--journal", "journal_file", type=click.Path(), metavar="J.db", help="Where results are kept (FILE.db here, after FILE's name)."
)
@click.option("--resume", is_flag=True, help="Go on with a journal: run what it has not, or has from other sources or versions.")
@click.option("--only-failed", is_flag=True, help="Run again what FAILed or gave an ERROR in the journal, and nothing else.")
@click.option("--executor", default="processes", metavar="NAME", help=f"{NAMES} (processes).")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes; wins over the file (one for each core).")
@click.option("--shard", "part", metavar="K/N", help="Only this part of the plan, for a CI matrix; see `verify merge`.")
@click.option("--fail-fast", is_flag=True, help="Stop after the first FAIL or ERROR.")
@click.option("--budget", metavar="TIME", help="Begin nothing after 90s, 30m or 1.5h.")
@click.option("--dry-run", is_flag=True, help="Show the plan and about how long it takes; run nothing.")
@outputs.options
@click.option("-v", "--verbose", is_flag=True, help="Show every check of every operation; with --dry-run, every unit.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def campaign(
    file: str, journal_file: str | None, resume: bool, only_failed: bool, executor: str, workers: int | None, part: str | None, fail_fast: bool,
    budget: str | None, dry_run: bool, verbose: bool, quiet: bool, **written: str | None,
) -> None:  # fmt: skip
    """Verify many operations for hours, in worker processes, and write each result to a journal at once.

    Whatever a unit of work does (crash, hang, eat memory), it becomes an ERROR in the journal and the campaign goes on; whatever happens to the campaign,
    --resume goes on where it stopped. Ctrl-C waits for the units that run, twice ends them.
    """
    config = load(file)
    whole = plan(config)
    units = shard(whole, part) if part else whole
    path = Path(journal_file or Path(file).stem + ".db")
    workers = workers or config.workers or cores()
    limit = seconds(budget) if budget else None
    if dry_run:
        _show_plan(units, path, 1 if executor == "inline" else workers, verbose)
        return
    outputs.require_writable(written)
    with Journal(path, write=True) as journal:
        rows, damaged = journal.rows()
        if rows and not (resume or only_failed):
            raise SpecError(f"{path} holds {len(rows):,} of {len(units):,} units; --resume goes on with it, another --journal begins anew")
        if damaged:
            click.echo(f"verify: {damaged:,} rows of {path} are damaged; their units are run again", err=True)
        with open_place(executor, workers) as place, contextlib.redirect_stdout(sys.stderr):
            prepared = prepare(config, place)
            for spec, trouble in prepared.troubles.items():
                click.echo(f"verify: {clean(spec)}: all its units are ERROR: {clean(trouble)}", err=True)
            todo = left(units, rows, prepared, only_failed)
            journal.remember(
                planned=len(units), whole=len(whole), checks=prepared.checks, environment=prepared.environment, run=_asked(file, config, part), campaign=msgspec.to_builtins(config)
            )  # fmt: skip
            progress = Progress(total=len(units), done=len(units) - len(todo))
            with _interruptible(progress), view(progress, quiet) as show:
                run(todo, config, prepared, place, journal, progress, show, fail_fast, limit)
        summary = Summary(journal)
    if progress.stopped:
        click.echo(f"verify: stopped: {progress.stopped}", err=True)
    report = summary.report()
    _deliver(report, summary, written, verbose)
    if progress.stopped == INTERRUPT:
        sys.exit(INTERRUPTED)
    status = exit_status(report)
    sys.exit(NOTHING if status == 0 and summary.remarks else status)


INTERRUPT = "interrupted"


@contextlib.contextmanager
def _interruptible(progress: Progress) -> Iterator[None]:
    """Ctrl-C, and the signal by which batch systems end a job, stop cleanly; the second one stops at once. Nothing that was finished is lost either way."""

    def stop(number: int, frame: Any) -> None:
        if progress.stopped == INTERRUPT:
            raise KeyboardInterrupt
        progress.stopped = INTERRUPT
        click.echo("\nverify: waiting for the units that run; Ctrl-C again ends them", err=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _asked(file: str, config: Campaign, part: str | None) -> dict[str, Any]:
    command = shlex.join(["verify", "campaign", file, *(["--shard", part] if part else [])])
    return {"command": command, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def _show_plan(units: Sequence[Unit], path: Path, workers: int, verbose: bool) -> None:
    """Units and cases of each spec, and an estimate: from the journal where it knows better."""
    known: dict[str, tuple[float, int]] = {}
    if path.is_file():
        with Journal(path) as journal:
            for unit, verdict in Summary(journal).units.items():
                spent, cases = known.get(unit.spec, (0.0, 0))
                known[unit.spec] = (spent + verdict.seconds, cases + verdict.cases)
    total = 0.0
    by_spec: dict[str, list[Unit]] = {}
    for unit in units:
        by_spec.setdefault(unit.spec, []).append(unit)
        if verbose:
            click.echo(clean(str(unit)))
    for spec, own in by_spec.items():
        cases = sum(unit.stop - unit.start for unit in own)
        spent, ran = known.get(spec, (0.0, 0))
        estimate = cases * (spent / ran if ran else CASE_SECONDS)
        total += estimate
        click.echo(f"{clean(spec)}: {len(own):,} units, {cases:,} cases, about {duration(estimate)}{' (as in the journal)' if ran else ''}")
    click.echo(
        f"{len(units):,} units of {len(by_spec):,} specs: about {duration(total)} of one core, {duration(total / workers)} with {workers}"
    )


def _deliver(report: Report, summary: Summary, written: Mapping[str, str | None], verbose: bool, changes: Sequence[str] = ()) -> None:
    """The report where it was asked for, and below the text what keeps it from being the whole."""
    outputs.deliver(report, written, verbose)
    lines = [*changes, *summary.remarks]
    if lines:
        click.echo("\n" + "\n".join(clean(line) for line in lines), err="-" in written.values())


def deliver_journal(file: str, against: str | None, written: Mapping[str, str | None], verbose: bool) -> None:
    """`verify report` of a journal."""
    with Journal(file) as journal:
        summary = Summary(journal)
    earlier = None
    if against:
        with Journal(against) as journal:
            earlier = Summary(journal)
    changes = [f"{spec}: {line}" for spec, lines in summary.changes(earlier) for line in lines] if earlier else []
    _deliver(summary.report(earlier), summary, written, verbose, changes or ([f"nothing changed since {against}"] if against else []))
