"""`verify merge` and `verify journal export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from verify.campaign.journal import Journal
from verify.campaign.plan import Unit
from verify.campaign.rows import Row
from verify.campaign.salvage import export
from verify.spec import SpecError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="J.db...")
@click.option("-o", "--output", required=True, type=click.Path(), metavar="ALL.db", help="The journal to write; a new file.")
def merge(files: tuple[str, ...], output: str) -> None:
    """Put the journals of a campaign's shards together. A unit that two of them have must be the same in both."""
    if Path(output).exists():
        raise SpecError(f"{output}: it exists already; name a new file")
    rows: dict[Unit, Row] = {}
    facts: dict[str, Any] = {}
    for file in files:
        with Journal(file) as journal:
            own, damaged = journal.rows()
            facts = facts or journal.facts()
        if damaged:
            raise SpecError(f"{file}: {damaged:,} rows are damaged; run their units again with --resume first")
        for row in own:
            if row.unit in rows and rows[row.unit].digest != row.digest:
                raise SpecError(f"{file}: {row.unit} was run with other sources or versions than in a journal before it")
            rows.setdefault(row.unit, row)
    with Journal(output, write=True) as journal:
        journal.add(*rows.values())
        journal.remember(**{**facts, "planned": facts.get("whole")})
    click.echo(f"{len(rows):,} units of {len(files):,} journals")


@click.group(name="journal")
def journal_group() -> None:
    """Look after journals."""


@journal_group.command(name="export")
@click.argument("old", type=click.Path(), metavar="DAMAGED.db")
@click.argument("new", type=click.Path(), metavar="NEW.db")
def export_journal(old: str, new: str) -> None:
    """Copy what can still be read of a damaged journal into a new one, which --resume takes."""
    kept, damaged = export(old, new)
    click.echo(f"{kept:,} units kept" + (f", {damaged:,} damaged ones left out" if damaged else ""))
