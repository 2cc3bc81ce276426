"""A second evaluator: NumPy runs a float64 jaxpr, operation by operation, with no lowering and no compilation.

For the small arrays of a verification, lowering and compiling cost ten times more than the arithmetic. It knows the operations that most derivatives
are made of; a program with any other goes to XLA. It is also independent of XLA: an error of either shows where the two are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from verify import _compat

DTYPES = frozenset(("float64", "int64", "int32", "bool", "uint32"))
LARGEST = 2**15  # elements of an array; beyond, compiled code wins


def _unary(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda params, x: function(x)


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda params, x, y: function(x, y)


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy sums whole numbers in a wider type; XLA keeps theirs, and wraps around."""
    return lambda params, x: function(x, axis=tuple(params["axes"])).astype(x.dtype)


def _extremum(function: np.ufunc, empty_float: float, smallest: bool) -> Callable[..., Any]:
    def reduce(params: dict[str, Any], x: np.ndarray) -> Any:
        if x.dtype.kind == "f":
            initial: Any = empty_float
        else:
            initial = x.dtype.type(0) if x.dtype == bool else (np.iinfo(x.dtype).min if smallest else np.iinfo(x.dtype).max)
        return function.reduce(x, axis=tuple(params["axes"]), initial=initial)

    return reduce


