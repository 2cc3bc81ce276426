"""The pictures and the measured table of the page on backpropagation. `python docs/_extensions/figures.py FOLDER` makes them alone."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt

STYLE = {
    "svg.hashsalt": "manual-vjp",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "sans-serif",
}
WIDTH, DEPTH = 128, 64


def cotangent_norms(gain: float) -> np.ndarray:
    """||cotangent|| at every layer of x -> W x, W random with entries gain / sqrt(width), seen from the last layer backwards."""
    weights = gain * np.random.default_rng(0).normal(size=(DEPTH, WIDTH, WIDTH)) / WIDTH**0.5
    x_ct = np.random.default_rng(1).normal(size=WIDTH)
    norms = [np.linalg.norm(x_ct)]
    for w in weights[::-1]:
        x_ct = w.T @ x_ct
        norms.append(np.linalg.norm(x_ct))
    return np.array(norms) / norms[0]


def vanishing(path: Path) -> None:
    depth = np.arange(DEPTH + 1)
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for gain, colour in ((0.8, "tab:blue"), (1.0, "tab:green"), (1.25, "tab:red")):
        axes.semilogy(depth, cotangent_norms(gain), color=colour, label=f"gain {gain}")
        axes.semilogy(depth, gain**depth, color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="layers passed on the way back", ylabel="size of the cotangent")
    axes.legend(frameon=False, title=f"{WIDTH} units; dotted: gain^k", fontsize=9)
    save(figure, path)


def checkpointed_bytes(segments: int, layers: int = 64, batch: int = 256, width: int = 64) -> int:
    """Temporary memory that XLA plans for the gradient of `layers` layers, of which only the inputs of `segments` segments are kept."""

    def layer(x, w):
        return jnp.tanh(x @ w), None

    @jax.checkpoint
    def segment(x, ws):
        return jax.lax.scan(layer, x, ws)

    def loss(ws, x):
        return jax.lax.scan(segment, x, ws.reshape(segments, layers // segments, width, width))[0].sum()

    f32 = jnp.float32
    shapes = jax.ShapeDtypeStruct((layers, width, width), f32), jax.ShapeDtypeStruct((batch, width), f32)
    return jax.jit(jax.grad(loss)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def checkpointing(path: Path) -> None:
    layers, unit = 64, 256 * 64 * 4
    segments = np.array([1, 2, 4, 8, 16, 32, 64])
    measured = np.array([checkpointed_bytes(int(s)) for s in segments]) / unit
    figure, axes = plt.subplots(figsize=(7, 3.6))
    axes.loglog(segments, measured, "o-", label="planned by XLA")
    axes.loglog(segments, segments + layers / segments, ":", color="gray", label="s + n / s")
    axes.set(xlabel="segments s (n = 64 layers)", ylabel="memory, in activations of one layer")
    axes.set_xticks(segments, segments)
    axes.set_yticks([16, 32, 64, 128], [16, 32, 64, 128])
    axes.minorticks_off()
    axes.legend(frameon=False)
    save(figure, path)


def flops_table() -> str:
    """FLOPs of forward, and of forward and backward together, as XLA counts them in the compiled programs of the plain formulas."""
    from manual_vjp.ops import attention, layer_norm, linear, mlp

    n, d, k = 256, 128, 512
    shapes = {
        "linear, 256 x 128 to 512": (linear, ((n, d), (d, k), (k,))),
        "mlp, 128 to 512 to 128": (mlp, ((n, d), (d, k), (k,), (k, d), (d,))),
        "layer_norm, 256 x 128": (layer_norm, ((n, d), (d,), (d,))),
        "attention, 256 x 256, 2 heads of 64": (attention, ((1, n, 2, 64),) * 3),
    }

    def count(function, arguments) -> float:
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    rows = []
    for name, (module, sizes) in shapes.items():
        arguments = [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]
        reference = module.reference

        def both(y_ct, *args, reference=reference):
            y, pullback = jax.vjp(reference, *args)
            return y, pullback(y_ct)

        y = jax.eval_shape(reference, *arguments)
        forward, total = count(reference, arguments), count(both, [jax.ShapeDtypeStruct(y.shape, y.dtype), *arguments])
        rows.append(f"| {name} | {forward / 1e6:.3g} | {total / 1e6:.3g} | {(total - forward) / forward:.2f} |")
    head = "| plain formula | forward, MFLOP | with backward | backward / forward |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + f"\n\nMeasured at the build of this page (JAX {jax.__version__}, {jax.default_backend()}, float32).\n"


def save(figure, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def figures(folder: Path) -> None:
    with plt.rc_context(STYLE):
        vanishing(folder / "vanishing.svg")
        checkpointing(folder / "checkpointing.svg")
    (folder / "flops.txt").write_text(flops_table())


if __name__ == "__main__":
    figures(Path(sys.argv[1]))
