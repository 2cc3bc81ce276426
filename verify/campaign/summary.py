"""From a journal to a report: one verdict for each spec, of all its units; and what is other than in an earlier journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from verify.campaign.journal import Journal
from verify.campaign.plan import Unit
from verify.merging import BAD, merge_verdicts
from verify.records import Report, Verdict
from verify.report.json import NotAReport

SLOWER, SECONDS = 1.5, 1.0  # times, and at least so many seconds: below it is the machine's mood
LESS_ACCURATE = 1.05  # the same case gives the same error to the bit, so that little is already a change
LISTED = 20


class Summary:
    """What a journal says: `units` and their verdicts, `facts`, how many units were `planned` (None: not known), and how many are `damaged`."""

    def __init__(self, journal: Journal) -> None:
        rows, self.damaged = journal.rows()
        self.name = journal.path.name
        self.facts = journal.facts()
        self.units: dict[Unit, Verdict] = {}
        for row in rows:
            try:
                self.units[row.unit] = row.read()
            except NotAReport:
                self.damaged += 1
        self.planned: int | None = self.facts.get("planned")

    @property
    def remarks(self) -> list[str]:
        """What keeps the journal from being the whole campaign."""
        damaged = f"{self.damaged:,} damaged units were left out" if self.damaged else ""
        missing = ""
        if self.planned is None:
            missing = "how many units were planned is not known any more"
        elif len(self.units) < self.planned:
            missing = f"{self.planned - len(self.units):,} of {self.planned:,} units are not done"
        remarks = [text for text in (damaged, missing) if text]
        return [*remarks, "verify campaign FILE --resume runs them"] if remarks else []

    def report(self, against: Summary | None = None) -> Report:
        """The report; with what changed since an earlier journal among the notes of each verdict."""
        checks = self.facts.get("checks", ())
        parts: dict[str, list[Verdict]] = {}
        for unit in sorted(self.units):
            parts.setdefault(unit.spec, []).append(self.units[unit])
        verdicts = [replace(merge_verdicts(part, checks), name=spec) for spec, part in parts.items()]
        if against is not None:
            news = dict(self.changes(against))
            verdicts = [replace(verdict, notes=(*verdict.notes, *news.get(verdict.name, ()))) for verdict in verdicts]
        run: dict[str, Any] = {**self.facts.get("run", {}), "planned": self.planned or 0, "units": len(self.units)}
        return Report(verdicts=tuple(verdicts), environment=self.facts.get("environment", {}), run=run)

    def changes(self, earlier: Summary) -> Iterator[tuple[str, list[str]]]:
        """For each spec the sentences on what changed in the units that both journals have."""
        common = sorted(set(self.units) & set(earlier.units))
        for spec in dict.fromkeys(unit.spec for unit in common):
            pairs = [(unit, earlier.units[unit], self.units[unit]) for unit in common if unit.spec == spec]
            if lines := [*_verdicts(pairs), *_slower(pairs), *_less_accurate(pairs)]:
                yield spec, [f"since {earlier.name}: {line}" for line in lines]


Pairs = list[tuple[Unit, Verdict, Verdict]]


def _verdicts(pairs: Pairs) -> Iterator[str]:
    changed = [(unit, old.status, new.status) for unit, old, new in pairs if old.status is not new.status]
    for word, bad in (("new failure", True), ("fixed", False)):
        lines = [f"{word}: {unit} was {old}, is {new}" for unit, old, new in changed if (new in BAD) is bad and (old in BAD) is not bad]
        yield from lines[:LISTED]
        if len(lines) > LISTED:
            yield f"{word}: {len(lines) - LISTED:,} units more"
    other = Counter(f"{old} to {new}" for _, old, new in changed if (new in BAD) is (old in BAD))
    yield from (f"{count:,} units from {change}" for change, count in other.items())


def _slower(pairs: Pairs) -> Iterator[str]:
    old, new = sum(old.seconds for _, old, _ in pairs), sum(new.seconds for _, _, new in pairs)
    if new > SLOWER * old and new > old + SECONDS:
        yield f"slower: {new:.1f} s, it was {old:.1f} s"


def _less_accurate(pairs: Pairs) -> Iterator[str]:
    old, new = _errors(old for _, old, _ in pairs), _errors(new for _, _, new in pairs)
    for (argument, dtype), units in new.items():
        before = old.get((argument, dtype))
        if before and units > LESS_ACCURATE * before:
            yield f"less accurate in {dtype}: the cotangent of {argument} is {units:.2g} times as wrong as autodiff's, it was {before:.2g}"


def _errors(verdicts: Iterable[Verdict]) -> dict[tuple[str | None, str | None], float]:
    """The worst error in low precision by argument and dtype, in units of autodiff's own."""
    worst: dict[tuple[str | None, str | None], float] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            if finding.units is not None:
                key = (finding.argument, finding.dtype)
                worst[key] = max(worst.get(key, 0.0), finding.units)
    return worst
