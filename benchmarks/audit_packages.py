"""Audit released packages: is every custom rule found that their programs call, and is every one that `verify audit` accuses really wrong?

    python benchmarks/audit_packages.py [--only PACKAGE ...] [--program NAME ...] [--limit SECONDS] [--json FILE]

Each program of `benchmarks/audit_programs.py` is audited in a process of its own, killed after the limit. What is meant to differ is listed in
`benchmarks/audit_baseline.toml`, and counted by itself in the table. The rules of a program are also counted by a walk over its equations, written here without `verify`: each must have been
found. A rule is examined with the package that it belongs to; where another package calls it, it is only found. The results go to `benchmarks/results/audit_packages.json` (those of the packages that ran; others are kept), the table to the terminal.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no installed package

from benchmarks.audit_programs import PROGRAMS  # noqa: E402

RESULTS = ROOT / "benchmarks/results/audit_packages.json"
BASELINE = ROOT / "benchmarks/audit_baseline.toml"
DISTRIBUTIONS = {"tensorflow-probability": "tfp-nightly"}  # installed under another name: its JAX substrate
NOT_FINISHED = "NOT FINISHED"
ELSEWHERE = "ELSEWHERE"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="*", choices=sorted(PROGRAMS), help="packages")
    parser.add_argument("--program", nargs="*", help="names of programs")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one program")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--work", nargs=3, metavar=("PACKAGE", "PROGRAM", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        package, program, file = options.work
        work(package, program, Path(file))
        return 0
    results = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    for package in options.only or PROGRAMS:
        version = _version(package)
        programs = {} if options.program is None else dict(results.get(package, {}).get("programs", {}))
        for program in PROGRAMS[package] if version else ():
            if options.program is None or program in options.program:
                programs[program] = run(package, program, options.limit)
                print(_line(package, program, programs[program]), flush=True)
        if not version:
            print(f"{package}: not installed, not run", flush=True)
        if version or package not in results:
            results[package] = {"version": version, "jax": _version("jax"), "programs": programs}
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n" + table(results))
    return 0


def run(package: str, program: str, limit: float) -> dict[str, Any]:
    """The result of one program. "error" says why its process ended before it had examined all rules, if it did."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--work", package, program, str(file)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, cwd=folder, check=False)
            error = " ".join(done.stderr.split())[-400:] if done.returncode else ""
        except subprocess.TimeoutExpired:
            error = f"killed after {limit:g} s"
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rules": [], "walked": 0, "missed": []}
    return {"seconds": round(time.perf_counter() - start, 1), **result, **({"error": error} if error else {})}


def work(package: str, program: str, file: Path) -> None:
    """Audit one program in this process, and write the result again after each rule: what hangs costs its own verdict only."""
    sys.argv = sys.argv[:1]  # absl reads it
    import jax

    from verify.auditing.audit import examine_all
    from verify.auditing.collect import collect

    loss, args = PROGRAMS[package][program]()
    walked = {place for place in map(_place, _walk(jax.make_jaxpr(loss)(*args).jaxpr)) if place}
    floating = [
        i for i, arg in enumerate(args) if any(jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact) for leaf in jax.tree.leaves(arg))
    ]
    found, notes = collect(jax.value_and_grad(loss, argnums=tuple(floating)), args)
    missed = sorted(walked - {_relative(rule.place) for rule in found})
    rules = [{"name": rule.name, "location": _relative(rule.location), "status": NOT_FINISHED, "seconds": 0.0} for rule in found]
    others = {name.replace("-", "_") for name in PROGRAMS} - {package.replace("-", "_")}
    for entry in rules:
        if entry["location"].partition("/")[0] in others:
            entry["status"] = ELSEWHERE
    for i, rule in enumerate([None, *found]):  # what `verify.audit` does, with a result after each rule
        if rule is not None and rules[i - 1]["status"] == ELSEWHERE:
            continue
        if rule is not None:
            rules[i - 1] = _entry(next(iter(examine_all([rule], notes))))
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"rules": rules, "walked": len(walked), "missed": missed}), encoding="utf-8")
        new.replace(file)


