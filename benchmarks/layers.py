"""Time and memory of every layer, forward and backward, beside autodiff of the plain formula and the peers that people would pick.

    python benchmarks/layers.py [NAME ...] [--rounds 15] [--seconds 6] [--json FILE] [--markdown FILE] [--chart FILE]

One compiled program for value and gradients each, run in turn (A B C ... C B A) in one process, so that what disturbs one disturbs all; medians, and the median of
the rounds' ratios with its 10th and 90th percentile. Every variant is compared with autodiff before it is timed. Memory: XLA's temporary bytes, and the residuals
that are not arguments. The machine's limits (matrix product, copy) are measured in the same run. Needs the extras `bench`; torch is shown where it is installed.
The malloc setting and XLA's flags are printed, as they change numbers by a factor of two: an array above 32 MiB is fresh memory from the kernel in each call.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

from benchmarks.layer_cases import Row, Torch, rows
from verify.checks.residuals import saved_bytes

MIB = 2.0**20


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help="operations; all if none is named")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row, at most about so long (and five rounds at least)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--chart", type=Path, help="an SVG")
    options = parser.parse_args(argv)
    record: dict[str, Any] = {"machine": machine(), "limits": limits(), "rows": []}
    print(" ".join(f"{k}={v}" for k, v in (record["machine"] | record["limits"]).items()), flush=True)
    for row in rows():
        if not options.names or row.name in options.names:
            record["rows"].append(measure(row, options.rounds, options.seconds))
            print(line(record["rows"][-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(record))
    if options.chart:
        chart(record, options.chart)
    below = [
        f"{row['name']} {row['shape']}: {floor}"
        for row in record["rows"]
        for floor, reached in row["floors"].items()
        if not reached["reached"]
    ]
    print(f"{len(record['rows'])} rows; below their floor: {', '.join(below) or 'none'}")
    return 0


def measure(row: Row, most: int, seconds: float) -> dict[str, Any]:
    """All variants of a row, in turn."""
    diff = row.diff if row.diff is not None else tuple(range(len(row.args)))
    runs: dict[str, Callable[[], Any]] = {}
    memory: dict[str, float | None] = {}
    kept: dict[str, float | None] = {}
    inputs = [jax.numpy.asarray(a) for a in row.args]
    out = jax.eval_shape(row.variants["ours"], *inputs)
    ct = jax.numpy.asarray(np.random.default_rng(9).normal(size=out.shape), out.dtype)
    for name, variant in row.variants.items():
        if isinstance(variant, Torch):
            runs[name], memory[name], kept[name] = _torch_run(variant, row.args, ct, diff), None, None
            continue
        compiled = _program(variant, row.args, ct, diff)
        runs[name] = lambda compiled=compiled: jax.block_until_ready(compiled(*inputs, ct))
        memory[name] = compiled.memory_analysis().temp_size_in_bytes / MIB
        kept[name] = _residuals(variant, row.args, diff)
    _agree(row, runs)
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for count in range(most):
        if count >= 5 and time.perf_counter() - start > seconds:
            break
        for name in [*runs] if count % 2 == 0 else [*runs][::-1]:
            before = time.perf_counter()
            runs[name]()
            times[name].append(1e3 * (time.perf_counter() - before))
    result: dict[str, Any] = {"name": row.name, "shape": row.shape, "rounds": len(times["ours"]), "flops": row.flops, "variants": {}}
    for name, spent in times.items():
        ratios = [a / b for a, b in zip(spent, times["ours"], strict=True)]
        result["variants"][name] = {
            "ms": statistics.median(spent), "least_ms": min(spent), "temp_mib": memory[name], "residual_mib": kept[name],
            "ours_is_faster": statistics.median(ratios), "p10": float(np.quantile(ratios, 0.1)), "p90": float(np.quantile(ratios, 0.9)),
        }  # fmt: skip
    result["floors"] = {
        name: _floor(name, wanted, result["variants"]) for name, wanted in row.floors.items() if name == "temp" or name in times
    }
    return result


def _floor(name: str, wanted: float, variants: dict[str, Any]) -> dict[str, Any]:
    if name == "temp":
        got = variants["ours"]["temp_mib"] / max(variants["autodiff"]["temp_mib"], 1e-9)
        return {"wanted": wanted, "got": got, "reached": got <= wanted}
    got = variants[name]["ours_is_faster"]
    return {"wanted": wanted, "got": got, "reached": got >= wanted}


def _program(function: Callable[..., Any], args: Sequence[np.ndarray], ct: Any, diff: Sequence[int]) -> Any:
    def both(*given: Any) -> Any:
        *args, ct = given

        def of(*floats: Any) -> Any:
            full = list(args)
            for position, value in zip(diff, floats, strict=True):
                full[position] = value
            return function(*full)

        out, pullback = jax.vjp(of, *(args[k] for k in diff))
        return out, pullback(ct)

    return jax.jit(both).lower(*args, ct).compile()


def _torch_run(variant: Torch, args: Sequence[np.ndarray], ct: Any, diff: Sequence[int]) -> Callable[[], Any]:
    import torch

    tensors = [torch.tensor(a, requires_grad=k in diff) for k, a in enumerate(args)]
    upstream = torch.tensor(np.asarray(ct))

    def run() -> Any:
        out = variant.call(*tensors)
        return out.detach(), torch.autograd.grad(out, [tensors[k] for k in diff], upstream)

    return run


def _residuals(function: Callable[..., Any], args: Sequence[np.ndarray], diff: Sequence[int]) -> float:
    class Call:
        @staticmethod
        def run(floats: Any, rest: Any) -> Any:
            full = list(rest)
            for position, value in zip(diff, floats, strict=True):
                full[position] = value
            return function(*full)

    return saved_bytes(Call, [args[k] for k in diff], list(args)) / MIB


def _agree(row: Row, runs: dict[str, Callable[[], Any]]) -> None:
    results = {name: [np.asarray(a) for a in jax.tree.leaves(run())] for name, run in runs.items()}
    want = results.get("autodiff", results["ours"])
    for name, got in results.items():
        for g, w in zip(got, want, strict=True):
            error = float(np.max(np.abs(g - w), initial=0.0)) / max(float(np.max(np.abs(w), initial=0.0)), 1e-30)
            if not error <= row.tolerance:
                raise SystemExit(f"{row.name} {row.shape}: {name} differs from autodiff by {error:.2g} of the largest value")


def machine() -> dict[str, Any]:
    """What the numbers hang on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
        cpu = names[0] if names else cpu
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    try:
        import torch

        versions["torch"] = torch.__version__
    except ImportError:
        pass
    device = jax.devices()[0]
    settings = {name: os.environ.get(name, "(not set)") for name in ("XLA_FLAGS", "GLIBC_TUNABLES")}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "device": f"{device.platform} {device.device_kind}",
        **versions,
        **settings,
        "commit": _commit(),
    }


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def limits() -> dict[str, float]:
    """The best of several: the rate of a matrix product, and of x + 1 on 16 MiB (in the caches' reach) and on 64 MiB (fresh memory)."""

    def best(function: Callable[..., Any], *args: Any) -> float:
        compiled = jax.jit(function).lower(*args).compile()
        spent = []
        for _ in range(8):
            before = time.perf_counter()
            jax.block_until_ready(compiled(*args))
            spent.append(time.perf_counter() - before)
        return min(spent)

    a = jax.numpy.ones((2048, 2048), "float32")
    small, large = (jax.numpy.ones(n, "float32") for n in (2**22, 2**24))
    return {
        "gemm_gflops": round(2 * 2048**3 / best(lambda a: a @ a, a) / 1e9, 1),
        "copy_16mib_gbs": round(2 * small.nbytes / best(lambda x: x + 1, small) / 1e9, 1),
        "copy_64mib_gbs": round(2 * large.nbytes / best(lambda x: x + 1, large) / 1e9, 1),
    }


