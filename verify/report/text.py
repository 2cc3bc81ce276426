"""The terminal report: a table of verdicts, and for every one that is not PASS a block that says what, where, why and what next."""

from __future__ import annotations

import io
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verify.records import Finding, Report, Status, Verdict

COLOURS = {Status.PASS: "green", Status.FAIL: "bold red", Status.INCONCLUSIVE: "yellow", Status.ERROR: "bold magenta", Status.SKIP: "dim"}
NEXT = {
    "structure": "make the backward return one cotangent per argument, in the argument's shape and dtype",
    "primal": "make forward rule and primal compute the same value, or mend the reference",
    "gradient": "compare the formula of this cotangent with its derivation",
    "finite-difference": "compare the formula with its derivation",
    "adjoint": "compare the formula with its derivation",
    "taylor": "compare the formula with its derivation",
    "complex-step": "compare the formula with its derivation",
    "tangent": "compare the formula of the tangent with its derivation; it must be linear in the tangents and use each of them",
    "linearity": "remove what is not linear in the upstream cotangent from the backward (clip, sign, square, a constant)",
    "precision": "accumulate in float32, save residuals in the argument's dtype or wider, round once at the end",
    "extremes": "shift before exp, guard the division and the square root (with a where on their input, not on their output), scale before squaring",
    "kinks": "choose a value between the one-sided derivatives, and share a tied gradient so that the shares sum to one",
    "arguments": "make each cotangent independent of which others are wanted; instantiate SymbolicZero, and do not read `perturbed` for another argument",
    "sharing": "do not compare arguments by identity, and do not write into them",
    "reuse": "return what the backward needs as residuals; keep nothing outside",
    "zero-cotangent": "multiply every term of the backward by the upstream cotangent, and keep 0/0 out of it",
    "repeatability": "keep no state between calls; pass PRNG keys as arguments",
    "second-order": "make the backward a differentiable function of residuals and cotangent, with no stop_gradient and no stale value",
    "jit": "do not read values in Python inside the rule",
    "scan": "return each cotangent in its argument's dtype, and keep no state in Python",
    "remat": "make the forward rule give the same residuals each time it runs",
    "residuals": "save less, and recompute it in the backward",
    "vmap": "count axes from the end, and reduce over the axes that the primal broadcasts, not over all but the last",
    "sharding": "sum over the mesh axes along which the cotangent varies and its argument does not; no other psum, no mean",
    "portability": "write the backward with operations that every platform of the primal has",
    "purity": "keep nothing and change nothing outside of the rule: residuals are returned, inputs are copied, settings are the caller's",
    "nondifferentiable": "return None for arguments without a derivative, and let them be batched like any other",
}


def render_report(report: Report, width: int = 100, colour: bool = False, verbose: bool = False) -> str:
    """The whole report as text."""
    return _print(
        [_table(report.verdicts), *(block for verdict in report.verdicts for block in _blocks(verdict, verbose)), _total(report)],
        width,
        colour,
    )


def render_verdict(verdict: Verdict, width: int = 100, colour: bool = False) -> str:
    """One verdict as text, with a line for each check."""
    return _print([_headline(verdict), *_blocks(verdict, verbose=True)], width, colour)


def clean(text: str) -> str:
    """Without control and direction characters, which could repaint a terminal or break XML."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _print(parts: Iterable[RenderableType], width: int, colour: bool) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None, highlight=False, emoji=False
    )
    console.print(Group(*parts))
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
            f"{verdict.comparisons:,}", _error(verdict.smallest_detectable) if verdict else "", f"{verdict.seconds:.1f} s",
        )  # fmt: skip
    return table


def _headline(verdict: Verdict) -> Text:
    caught = f", smallest error caught {_error(verdict.smallest_detectable)}" if verdict and verdict.smallest_detectable is not None else ""
    counts = f" {verdict.cases:,} cases of {verdict.shapes:,} shapes, {verdict.comparisons:,} comparisons{caught}"
    return Text.assemble(clean(verdict.name), " ", (str(verdict.status), COLOURS[verdict.status]), counts)


def _blocks(verdict: Verdict, verbose: bool) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    if verdict.status is not Status.PASS:
        blocks += [Text(), *_failure(verdict)]
    if verbose or verdict.status is not Status.PASS:
        blocks += [Text(), Padding(_checks(verdict), (0, 0, 0, 2))]
        if verdict.status is Status.PASS:
            blocks += [Padding(Text(clean(note), style="dim"), (0, 0, 0, 2)) for note in verdict.notes]
    return blocks


def _failure(verdict: Verdict) -> list[RenderableType]:
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
        rows.add_row("next", Text(NEXT.get(first.check, "") + f" (verify explain {first.check})"))
    if verdict.smallest_case:
        rows.add_row("smallest", Text(clean(verdict.smallest_case)))
    if verdict.address:
        rows.add_row("replay", Text(f"verify replay {shlex.quote(clean(verdict.address))}"))
    for note in verdict.notes:
        rows.add_row("note", Text(clean(note)))
    return [*lines, Padding(rows, (0, 0, 0, 2))]


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
            check, dtype or "", Text(str(status), style=COLOURS[status]), f"{cases:,}", f"{comparisons:,}", _error(findings[0].detectable),
            Text(clean(arguments), style="dim"),
        )  # fmt: skip
        if status in (Status.SKIP, Status.INCONCLUSIVE) or (status is Status.PASS and findings[0].message):
            reasons.append(Text(clean(f"{check} {status} in {cases}: {findings[0].message}"), style="dim"))
    return Group(table, *reasons)


def _total(report: Report) -> Text:
    if not report.verdicts:
        return Text("nothing ran: no operation was named or found", style="yellow")
    counts = {status: sum(verdict.status is status for verdict in report.verdicts) for status in reversed(Status)}
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    comparisons = sum(verdict.comparisons for verdict in report.verdicts)
    seconds = sum(verdict.seconds for verdict in report.verdicts)
    caught = [verdict.smallest_detectable for verdict in report.verdicts if verdict.smallest_detectable is not None]
    sensitivity = f"; a relative error of {max(caught):.1e} in any single element would have been caught" if caught and report else ""
    return Text(f"\n{words}: {comparisons:,} comparisons in {seconds:.1f} s{sensitivity}")


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value < 1 else "> 100 %"
