"""How large rounding inside of a formula is: measured, by rounding every operation's result up or down at random.

It shows what moving the inputs by ulps leaves alone: 1 + x^2 of a tiny x is the same number for all its neighbours, and its logarithm a few ulps of 1, whatever x.
This is Monte Carlo arithmetic (D. S. Parker, "Monte Carlo Arithmetic: exploiting randomness in floating-point arithmetic", UCLA, 1997), with errors of one ulp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import engine, tolerance
from verify._compat import enable_x64
from verify.cases import Case
from verify.strip import After, evaluate

# They round nothing: they give numbers of their operands, and a largest element must stay equal to the one that it is.
EXACT = frozenset((
    "abs", "broadcast_in_dim", "ceil", "clamp", "concatenate", "convert_element_type", "copy", "cummax", "cummin", "dynamic_slice", "dynamic_update_slice",
    "floor", "gather", "iota", "max", "min", "neg", "pad", "reduce_max", "reduce_min", "reshape", "rev", "round", "scatter", "select_n", "sign", "slice", "sort",
    "split", "squeeze", "stop_gradient", "top_k", "transpose",
))  # fmt: skip


def rounded_inside(noise: list[np.ndarray], function: Callable[..., list[Any]], case: Case, *args: Any) -> list[np.ndarray]:
    """The noise, or if it is larger, per element, how far the function's float64 results spread when each operation's is an ulp up or down, or as it is.

    Of arguments in float64; a loop or a branch is one operation. A function that exists only compiled keeps its noise.
    """
    try:
        with enable_x64(True), jax.default_device(engine.host()), np.errstate(all="ignore"):
            jaxpr, leaves = jax.make_jaxpr(function)(*args), jax.tree.leaves(args)
            base, *others = (
                [np.asarray(out) for out in evaluate(jaxpr, leaves, after)]
                for after in (None, *(_rounding(case.rng(f"rounding{k}")) for k in range(tolerance.JITTERS)))
            )
            spread = [np.max([np.abs(other[i] - value) for other in others], axis=0) for i, value in enumerate(base)]
    except Exception:
        return noise
    return [np.fmax(own, more) for own, more in zip(noise, spread, strict=True)]


def _rounding(rng: np.random.Generator) -> After:
    def rounded(out: Any) -> Any:
        if not jnp.issubdtype(out.dtype, jnp.inexact):
            return out
        return out * (1.0 + tolerance.EPS["float64"] * rng.integers(-1, 2, size=out.shape))

    def after(equation: Any, _: list[Any], outputs: list[Any]) -> list[Any]:
        return outputs if equation.primitive.name in EXACT else [rounded(out) for out in outputs]

    return after
