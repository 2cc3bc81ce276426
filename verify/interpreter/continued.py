"""The analytic continuation of operations to complex numbers, for the complex step: at branches the real parts decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from verify.interpreter.arithmetic import RULES as REAL
from verify.interpreter.arithmetic import Rule
from verify.interpreter.indexing import RULES as INDEXING
from verify.interpreter.matrices import RULES as MATRICES
from verify.interpreter.windows import RULES as WINDOWS

RULES = {**REAL, **INDEXING, **MATRICES, **WINDOWS}


class BoundaryError(Exception):
    """A comparison of equals that any step makes unequal: its branch is that of one point, and says nothing of the points beside it."""


def _by_real_part(function: Rule) -> Rule:
    """A choice of integers, made on the real parts."""
    return lambda params, *xs: function(params, *(np.real(x) for x in xs))


def _compared(function: Rule) -> Rule:
    """A comparison of real parts."""

    def compare(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> Any:
        if np.any((np.real(x) == np.real(y)) & (np.imag(x) != np.imag(y))):
            raise BoundaryError
        return function(params, np.real(x), np.real(y))

    return compare


def _larger(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(np.real(x) >= np.real(y), x, y)


def _smaller(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of equal real parts the one that `_larger` leaves, so that a function of both is continued rightly."""
    return np.where(np.real(x) < np.real(y), x, y)


def _chosen(name: str, choose: Callable[..., Any]) -> Rule:
    """The entry with the largest or smallest real part along the reduced axes."""

    def reduce(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
        if not x.size:
            return RULES[name](params, np.real(x))
        axes = tuple(params["axes"])
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        flat = x.transpose((*kept, *axes)).reshape(*(x.shape[axis] for axis in kept), -1)
        return np.take_along_axis(flat, choose(np.real(flat), axis=-1)[..., None], -1)[..., 0]

    return reduce


def _convert(params: dict[str, Any], x: np.ndarray, *_: Any) -> np.ndarray:
    """A complex number stays one where it would become float64; of others the real part is converted."""
    return x if x.dtype.kind == "c" and str(params["new_dtype"]) == "float64" else RULES["convert_element_type"](params, np.real(x))


# The analytic continuation of operations that NumPy's own function does not continue; those that have none are left out by `continues`.
CONTINUED: dict[str, Rule] = {
    **RULES,
    **{name: _compared(RULES[name]) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{name: _by_real_part(RULES[name]) for name in ("floor", "ceil", "round", "sign", "stop_gradient", "argmax", "argmin")},
    "is_finite": lambda params, x: np.isfinite(x),
    "abs": lambda params, x: np.where(np.real(x) < 0, -x, x),
    "max": _larger,
    "min": _smaller,
    "clamp": lambda params, low, x, high: _smaller(params, _larger(params, x, low), high),
    "reduce_max": _chosen("reduce_max", np.argmax),
    "reduce_min": _chosen("reduce_min", np.argmin),
    "convert_element_type": _convert,
}
NOT_CONTINUED = (
    "atan2", "cbrt", "exp2", "reduce_prod", "acosh", "atanh", "asin", "acos", "asinh", "pow", "rem", "erf_inv", "lgamma", "digamma", "sort", "cummax", "cummin",
    "cumlogsumexp", "scatter-min", "scatter-max", "cholesky", "qr", "eigh", "svd",
)  # fmt: skip
