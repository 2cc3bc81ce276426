"""Whether what is wrong with a rule in low precision at extreme inputs is the compiler's doing.

In one program a product may enter a difference without having been rounded, and the largest of a row rounded: at scores of 1e20, exp(score - largest) is then
exp of half an ulp, 0 or infinite, in the most careful formula. Run operation by operation, where XLA fuses nothing, the formula shows what it is worth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import programs, tolerance
from verify._compat import enable_x64
from verify.noise import Result
from verify.observation import Measured
from verify.values import largest, wide


@contextlib.contextmanager
def operation_by_operation(measured: Measured) -> Iterator[None]:
    """What runs here runs as it was measured, and nothing is fused. A function that exists only compiled raises."""
    with enable_x64("float64" in measured.dtypes), jax.disable_jit(), np.errstate(all="ignore"):
        yield


def compiled_wrong(call: programs.Call, measured: Measured, user: list[Any], rest: list[Any], cts: list[np.ndarray], truth: Result) -> bool:
    """Whether outputs or cotangents are wrong altogether or not finite in the compiled program, and not operation by operation."""
    base = measured.runs["base"]
    if not (_lost(base["primal"], base["rule"], truth, measured) or _lost(base["out"], base["rule"], truth, measured)):
        return False
    try:
        with operation_by_operation(measured):
            out, gradient = programs.rule(call)([jnp.asarray(x) for x in user], rest, cts)
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
