"""What a campaign costs: units per second in this process, in processes and on a local dask cluster, the journal's share, and memory over many units.

python benchmarks/campaign.py [--units 24] [--memory 1000] [--json FILE]

The units are chunks of 14 cases of `relu` with all checks; those of the curve of memory are pairs of cases with the check of the gradient alone, so that
there are many. Rates are counted from the first result, when the workers have started.
"""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verify.campaign.config import Campaign, Limits
from verify.campaign.executors import Place, open_place
from verify.campaign.journal import Journal
from verify.campaign.plan import plan
from verify.campaign.rows import Row
from verify.campaign.supervisor import Progress, prepare, run

KINDS = (("inline", None), ("processes", 1), ("processes", 2), ("dask", 2))
GIB = 2**30


class Timed(Journal):
    """A journal that knows how long it took."""

    spent = 0.0

    def add(self, *rows: Row) -> None:
        begin = time.perf_counter()
        super().add(*rows)
        self.spent += time.perf_counter() - begin


def measure(kind: str, workers: int | None, campaign: Campaign, folder: Path) -> dict[str, Any]:
    """Units per second from the first result on, the journal's share of that time, and the memory of a worker after each unit."""
    folder.mkdir(exist_ok=True)
    units = len(plan(campaign))
    memory: list[float] = []
    with Timed(folder / f"{kind}{workers}.db", write=True) as journal, open_place(kind, workers) as place:
        watched = Place(submit=lambda request: _watch(place.submit(request), memory), slots=place.slots)
        prepared = prepare(campaign, place)
        first = last = 0.0

        def show(progress: Progress) -> None:
            nonlocal first, last, counted
            last = time.perf_counter()
            if progress.done and not first:
                first, counted = last, progress.done
                journal.spent = 0.0

        counted = 0
        run(plan(campaign), campaign, prepared, watched, journal, Progress(total=units), show)
        seconds, journal_seconds = last - first, journal.spent
    return {
        "executor": kind, "workers": workers or 1, "units": units, "units_per_second": (units - counted) / seconds,
        "journal_share": journal_seconds / seconds, "memory_gib": memory,
    }  # fmt: skip


def _watch(future: Any, memory: list[float]) -> Any:
    future.add_done_callback(lambda done: memory.append(done.result().get("resident", 0) / GIB))
    return future


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--units", type=int, default=24, help="of each kind of executor")
    parser.add_argument("--memory", type=int, default=1000, help="units of the curve of memory")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        small = Campaign(specs=("relu",), cases=2 * max(1, options.memory), chunk=2, checks=("gradient",), limits=Limits(memory=1.0))
        rows = [
            measure(kind, workers, Campaign(specs=("relu",), cases=14 * options.units), Path(name))
            for kind, workers in KINDS
            if options.units
        ]
        curve = measure("processes", 1, small, Path(name) / "curve")["memory_gib"] if options.memory else []
    load = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end" if hasattr(os, "getloadavg") else ""
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}{load}; units of 14 cases of relu, all checks\n"
    )
    for row in rows:
        print(
            f"{row['executor']:<10} {row['workers']} workers  {row['units_per_second']:6.2f} units/s   journal {100 * row['journal_share']:.2f} % of the time"
        )
    if curve:
        parts = [curve[i : i + max(1, len(curve) // 8)] for i in range(0, len(curve), max(1, len(curve) // 8))]
        print(f"\nGiB of a worker over {len(curve)} units (means): " + ", ".join(f"{statistics.mean(part):.2f}" for part in parts))
    found = {"rows": rows, "memory_gib": curve}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
