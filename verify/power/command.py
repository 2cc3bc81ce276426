"""`verify power` on the command line. JAX is imported when it runs, not before."""

from __future__ import annotations

import contextlib
import sys

import click

from verify import files
from verify.errors import SpecError
from verify.terminal import NOTHING, progress_bar


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME | pkg.mod:name | FILE.py]...")
@click.option("--cases", type=click.IntRange(min=1), help="Cases of the verification that is measured (104).")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, help="Of these cases (0).")
@click.option("--check", "checks", multiple=True, metavar="NAME|CODE", help="Measure only these checks; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Try N mistakes only, spread evenly over all.")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write the result as JSON (- for stdout).")
@click.option("--markdown", type=click.Path(), metavar="FILE", help="Write a page with a table (- for stdout).")
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, help="Processes (1).")
@click.option("-v", "--verbose", is_flag=True, help="Show the mistakes that were caught, too.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def power(
    names: tuple[str, ...], cases: int | None, seed: int, checks: tuple[str, ...], limit: int | None, json_file: str | None,
    markdown: str | None, jobs: int, verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Break operations on purpose, and count which mistakes the verification catches.

    Without names: every operation that an installed package declares. Exit status: 0 every mistake was caught, 1 some were not, 2 usage, or a rule
    that is wrong as it is, 3 nothing could be broken.
    """
    if json_file == markdown == "-":
        raise SpecError("--json - and --markdown - would mix two reports on stdout; write one of them to a file")
    for path in (json_file, markdown):
        if path:
            files.require_writable(path)
    from verify.environment import environment
    from verify.power.parallel import measure_named
    from verify.registry import installed, named, resolve
    from verify.report import power as report

    wanted = named(names or tuple(installed()))
    for name in wanted:
        resolve(name)
    with contextlib.redirect_stdout(sys.stderr), progress_bar(quiet) as advance:  # what the users' functions print is not the report
        powers = [measure_named(name, cases, seed, checks or None, limit, jobs, advance(name)) for name in wanted]
    if json_file:
        files.write(json_file, report.render_json(powers, environment()))
    if markdown:
        given = {"--cases": cases, "--seed": seed or None, "--limit": limit, "--jobs": jobs if jobs > 1 else None, "--markdown": markdown}
        flags = [*(f"--check {check}" for check in checks), *(f"{flag} {value}" for flag, value in given.items() if value is not None)]
        command = " ".join(["verify power", *names, *flags])
        files.write(markdown, report.render_markdown(powers, command, environment()))
    if "-" not in (json_file, markdown):
        click.echo("\n\n".join(report.render_power(measured, verbose) for measured in powers))
    if any(measured.survivors for measured in powers):
        sys.exit(1)
    sys.exit(0 if powers and all(powers) else NOTHING)
