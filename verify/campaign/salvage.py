"""What can still be read of a damaged journal."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from verify.campaign.journal import Journal, connect, is_journal, read_facts
from verify.campaign.rows import SELECT, Row, whole
from verify.spec import SpecError


def export(old: str | Path, new: str | Path) -> tuple[int, int]:
    """Copy the rows of `old` that are whole into a new journal. Returns how many, and how many were seen damaged. Raises SpecError."""
    if Path(new).exists():
        raise SpecError(f"journal {new}: it exists already; name a new file")
    if not is_journal(old):
        raise SpecError(f"journal {old}: no SQLite file, so nothing in it can be read")
    rows, damaged, facts = _readable(Path(old))
    with Journal(new, write=True) as journal:
        journal.add(*rows)
        journal.remember(**facts)
    return len(rows), damaged


def _readable(path: Path) -> tuple[list[Row], int, dict[str, Any]]:
    """Rows from the first on until SQLite meets damage, and from the last back: what lies on both sides of it."""
    found: dict[object, Row] = {}
    damaged: set[Any] = set()
    facts: dict[str, Any] = {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path, write=False)) as base:
        base.execute("PRAGMA writable_schema=ON")  # else SQLite opens no file that is shorter than it was; nothing is written
        for query in (SELECT, SELECT.replace("ORDER BY spec, seed, start, stop", "ORDER BY spec DESC, seed DESC, start DESC, stop DESC")):
            with contextlib.suppress(sqlite3.Error):
                for values in base.execute(query):
                    if (row := whole(values)) is not None:
                        found[row.unit] = row
                    else:
                        damaged.add(values)
        with contextlib.suppress(sqlite3.Error):
            facts = read_facts(base)
    return list(found.values()), len(damaged), facts
