"""How large rounding inside of a formula is: measured, by rounding every operation's result up or down at random.

It shows what moving the inputs by ulps leaves alone: 1 + x^2 of a tiny x is the same number for all its neighbours, and its logarithm a few ulps of 1, whatever x.
This is Monte Carlo arithmetic (D. S. Parker, "Monte Carlo Arithmetic: exploiting randomness in floating-point arithmetic", UCLA, 1997), with errors of one ulp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import engine, tolerance
from verify._compat import enable_x64
from verify.cases import Case
from verify.noise import spread
from verify.programs import Traced

# They round nothing: they give numbers of their operands, and a largest element must stay equal to the one that it is.
EXACT = frozenset((
    "abs", "broadcast_in_dim", "ceil", "clamp", "concatenate", "convert_element_type", "copy", "cummax", "cummin", "dynamic_slice", "dynamic_update_slice",
    "floor", "gather", "iota", "max", "min", "neg", "pad", "reduce_max", "reduce_min", "reshape", "rev", "round", "scatter", "select_n", "sign", "slice", "sort",
    "split", "squeeze", "stop_gradient", "top_k", "transpose",
))  # fmt: skip


def noise_inside(call: Traced, case: Case, diff: Sequence[Any], rest: Sequence[Any], base: list[np.ndarray]) -> list[np.ndarray]:
    """How far the reference's float64 outputs spread around `base`, per element; zeros where it cannot be run operation by operation."""
    try:
        with enable_x64(True), jax.default_device(engine.host()):
            runs = [_rounded_at_random(call, case.rng(f"rounding{k}"), diff, rest) for k in range(tolerance.JITTERS)]
    except Exception:  # a function that exists only compiled
        return [np.zeros(np.shape(out)) for out in base]
    return spread(base, runs)


def _rounded_at_random(call: Traced, rng: np.random.Generator, diff: Sequence[Any], rest: Sequence[Any]) -> list[np.ndarray]:
    """The outputs with each operation's result an ulp up or down, or as it is. A loop or a branch is one operation."""

    def rounded(out: Any) -> Any:
        if not jnp.issubdtype(out.dtype, jnp.inexact):
            return out
        return out * (1.0 + tolerance.EPS["float64"] * rng.integers(-1, 2, size=out.shape))

    def after(equation: Any, _: list[Any], outputs: list[Any]) -> list[Any]:
        return outputs if equation.primitive.name in EXACT else [rounded(out) for out in outputs]

    return [np.asarray(out) for out in call.run_reference(diff, rest, after)]
