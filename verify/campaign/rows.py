"""A finished unit as the journal holds it, under a hash over itself: SQLite does not notice a flipped byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from verify.campaign.plan import Unit
from verify.records import Verdict
from verify.report import json as report_json


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished unit. digest: of what it was run with ("" where that is not known); verdict: JSON; finished: for readers, nothing hangs on it."""

    spec: str
    seed: int
    start: int
    stop: int
    digest: str
    attempts: int
    finished: str
    verdict: str

    @property
    def unit(self) -> Unit:
        return Unit(spec=self.spec, seed=self.seed, start=self.start, stop=self.stop)

    def read(self) -> Verdict:
        """The verdict. Raises NotAReport."""
        text = f'{{"schema": "{report_json.SCHEMA}", "environment": {{}}, "run": {{}}, "verdicts": [{self.verdict}]}}'
        return report_json.read(text).verdicts[0]


def row(unit: Unit, digest: str, attempts: int, verdict: Verdict) -> Row:
    """A row of what has just been finished."""
    text = json.dumps(report_json.verdict_record(verdict), allow_nan=False)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Row(
        spec=unit.spec, seed=unit.seed, start=unit.start, stop=unit.stop, digest=digest, attempts=attempts, finished=now, verdict=text
    )


COLUMNS = tuple(field.name for field in fields(Row))
SELECT = f"SELECT {', '.join(COLUMNS)}, hash FROM units ORDER BY spec, seed, start, stop"


def whole(values: Iterable[Any]) -> Row | None:
    """A row as it is stored, its hash the last; None where it is not what was written."""
    *content, own = values
    return Row(**dict(zip(COLUMNS, content, strict=True))) if own == seal(content) else None


def seal(values: Iterable[Any]) -> str:
    """The hash over what a row holds."""
    return hashlib.sha256(json.dumps(list(values), default=repr).encode("utf-8", "backslashreplace")).hexdigest()