def line(row: dict[str, Any]) -> str:
    variants = row["variants"]
    text = f"{row['name']:<22}{row['shape']:<34}ours {variants['ours']['ms']:9.2f} ms, temp {variants['ours']['temp_mib']:8.2f} MiB, residual {variants['ours']['residual_mib']:7.2f}"
    for name, variant in variants.items():
        if name != "ours":
            memory = "" if variant["temp_mib"] is None else f" temp {variant['temp_mib']:.1f} res {variant['residual_mib']:.1f}"
            text += f" | {name} x{variant['ours_is_faster']:.2f} [{variant['p10']:.2f}, {variant['p90']:.2f}]{memory}"
    missed = [f"{name} {floor['got']:.3g} of {floor['wanted']:.3g}" for name, floor in row["floors"].items() if not floor["reached"]]
    return text + (f" | BELOW {'; '.join(missed)}" if missed else "")


def markdown(record: dict[str, Any]) -> str:
    """The table of the docs: ours in milliseconds, how many times as fast as each other, and memory."""
    lines = [
        "| operation | shape | ours, ms | x autodiff | x peers | temp MiB, ours / autodiff | residual MiB, ours / autodiff | floors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        variants = row["variants"]
        ours, plain = variants["ours"], variants.get("autodiff")
        peers = ", ".join(
            f"{name} {v['ours_is_faster']:.2f} [{v['p10']:.2f}, {v['p90']:.2f}]"
            for name, v in variants.items()
            if name not in ("ours", "autodiff")
        )
        speed = f"{plain['ours_is_faster']:.2f} [{plain['p10']:.2f}, {plain['p90']:.2f}]" if plain else "not run"
        memory = [f"{ours[key]:.2f} / {plain[key]:.1f}" if plain else f"{ours[key]:.2f} / not run" for key in ("temp_mib", "residual_mib")]
        floors = ", ".join(
            f"{name} {f['got']:.3g} ({'reached' if f['reached'] else 'below'} {f['wanted']:.3g})" for name, f in row["floors"].items()
        )
        lines.append(f"| {row['name']} | {row['shape']} | {ours['ms']:.2f} | {speed} | {peers} | {memory[0]} | {memory[1]} | {floors} |")
    where = ", ".join(f"{key} {value}" for key, value in (record["machine"] | record["limits"]).items())
    return f"Measured with `python benchmarks/layers.py`. {where}.\n\n" + "\n".join(lines) + "\n"


def chart(record: dict[str, Any], path: Path) -> None:
    """How many times as fast as autodiff and torch, on a logarithmic axis, which is written above and below."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "layers"
    import matplotlib.pyplot as plt

    shown = [row for row in record["rows"] if "autodiff" in row["variants"]]
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(shown) + 1))
    for place, row in enumerate(reversed(shown)):
        for name, colour in (("autodiff", "#1f6f8b"), ("torch", "#c8a02a")):
            if name in row["variants"]:
                v = row["variants"][name]
                axes.plot([v["p10"], v["p90"]], [place, place], color=colour, linewidth=1)
                axes.plot(v["ours_is_faster"], place, "o", color=colour, markersize=5, label=name if place == 0 else None)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [f"{row['name']} {row['shape']}" for row in reversed(shown)], fontsize=7)
    axes.set_ylim(-1, len(shown))
    axes.tick_params(axis="x", which="both", labeltop=True, top=True)
    axes.set_xticks([0.2, 0.5, 1, 2, 5, 10], labels=["0.2", "0.5", "1", "2", "5", "10"])
    axes.set_xlabel("forward and backward, times as fast as the other (right of 1: ours is faster)", fontsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
