"""How a function is run on a case.

exact: float64 on the host, for the many cases. NumPy runs the jaxpr where it knows every operation (`verify.interpreter`) and loops are short, else `quick` does.
quick: compiled by XLA for the host with cheap options, a third of the usual compile time.
full:  the user's own compilation on the default device, for the few cases in users' dtypes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from verify import _compat, interpreter, programs

QUICK_OPTIONS: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,
}

FEW, MANY = 5, 50  # runs of a program: of one that a check or a diagnosis makes, and of a case's own


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled function of numpy pytrees, its jaxpr, and what it cost to make (seconds by phase)."""

    run: Callable[..., Any]
    jaxpr: Any
    seconds: dict[str, float]

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        result = self.run(*args)
        if isinstance(result, interpreter.Parts):
            result.seconds = self.seconds
        self.seconds["evaluate"] = self.seconds.get("evaluate", 0.0) + time.perf_counter() - start
        return result


def quick(function: Callable[..., Any], *args: Any, x64: bool = True, traced: Any = None) -> Program:
    """Compile `function` for arguments like `args` on the host, cheaply."""
    with _compat.enable_x64(x64), jax.default_device(host()):
        return _compile(function, args, quick_options(), x64=x64, device=host(), traced=traced)


def exact(function: Callable[..., Any], *args: Any, compiled: bool = False, runs: int = FEW) -> Program:
    """A float64 program for arguments like `args`: interpreted if that is possible, `compiled` does not forbid it, and it pays for about so many runs.

    Interpreted, one that returns a dict of results computes each when it is first read.
    """
    if compiled:
        return quick(function, *args)
    start = time.perf_counter()
    with _compat.enable_x64(True), jax.default_device(host()):
        traced = _alive(jax.jit(function).trace(*args), args)
    if not interpreter.knows(traced.jaxpr, runs):
        return quick(function, *args, traced=traced)
    seconds = {"trace": time.perf_counter() - start}

    def flat(values: Any) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(values)]

    if isinstance(traced.out_info, dict):
        parts = interpreter.in_parts(traced.jaxpr, traced.out_info)
        return Program(run=lambda *values: parts(flat(values)), jaxpr=traced.jaxpr, seconds=seconds)
    tree, evaluate = jax.tree.structure(traced.out_info), interpreter.prepared(traced.jaxpr)

    def run(*values: Any) -> Any:
        with np.errstate(all="ignore"):
            return jax.tree.unflatten(tree, evaluate(flat(values)))

    return Program(run=run, jaxpr=traced.jaxpr, seconds=seconds)


def full(function: Callable[..., Any], *args: Any, x64: bool = False) -> Program:
    """Compile `function` for arguments like `args` as users do: default device, default options, x64 off unless asked for."""
    with _compat.enable_x64(x64):
        return _compile(function, args, None, x64=x64, device=None)


def _compile(
    function: Callable[..., Any], args: Any, options: dict[str, Any] | None, x64: bool, device: Any, traced: Any = None
) -> Program:
    start = time.perf_counter()
    traced = traced or _alive(jax.jit(function).trace(*args), args)
    after_trace = time.perf_counter()
    lowered = traced.lower()
    after_lower = time.perf_counter()
    compiled = lowered.compile(compiler_options=options)
    after_compile = time.perf_counter()

    def run(*values: Any) -> Any:
        with _compat.enable_x64(x64), jax.default_device(device):
            return jax.device_get(compiled(*values))

    seconds = {"trace": after_trace - start, "lower": after_lower - after_trace, "compile": after_compile - after_lower}
    return Program(run=run, jaxpr=traced.jaxpr, seconds=seconds)


def _alive(traced: Any, args: Any) -> Any:
    """A traced function that reads no tracer of another trace: JAX makes that one argument more, which nobody can give."""
    own = traced.jaxpr.jaxpr.invars
    if dead := own[: len(own) - len(jax.tree.leaves(args))]:
        message = (
            f"the backward reads a tracer ({dead[0].aval.str_short()}) of another trace, which was kept outside of the residuals (in a global, an attribute, "
            f"a closure, a cache). Return it as a residual"
        )
        raise programs.StageError("rule", jax.errors.UnexpectedTracerError(message))
    return traced


@functools.cache
def host() -> Any:
    """The CPU device, which has float64 whatever the default device is."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return jax.local_devices()[0]


def accelerated() -> bool:
    """Whether users' programs run on something else than the host: it rounds by rules of its own (TF32 and bfloat16 factors in float32 products)."""
    default = jax.config.jax_default_device or jax.local_devices()[0]  # type: ignore[attr-defined]
    return (default if isinstance(default, str) else default.platform) != host().platform


@functools.cache
def quick_options() -> dict[str, Any] | None:
    """The cheap options that this XLA knows: its flags come and go between versions."""
    if host().platform != "cpu":
        return None
    known = {}
    for name, value in QUICK_OPTIONS.items():
        try:
            jax.jit(lambda x: x + 1).lower(1.0).compile(compiler_options={name: value})
        except Exception:  # XLA raises its own, version-dependent type
            continue
        known[name] = value
    return known