def _broadcast_in_dim(params: dict[str, Any], x: np.ndarray, *_: Any) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for size, axis in zip(x.shape, params["broadcast_dimensions"], strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _dot_general(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (x_sum, y_sum), (x_batch, y_batch) = params["dimension_numbers"]
    x_free = [axis for axis in range(x.ndim) if axis not in (*x_sum, *x_batch)]
    y_free = [axis for axis in range(y.ndim) if axis not in (*y_sum, *y_batch)]
    batch = [x.shape[axis] for axis in x_batch]
    inner = math.prod(x.shape[axis] for axis in x_sum)
    rows, columns = (math.prod(a.shape[axis] for axis in free) for a, free in ((x, x_free), (y, y_free)))
    left = x.transpose((*x_batch, *x_free, *x_sum)).reshape((*batch, rows, inner))
    right = y.transpose((*y_batch, *y_sum, *y_free)).reshape((*batch, inner, columns))
    return np.matmul(left, right).reshape((*batch, *(x.shape[axis] for axis in x_free), *(y.shape[axis] for axis in y_free)))


def _select_n(params: dict[str, Any], which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.where(which, cases[-1], cases[0]) if which.dtype == bool else np.choose(which, cases)


def _integer_pow(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Repeated squaring, as XLA does, so that x**-2 of 0 is infinite and x**3 of a negative number is negative."""
    power, result, square = abs(params["y"]), np.ones_like(x), x
    while power:
        if power & 1:
            result = result * square
        square, power = square * square, power >> 1
    return 1 / result if params["y"] < 0 else result


def _iota(params: dict[str, Any]) -> np.ndarray:
    shape, dimension = params["shape"], params["dimension"]
    column = np.arange(shape[dimension], dtype=params["dtype"]).reshape([-1 if axis == dimension else 1 for axis in range(len(shape))])
    return np.broadcast_to(column, shape)


def _cumsum(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    axis = params["axis"]
    ordered = np.flip(x, axis) if params["reverse"] else x
    summed = np.cumsum(ordered, axis, dtype=x.dtype)
    return np.flip(summed, axis) if params["reverse"] else summed


def _slice(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    return x[tuple(slice(*bounds) for bounds in zip(params["start_indices"], params["limit_indices"], strides, strict=True))]


def _pad(params: dict[str, Any], x: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = params["padding_config"]
    out = np.full([low + high + n + max(n - 1, 0) * inner for n, (low, high, inner) in zip(x.shape, config, strict=True)], value, x.dtype)
    out[
        tuple(
            slice(low, low + max(n - 1, 0) * (inner + 1) + (1 if n else 0), inner + 1)
            for n, (low, _, inner) in zip(x.shape, config, strict=True)
        )
    ] = x
    return out


def _convert(params: dict[str, Any], x: np.ndarray, *_: Any) -> np.ndarray:
    return x.astype(params["new_dtype"])


RULES: dict[str, Callable[..., Any]] = {
    **{
        name: _unary(function)
        for name, function in dict[str, Callable[[Any], Any]]({
            "neg": np.negative, "exp": np.exp, "exp2": np.exp2, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sin": np.sin, "cos": np.cos,
            "tan": np.tan, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
            "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sqrt": np.sqrt, "cbrt": np.cbrt, "rsqrt": lambda x: 1 / np.sqrt(x),
            "abs": np.abs, "sign": lambda x: np.where(x == 0, x, np.sign(x)), "floor": np.floor, "ceil": np.ceil, "is_finite": np.isfinite, "square": np.square, "not": np.invert,
            "stop_gradient": lambda x: x, "copy": lambda x: x, "copy_p": lambda x: x, "logistic": lambda x: 1 / (1 + np.exp(-x)),
        }).items()
    },
    **{
        name: _binary(function)
        for name, function in {
            "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "pow": np.power,
            "atan2": np.arctan2, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
            "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
        }.items()
    },
    "div": _binary(np.true_divide),
    "reduce_sum": _reduce(np.sum),
    "reduce_prod": _reduce(np.prod),
    "reduce_and": _reduce(np.all),
    "reduce_or": _reduce(np.any),
    "reduce_max": _extremum(np.maximum, -np.inf, smallest=True),
    "reduce_min": _extremum(np.minimum, np.inf, smallest=False),
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": lambda params, x, *_: (x if params["dimensions"] is None else x.transpose(params["dimensions"])).reshape(params["new_sizes"]),
    "squeeze": lambda params, x: x.reshape([n for axis, n in enumerate(x.shape) if axis not in params["dimensions"]]),
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "concatenate": lambda params, *xs: np.concatenate(xs, axis=params["dimension"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "cumsum": _cumsum,
    "select_n": _select_n,
    "dot_general": _dot_general,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "slice": _slice,
    "pad": _pad,
    "convert_element_type": _convert,
}  # fmt: skip


class BoundaryError(Exception):
    """A comparison of equals that any step makes unequal: its branch is that of one point, and says nothing of the points beside it."""


def _by_real_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """A choice of integers, made on the real parts."""
    return lambda params, *xs: function(params, *(np.real(x) for x in xs))


def _compared(function: Callable[..., Any]) -> Callable[..., Any]:
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


def _chosen(name: str, choose: Callable[..., Any]) -> Callable[..., Any]:
    """The entry with the largest or smallest real part along the reduced axes."""

    def reduce(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
        if not x.size:
            return RULES[name](params, np.real(x))
        axes = tuple(params["axes"])
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        flat = x.transpose((*kept, *axes)).reshape(*(x.shape[axis] for axis in kept), -1)
        return np.take_along_axis(flat, choose(np.real(flat), axis=-1)[..., None], -1)[..., 0]

    return reduce


# The analytic continuation of operations that NumPy's own function does not continue; those that have none are left out by `continues`.
CONTINUED: dict[str, Callable[..., Any]] = {
    **RULES,
    **{name: _compared(RULES[name]) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{name: _by_real_part(RULES[name]) for name in ("floor", "ceil", "sign", "stop_gradient")},
    "is_finite": lambda params, x: np.isfinite(x),
    "abs": lambda params, x: np.where(np.real(x) < 0, -x, x),
    "max": _larger,
    "min": _smaller,
    "reduce_max": _chosen("reduce_max", np.argmax),
    "reduce_min": _chosen("reduce_min", np.argmin),
    "convert_element_type": lambda params, x, *_: x if str(params["new_dtype"]) == "float64" else np.real(x).astype(params["new_dtype"]),
}
NOT_CONTINUED = ("atan2", "cbrt", "exp2", "reduce_prod", "acosh", "atanh", "asin", "acos", "asinh", "pow")


def knows(jaxpr: Any) -> bool:
    """Whether every operation is known, every dtype is double precision or whole, and no array is large."""
    jaxpr = _compat.closed(jaxpr)
    readable = all(str(var.aval.dtype) in DTYPES for var in jaxpr.jaxpr.invars)  # a key is no array of NumPy's, even if nothing reads it
    return readable and all(_knows(equation) for equation in jaxpr.jaxpr.eqns)


def continues(jaxpr: Any) -> bool:
    """Whether `run` can evaluate a float64 jaxpr on complex numbers with the rules of CONTINUED."""
    return knows(jaxpr) and not any(equation.primitive.name in NOT_CONTINUED for equation in _compat.walk(jaxpr))


def _knows(equation: Any) -> bool:
    if (inner := _compat.called(equation)) is not None:
        return knows(inner)
    return knows_equation(equation)


def knows_equation(equation: Any) -> bool:
    """Whether RULES has one operation, in a form that it computes as XLA does."""
    name = equation.primitive.name
    known = name in RULES and all(str(var.aval.dtype) in DTYPES and var.aval.size <= LARGEST for var in equation.outvars)
    if not known:
        return False
    if name == "div":  # of integers: XLA truncates
        return str(equation.outvars[0].aval.dtype) == "float64"
    if name == "convert_element_type":  # float to integer: XLA saturates
        source, target = str(equation.invars[0].aval.dtype), str(equation.params["new_dtype"])
        return source != "float64" or target in ("float64", "bool")
    return name != "pad" or all(low >= 0 and high >= 0 for low, high, _ in equation.params["padding_config"])


def run(jaxpr: Any, args: Sequence[Any], rules: dict[str, Callable[..., Any]] = RULES) -> list[np.ndarray]:
    """Evaluate a jaxpr that `knows` accepts, on numpy arrays."""
    jaxpr = _compat.closed(jaxpr)
    env: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, map(np.asarray, jaxpr.consts), strict=True))
    env |= dict(zip(jaxpr.jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return np.asarray(atom.val, getattr(atom.aval, "dtype", None)) if isinstance(atom, core.Literal) else env[atom]

    for equation in jaxpr.jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        if (inner := _compat.called(equation)) is not None:
            env |= dict(zip(equation.outvars, run(inner, values, rules), strict=True))
        else:
            env[equation.outvars[0]] = np.asarray(rules[equation.primitive.name](equation.params, *values))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]
