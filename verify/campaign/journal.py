"""What a campaign has done: one SQLite file, a row for each finished unit, written when it is finished.

SQLite keeps rows whole over crashes and full disks, but does not notice a flipped byte in one: each row holds a hash over itself. One process at a
time may write. Nothing in it is ever executed or unpickled: reading gives text, numbers and records that are checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from verify.campaign.rows import SELECT, Row, seal, whole
from verify.spec import SpecError

VERSION = 1  # of the tables
MAGIC = b"SQLite format 3\0"
APPLICATION = 0x76726679  # "vrfy": tells a journal from any other SQLite file
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, hash TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE units (
  spec TEXT, seed INTEGER, start INTEGER, stop INTEGER, digest TEXT NOT NULL, attempts INTEGER NOT NULL,
  finished TEXT NOT NULL, verdict TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (spec, seed, start, stop)
) WITHOUT ROWID;
"""


class Journal:
    """An open journal. Use as a context manager; `write=True` creates it where it is not there. Raises SpecError for everything that goes wrong with the file."""

    def __init__(self, path: str | Path, write: bool = False) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        with self._explained():
            if write:
                self._take()
            elif not self.path.is_file():
                raise SpecError(f"journal {self.path}: there is no such file")
            try:
                self._base = connect(self.path, write)
            except BaseException:
                self._release()
                raise
            try:
                self._check(write)
            except BaseException:
                self.close()
                raise

    def _take(self) -> None:
        """Be the only writer. A lock beside SQLite's own, which it gives up between transactions; the system drops it when the process dies."""
        self._lock = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release()
            raise SpecError(f"journal {self.path}: another campaign writes to it") from None

    def _check(self, write: bool) -> None:
        base = self._base
        if not base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            if not write:
                raise SpecError(f"journal {self.path}: it is empty")
            base.executescript(f"BEGIN; PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; {TABLES} COMMIT;")
        if base.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise SpecError(f"journal {self.path}: an SQLite file, but no journal of verify")
        if (version := base.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
            raise SpecError(f"journal {self.path}: its version is {version}, this verify reads {VERSION}")
        if (state := base.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(" ".join(str(state).split()))
        if write:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=FULL")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = isinstance(error, sqlite3.OperationalError) and "full" in str(error)
            advice = (
                "what was written before is safe; make room, then go on with --resume"
                if full
                else f"what is readable is kept by: verify journal export {self.path}"
            )
            raise SpecError(f"journal {self.path}: {error}; {advice}") from None
        except OSError as error:
            raise SpecError(f"journal {self.path}: {error.strerror or error}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Where it was written to, leave one file that can be copied."""
        if self._lock is not None:
            with contextlib.suppress(sqlite3.Error):  # a reader is there, or the disk is full: then the log stays beside it
                self._base.execute("PRAGMA journal_mode=DELETE")
        self._base.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add(self, *rows: Row) -> None:
        """Write down finished units, each in place of an earlier result of the same unit. On disk when this returns."""
        with self._explained():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                values = [(*astuple(row), seal(astuple(row))) for row in rows]
                self._base.executemany("INSERT OR REPLACE INTO units VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                self._base.execute("COMMIT")
            except sqlite3.Error:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def remember(self, **facts: Any) -> None:
        """Facts of the whole campaign, as JSON."""
        with self._explained():
            for name, value in facts.items():
                text = json.dumps(value)
                self._base.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (name, text, seal((name, text))))

    def facts(self) -> dict[str, Any]:
        with self._explained():
            return read_facts(self._base)

    def rows(self) -> tuple[list[Row], int]:
        """The rows in order, and how many are there that are damaged."""
        with self._explained():
            stored = [whole(values) for values in self._base.execute(SELECT)]
        good = [row for row in stored if row is not None]
        return good, len(stored) - len(good)


def connect(path: Path, write: bool) -> sqlite3.Connection:
    """A connection that creates nothing; one that only reads needs no right to write."""
    uri = path.absolute().as_uri()
    base = sqlite3.connect(f"{uri}?mode={'rw' if write else 'ro'}", uri=True, timeout=30, isolation_level=None)
    try:
        base.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        base.close()
        if write or not isinstance(error, sqlite3.OperationalError):
            raise
        # a folder where not even a lock can be made
        base = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    # a flipped bit is found by the hash, and must not hide the other rows
    base.text_factory = lambda value: value.decode("utf-8", "replace")
    return base


def read_facts(base: sqlite3.Connection) -> dict[str, Any]:
    """The facts that are what was written."""
    stored = base.execute("SELECT name, value, hash FROM facts")
    return {name: json.loads(value) for name, value, own in stored if own == seal((name, value))}


def is_journal(path: str | Path) -> bool:
    """Whether a file is SQLite's, and so to be opened as a journal."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False
