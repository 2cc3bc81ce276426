"""Hands out the units that are left, writes each result to the journal when it comes, and stops when it is told to. Imports no JAX."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from verify.campaign.config import Campaign
from verify.campaign.executors import Place
from verify.campaign.journal import Journal
from verify.campaign.plan import Unit
from verify.campaign.rows import Row, row
from verify.merging import BAD
from verify.printable import short
from verify.records import Finding, Status, Verdict
from verify.report import json as report_json
from verify.spec import SpecError

ATTEMPTS = 2


@dataclass(kw_only=True)
class Progress:
    """What the live view shows, and what ends a campaign early."""

    total: int
    done: int = 0
    failing: int = 0
    stopped: str = ""  # why, in words; "" while it goes on


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before the first unit: `digests` of the specs that can be run; `troubles` says why another cannot."""

    checks: tuple[str, ...]
    environment: dict[str, Any]
    digests: dict[str, str]
    troubles: dict[str, str] = field(default_factory=dict)


def prepare(campaign: Campaign, place: Place) -> Prepared:
    """Ask where the units will run what is there. Raises SpecError where nothing can be run."""
    asked = {"checks": list(campaign.checks), "dtypes": list(campaign.dtypes)}
    first = _result(place.submit({"want": "environment", **asked}))
    if first["kind"] != "done":
        raise SpecError(_words(first))
    specs = list(dict.fromkeys(campaign.specs))
    futures = [place.submit({"want": "digest", "spec": spec, **asked}) for spec in specs]
    replies = dict(zip(specs, map(_result, futures), strict=True))
    digests = {spec: reply["digest"] for spec, reply in replies.items() if reply["kind"] == "done"}
    troubles = {spec: _words(reply) for spec, reply in replies.items() if reply["kind"] != "done"}
    if not digests:
        raise SpecError("; ".join(troubles.values()))
    return Prepared(checks=tuple(first["checks"]), environment=first["environment"], digests=digests, troubles=troubles)


def left(units: Sequence[Unit], rows: Iterable[Row], prepared: Prepared, only_failed: bool = False) -> list[Unit]:
    """The units that are to be run: those without a row, and those whose row was made with other sources or versions. Raises SpecError for rows that are not
    in the plan."""
    stored = {row.unit: row for row in rows}
    if foreign := sorted(set(stored) - set(units)):
        raise SpecError(
            f"the journal holds {len(foreign)} units that are not in this plan, such as {foreign[0]}; give another --journal for another plan"
        )
    if only_failed:
        return [unit for unit in units if unit in stored and stored[unit].read().status in BAD]
    return [unit for unit in units if unit not in stored or stored[unit].digest != prepared.digests.get(unit.spec, "")]


def run(
    units: Sequence[Unit],
    campaign: Campaign,
    prepared: Prepared,
    place: Place,
    journal: Journal,
    progress: Progress,
    show: Callable[[Progress], None] = lambda progress: None,
    fail_fast: bool = False,
    budget: float | None = None,
) -> None:
    """Run these units. Each is in the journal before `show` hears of it. After `progress.stopped` is set, by whomever, those that have begun are waited for.

    Raises SpecError where the journal cannot be written to, or a worker has other sources or versions than the first one that was asked.
    """
    end = time.monotonic() + budget if budget is not None else None
    asked = {"checks": list(campaign.checks), "dtypes": list(campaign.dtypes), **msgspec.structs.asdict(campaign.limits)}
    waiting = [(unit, 1) for unit in reversed(units)]
    running: dict[Future[dict[str, Any]], tuple[Unit, int]] = {}
    while waiting or running:
        if end is not None and time.monotonic() >= end and not progress.stopped:
            progress.stopped = "the budget is spent"
        if progress.stopped:
            waiting.clear()
            running = {future: value for future, value in running.items() if not future.cancel()}
        while waiting and len(running) < place.slots:
            unit, attempt = waiting.pop()
            running[_submit(unit, asked, prepared, place)] = (unit, attempt)
        finished = wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done
        for future in finished:
            unit, attempt = running.pop(future)
            reply = _result(future)
            if reply["kind"] == "lost" and attempt < ATTEMPTS:
                waiting.append((unit, attempt + 1))
                continue
            verdict = _verdict(unit, reply, attempt)
            journal.add(row(unit, _digest(unit, reply, prepared), attempt, verdict))
            progress.done += 1
            progress.failing += verdict.status in BAD
            if fail_fast and verdict.status in BAD and not progress.stopped:
                progress.stopped = f"{unit} is {verdict.status}"
        show(progress)


def _submit(unit: Unit, asked: dict[str, Any], prepared: Prepared, place: Place) -> Future[dict[str, Any]]:
    if unit.spec not in prepared.troubles:
        return place.submit({"want": "unit", "spec": unit.spec, "seed": unit.seed, "start": unit.start, "stop": unit.stop, **asked})
    known: Future[dict[str, Any]] = Future()
    known.set_result({"kind": "refused", "text": prepared.troubles[unit.spec]})
    return known


def _result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    """The answer; whatever goes wrong with the executor itself is one, too."""
    try:
        return future.result()
    except Exception as error:
        return {"kind": "lost", "what": f"the executor lost it: {type(error).__name__}: {short(error)}"}


def _digest(unit: Unit, reply: dict[str, Any], prepared: Prepared) -> str:
    digest = prepared.digests.get(unit.spec, "")
    if reply.get("digest", digest) != digest:
        raise SpecError(
            f"{unit} ran with other sources, versions or devices than the campaign began with: update all workers, then go on with --resume"
        )
    return digest


def _words(reply: dict[str, Any]) -> str:
    return str(reply["text"] if reply["kind"] == "refused" else reply["what"])


def _verdict(unit: Unit, reply: dict[str, Any], attempt: int) -> Verdict:
    if reply["kind"] == "done":
        record = {"schema": report_json.SCHEMA, "environment": {}, "run": {}, "verdicts": [reply["verdict"]]}
        verdict = report_json.convert(record).verdicts[0]
        notes = (*verdict.notes, f"{unit} was lost once, and came back when it was tried again") if attempt > 1 else verdict.notes
        return replace(verdict, name=unit.spec, notes=notes)
    if reply["kind"] == "lost":
        address = reply.get("address") or None
        again = f"verify replay {address}" if address else f"verify run {unit.spec} --seed {unit.seed} --cases {unit.stop} --jobs 1"
        message = f"{_words(reply)}, {attempt} times. Alone: {again}"
    else:
        message, address = _words(reply), None
    finding = Finding(check="structure", status=Status.ERROR, message=message, address=address)
    return Verdict(name=unit.spec, status=Status.ERROR, findings=(finding,), address=address)
