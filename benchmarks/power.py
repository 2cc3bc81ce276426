"""Would the verification catch a mistake in our operations? Each is broken on purpose in every way that `verify power` knows.

    python benchmarks/power.py [NAME ...] [--jobs 2]

Measures the operations named (all, if none is), several at a time, each in a process of its own. A result is written when it is there, into
benchmarks/results/power.json, beside those of the other operations; docs/power.md is the page made of it. Exit status 1 if a mistake survived.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from manual_vjp import catalog
from verify import files
from verify.environment import environment
from verify.records import Mutant, Power
from verify.report.power import render_json, render_markdown, render_power

ROOT = Path(__file__).parents[1]
BRIEF = {"equation": "", "source": "", "code": "", "address": None, "note": ""}
RESULT, PAGE = ROOT / "benchmarks" / "results" / "power.json", ROOT / "docs" / "power.md"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="operations (all)")
    parser.add_argument("--jobs", type=int, default=2, help="operations at a time")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(catalog.SPECS):
        parser.error(f"no operation is called {', '.join(sorted(unknown))}; there are {', '.join(catalog.SPECS)}")
    powers, wanted = earlier(), options.names or list(catalog.SPECS)
    done = set()
    with ThreadPoolExecutor(options.jobs) as pool:
        for future in as_completed([pool.submit(measured, name) for name in wanted]):
            if (power := future.result()) is None:
                continue
            powers[power.name] = power
            done.add(power.name)
            print(render_power(power), end="\n\n", flush=True)
            write([powers[name] for name in catalog.SPECS if name in powers])
    return 0 if done == set(wanted) and all(power.survivors == () for power in powers.values()) else 1


def measured(name: str) -> Power | None:
    """None, and a line about it, where the measurement ended without a result: the others go on."""
    command = [sys.executable, "-m", "verify.cli", "power", name, "--quiet", "--json", "-"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        print(f"{' '.join(command)} ended with {done.returncode}, without a result", file=sys.stderr, flush=True)
        return None
    (record,) = json.loads(done.stdout)["operations"]
    return _power(record)


def earlier() -> dict[str, Power]:
    found = json.loads(RESULT.read_text())["operations"] if RESULT.exists() else []
    return {record["name"]: _power(record) for record in found}


def _power(record: dict[str, Any]) -> Power:
    kept = {key: record[key] for key in ("name", "smallest_caught", "cases", "pool", "seed", "left_out", "seconds")}
    return Power(**kept, mutants=tuple(Mutant(**mutant) for mutant in record["mutants"]))


def write(powers: Sequence[Power]) -> None:
    """Of what was caught the file keeps by which check; the rest can be measured again."""
    short = [replace(p, mutants=tuple(m if m.status != "killed" else replace(m, **BRIEF) for m in p.mutants)) for p in powers]  # type: ignore[arg-type]
    files.write(str(RESULT), render_json(short, environment()))
    page = render_markdown(powers, "python benchmarks/power.py", environment())
    if missing := [name for name in catalog.SPECS if name not in {power.name for power in powers}]:
        page += f"\n## Not measured yet\n\n{', '.join(missing)}.\n"
    files.write(str(PAGE), page)


if __name__ == "__main__":
    sys.exit(main())
