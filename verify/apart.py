"""Whether what is wrong with a rule in low precision at extreme inputs is the compiler's doing.

In one program a product may enter a difference without having been rounded, and the largest of a row rounded: at scores of 1e20, exp(score - largest) is then
exp of half an ulp, 0 or infinite, in the most careful formula. Run operation by operation, where XLA fuses nothing, the formula shows what it is worth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from verify import interpreter, programs, tolerance
from verify._compat import bind, enable_x64, walk
from verify.noise import Result
from verify.observation import Measured
from verify.values import largest, wide


def by_operation(measured: Measured, function: Callable[..., Any], *args: Any) -> Any:
    """The function's result in the precision that was measured, each operation a program of its own, those of a scan in each turn."""
    with enable_x64("float64" in measured.dtypes), np.errstate(all="ignore"):
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        rules: interpreter.Rules = {equation.primitive.name: functools.partial(_alone, equation) for equation in walk(jaxpr)}
        return jax.tree.unflatten(jax.tree.structure(shapes), interpreter.run(jaxpr, jax.tree.leaves(args), rules))


def _alone(equation: Any, params: dict[str, Any], *values: Any) -> list[Any]:
    return bind(equation, values, params)


def compiled_wrong(call: programs.Call, measured: Measured, user: list[Any], rest: list[Any], cts: list[np.ndarray], truth: Result) -> bool:
    """Whether outputs or cotangents are wrong altogether or not finite in the compiled program, and not operation by operation."""
    base = measured.runs["base"]
    if not (_lost(base["primal"], base["rule"], truth, measured) or _lost(base["out"], base["rule"], truth, measured)):
        return False
    try:
        out, gradient = by_operation(measured, programs.rule(call), user, rest, cts)
    except Exception:  # a function that exists only compiled
        return False
    return not _lost(out, gradient, truth, measured)


def _lost(out: Sequence[Any], gradient: Sequence[Any], truth: Mapping[str, list[np.ndarray]], measured: Measured) -> bool:
    for raw, want in zip(out, truth["reference_out"], strict=True):
        known = np.isfinite(want)
        if not np.all(np.abs(wide(np.asarray(raw)) - want)[known] <= tolerance.GROSS * largest(want)):
            return True
    return any(
        bool((~np.isfinite(wide(np.asarray(raw))) & np.isfinite(want) & measured.must_be_finite("base", leaf, want)).any())
        for leaf, (raw, want) in enumerate(zip(gradient, truth["reference"], strict=True))
    )
