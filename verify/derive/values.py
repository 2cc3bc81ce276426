"""What a formula's operations compute: by NumPy, in float64; what has no formula, by JAX."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from verify import _compat, engine, interpreter
from verify.derive.expressions import Expr
from verify.errors import InternalError


def evaluate(e: Expr, env: Mapping[str, Any]) -> Any:
    """The value, by NumPy (what JAX computes, by JAX). A formula whose value has another shape than it says is our own fault."""
    value = env[e.data] if e.op == "name" else VALUE[e.op](e, *(evaluate(arg, env) for arg in e.args))
    if isinstance(value, tuple):
        return value
    found = tuple(np.shape(value))
    if found != e.shape:
        raise InternalError(f"verify explain: {e.op} gives the shape {found}, but its formula says {e.shape}")
    return value


def _unary(f: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda e, x: f(np.asarray(x))


def _reduce(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda e, x: f(x, axis=e.data)


def _view(e: Expr, x: Any) -> Any:
    if e.data is None:
        return np.reshape(x, e.shape)
    padded = [1] * len(e.shape)
    for size, axis in zip(np.shape(x), e.data, strict=True):
        padded[axis] = size
    return np.broadcast_to(np.reshape(x, padded), e.shape)


def _einsum(e: Expr, a: Any, b: Any) -> Any:
    left, right, out = ("".join(string.ascii_letters[i] for i in indices) for indices in e.data)
    return np.einsum(f"{left},{right}->{out}", a, b, optimize=True)


def _compare(e: Expr, a: Any, b: Any) -> Any:
    return {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal}[e.data](a, b)


def _scattered(e: Expr, ct: Any) -> Any:
    """The transpose of a slice: zeros, and `ct` where the slice was."""
    out = np.zeros(e.shape)
    out[tuple(slice(*bounds) for bounds in e.data)] = ct
    return out


def _by_jax(e: Expr, *values: Any) -> Any:
    """One output of an equation that has no formula here."""
    equation, output = e.data
    with _compat.enable_x64(True), jax.default_device(engine.host()):
        out = _compat.bind(equation, typed(equation, values), equation.params)
    return out[output] if is_key(out[output]) else np.asarray(out[output])


def typed(equation: Any, values: Sequence[Any]) -> list[Any]:
    """The operands as the equation has them: a number may stand for an array, or for an integer."""
    return [
        v if is_key(v) else np.broadcast_to(np.asarray(v, var.aval.dtype), var.aval.shape)
        for v, var in zip(values, equation.invars, strict=True)
    ]


def is_key(value: Any) -> bool:
    """Whether a value is of PRNG keys, which NumPy does not know."""
    return hasattr(value, "dtype") and jax.numpy.issubdtype(value.dtype, jax.dtypes.extended)


def _pullback_by_jax(e: Expr, *values: Any) -> Any:
    """The cotangent of one operand of such an equation: values of the operands, then cotangents of the outputs."""
    equation, operand = e.data
    count = len(equation.invars)
    operands, cts = typed(equation, values[:count]), values[count:]
    flows = [k for k, var in enumerate(equation.invars) if np.issubdtype(var.aval.dtype, np.inexact)]
    with _compat.enable_x64(True), jax.default_device(engine.host()):

        def f(*differentiated: Any) -> Any:
            given = list(operands)
            for k, value in zip(flows, differentiated, strict=True):
                given[k] = value
            return _compat.bind(equation, given, equation.params)

        out, pullback = jax.vjp(f, *(operands[k] for k in flows))
        seeds = [
            jax.numpy.broadcast_to(ct, o.shape).astype(o.dtype)
            if jax.numpy.issubdtype(o.dtype, np.inexact)
            else np.zeros(o.shape, jax.dtypes.float0)
            for ct, o in zip(cts, out, strict=True)
        ]
        return np.asarray(pullback(seeds)[flows.index(operand)])


FUNCTIONS = {
    what: interpreter.RULES[what]
    for what in (
        "exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin", "acos", "atan", "sqrt", "cbrt", "rsqrt",
        "abs", "sign", "logistic", "floor", "ceil",
    )
}  # fmt: skip
VALUE: dict[str, Callable[..., Any]] = {
    **{what: (lambda e, x, rule=rule: rule({}, np.asarray(x))) for what, rule in FUNCTIONS.items()},
    "erf": _unary(np.vectorize(math.erf, otypes=[np.float64])),
    "number": lambda e: np.float64(e.data),
    "constant": lambda e: e.data[1],
    "given": lambda e: e.data[1],
    "iota": lambda e: interpreter.RULES["iota"]({"shape": e.shape, "dimension": e.data, "dtype": np.int64}),
    "add": lambda e, a, b: a + b,
    "sub": lambda e, a, b: a - b,
    "mul": lambda e, a, b: a * b,
    "div": lambda e, a, b: a / b,
    "neg": lambda e, a: -a,
    "power": lambda e, a: np.float_power(a, e.data),
    "pow": lambda e, a, b: np.power(a, b),
    "maximum": lambda e, a, b: np.maximum(a, b),
    "minimum": lambda e, a, b: np.minimum(a, b),
    "compare": _compare,
    "larger": lambda e, a, b: (a > b) + (a == b) / 2,
    "not": _unary(np.logical_not),
    "and": lambda e, a, b: np.logical_and(a, b),
    "or": lambda e, a, b: np.logical_or(a, b),
    "where": lambda e, c, a, b: np.where(c, a, b),
    "sum": _reduce(np.sum),
    "mean": _reduce(np.mean),
    "max": _reduce(np.max),
    "min": _reduce(np.min),
    "prod": _reduce(np.prod),
    "repeat": lambda e, a: np.broadcast_to(np.expand_dims(a, e.data), e.shape),
    "view": _view,
    "held": lambda e, a: a,
    "floated": lambda e, a: np.asarray(a, np.float64),
    "einsum": _einsum,
    "transpose": lambda e, a: np.transpose(a, e.data),
    "reshape": lambda e, a: np.reshape(a, e.shape),
    "slice": lambda e, a: a[tuple(slice(*bounds) for bounds in e.data)],
    "scattered": _scattered,
    "concatenate": lambda e, *xs: np.concatenate(xs, e.data),
    "flip": lambda e, a: np.flip(a, e.data),
    "cumsum": lambda e, a: interpreter.RULES["cumsum"]({"axis": e.data[0], "reverse": e.data[1]}, a),
    "jax": _by_jax,
    "pullback": _pullback_by_jax,
}
