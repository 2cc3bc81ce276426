"""Train over several devices, data- and tensor-parallel, with derivatives derived by hand, and get the gradients of one device.

A digit classifier of two blocks (norm, linear, gelu, linear; the second is the output) runs four ways: on one device; on a mesh of 2 x 2 simulated devices by
`jax.shard_map`, where the program says what each device does; on the same mesh by `jax.jit` of the one-device program with sharded arguments; and the same again over two
processes on this machine that talk through `jax.distributed` (gloo). The batch is split along the mesh axis "data"; the hidden units are split along "model", the first
weights by columns, the second by rows (Shoeybi et al., "Megatron-LM", arXiv:1909.08053), so that one sum over "model" finishes each block.

Everything is in float64, where the four ways differ only in the order in which they add up: the gradients of every step must agree within BOUND.

    python examples/parallel.py [--steps 10]
"""

import argparse
import functools as ft
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

if __name__ == "__main__":  # before JAX starts; a process of `over_processes` comes with its own setting
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.nn import initializers
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

from manual_vjp import gelu, layer_norm, linear, softmax_cross_entropy

PIXELS, HIDDEN, CLASSES, BATCH = 64, 32, 10, 64
# Sums of at most BATCH terms and products of at most PIXELS, each in another order: 64 * 2.2e-16 = 1.4e-14 of the sum of the terms' sizes, for each of a dozen operations
BOUND = 2e-13  # of the largest number in the gradient of an array
NOT_HERE, MISSING = (
    3,
    "this build of jaxlib has no collectives (gloo) for processes on CPU",
)  # exit status and message of a process that finds none

# How each array is split; what is not named is whole on every device.
SPLIT = {
    "scale": P(),
    "bias": P(),
    "w1": P(None, "model"),
    "b1": P("model"),
    "w2": P("model"),
    "v1": P(None, "model"),
    "c1": P("model"),
    "v2": P("model"),
}
Params = dict[str, jax.Array]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: losses `(steps,)`, and the gradients of each step, `(steps, ...)` by name."""

    losses: np.ndarray
    gradients: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `main` found: the four runs, and why one is None, if it is."""

    single: Run
    by_shard_map: Run
    by_jit: Run
    by_processes: Run | None
    reason: str = ""


def initial_params() -> dict[str, np.ndarray]:
    keys = jax.random.split(jax.random.key(0), 4)
    he, xavier = initializers.he_normal(), initializers.glorot_normal()
    shapes = {"w1": (PIXELS, HIDDEN), "w2": (HIDDEN, PIXELS), "v1": (PIXELS, HIDDEN), "v2": (HIDDEN, CLASSES)}
    weights = {
        name: (he if name.endswith("1") else xavier)(key, shape, "float64") for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    rest = {"scale": jnp.ones(PIXELS), "bias": jnp.zeros(PIXELS), "b1": jnp.zeros(HIDDEN), "c1": jnp.zeros(HIDDEN)}
    return jax.tree.map(np.asarray, weights | rest)


def batches(steps: int) -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    rows = np.random.default_rng(0).integers(len(digits.data), size=(steps, BATCH))
    return digits.data[rows] / 16, digits.target[rows].astype(np.int32)


def loss(params: Params, images: jax.Array, labels: jax.Array, add_up=lambda x: x) -> jax.Array:
    """Mean cross-entropy. `add_up` finishes a product whose terms are on several devices."""
    h = gelu(linear(images, params["w1"], params["b1"]))
    x = images + add_up(linear(h, params["w2"]))
    h = gelu(linear(layer_norm(x, params["scale"], params["bias"]), params["v1"], params["c1"]))
    return softmax_cross_entropy(add_up(linear(h, params["v2"])), labels)


def fit(loss, params: Params, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Params]:
    """Losses and gradients of all steps of a training with momentum."""
    optimizer = optax.sgd(0.1, momentum=0.9)

    def step(carry, batch):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), (value, gradient)

    return jax.lax.scan(step, (params, optimizer.init(params)), (images, labels))[1]


def split_fit(params: Params, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Params]:
    """What one device does inside `jax.shard_map`: `fit` on its part of the batch, with its part of the hidden units.

    The gradient of an array that is whole on several devices is added up over them by the rules of the layers.
    """

    def mean(params, images, labels):
        return jax.lax.pmean(loss(params, images, labels, ft.partial(jax.lax.psum, axis_name="model")), "data")

    return fit(mean, params, images, labels)


