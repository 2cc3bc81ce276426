"""The command line. Results go to stdout, progress and errors to stderr; JAX is imported by the commands that need it only.

exit status: 0 every verdict PASS; 1 some FAIL; 2 usage, or a spec or function that cannot be run; 3 nothing ran, or some INCONCLUSIVE; 4 internal fault.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from verify import files, outputs
from verify.auditing.command import audit, scan
from verify.campaign.command import campaign, deliver_journal
from verify.campaign.upkeep import journal_group, merge
from verify.power.command import power
from verify.printable import clean
from verify.spec import SpecError
from verify.terminal import INTERNAL, INTERRUPTED, USAGE, finish, progress_bar

WORTH_PROCESSES = 60  # cases: below, starting processes (2 s each) costs more than it saves


class Cli(click.Group):
    """Turns user mistakes into one line and exit status 2, and our own faults into a short report and 4."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SpecError as error:
            click.echo(f"verify: {clean(str(error))}", err=True)
            ctx.exit(USAGE)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; do not complain at exit
            ctx.exit(0)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("verify: interrupted before there was anything to report", err=True)
            ctx.exit(INTERRUPTED)
        except Exception:
            click.echo(f"verify: internal fault, please report it:\n{traceback.format_exc()}", err=True)
            ctx.exit(INTERNAL)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from verify.signature import nearest

        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(
                f'there is no command "{clean(args[0])}".{nearest(args[0], self.commands)} Commands: {", ".join(self.commands)}'
            )
        return super().resolve_command(ctx, args)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="manual-vjp", prog_name="verify")
