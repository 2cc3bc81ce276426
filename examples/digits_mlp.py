"""Train a digit classifier through derivatives derived by hand, next to the same one through autodiff.

Both start from the same float32 parameters and see the same batches, so their loss curves may differ by rounding only. How much is that?
A third run, autodiff again but with the hidden units in another order, is the same function on paper and sums in another order: the
difference between two autodiff runs is the yardstick. A fourth run, in float64, says how far float32 is from the exact curve.

    python examples/digits_mlp.py
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from manual_vjp import layer_norm, linear, mlp
from manual_vjp.ops.layer_norm import reference as plain_layer_norm
from manual_vjp.ops.linear import reference as plain_linear
from manual_vjp.ops.mlp import reference as plain_mlp

WIDTH, HIDDEN, STEPS, BATCH = 32, 64, 400, 128
Params = dict[str, jax.Array]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: the loss of each step, and the share of right answers on data not trained on."""

    losses: np.ndarray
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `main` found; differences are the largest over all steps, between the losses of two runs."""

    by_hand: Run
    by_autodiff: Run
    difference: float
    rounding: float
    float32_to_float64: float


def hand_made(params: Params, images: jax.Array) -> jax.Array:
    x = layer_norm(linear(images, params["w0"], params["b0"]), params["scale"], params["bias"])
    return mlp(x, params["w1"], params["b1"], params["w2"], params["b2"])


def textbook(params: Params, images: jax.Array) -> jax.Array:
    x = plain_layer_norm(plain_linear(images, params["w0"], params["b0"]), params["scale"], params["bias"])
    return plain_mlp(x, params["w1"], params["b1"], params["w2"], params["b2"])


def initial_params(rng: np.random.Generator) -> dict[str, np.ndarray]:
    def weights(d_in: int, d_out: int) -> np.ndarray:
        return (rng.normal(size=(d_in, d_out)) * np.sqrt(2 / d_in)).astype(np.float32)

    zeros = {name: np.zeros(size, np.float32) for name, size in (("b0", WIDTH), ("bias", WIDTH), ("b1", HIDDEN), ("b2", 10))}
    return zeros | {"scale": np.ones(WIDTH, np.float32), "w0": weights(64, WIDTH), "w1": weights(WIDTH, HIDDEN), "w2": weights(HIDDEN, 10)}


def reorder_hidden(params: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The same function with the hidden units of the perceptron in another order, so that its sums run in another order."""
    order = rng.permutation(HIDDEN)
    return params | {"w1": params["w1"][:, order], "b1": params["b1"][order], "w2": params["w2"][order]}


def train(model: Callable[[Params, jax.Array], jax.Array], params: dict[str, np.ndarray], data, batches: np.ndarray) -> Run:
    train_x, test_x, train_y, test_y = (jnp.asarray(a) for a in data)
    params = jax.tree.map(jnp.asarray, params)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def fit(params, images, labels, batches):
        def loss(params, rows):
            return optax.softmax_cross_entropy_with_integer_labels(model(params, images[rows]), labels[rows]).mean()

        def step(carry, rows):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, rows)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), batches)
        return params, losses

    params, losses = fit(params, train_x, train_y, jnp.asarray(batches))
    return Run(losses=np.asarray(losses, np.float64), accuracy=float(jnp.mean(model(params, test_x).argmax(-1) == test_y)))


def main() -> Result:
    digits = load_digits()
    data = train_test_split((digits.data / 16).astype(np.float32), digits.target, test_size=0.25, random_state=0, stratify=digits.target)
    rng = np.random.default_rng(0)
    params = initial_params(rng)
    batches = rng.integers(len(data[0]), size=(STEPS, BATCH))

    by_hand = train(hand_made, params, data, batches)
    by_autodiff = train(textbook, params, data, batches)
    reordered = train(textbook, reorder_hidden(params, rng), data, batches)
    with enable_x64(True):
        exact = train(textbook, *jax.tree.map(in_float64, (params, data)), batches)

    result = Result(
        by_hand=by_hand,
        by_autodiff=by_autodiff,
        difference=float(np.max(np.abs(by_hand.losses - by_autodiff.losses))),
        rounding=float(np.max(np.abs(reordered.losses - by_autodiff.losses))),
        float32_to_float64=float(np.max(np.abs(by_autodiff.losses - exact.losses))),
    )
    print(f"loss, first and last step    by hand {by_hand.losses[0]:.4f} {by_hand.losses[-1]:.4f}", end="")
    print(f"    by autodiff {by_autodiff.losses[0]:.4f} {by_autodiff.losses[-1]:.4f}")
    print(f"accuracy on test data        by hand {by_hand.accuracy:.1%}    by autodiff {by_autodiff.accuracy:.1%}")
    print(f"largest difference of the loss curves over {STEPS} steps")
    print(f"  by hand against autodiff                        {result.difference:.1e}")
    print(f"  autodiff against autodiff in another order      {result.rounding:.1e}   (rounding alone)")
    print(f"  autodiff in float32 against float64             {result.float32_to_float64:.1e}   (rounding alone)")
    return result


def in_float64(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) if a.dtype == np.float32 else a


enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # the latter before JAX 0.8

if __name__ == "__main__":
    main()
