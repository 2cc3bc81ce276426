"""The terminal report: a table of verdicts, and for every one that is not PASS a block that says what, where, why and what next."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verify.printable import clean
from verify.records import Finding, Report, Status, Verdict
from verify.report.words import elapsed, error_text, explained, next_step, replay, totals

COLOURS = {Status.PASS: "green", Status.FAIL: "bold red", Status.INCONCLUSIVE: "yellow", Status.ERROR: "bold magenta", Status.SKIP: "dim"}


def render_report(report: Report, width: int = 100, colour: bool = False, verbose: bool = False) -> str:
    """The whole report as text."""
    return _print(
        [
            _table(report.verdicts),
            *(block for verdict in report.verdicts for block in _blocks(verdict, verbose, " (-v: a table)")),
            _total(report),
        ],
        width,
        colour,
    )


def render_verdict(verdict: Verdict, width: int = 100, colour: bool = False, verbose: bool = True) -> str:
    """One verdict as text; verbose: with a line for each check."""
    return _print([_headline(verdict), *_blocks(verdict, verbose)], width, colour)


def _print(parts: Iterable[RenderableType], width: int, colour: bool) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None, highlight=False, emoji=False
    )
    console.print(Group(*parts), crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("operation", "left"), ("verdict", "left"), ("cases", "right"), ("shapes", "right"), ("comparisons", "right")):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("smallest error caught", justify="right")
    table.add_column("time", justify="right")
    for verdict in verdicts:
        table.add_row(
            Text(clean(verdict.name)), Text(str(verdict.status), style=COLOURS[verdict.status]), f"{verdict.cases:,}", f"{verdict.shapes:,}",
            f"{verdict.comparisons:,}", error_text(verdict.smallest_detectable) if verdict else "", f"{verdict.seconds:.1f} s",
        )  # fmt: skip
    return table


def _headline(verdict: Verdict) -> Text:
    caught = (
        f", smallest error caught {error_text(verdict.smallest_detectable)}" if verdict and verdict.smallest_detectable is not None else ""
    )
    counts = f" {verdict.cases:,} cases of {verdict.shapes:,} shapes, {verdict.comparisons:,} comparisons{caught}"
    return Text.assemble(clean(verdict.name), " ", (str(verdict.status), COLOURS[verdict.status]), counts)


def _blocks(verdict: Verdict, verbose: bool, hint: str = "") -> list[RenderableType]:
    blocks: list[RenderableType] = []
    if verdict.status is not Status.PASS:
        blocks += [Text(), *_failure(verdict, None if verbose else hint)]
    if verbose or verdict.status is Status.INCONCLUSIVE:  # the reasons of what was not compared are part of that answer
        blocks += [Text(), Padding(_checks(verdict), (0, 0, 0, 2))]
        if verdict.status is Status.PASS:
            blocks += [Padding(Text(clean(note), style="dim"), (0, 0, 0, 2)) for note in verdict.notes]
    return blocks


def _failure(verdict: Verdict, hint: str | None) -> list[RenderableType]:
    bad = [finding for finding in verdict.findings if finding.status is verdict.status]
    lines: list[RenderableType] = [Text.assemble((f"{verdict.status} ", COLOURS[verdict.status]), (clean(verdict.name), "bold"))]
    first = bad[0] if bad else None
    shown = [finding for finding in bad if first and finding.check == first.check and finding.dtype == first.dtype] or bad[:1]
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for finding in shown[:4]:
        rows.add_row("what" if finding is shown[0] else "", Text(clean(finding.message)))
    if verdict.diagnosis:
        rows.add_row("why", Text(clean(verdict.diagnosis), style="bold"))
    if first and verdict.status is Status.FAIL:
        rows.add_row(
            "next",
            Text(next_step(first.check, first.message) + f" (verify explain {explained(verdict.name, verdict.address, first.check)})"),
        )
    if first and hint is not None and (others := _others(verdict, first.check)):
        rows.add_row("checks", Text(others + hint))
    if verdict.location:
        rows.add_row("rule", Text(clean(verdict.location)))
    if verdict.smallest_case:
        rows.add_row("smallest", Text(clean(verdict.smallest_case)))
    if verdict.address:
        rows.add_row("replay", Text(replay(clean(verdict.address), verdict.installed)))
    for note in verdict.notes:
        rows.add_row("note", Text(clean(note)))
    paste: list[RenderableType] = []
    if not verdict.address and verdict.evidence and verdict.evidence.reproduce:  # lines that a terminal must not break
        paste = [Text("\n  in Python:", style="dim"), Text(clean(verdict.evidence.reproduce), no_wrap=True, overflow="ignore")]
    return [*lines, Padding(rows, (0, 0, 0, 2)), *paste]


def _others(verdict: Verdict, check: str) -> str:
    """Which other checks say the same, and that there is a table."""
    same = [name for name in dict.fromkeys(f.check for f in verdict.findings if f.status is verdict.status) if name != check]
    passed = {f.check for f in verdict.findings if f.status is Status.PASS} - {
        f.check for f in verdict.findings if f.status is verdict.status
    }
    if verdict.status is not Status.FAIL or not (same or passed):
        return ""
    also = f"{', '.join(same)} {'fails' if len(same) == 1 else 'fail'}, too; " if same else ""
    return f"{also}{len(passed)} {'passes' if len(passed) == 1 else 'pass'}"


def _checks(verdict: Verdict) -> Group:
    """A row for each check, dtype and status; the reasons of what was not compared stand below."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, justify in (
        ("check", "left"),
        ("dtype", "left"),
        ("verdict", "left"),
        ("cases", "right"),
        ("comparisons", "right"),
        ("error caught", "right"),
    ):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    table.add_column("", overflow="fold")
    groups: dict[tuple[str, str | None, Status], list[Finding]] = {}
    for finding in verdict.findings:
        groups.setdefault((finding.check, finding.dtype, finding.status), []).append(finding)
    reasons: list[Text] = []
    for (check, dtype, status), findings in groups.items():
        arguments = ", ".join(finding.argument for finding in findings if finding.argument)
        comparisons, cases = sum(finding.comparisons for finding in findings), max(finding.cases for finding in findings)
        table.add_row(
            check, dtype or "", Text(str(status), style=COLOURS[status]), f"{cases:,}", f"{comparisons:,}", error_text(findings[0].detectable),
            Text(clean(arguments), style="dim"),
        )  # fmt: skip
        if status in (Status.SKIP, Status.INCONCLUSIVE) or (status is Status.PASS and findings[0].message):
            reasons.append(Text(clean(f"{check} {status} in {cases}: {findings[0].message}"), style="dim"))
    return Group(table, *reasons)


def _total(report: Report) -> Text:
    if not report.verdicts:
        return Text("nothing ran: no operation was named or found", style="yellow")
    comparisons = sum(verdict.comparisons for verdict in report.verdicts)
    seconds = elapsed(report.run, (verdict.seconds for verdict in report.verdicts))
    caught = [verdict.smallest_detectable for verdict in report.verdicts if verdict.smallest_detectable is not None]
    sensitivity = f"; a relative error of {max(caught):.1e} in any single element would have been caught" if caught and report else ""
    return Text(f"\n{totals(report)}: {comparisons:,} comparisons in {seconds:.1f} s{sensitivity}")
