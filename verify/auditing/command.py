"""`verify audit` on the command line. JAX is imported when it runs, not before."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from verify import files, outputs
from verify.errors import SpecError
from verify.terminal import exit_status as operations_status
from verify.terminal import finish, progress_bar


@click.command()
@click.argument("target", metavar="pkg.mod:program | script.py")
@click.argument("script_args", nargs=-1, metavar="[-- ARGUMENTS OF THE SCRIPT]")
@click.option("--args", "maker", metavar="pkg.mod:make_args", help="A function that returns the program's arguments, as a tuple.")
@click.option(
    "--arg", "given", multiple=True, metavar="NAME=f32[8,128]", help="One argument: dtype and sizes, or a Python number; may be repeated."
)
@click.option("--rule", "rules", multiple=True, metavar="TEXT", help="Only rules with this in their name; may be repeated.")
@click.option("--check", "checks", multiple=True, metavar="NAME|CODE", help="Only these checks; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, help="Of the values that are drawn (0).")
@click.option("--budget", type=click.FloatRange(min=0), metavar="SECONDS", help="Begin no further rule after this time.")
@click.option("--baseline", type=click.Path(), metavar="FILE", help="Differences that are meant (verify-baseline.toml, if it is there).")
@click.option("--write-baseline", is_flag=True, help="List every rule that FAILs in the baseline file.")
@outputs.options
@click.option("-v", "--verbose", is_flag=True, help="Show every check of every rule.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def audit(
    target: str, script_args: tuple[str, ...], maker: str | None, given: tuple[str, ...], rules: tuple[str, ...], checks: tuple[str, ...],
    seed: int, budget: float | None, baseline: str | None, write_baseline: bool, verbose: bool, quiet: bool, **written: str | None,
) -> None:  # fmt: skip
    """Find every custom rule that a program calls, and verify each; nothing needs to be written.

    The program is traced (and run once, with --args), the script is run. Each custom_vjp and custom_jvp that it calls, at any depth, is compared with JAX's
    autodiff of its own primal.

    \b
    verify audit my_pkg.train:loss --args my_pkg.train:example
    verify audit my_pkg.model:apply --arg x=f32[8,128] --arg w=f32[128,10]
    verify audit train.py -- --steps 3

    Exit status: 0 every rule PASS (or different on purpose, as the baseline says), 1 some FAIL, 2 usage, 3 no rule was found, or some INCONCLUSIVE.
    """
    from verify.auditing import baseline as gaps

    outputs.require_writable(written)
    path = baseline or gaps.FILE
    if write_baseline:
        files.require_writable(path)
    known = gaps.load(path) if Path(path).is_file() or (baseline and not write_baseline) else ()
    from verify.auditing.audit import examine_all
    from verify.checks import select

    select(list(checks) or None)
    with contextlib.redirect_stdout(sys.stderr), progress_bar(quiet) as advance:  # what the program prints is not the report
        found, notes = _collected(target, script_args, maker, given)
        report = examine_all(found, notes, seed, checks or None, rules, known, budget, advance("rules"))
    if write_baseline:
        files.write(path, gaps.render(report, known))
    command = ["audit", target, *(part for text in given for part in ("--arg", text)), *(("--args", maker) if maker else ())]
    if not report.verdicts:
        wanted = f" with {' or '.join(rules)} in its name" if rules else ""
        click.echo(f"verify: {target} calls no custom_vjp or custom_jvp{wanted}", err=True)
    finish(report.verdicts, command, {"seed": seed}, written, verbose, exit_status)


def _collected(target: str, script_args: tuple[str, ...], maker: str | None, given: tuple[str, ...]) -> tuple[list[Any], list[str]]:
    from verify.auditing import targets
    from verify.auditing.collect import collect

    if ":" in target:
        if script_args:
            raise SpecError(f"{' '.join(script_args)}: arguments after the target are for scripts; a program takes --arg or --args")
        program, args = targets.program_and_args(target, maker, given)
        return collect(program, args)
    if not target.endswith(".py"):
        raise SpecError(f"{target}: wanted pkg.mod:program, or a script whose name ends in .py")
    if maker or given:
        raise SpecError("--arg and --args are for programs (pkg.mod:program); what stands after -- goes to a script")
    return targets.run_script(target, script_args)


def exit_status(report: Any) -> int:
    """Of a report on rules that were found: a rule that was left out for a reason is no trouble."""
    from verify.records import Report, Status

    judged = tuple(verdict for verdict in report.verdicts if verdict.status is not Status.SKIP)
    return operations_status(Report(verdicts=judged)) if judged or not report.verdicts else 0