def on_mesh(mesh: Mesh, steps: int, *, explicit: bool) -> Run:
    data = P(None, "data")
    ways = {name: P(None, *split) for name, split in SPLIT.items()}  # of gradients: the first axis is the step
    shard = ft.partial(jax.tree.map, lambda a, split: jax.make_array_from_callback(a.shape, NamedSharding(mesh, split), lambda at: a[at]))
    given = shard((initial_params(), *batches(steps)), (SPLIT, data, data))
    if explicit:
        program = jax.shard_map(split_fit, mesh=mesh, in_specs=(SPLIT, data, data), out_specs=(P(), ways))
    else:
        program = ft.partial(fit, loss)
    whole = jax.jit(program, out_shardings=NamedSharding(mesh, P()))  # gathered, so that every process sees all of it
    return to_run(*jax.tree.map(lambda a: a.addressable_data(0), whole(*given)))


def to_run(losses: jax.Array, gradients: Params) -> Run:
    return Run(losses=np.asarray(losses), gradients=jax.tree.map(np.asarray, gradients))


def two_by_two() -> Mesh:
    if jax.device_count() < 4:
        raise SystemExit(
            f"parallel: {jax.device_count()} devices, wanted 4: set XLA_FLAGS=--xla_force_host_platform_device_count=4 before JAX starts"
        )
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto), devices=jax.devices()[:4])


def over_processes(steps: int, seconds: float = 300) -> tuple[Run | None, str]:
    """The run of two processes with two devices each, or None and why this machine has no collectives for them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"--steps={steps}", f"--address={address}", f"--out={folder}/run.npz"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started = [subprocess.Popen([*command, f"--process={k}"], env=environment, text=True, **pipes) for k in range(2)]
        try:
            errors = [process.communicate(timeout=seconds)[1] for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        if NOT_HERE in [process.returncode for process in started]:
            return None, next(line for text in errors for line in text.splitlines() if line.startswith(MISSING))
        if any(process.returncode for process in started):
            raise RuntimeError("parallel: a process failed\n" + "\n".join(errors))
        with np.load(f"{folder}/run.npz") as arrays:
            gradients = {name: arrays[name] for name in SPLIT}
            return Run(losses=arrays["losses"], gradients=gradients), ""


def process(number: int, address: str, steps: int, out: str) -> None:
    """One of the two processes. The axis "data" runs across them."""
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, num_processes=2, process_id=number)
        jax.devices()
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        if not any(word in str(error).lower() for word in ("make_gloo", "jax_cpu_collectives", "unimplemented")):
            raise
        print(f"{MISSING}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(NOT_HERE) from error
    run = on_mesh(two_by_two(), steps, explicit=True)
    if number == 0:
        np.savez(out, losses=run.losses, **run.gradients)


def difference(run: Run, single: Run) -> float:
    """The largest difference of any gradient of any step, as a part of the largest number in it."""
    return max(float(np.max(np.abs(run.gradients[name] - want)) / np.max(np.abs(want))) for name, want in single.gradients.items())


def main(argv: Sequence[str] | None = None) -> Result | None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    for name in ("process", "address", "out"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)  # of a process that this program starts
    options = parser.parse_args(argv)
    with enable_x64(True):
        if options.process:
            return process(int(options.process), options.address, options.steps, options.out)
        mesh = two_by_two()
        single = to_run(*jax.jit(ft.partial(fit, loss))(initial_params(), *batches(options.steps)))
        by_shard_map, by_jit = (on_mesh(mesh, options.steps, explicit=explicit) for explicit in (True, False))
        by_processes, reason = over_processes(options.steps)
    print(f"one device                        loss {single.losses[0]:.4f} to {single.losses[-1]:.4f} in {options.steps} steps")
    for name, run in {
        "jax.shard_map, 2 x 2 devices": by_shard_map,
        "sharded jit, 2 x 2 devices": by_jit,
        "2 processes of 2 devices": by_processes,
    }.items():
        print(
            f"{name:<34}"
            + (f"gradients differ by {difference(run, single):.1e} at most (bound {BOUND:.0e})" if run else f"NOT RUN: {reason}")
        )
    return Result(single=single, by_shard_map=by_shard_map, by_jit=by_jit, by_processes=by_processes, reason=reason)


enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # the latter before JAX 0.8

if __name__ == "__main__":
    main()
