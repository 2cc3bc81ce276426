"""`verify audit` and `verify scan` on the command line. JAX is imported by the process that verifies, not before."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify import files, outputs
from verify.auditing import baseline as gaps
from verify.errors import SpecError
from verify.printable import clean
from verify.terminal import NOTHING, finish, progress_bar
from verify.terminal import exit_status as operations_status

if TYPE_CHECKING:
    from verify.auditing.rules import Rule
    from verify.records import Report, Status

Found = tuple[list["Rule"], Callable[[Sequence["Rule"]], Any]]  # the rules, and what judges them


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands take."""
    for option in reversed((
        click.option("--rule", "rules", multiple=True, metavar="TEXT", help="Only rules with this in their name; may be repeated."),
        click.option("--check", "checks", multiple=True, metavar="NAME|CODE", help="Only these checks; may be repeated."),
        click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, help="Of the values that are drawn (0)."),
        click.option("--budget", type=click.FloatRange(min=0), metavar="SECONDS", help="Begin no further rule after this time."),
        click.option("--timeout", type=click.FloatRange(min=0), default=600.0, metavar="SECONDS", help="For one rule, which is then INCONCLUSIVE (600). 0: no limit, and all in this process."),
        click.option("--baseline", type=click.Path(), metavar="FILE", help=f"Differences that are meant ({gaps.FILE}, if it is there)."),
        click.option("--write-baseline", is_flag=True, help="List every rule that FAILs in the baseline file."),
        outputs.options,
        click.option("-v", "--verbose", is_flag=True, help="Show every check of every rule."),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("target", metavar="pkg.mod:program | script.py")
@click.argument("script_args", nargs=-1, metavar="[-- ARGUMENTS OF THE SCRIPT]")
@click.option("--args", "maker", metavar="pkg.mod:make_args", help="A function that returns the program's arguments, as a tuple.")
@click.option(
    "--arg", "given", multiple=True, metavar="NAME=f32[8,128]", help="One argument: dtype and sizes, or a Python number; may be repeated."
)
@_options
def audit(target: str, script_args: tuple[str, ...], maker: str | None, given: tuple[str, ...], **options: Any) -> None:
    """Find every custom rule that a program calls, and verify each; nothing needs to be written.

    The program is traced (and run once, with --args), the script is run. Each custom_vjp and custom_jvp that it calls, at any depth, is compared with JAX's
    autodiff of its own primal.

    \b
    verify audit my_pkg.train:loss --args my_pkg.train:example
    verify audit my_pkg.model:apply --arg x=f32[8,128] --arg w=f32[128,10]
    verify audit train.py -- --steps 3

    Exit status: 0 every rule PASS (or different on purpose, as the baseline says), 1 some FAIL, 2 usage, 3 no rule was found, or some INCONCLUSIVE.
    """

    def find() -> Found:
        from verify.auditing.audit import examine_all, named
        from verify.checks import select

        select(options["checks"] or None)
        found, notes = _collected(target, script_args, maker, given)
        return named(found, options["rules"]), lambda rules: examine_all(
            rules, notes, options["seed"], options["checks"] or None, options["budget"]
        )

    maker_option = ("--args", maker) if maker else ()
    arguments = [
        *(part for text in given for part in ("--arg", text)),
        *maker_option,
        target,
        *(("--", *script_args) if script_args else ()),
    ]
    instead = f" (verify run {target} verifies those that it defines)" if target.endswith(".py") else ""
    _run("audit", arguments, find, options, f"{target} calls", audit_status, instead)


@click.command()
@click.argument("package")
@click.option("--list", "only_list", is_flag=True, help="List the rules, and verify nothing.")
@_options
def scan(package: str, only_list: bool, **options: Any) -> None:
    """Import a package or a file, list every custom rule that it defines, and verify those whose arguments can be guessed.

    Arguments are read from jaxtyping annotations; else arrays of a few shapes are tried. For a rule that takes none of them, the spec to fill in is shown.
    All modules of the package are imported, and nothing else.

    Exit status: 0 every rule that could be judged PASS, 1 some FAIL, 2 usage, 3 no rule was found or judged.
    """

    from verify.registry import module_of

    package = module_of(package)

    def find() -> Found:
        from verify.auditing.audit import named, within
        from verify.auditing.scan import judged, scan
        from verify.checks import select

        select(options["checks"] or None)
        found, trouble = scan(package)
        for line in trouble:
            click.echo(f"verify: cannot import {clean(line)}", err=True)
        checks = options["checks"] or None
        return named(found, options["rules"]), lambda rules: within(
            options["budget"], rules, lambda rule: judged(rule, options["seed"], checks)
        )

    if only_list:
        with contextlib.redirect_stdout(sys.stderr):
            found, _ = find()
        for rule in found:
            click.echo(f"{clean(rule.name)}  {rule.kind}  {clean(rule.location)}")
        sys.exit(0 if found else NOTHING)
    _run("scan", [package], find, options, f"{package} defines", scan_status)


def _run(
    command: str, arguments: Sequence[str], find: Callable[[], Found], options: Mapping[str, Any], who: str, status: Callable[[Report], int],
    instead: str = "",
) -> None:  # fmt: skip
    """As a child: judge, and tell the parent. Else judge in a child (or here, without a time limit), and deliver the report. `instead`: what to do where no rule is found."""
    from verify.auditing import contained

    if (channel := contained.channel()) is not None:
        try:
            channel.serve(*find())
        except SpecError as error:
            channel.refuse(error)
        return
    written = {kind: options[kind] for kind in outputs.HELP}
    outputs.require_writable(written)
    path = options["baseline"] or gaps.FILE
    if options["write_baseline"]:
        files.require_writable(path)
    known = gaps.load(path) if Path(path).is_file() or (options["baseline"] and not options["write_baseline"]) else ()
    shared = [part for name in ("rule", "check") for text in options[f"{name}s"] for part in (f"--{name}", text)]
    shared += ["--seed", str(options["seed"]), *(("--budget", str(options["budget"])) if options["budget"] is not None else ())]
    with contextlib.redirect_stdout(sys.stderr), progress_bar(options["quiet"]) as advance:  # what the program prints is not the report
        if options["timeout"]:
            verdicts = contained.run([command, *shared, *arguments], options["timeout"], advance("rules"))
        else:
            found, judge = find()
            verdicts = list(judge(found))
    from verify.auditing.audit import reported

    report = reported(verdicts, known)
    if options["write_baseline"]:
        files.write(path, gaps.render(report, known))
    if not verdicts:
        wanted = f" with {' or '.join(options['rules'])} in its name" if options["rules"] else ""
        click.echo(f"verify: {who} no custom_vjp or custom_jvp{wanted}{instead}", err=True)
    finish(report.verdicts, [command, *shared, *arguments], {"seed": options["seed"]}, written, options["verbose"], status)


def _collected(target: str, script_args: tuple[str, ...], maker: str | None, given: tuple[str, ...]) -> tuple[list[Rule], list[str]]:
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


def audit_status(report: Report) -> int:
    """Of an audit: a rule that was left out for a reason is no trouble."""
    from verify.records import Status

    judged = _without(report, Status.SKIP)
    return operations_status(judged) if judged.verdicts or not report.verdicts else 0


def scan_status(report: Report) -> int:
    """Of a scan: a rule whose arguments cannot be guessed is no trouble as long as there are others."""
    from verify.records import Status

    return operations_status(_without(report, Status.SKIP, Status.INCONCLUSIVE))


def _without(report: Report, *statuses: Status) -> Report:
    from verify.records import Report

    return Report(verdicts=tuple(verdict for verdict in report.verdicts if verdict.status not in statuses))
