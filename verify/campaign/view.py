"""What is seen while a campaign runs: a bar on a terminal, a line a minute elsewhere. On stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

from verify.campaign.plan import duration
from verify.campaign.supervisor import Progress

EVERY = 60.0  # seconds between two lines where there is no terminal


@contextlib.contextmanager
def view(progress: Progress, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Gives what is called after each unit, and from time to time."""
    state = _State(progress)
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar(progress, state) as show:
            yield show
    else:
        yield state.line


class _State:
    def __init__(self, progress: Progress) -> None:
        self._begin = self._last = time.monotonic()
        self._first = progress.done

    def words(self, progress: Progress) -> str:
        """Rate, remaining time and failures so far; counted from the start of this process, not of the campaign."""
        done, seconds = progress.done - self._first, time.monotonic() - self._begin
        if progress.stopped:
            return f"{progress.failing:,} failing, stopping: {progress.stopped}"
        rate = f", {done / seconds:.2g} units/s, about {duration((progress.total - progress.done) * seconds / done)} left" if done else ""
        return f"{progress.failing:,} failing{rate}"

    def line(self, progress: Progress) -> None:
        if time.monotonic() >= self._last + EVERY:
            self._last = time.monotonic()
            click.echo(f"verify: {progress.done:,} of {progress.total:,} units, {self.words(progress)}", err=True)


@contextlib.contextmanager
def _bar(progress: Progress, state: _State) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(state.words(progress), total=progress.total, completed=progress.done)
        yield lambda progress: bar.update(task, completed=progress.done, description=state.words(progress))
