"""Train a small language model whose every derivative was derived by hand, next to the same one through autodiff.

The text is Python's own reference manual, as `help()` ships it, letter by letter. The layers are manual_vjp's, all else is the libraries': Xavier and He
initialisation (jax.nn.initializers), checkpointing of the blocks (jax.checkpoint), clipping by the global norm, momentum and accumulation of gradients (optax).

In float32 both see the same parameters, letters and dropped units, so their loss curves may differ by rounding only. How much is that? Autodiff runs again,
with the features of the model in other orders: the same function on paper, which sums in another order. A last run computes in bfloat16, with parameters, their
gradients and the optimizer in float32.

    python examples/transformer.py [--steps 400] [--plot curves.svg]
"""

import argparse
import functools as ft
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.nn import initializers

import manual_vjp
from manual_vjp.catalog import SPECS

LETTERS, DEPTH, WIDTH, HEADS, HIDDEN, LENGTH, BATCH = 128, 2, 32, 4, 64, 32, 16
RATE, MOMENTUM, CLIP, ACCUMULATE, DROPPED = 0.1, 0.9, 1.0, 2, 0.1
ORDERS = 3  # of the features, beside the first

NAMES = ("attention", "dropout", "embedding", "gelu", "layer_norm", "linear", "linear_cross_entropy", "rms_norm")
BY_HAND = SimpleNamespace(**{name: getattr(manual_vjp, name) for name in NAMES}, residual=manual_vjp.residual)
TEXTBOOK = SimpleNamespace(**{name: SPECS[name].reference for name in NAMES}, residual=lambda f, x, params: x + f(x, params))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: the loss of each batch, and the norm of its gradient before it is clipped."""

    losses: np.ndarray
    norms: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `main` found; differences are the largest over all steps, between the losses of two runs."""

    by_hand: Run
    by_autodiff: Run
    in_bfloat16: Run
    difference: float
    rounding: float
    frequencies: float


def initial_params(key):
    """Xavier where the output is not rectified, He before the activation."""
    xavier, he, small = initializers.glorot_normal(), initializers.he_normal(), initializers.normal(0.02)
    ones, zeros = jnp.ones(WIDTH), jnp.zeros(WIDTH)

    def block(key):
        keys = jax.random.split(key, 6)
        square = {name: xavier(k, (WIDTH, WIDTH)) for name, k in zip(("query", "key", "value", "out"), keys[:4], strict=True)}
        wide = {"w1": he(keys[4], (WIDTH, HIDDEN)), "b1": jnp.zeros(HIDDEN), "w2": xavier(keys[5], (HIDDEN, WIDTH)), "b2": zeros}
        return {"attend": {"scale": ones, **square}, "think": {"scale": ones, "bias": zeros, **wide}}

    first, second, third, rest = (*jax.random.split(key, 3), jax.random.split(jax.random.fold_in(key, 3), DEPTH))
    outer = {"letters": small(first, (LETTERS, WIDTH)), "places": small(second, (LENGTH, WIDTH)), "scale": ones}
    return outer | {"blocks": jax.vmap(block)(rest), "logits": xavier(third, (WIDTH, LETTERS))}


def reorder(params, order):
    """The same function with the features in another order, so that all sums over them run in another order."""
    last = (
        "letters",
        "places",
        "scale",
        "bias",
        "out",
        "w2",
        "b2",
    )  # whose features are the last axis; those of the others are the one before it

    def turn(path, a):
        return a if path[-1].key == "b1" else jnp.take(a, order, -1 if path[-1].key in last else -2)

    return jax.tree.map_with_path(turn, params)


def block(layers, x, params, key):
    def attend(x, p):
        h = layers.rms_norm(x, p["scale"])
        query, key, value = (layers.linear(h, p[name]).reshape(*h.shape[:-1], HEADS, -1) for name in ("query", "key", "value"))
        return layers.linear(layers.attention(query, key, value, is_causal=True).reshape(x.shape), p["out"])

    def think(x, p):
        h = layers.gelu(layers.linear(layers.layer_norm(x, p["scale"], p["bias"]), p["w1"], p["b1"]))
        return layers.linear(layers.dropout(h, key, rate=DROPPED), p["w2"], p["b2"])

    return layers.residual(think, layers.residual(attend, x, params["attend"]), params["think"])


