"""What training costs, beside what textbooks say of it: operations of a linear layer, memory of checkpoints, norms of gradients through depth.

    python benchmarks/textbook.py [--json FILE] [--markdown FILE] [--chart FILE]

Operations and memory are XLA's own figures for compiled programs, and the norms are computed in float64; nothing is timed, so one version of JAX gives one
result. The chart needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from manual_vjp import layer_norm, linear, mlp, residual
from verify._compat import enable_x64
from verify.environment import versions

Record = dict[str, Any]
SIZES = ((64, 128, 256), (512, 256, 1024), (33, 65, 129))  # n, d_in, d_out
DEPTHS = (4, 16, 64, 256)
ROWS, WIDTH, HIDDEN = 16384, 32, 128  # of the perceptrons whose memory is measured: so many rows that their weights are small beside them
SPECTRAL = (0.8, 1.0, 1.2)  # all singular values of a layer's matrix
LAYERS, FEATURES = 50, 64
KINDS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "plain": linear,
    "normalised": lambda h, w: layer_norm(linear(h, w)),
    "residual": lambda h, w: residual(linear, h, w),
    "residual, normalised": lambda h, w: residual(lambda h, w: linear(layer_norm(h), w), h, w),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--chart", type=Path, help="an SVG")
    options = parser.parse_args(argv)
    record = {"environment": versions(), "operations": operations(), "memory": memory(), "norms": norms()}
    print(markdown(record))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(record))
    if options.chart:
        chart(record, options.chart)
    return 0


def operations(sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[Record]:
    """Additions and multiplications of a linear layer: the claim is 2 n d_in d_out forward, and twice that backward."""
    rows = []
    for n, d_in, d_out in sizes:
        x, w, y_ct = (jax.ShapeDtypeStruct(shape, "float32") for shape in ((n, d_in), (d_in, d_out), (n, d_out)))
        forward = _flops(linear, x, w)
        backward = _flops(lambda x, w, y_ct: jax.vjp(linear, x, w)[1](y_ct), x, w, y_ct)  # nobody asks for y, so XLA leaves the forward out
        rows.append({"n": n, "d_in": d_in, "d_out": d_out, "claim": 2 * n * d_in * d_out, "forward": forward, "backward": backward})
    return rows


def _flops(function: Callable[..., Any], *shapes: Any) -> int:
    return int(jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"])


def memory(depths: Sequence[int] = DEPTHS) -> list[Record]:
    """Temporary bytes of the gradient of a stack of L perceptrons, in arrays of the size of a layer's input.

    The claims, for the L layers: with nothing checkpointed each keeps its input and its hidden activations; with a checkpoint at each layer, its input; with
    one at each sqrt(L) layers (Chen et al., arXiv:1604.06174), sqrt(L) inputs, and within one segment, input and hidden activations of its sqrt(L) layers.
    """
    layer = 1 + HIDDEN // WIDTH
    rows = []
    for depth in depths:
        root = math.isqrt(depth)
        measured = {"all": _temp(depth, 1, whole=True), "each": _temp(depth, 1), "root": _temp(depth, root)}
        rows.append({"depth": depth, "claims": {"all": depth * layer, "each": depth, "root": root + root * layer}, "measured": measured})
    return rows


def _temp(depth: int, segment: int, whole: bool = False) -> float:
    """With a checkpoint at each `segment` layers, or, as a `whole`, with none."""

    def layer(x, weights):
        w1, w2 = weights
        return mlp(x, w1, jnp.zeros(HIDDEN), w2, jnp.zeros(WIDTH)), None

    def layers(x, weights):
        return jax.lax.scan(layer, x, weights)[0], None

    def loss(x, w1, w2):
        segments = jax.tree.map(lambda w: w.reshape(depth // segment, segment, *w.shape[1:]), (w1, w2))
        return jax.lax.scan(layers if whole else jax.checkpoint(layers), x, segments)[0].sum()

    shapes = (ROWS, WIDTH), (depth, WIDTH, HIDDEN), (depth, HIDDEN, WIDTH)
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)).compile()
    return round(program.memory_analysis().temp_size_in_bytes / (4 * ROWS * WIDTH), 2)


def norms(layers: int = LAYERS) -> dict[str, dict[str, list[float]]]:
    """The norm of a random cotangent after it went back through k = 0, 1, ... layers, as a part of what it was; by kind of layer and spectral norm.

    Matrices are s times a random orthogonal one, so the claim for plain layers, at most s^k, is an equality.
    """
    with enable_x64(True):
        keys = jax.random.split(jax.random.key(0), layers)
        turns = jax.vmap(lambda key: initializers.orthogonal()(key, (FEATURES, FEATURES), "float64"))(keys)
        x, y_ct = jax.random.normal(jax.random.key(1), (2, FEATURES, FEATURES), "float64")
        return {name: {f"{s}": _norms(kind, s * turns, x, y_ct) for s in SPECTRAL} for name, kind in KINDS.items()}


def _norms(kind: Callable[[jax.Array, jax.Array], jax.Array], weights: jax.Array, x: jax.Array, y_ct: jax.Array) -> list[float]:
    def output(nothing):  # what is added to the input of each layer; its cotangent is that of the input
        return jax.lax.scan(lambda h, layer: (kind(h + layer[1], layer[0]), None), x, (weights, nothing))[0]

    (cts,) = jax.jit(lambda nothing: jax.vjp(output, nothing)[1](y_ct))(jnp.zeros((len(weights), *x.shape)))
    sizes = jnp.linalg.norm(jnp.concatenate([cts, y_ct[None]])[::-1], axis=(1, 2))
    return [float(f"{ratio:.6g}") for ratio in np.asarray(sizes / sizes[0])]


def markdown(record: Record) -> str:
    """The tables of docs/textbook.md."""
    lines = ["| linear, n x d_in -> d_out | 2 n d_in d_out | forward | backward | backward / forward |", "|---|---|---|---|---|"]
    for row in record["operations"]:
        size = f"{row['n']} x {row['d_in']} -> {row['d_out']}"
        lines.append(f"| {size} | {row['claim']:,} | {row['forward']:,} | {row['backward']:,} | {row['backward'] / row['forward']:.3f} |")
    lines += ["", "| depth L | nothing checkpointed | each layer | each sqrt(L) layers |", "|---|---|---|---|"]
    for row in record["memory"]:
        cells = (f"{row['measured'][name]:.1f} ({row['claims'][name]})" for name in ("all", "each", "root"))
        lines.append(f"| {row['depth']} | {' | '.join(cells)} |")
    layers = len(record["norms"]["plain"]["1.0"]) - 1
    lines += ["", f"| norm after {layers} layers, spectral norm | {' | '.join(map(str, SPECTRAL))} |", "|---" * (len(SPECTRAL) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{by[str(s)][-1]:.3g}' for s in SPECTRAL)} |" for name, by in record["norms"].items()]
    environment = record["environment"]
    return "\n".join(
        [*lines, "", f"JAX {environment['jax']}, jaxlib {environment['jaxlib']}, {environment['machine'].split(',')[0]}, CPU.", ""]
    )


def chart(record: Record, path: Path) -> None:
    """The same input gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(record["norms"])
    with mpl.rc_context({"svg.hashsalt": "textbook"}):
        figure = Figure(figsize=(10, 6), layout="constrained")
        panels = figure.subplot_mosaic([[*names[:2], "memory"], [*names[2:], "memory"]])
        for name in names:
            axes = panels[name]
            for (s, values), colour in zip(record["norms"][name].items(), ("#1f6f8b", "#888888", "#c8502a"), strict=True):
                axes.semilogy(values, color=colour, label=f"spectral norm {s}")
            axes.set(title=name, xlabel="layers back from the output", ylabel="norm of the gradient", ylim=(1e-6, 1e10))
        panels[names[0]].legend()
        axes, depths = panels["memory"], [row["depth"] for row in record["memory"]]
        titles = {"all": "nothing checkpointed", "each": "each layer", "root": "each sqrt(L) layers"}
        for (name, title), colour in zip(titles.items(), ("#c8502a", "#888888", "#1f6f8b"), strict=True):
            axes.loglog(depths, [row["measured"][name] for row in record["memory"]], "o", color=colour, label=title)
            axes.loglog(depths, [row["claims"][name] for row in record["memory"]], color=colour, linewidth=0.8)
        axes.set(title="memory (lines: the claim)", xlabel="depth L", ylabel="arrays of a layer's input")
        axes.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
