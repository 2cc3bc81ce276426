"""What a verification costs per distinct shape, beside `jax.test_util.check_grads(order=1, modes=["rev"])` over the same shapes.

    python benchmarks/verifier_cost.py [--shapes 24] [--json FILE]

Then the whole battery of checks over the first cases of a default run, beside the gradient check alone over the same cases: what all other checks add.

Both run in one process, one thread, shape by shape in turn, on shapes that neither has seen. check_grads is given the plain formula and our rule; it runs in float32
with tolerances wide enough not to stop early, since its time does not depend on them. The verifier's time is for all float64 checks of a case (primal, structure, gradient by
autodiff and by finite differences, linearity, zero, repeatability), as `verify run` makes them for most cases; phases are printed, so that the next bottleneck shows.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.test_util import check_grads

from manual_vjp.catalog import SPECS
from verify import checks
from verify.cases import Case, draw
from verify.judging import judge
from verify.observe import observe
from verify.spec import Spec

CORE = checks.select(
    [
        "structure",
        "primal",
        "gradient",
        "finite-difference",
        "taylor",
        "complex-step",
        "linearity",
        "zero-cotangent",
        "repeatability",
        "extremes",
    ]
)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shapes", type=int, default=24, help="distinct shapes per operation")
    parser.add_argument("--battery", type=int, default=52, help="cases of the comparison of the battery with the gradient alone")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    rows = [measure(SPECS[name], options.shapes) for name in ("layer_norm", "attention")]
    print(
        f"Python {platform.python_version()}, JAX {jax.__version__}, {platform.machine()}; median ms per distinct shape, {options.shapes} shapes"
    )
    for row in rows:
        print(f"\n{row['operation']}")
        print(f"  check_grads, plain formula   {row['check_grads_plain']:8.1f}   {row['check_grads_plain'] / row['verify']:5.1f} x verify")
        print(f"  check_grads, compiled rule   {row['check_grads_rule']:8.1f}   {row['check_grads_rule'] / row['verify']:5.1f} x verify")
        print(f"  verify, all float64 checks   {row['verify']:8.1f}")
        print("    " + ", ".join(f"{phase} {value:.1f}" for phase, value in row["phases"].items()) + " (means)")
    for row, spec in zip(rows, (SPECS["layer_norm"], SPECS["attention"]), strict=True):
        row |= battery(spec, options.battery)
        ratio = row["battery"] / row["gradient_alone"]
        print(
            f"\n{row['operation']}: {options.battery} cases, gradient alone {row['gradient_alone']:.1f} s of CPU, the whole battery {row['battery']:.1f} s: {ratio:.2f} times"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def battery(spec: Spec, count: int) -> dict[str, float]:
    """CPU seconds of the gradient check alone and of every check, on cases of the same sizes (other seeds of values would be other sizes, too)."""
    seconds = {}
    for name, selected in (("gradient_alone", checks.select(["gradient"])), ("battery", checks.ALL)):
        renamed = replace(spec, fn=functools.partial(spec.fn))  # another identity, so that nothing traced for the other is used again
        start = time.process_time()
        for case in draw(renamed, 2, range(count)):
            judge(renamed, case, selected)
        seconds[name] = time.process_time() - start
    return seconds


def measure(spec: Spec, shapes: int) -> dict[str, Any]:
    cases = [case for case in draw(spec, 0, range(4 * shapes)) if case.dtype == "float64" and _arrays(case)][: shapes + 1]
    times: dict[str, list[float]] = {"check_grads_plain": [], "check_grads_rule": [], "verify": []}
    phases: dict[str, float] = {}
    for position, case in enumerate(cases):
        assert spec.reference is not None
        plain = _timed(_check_grads, spec.reference, case)
        rule = _timed(_check_grads, spec.fn, case)
        ours = _timed(judge, spec, case, CORE)
        if position == 0:
            continue  # the first of each pays for imports and first use
        for name, value in zip(times, (plain, rule, ours), strict=True):
            times[name].append(1e3 * value)
    for case in list(draw(spec, 1, range(shapes + 1)))[1:]:  # other values and shapes, for the phases
        if case.dtype == "float64":
            start = time.perf_counter()
            observation = observe(spec, case)
            observed = time.perf_counter()
            for check in CORE:
                check.judge(observation)
            spent = {**observation.seconds, "compare": time.perf_counter() - observed}
            spent["other"] = observed - start - sum(observation.seconds.values())
            for phase, seconds in spent.items():
                phases[phase] = phases.get(phase, 0.0) + seconds
    count = sum(case.dtype == "float64" for case in list(draw(spec, 1, range(shapes + 1)))[1:])
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"operation": spec.name, **medians, "phases": {phase: 1e3 * seconds / count for phase, seconds in phases.items()}}


def _timed(work: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def _check_grads(function: Callable[..., Any], case: Case) -> None:
    """With huge tolerances: only the time is of interest here."""
    arrays = [np.asarray(arg, np.float32) for arg in _arrays(case)]

    def call(*values: Any) -> Any:
        given = iter(values)
        args = [next(given) if _differentiable(arg) else arg for arg in case.args]
        return function(*args, **case.options)

    check_grads(call, arrays, order=1, modes=["rev"], atol=1e9, rtol=1e9)


def _arrays(case: Case) -> list[Any]:
    return [arg for arg in case.args if _differentiable(arg)]


def _differentiable(arg: Any) -> bool:
    return arg is not None and jax.numpy.issubdtype(arg.dtype, jax.numpy.floating)


if __name__ == "__main__":
    main()
