"""How often does verify miss a wrong rule, or accuse a right one? The corpus of tests/power, over several seeds, at the default budget.

    python benchmarks/error_rate.py [--seeds 5] [--only NAME ...] [--jobs 2] [--json FILE]

A wrong rule counts as caught when a case FAILs; a right one as passed when the verdict of all cases is PASS. The file keeps a record of each seed and side with
the commit it was run at, so seeds can be run one by one; the last result is in benchmarks/results/error_rate.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ...")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of entries")
    parser.add_argument("--sides", nargs="*", default=["wrong", "right"], choices=["wrong", "right"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args(argv)
    from tests.power.corpus import CORPUS
    from tests.power.right_rules import RIGHT

    names = [entry.name for entry in CORPUS if not options.only or entry.name in options.only]
    alone = [spec.name for spec in RIGHT if not options.only or spec.name in options.only]
    if unknown := set(options.only or ()) - {*names, *alone}:
        parser.error(f"--only: no entry of the corpus is named {', '.join(sorted(unknown))}")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    tasks = [(name, side, seed) for seed in seeds for side in options.sides for name in names]
    tasks += [(name, "alone", seed) for seed in seeds for name in alone if "right" in options.sides]
    start, results, code = time.perf_counter(), [], code_at()
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(judge_one, *task) for task in tasks]):
            result = future.result()
            results.append(result)
            if not result["good"]:
                print(f"{result['name']} {result['side']} seed {result['seed']}: {result['status']} {result['message']}", flush=True)
    counts = {
        side: [r["good"] for r in results if r["side"] in which] for side, which in (("wrong", ("wrong",)), ("right", ("right", "alone")))
    }
    seconds = time.perf_counter() - start
    for side, good in counts.items():
        if good:
            print(f"{side}: {sum(good)} of {len(good)} judged rightly")
    cases = sum(r["cases"] for r in results if r["side"] != "wrong")
    print(f"{len(names)} pairs and {len(alone)} right rules, {len(seeds)} seeds, {cases:,} cases of right rules, {seconds:.0f} s")
    if options.json:
        write(options.json, results, seconds, code)
    return 0 if all(itertools.chain(*counts.values())) else 1


def code_at() -> str:
    """The commit, and whether anything but results differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")


def write(path: Path, results: Sequence[dict[str, Any]], seconds: float, code: str) -> None:
    """Put each seed and side into the file, in the place of an earlier run of it."""
    import jax

    known = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = {(run["seed"], run["side"]): run for run in known}
    for seed, side in sorted({(r["seed"], "wrong" if r["side"] == "wrong" else "right") for r in results}):
        own = [r for r in results if r["seed"] == seed and (r["side"] == "wrong") == (side == "wrong")]
        runs[seed, side] = {
            "seed": seed, "side": side, "of": len(own), "judged_rightly": sum(r["good"] for r in own), "cases": sum(r["cases"] for r in own),
            "code": code, "jax": jax.__version__, "failures": sorted((r for r in own if not r["good"]), key=lambda r: r["name"]),
        }  # fmt: skip
    totals = {
        side: [sum(run[key] for run in runs.values() if run["side"] == side) for key in ("judged_rightly", "of", "cases")]
        for side in ("wrong", "right")
    }
    record = {side: dict(zip(("judged_rightly", "of", "cases"), numbers, strict=True)) for side, numbers in totals.items()}
    path.write_text(
        json.dumps({**record, "seconds_of_last_run": round(seconds), "runs": [runs[key] for key in sorted(runs)]}, indent=2) + "\n"
    )


def judge_one(name: str, side: str, seed: int) -> dict[str, Any]:
    """The verdict on one rule; a wrong one only up to its first failing case."""
    from tests.power.corpus import CORPUS
    from tests.power.right_rules import RIGHT
    from verify import Status, checks
    from verify.cases import draw
    from verify.judging import judge
    from verify.profiles import case_count
    from verify.runner import run_spec

    warnings.simplefilter("ignore")
    if side == "alone":
        spec, cases = next(spec for spec in RIGHT if spec.name == name), case_count(None, seed)
    else:
        entry = next(entry for entry in CORPUS if entry.name == name)
        spec, cases = getattr(entry, side), entry.cases or case_count(None, seed)
    result: dict[str, Any] = {"name": name, "side": side, "seed": seed}
    if side != "wrong":
        verdict = run_spec(spec, cases, seed)
        bad = next((f for f in verdict.findings if f.status is verdict.status), None)
        message = "" if verdict else f"{bad.check}: {bad.message[:300]} [{bad.address}]" if bad else str(verdict.notes)
        return result | {"good": bool(verdict), "status": str(verdict.status), "message": message, "cases": verdict.cases}
    for count, case in enumerate(draw(spec, seed, range(cases)), 1):
        failing = next((f for f in judge(spec, case, checks.ALL).findings if f.status is Status.FAIL), None)
        if failing:
            return result | {"good": True, "status": "FAIL", "message": f"{failing.check}: {failing.message[:200]}", "cases": count}
    return result | {"good": False, "status": "not FAIL", "message": "missed", "cases": cases}


if __name__ == "__main__":
    sys.exit(main())