def loss(layers, dtype, params, text, key):
    """Mean cross-entropy of each letter after those before it.

    All but the loss itself is computed in `dtype`. The casts are differentiated too, so gradients arrive in the parameters' float32. The blocks are a `scan`, each
    of which keeps its input alone.
    """
    logits = params["logits"]
    params = jax.tree.map(lambda a: a.astype(dtype), params)
    x = layers.embedding(params["letters"], text[:, :-1]) + params["places"]
    step = jax.checkpoint(lambda x, of_block: (block(layers, x, *of_block), None))
    x, _ = jax.lax.scan(step, x, (params["blocks"], jax.random.split(key, DEPTH)))
    x = layers.rms_norm(x, params["scale"]).reshape(-1, WIDTH)
    return layers.linear_cross_entropy(x.astype("float32"), logits, text[:, 1:].reshape(-1))


def optimizer():
    step = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(RATE, momentum=MOMENTUM))
    return optax.MultiSteps(step, every_k_schedule=ACCUMULATE)


def trainer(layers, dtype="float32"):
    """A compiled function from parameters and batches, `(steps, BATCH, LENGTH + 1)`, to a Run."""

    @jax.jit
    def fit(params, batches, keys):
        def step(carry, batch):
            params, state = carry
            value, gradient = jax.value_and_grad(ft.partial(loss, layers, dtype))(params, *batch)
            updates, state = optimizer().update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), (value, optax.tree.norm(gradient))

        return jax.lax.scan(step, (params, optimizer().init(params)), (batches, keys))[1]

    def run(params, batches) -> Run:
        losses, norms = fit(params, batches, jax.random.split(jax.random.key(1), len(batches)))
        return Run(losses=np.asarray(losses, np.float64), norms=np.asarray(norms, np.float64))

    return run


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help=f"batches of {BATCH} x {LENGTH} letters; {ACCUMULATE} make one update")
    parser.add_argument("--plot", type=Path, help="draw the curves to this file (needs matplotlib)")
    options = parser.parse_args(argv)

    text = np.frombuffer("".join(topics.values()).encode("ascii", "replace"), np.uint8).astype(np.int32)
    rng = np.random.default_rng(0)
    starts = rng.integers(len(text) - LENGTH, size=(options.steps, BATCH, 1))
    batches = text[starts + np.arange(LENGTH + 1)]
    share = np.bincount(text) / len(text)
    params = jax.jit(initial_params)(jax.random.key(0))

    autodiff = trainer(TEXTBOOK)
    by_hand, by_autodiff = trainer(BY_HAND)(params, batches), autodiff(params, batches)
    reordered = [autodiff(reorder(params, rng.permutation(WIDTH)), batches) for _ in range(ORDERS)]
    result = Result(
        by_hand=by_hand,
        by_autodiff=by_autodiff,
        in_bfloat16=trainer(BY_HAND, "bfloat16")(params, batches),
        difference=difference(by_hand, by_autodiff),
        rounding=max(difference(run, by_autodiff) for run in reordered),
        frequencies=float(-np.sum(share * np.log(share, where=share > 0, out=np.zeros_like(share)))),
    )
    show(result)
    if options.plot:
        plot(result, options.plot)
    return result


def difference(one: Run, other: Run) -> float:
    return float(np.max(np.abs(one.losses - other.losses)))


def show(result: Result) -> None:
    runs = {"by hand": result.by_hand, "autodiff": result.by_autodiff, "by hand, bfloat16": result.in_bfloat16}
    print("step".ljust(24) + "".join(f"{name:>20}" for name in runs) + f"{'norm of gradient':>20}")
    for at in np.linspace(0, len(result.by_hand.losses), 9)[:-1].astype(int):
        part = slice(at, at + max(len(result.by_hand.losses) // 8, 1))
        losses = "".join(f"{run.losses[part].mean():20.6f}" for run in runs.values())
        print(f"loss from {at:<14}{losses}{result.by_hand.norms[part].mean():20.3f}")
    print(f"a guess by the frequency of letters alone has the loss {result.frequencies:.3f}")
    print(f"largest difference of the loss curves over {len(result.by_hand.losses)} steps, float32")
    print(f"  by hand against autodiff                          {result.difference:.1e}")
    print(f"  autodiff against autodiff in {ORDERS} other orders       {result.rounding:.1e}   (rounding alone)")


def plot(result: Result, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(result.by_autodiff.losses, linewidth=3, alpha=0.4, label="autodiff, float32")
    axes.plot(result.by_hand.losses, linewidth=0.8, color="black", label="by hand, float32")
    axes.plot(result.in_bfloat16.losses, linewidth=0.8, label="by hand, bfloat16")
    axes.axhline(result.frequencies, linestyle=":", label="frequency of letters")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