def _entry(verdict: Any) -> dict[str, Any]:
    from verify.auditing.baseline import difference

    return {
        "name": verdict.name,
        "location": _relative(verdict.location),
        "calls": verdict.calls,
        "shapes": verdict.shapes,
        "status": str(verdict.status),
        "seconds": round(verdict.seconds, 1),
        "message": _message(verdict),
        "difference": difference(verdict) if str(verdict.status) == "FAIL" else "",  # as a baseline lists it
    }


def _message(verdict: Any) -> str:
    if verdict.status in ("PASS",):
        return ""
    worst = [finding for finding in verdict.findings if finding.status is verdict.status]
    said = verdict.diagnosis or next((f"{finding.check}: {finding.message}" for finding in worst), "") or " ".join(verdict.notes[:1])
    return re.sub(r"/\S*?/(?:site-packages|lib)/(?=\w)", "", said)  # as it stands in any installation


def _walk(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a custom rule that a program runs, at any depth: those inside of a rule's own forward and backward are not run here."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call")):
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner := getattr(inner, "jaxpr", inner), "eqns"):
                    yield from _walk(inner)


def _place(equation: Any) -> str:
    jaxpr = equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr"))
    return _relative(jaxpr.jaxpr.debug_info.func_src_info.partition(" at ")[2])


def _relative(place: str) -> str:
    """A path as it stands in any installation."""
    return place.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return None


def _line(package: str, program: str, result: dict[str, Any]) -> str:
    missed = f", MISSED {result['missed']}" if result["missed"] else ""
    error = f", {result['error']}" if "error" in result else ""
    lines = [f"{package}/{program}: {len(result['rules'])} rules, {result['walked']} by the walk{missed}, {result['seconds']} s{error}"]
    lines += [f"    {rule['status']} {rule['name']} {rule['seconds']} s {rule.get('message', '')}" for rule in result["rules"]]
    return "\n".join(lines)


def distinct(package: dict[str, Any], different: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The kind of each rule that a package's programs call, the worst over the programs. `different`: names and differences that are meant."""
    order = ["no derivative", "PASS", "different", NOT_FINISHED, "INCONCLUSIVE", "ERROR", "FAIL"]
    found: dict[tuple[str, str], str] = {}
    for program in package["programs"].values():
        for rule in program["rules"]:
            if rule["status"] == ELSEWHERE:
                continue
            meant = (rule["name"], rule.get("difference")) in different
            kind = "different" if meant else "no derivative" if rule["status"] == "SKIP" else rule["status"]
            key = (rule["name"], rule["location"])
            found[key] = max(kind, found.get(key, kind), key=order.index)
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown: one row for each package."""
    from verify.auditing.baseline import load

    different = {(gap.name, gap.difference) for gap in load(BASELINE)}
    lines = [
        "| package | version | JAX | programs | rules found | missed | PASS | different on purpose | no derivative | INCONCLUSIVE | FAIL | not finished |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, package in results.items():
        if not package["version"]:
            lines.append(f"| {name} | not installed: not run | | | | | | | | | | |")
            continue
        kinds = list(distinct(package, different).values())
        programs = package["programs"].values()
        unfinished = sum("error" in program for program in programs)
        ran = f"{len(programs)} ({unfinished} not finished)" if unfinished else f"{len(programs)}"
        missed = len({place for program in programs for place in program["missed"]})
        counts = [kinds.count("PASS"), kinds.count("different"), kinds.count("no derivative"), kinds.count("INCONCLUSIVE")]
        cells = [
            name,
            package["version"],
            package["jax"],
            ran,
            len(kinds),
            missed,
            *counts,
            kinds.count("FAIL") + kinds.count("ERROR"),
            kinds.count(NOT_FINISHED),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
