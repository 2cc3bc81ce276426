"""How often `verify` accuses a derivative that is right: thousands of random cases of functions whose derivative is JAX's own.

    python benchmarks/false_alarms.py [--cases 10000] [--seed S] [--only NAME ...] [--jobs N] [--json [FILE]]
        [--journal FILE]

The functions are those of `benchmarks/correct_functions.py` and the operations of `manual_vjp`. The cases are spread evenly over functions, and within a
function over float64, float32, bfloat16 and float16 as far as it claims them (a case in a users' dtype is judged in float64 too). Every check is
made on every case to which it applies, and every FAIL and ERROR is listed with the address for `verify replay`, run from the repository's root.
With a journal, a run that is ended can be taken up where it stopped, by the same command at the same code. Exit status 1 if there is any accusation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no installed package

from benchmarks.correct_functions import MODULE, SPECS  # noqa: E402
from manual_vjp import catalog  # noqa: E402
from verify import checks  # noqa: E402
from verify.addresses import LARGEST_INDEX  # noqa: E402
from verify.cases import Case, draw  # noqa: E402
from verify.environment import cores, versions  # noqa: E402
from verify.judging import judge  # noqa: E402
from verify.records import Status  # noqa: E402
from verify.registry import resolve  # noqa: E402
from verify.spec import Spec  # noqa: E402

DTYPES = ("float64", "float32", "bfloat16", "float16", "mixed")
CHUNK = 20  # cases that are one task
TASKS = 12  # of a process, which is then replaced: JAX's caches only grow (`max_tasks_per_child` can hang, CPython issue 115634)
TELLING = (0, 1, 3, 4, 6, 7)  # indices modulo 8 of float64 cases: those at which the costly checks take their turns
RESULT = Path(__file__).parent / "results" / "false_alarms.json"
Row = dict[str, Any]


def names() -> list[str]:
    return [*catalog.SPECS, *(f"{MODULE}:{name}" for name in SPECS)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000, help="in all, spread over the functions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these functions alone")
    parser.add_argument("--jobs", type=int, default=cores())
    parser.add_argument("--json", type=Path, nargs="?", const=RESULT, help=f"write the numbers ({RESULT.relative_to(ROOT)})")
    parser.add_argument("--journal", type=Path, help="keep what is done in this file, and do not do again what is in it")
    options = parser.parse_args(argv)
    chosen = [name for name in names() if not options.only or name in options.only or name.rpartition(":")[2] in options.only]
    if not chosen or options.cases < 1:
        parser.error("nothing to run: --cases must be at least 1, --only one of " + ", ".join(name.rpartition(":")[2] for name in names()))
    rows = run(chosen, options.cases, options.seed, options.jobs, options.journal)
    report = summary(rows, options.cases, options.seed)
    print_table(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["accusations"] else 0


def run(chosen: Sequence[str], cases: int, seed: int, jobs: int, journal: Path | None) -> list[Row]:
    """One row for each case, judged in processes of their own."""
    shares = [cases // len(chosen) + (k < cases % len(chosen)) for k in range(len(chosen))]
    orders = [(name, seed, share, at) for name, share in zip(chosen, shares, strict=True) for at in range(0, share, CHUNK)]
    lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal and journal.exists() else []
    done = {tuple(order): rows for order, rows in lines if tuple(order) in orders}
    rest = [order for order in orders if order not in done]
    for batch in (rest[at : at + jobs * TASKS] for at in range(0, len(rest), jobs * TASKS)):
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(work, *order): order for order in batch}
            for future in as_completed(futures):
                order = futures[future]
                done[order] = future.result()
                if journal:
                    with journal.open("a") as file:
                        file.write(json.dumps([order, done[order]]) + "\n")
                if sys.stderr.isatty():
                    print(f"\r{sum(map(len, done.values()))}/{cases} cases ", end="", file=sys.stderr, flush=True)
    place = {name: k for k, name in enumerate(chosen)}
    return sorted(itertools.chain.from_iterable(done.values()), key=lambda row: (place[row["name"]], row["index"]))


def work(name: str, seed: int, share: int, start: int) -> list[Row]:
    spec = resolve(name)
    return [judged(spec, case) for case in itertools.islice(spread(spec, seed, share), start, start + CHUNK)]


def spread(spec: Spec, seed: int, count: int) -> Iterator[Case]:
    """`count` cases, as many of each dtype that the spec claims: the first ones of each. (In the order of their indices one in twelve is in a users' dtype.)"""
    dtypes = ("float64", *spec.dtypes)
    missing = {dtype: count // len(dtypes) + (k < count % len(dtypes)) for k, dtype in enumerate(dtypes)}
    for case in draw(spec, seed, range(LARGEST_INDEX)):
        if not any(missing.values()):
            return
        telling = case.dtype != "float64" or case.index % 8 in TELLING
        if telling and missing[case.dtype]:
            missing[case.dtype] -= 1
            yield case


def judged(spec: Spec, case: Case) -> Row:
    """What the checks say of one case, as plain data. "PASS" here needs a gradient that was compared with an oracle."""
    start = time.perf_counter()
    findings = judge(spec, case, checks.ALL).findings
    compared = Counter(dict.fromkeys(checks.BY_NAME, 0))
    for finding in findings:
        compared[finding.check] += finding.comparisons
    worst = max((finding.status for finding in findings), key=lambda status: status.badness, default=Status.SKIP)
    if worst in (Status.PASS, Status.SKIP):
        worst = Status.PASS if sum(compared[name] for name in checks.JUDGES) else Status.SKIP
    told = [finding for finding in findings if finding.status in (Status.FAIL, Status.ERROR, Status.INCONCLUSIVE)]
    return {
        "name": spec.name, "index": case.index, "dtype": case.dtype, "status": str(worst), "seconds": time.perf_counter() - start,
        "checks": [finding.check for finding in findings if finding.comparisons], "comparisons": sum(compared.values()),
        "compared": any(compared[name] for name in checks.JUDGES),
        "findings": [
            {"status": str(f.status), "check": f.check, "dtype": f.dtype or case.dtype, "address": case.address, "case": case.describe(), "message": f.message}
            for f in told
        ],
    }  # fmt: skip


def summary(rows: Sequence[Row], cases: int, seed: int) -> dict[str, Any]:
    """The numbers of a run: counts for each function and dtype, and what was said against any."""
    functions: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        functions.setdefault(row["name"], {}).setdefault(row["dtype"], Counter())[row["status"]] += 1
    findings = [finding for row in rows for finding in row["findings"]]
    return {
        "cases": cases, "seed": seed, "seconds": round(sum(row["seconds"] for row in rows), 1), "environment": versions(), "functions": len(functions),
        "judged": sum(row["compared"] for row in rows), "comparisons": sum(row["comparisons"] for row in rows),
        "accusations": sum(row["status"] in ("FAIL", "ERROR") for row in rows),
        "by_dtype": {dtype: counted for dtype in DTYPES if (counted := Counter(row["status"] for row in rows if row["dtype"] == dtype))},
        "cases_by_check": Counter(check for row in rows for check in set(row["checks"])),
        "by_function": functions,
        "findings": [finding for finding in findings if finding["status"] != "INCONCLUSIVE"],
        "inconclusive": [finding for finding in findings if finding["status"] == "INCONCLUSIVE"],
    }  # fmt: skip


def print_table(report: dict[str, Any]) -> None:
    statuses = [str(status) for status in (Status.PASS, Status.FAIL, Status.ERROR, Status.INCONCLUSIVE, Status.SKIP)]
    environment = report["environment"]
    print(f"JAX {environment['jax']}, NumPy {environment['numpy']}, Python {environment['python']}, {environment['machine']}")
    print(f"{'':44}{'':10}" + "".join(f"{status:>14}" for status in statuses))
    lines = [(name.rpartition(":")[2], dtype, counts) for name, each in report["by_function"].items() for dtype, counts in each.items()]
    for name, dtype, counts in [*lines, *(("all", dtype, counts) for dtype, counts in report["by_dtype"].items())]:
        print(f"{name:<44}{dtype:<10}" + "".join(f"{counts.get(status, 0) or '.':>14}" for status in statuses))
    for title, key in (("accused although right", "findings"), ("not judged", "inconclusive")):
        for finding in report[key]:
            print(f"\n{title}: {finding['status']} {finding['check']} ({finding['dtype']}) {finding['address']}  {finding['case']}")
            print(f"    {finding['message']}")
    print("\nchecks made: " + ", ".join(f"{check} in {count} cases" for check, count in report["cases_by_check"].items()))
    print(
        f"{sum(sum(counts.values()) for counts in report['by_dtype'].values())} cases of {report['functions']} functions in {report['seconds']:.0f} s of one process: "
        f"{report['judged']} judged with {report['comparisons']} comparisons, {report['accusations']} accused although right"
    )


if __name__ == "__main__":
    sys.exit(main())