def main() -> None:
    """Tell whether hand-written derivatives (jax.custom_vjp, custom_jvp) are right.

    \b
    verify run                          every installed operation
    verify run layer_norm --cases 500   one of them, longer
    verify run my_pkg.rules:my_fn       any importable function with jaxtyping annotations, or a Spec
    verify run rules.py                 every Spec of a file
    verify audit train.py               every custom rule that a script or a program calls
    verify scan my_pkg                  every custom rule that a package defines
    verify campaign nightly.toml        many of them for hours, with a journal
    verify replay layer_norm/0/7        one case again, bit for bit
    verify explain linear               the derivation, with a worked example
    """


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME | pkg.mod:name | FILE.py]...")
@click.option("--cases", type=click.IntRange(min=1), help="Cases per operation; wins over --profile.")
@click.option("--profile", type=click.Choice(["quick", "default", "deep"]), help="How long: 28, 104 or 728 cases per operation.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), help="The same seed gives the same cases on any machine (0).")
@click.option("--check", "checks", multiple=True, metavar="NAME|CODE", help="Only these checks; may be repeated.")
@click.option("--config", type=click.Path(), help="TOML file with specs, cases, seed, checks.")
@outputs.options
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Processes (by default one for each core, or none for little work).")
@click.option("-v", "--verbose", is_flag=True, help="Show every check of every operation.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def run(
    names: tuple[str, ...], cases: int | None, profile: str | None, seed: int | None, checks: tuple[str, ...], config: str | None,
    jobs: int | None, verbose: bool, quiet: bool, **written: str | None,
) -> None:  # fmt: skip
    """Verify operations on random sizes, dtypes, options and values.

    Without names: every operation that an installed package declares. A file or a module stands for every Spec in it, or, if it has none, for every rule.
    """
    from verify.config import RunConfig, load

    settings = load(config) if config else RunConfig()
    outputs.require_writable(written)
    from verify.registry import installed, named, resolve

    wanted = named(names or settings.specs or tuple(installed()))
    specs = {name: resolve(name) for name in wanted}
    from verify.checks import select
    from verify.profiles import case_count

    seed = seed if seed is not None else settings.seed or 0
    count = case_count(cases if cases is not None or profile else settings.cases, seed, profile or settings.profile)
    selected = [check.NAME for check in select(checks or settings.checks)]
    start, verdicts, cut = time.perf_counter(), [], False
    printed = contextlib.redirect_stdout(sys.stderr)  # what the users' functions print is not the report
    with printed, progress_bar(quiet, len(specs), count) as advance:
        try:
            for verdict in _verdicts(specs, count, seed, selected, jobs, advance):
                verdicts.append(verdict)
                if len(specs) > 1 and not quiet and not sys.stderr.isatty():  # a log shows how far it is
                    click.echo(
                        f"{clean(verdict.name)} {verdict.status} {verdict.seconds:.1f} s ({len(verdicts)} of {len(specs)})", err=True
                    )
        except KeyboardInterrupt:
            if not verdicts:
                raise
            cut = True
    asked = {"seed": seed, "cases": count, "checks": selected, "operations": len(specs), "seconds": round(time.perf_counter() - start, 3)}
    command = [
        "run",
        *names,
        "--cases",
        str(count),
        "--seed",
        str(seed),
        *(f"--check={check}" for check in checks or settings.checks or ()),
    ]
    if cut:
        click.echo(
            f"verify: interrupted after {len(verdicts)} of {len(specs)} operations, which are reported; campaign goes on where it was stopped",
            err=True,
        )
    finish(verdicts, command, asked, written, verbose, status=(lambda report: INTERRUPTED) if cut else None)


@main.command()
@click.argument("address")
@outputs.options
def replay(address: str, **written: str | None) -> None:
    """Run one case again, bit for bit: NAME/SEED/INDEX, as a report prints it."""
    outputs.require_writable(written)
    from verify.api import replay as replay_case

    with contextlib.redirect_stdout(sys.stderr):
        verdict = replay_case(address)
    finish([verdict], ["replay", address], {}, written, verbose=True)


@main.command()
@click.argument("file", type=click.Path(), metavar="FILE.json|J.db")
@click.option("--against", type=click.Path(), metavar="EARLIER.db", help="Of a journal: say what is other than in an earlier one.")
@outputs.options
@click.option("-v", "--verbose", is_flag=True, help="Show every check of every operation.")
def report(file: str, against: str | None, verbose: bool, **written: str | None) -> None:
    """Show a report again that `verify run --json` wrote, or the journal of a campaign; or write it in another form. FILE may be - for JSON from stdin.

    Exit status: 0 if it could be shown, whatever it says; 2 if it is no report.
    """
    from verify.campaign.journal import is_journal
    from verify.report.json import NotAReport, read

    outputs.require_writable(written)
    if is_journal(file):
        deliver_journal(file, against, written, verbose)
        return
    if against:
        raise SpecError(f"--against compares journals, and {file} is none")
    try:
        stored = read(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise SpecError(f"cannot read {file}: {error.strerror or error}") from None
    except NotAReport as error:
        raise SpecError(f"{file}: {error}") from None
    outputs.deliver(stored, written, verbose)


@main.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_operations(as_json: bool) -> None:
    """List the operations that installed packages declare, and the checks."""
    from verify.checks import ALL
    from verify.registry import installed

    specs = installed()
    if as_json:
        import json

        click.echo(json.dumps({"operations": {n: s.source for n, s in specs.items()}, "checks": {c.CODE: c.NAME for c in ALL}}, indent=2))
        return
    width = max([len(name) for name in specs] + [len(check.NAME) for check in ALL])
    click.echo("operations")
    for name, spec in specs.items():
        click.echo(f"  {name:<{width}}  {spec.source}")
    click.echo("checks")
    for check in ALL:
        click.echo(f"  {check.NAME:<{width}}  {check.CODE}  {check.TITLE}")


@main.command()
@click.argument("name", metavar="NAME|CODE|pkg.mod:name|FILE.py")
@click.option("--html", type=click.Path(), metavar="FILE", help="Write an operation's derivation as one page (- for stdout).")
def explain(name: str, html: str | None) -> None:
    """Explain an operation or a check (by name or code).

    Of an operation: a worked example, and backpropagation derived from its equations and their shapes. The formulas that are shown are run.
    Exit status: 1 where the operation's rule gives something else.
    """
    if html:
        files.require_writable(html)
    from verify.explain import explained

    found = explained(name, html=html is not None)
    if html and found.page is not None:
        files.write(html, found.page)
    if html != files.STDOUT:
        click.echo(found.text, nl=False)
    sys.exit(0 if found.agrees else 1)


@main.command()
def doctor() -> None:
    """Check this machine: versions, devices, and that a right rule passes and a wrong one fails."""
    from verify.doctor import examine

    well = True
    for what, fine, detail in examine():
        well &= fine
        click.echo(f"{'ok ' if fine else 'BAD'}  {what:<20} {clean(detail)}")
    sys.exit(0 if well else 1)


def _verdicts(
    specs: dict[str, Any], cases: int, seed: int, checks: list[str], jobs: int | None, advance: Callable[[str], Callable[[int, int], None] | None]
) -> Iterator[Any]:  # fmt: skip
    """One verdict after the other; in processes where there is enough work to pay for starting them."""
    from verify.environment import cores
    from verify.runner import run_spec
    from verify.workers import Workers

    jobs = jobs or (cores() if len(specs) * cases >= WORTH_PROCESSES else 1)
    if jobs == 1:
        for name, spec in specs.items():
            yield _guarded(name, lambda spec=spec, name=name: run_spec(spec, cases, seed, checks, advance(name)))
        return
    with Workers(jobs) as workers:
        for name in specs:
            workers.order(name, cases, seed, checks)
        for name, spec in specs.items():
            judges = workers.judges(name)
            verdict = _guarded(name, lambda spec=spec, name=name, judges=judges: run_spec(spec, cases, seed, checks, advance(name), judges))
            yield replace(verdict, seconds=max(verdict.seconds, workers.seconds(name)))


def _guarded(name: str, work: Callable[[], Any]) -> Any:
    """A verdict also where the spec cannot be run, so that the other operations are not lost."""
    from verify.records import Finding, Status, Verdict

    try:
        return work()
    except SpecError as error:
        if not (sys.__stdout__ and sys.__stdout__.isatty()):  # on a terminal the report says it
            click.echo(f"verify: {clean(str(error))}", err=True)
        finding = Finding(check="structure", status=Status.ERROR, message=str(error))
        return Verdict(name=name, status=Status.ERROR, findings=(finding,))


main.add_command(audit)
main.add_command(scan)
main.add_command(power)
main.add_command(campaign)
main.add_command(merge)
main.add_command(journal_group)


if __name__ == "__main__":
    main()
