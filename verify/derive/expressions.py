"""Formulas: small trees that NumPy runs (`evaluate`) and that `notation` writes, so that what is shown is what was run."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from verify import _compat, engine, interpreter
from verify.errors import InternalError


@dataclass(frozen=True, eq=False)
class Expr:
    """One operation on formulas. `data` is what it needs beside them: a name, a number, axes, indices."""

    op: str
    args: tuple[Expr, ...] = ()
    shape: tuple[int, ...] = ()
    data: Any = None


SILENT = ("view", "held", "floated")  # not written: another form of the same array, and its value without its derivative


def name(text: str, shape: Sequence[int]) -> Expr:
    return Expr("name", shape=tuple(shape), data=text)


def number(value: float) -> Expr:
    return Expr("number", data=value)


def is_number(e: Expr, value: float | None = None) -> bool:
    return e.op == "number" and (value is None or e.data == value)


def _broadcast(*es: Expr) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*(e.shape for e in es)))


def add(a: Expr, b: Expr) -> Expr:
    if a.op == "neg" or b.op == "neg":
        return sub(a, b.args[0]) if b.op == "neg" else sub(b, a.args[0])
    return Expr("add", (a, b), _broadcast(a, b))


def sub(a: Expr, b: Expr) -> Expr:
    if b.op == "neg":
        return add(a, b.args[0])
    return Expr("sub", (a, b), _broadcast(a, b))


def mul(a: Expr, b: Expr) -> Expr:
    if is_number(a) and is_number(b):
        return number(a.data * b.data)
    if is_number(a, 1) or is_number(b, 1):
        return b if is_number(a, 1) else a
    if b.op == "neg" or a.op == "neg":
        return neg(mul(a.args[0], b) if a.op == "neg" else mul(a, b.args[0]))
    return Expr("mul", (b, a) if is_number(b) else (a, b), _broadcast(a, b))


def div(a: Expr, b: Expr) -> Expr:
    if is_number(b, 1):
        return a
    return neg(div(a.args[0], b)) if a.op == "neg" else Expr("div", (a, b), _broadcast(a, b))


def neg(a: Expr) -> Expr:
    return a.args[0] if a.op == "neg" else number(-a.data) if is_number(a) else Expr("neg", (a,), a.shape)


def power(a: Expr, exponent: float) -> Expr:
    return a if exponent == 1 else Expr("power", (a,), a.shape, exponent)


def function(what: str, a: Expr) -> Expr:
    return Expr(what, (a,), a.shape)


def where(condition: Expr, a: Expr, b: Expr) -> Expr:
    return Expr("where", (condition, a, b), _broadcast(condition, a, b))


def compare(sign: str, a: Expr, b: Expr) -> Expr:
    return Expr("compare", (a, b), _broadcast(a, b), sign)


def over(what: str, a: Expr, axes: Sequence[int]) -> Expr:
    """A reduction (sum, mean, max, min, prod) over axes, which are gone afterwards."""
    if a.op == "neg" and what in ("sum", "mean"):
        return neg(over(what, a.args[0], axes))
    left = tuple(n for axis, n in enumerate(a.shape) if axis not in axes)
    return Expr(what, (a,), left, tuple(axes)) if axes else a


def repeat(a: Expr, axes: Sequence[int], shape: Sequence[int]) -> Expr:
    """The transpose of a sum: `a` along new axes of `shape`."""
    if a.op == "neg":
        return neg(repeat(a.args[0], axes, shape))
    return Expr("repeat", (a,), tuple(shape), tuple(axes)) if axes else a


def view(a: Expr, shape: Sequence[int], dims: Sequence[int] | None = None) -> Expr:
    """The same array with axes of size 1 more or less, or (with `dims`, the place of each of its axes) broadcast."""
    shape = tuple(shape)
    if a.op == "neg":
        return neg(view(a.args[0], shape, dims))
    if dims is not None and math.prod(shape) == math.prod(a.shape):
        dims = None  # only axes of size 1 more
    if dims is None and a.op == "view" and a.data is None:
        return view(a.args[0], shape)
    return a if a.shape == shape and dims is None else Expr("view", (a,), shape, dims)


def einsum(a: Expr, b: Expr, indices: tuple[tuple[int, ...], ...]) -> Expr:
    """A sum of products: `indices` of a, of b and of the result, one number for each axis. Of two matrices, the result's rows are the left one's."""
    left, right, out = indices
    if max(map(len, indices)) <= 2 and out and out[0] not in left and (len(right) == 2 or len(out) == 2):
        a, b, indices = b, a, (right, left, out)
    size = dict(zip((*indices[0], *indices[1]), (*a.shape, *b.shape), strict=True))
    return Expr("einsum", (a, b), tuple(size[i] for i in indices[2]), indices)


def fitted(ct: Expr, shape: Sequence[int]) -> Expr:
    """The transpose of broadcasting: `ct` summed over the axes along which an array of `shape` was repeated."""
    if is_number(ct) or ct.shape == tuple(shape):
        return ct
    lead = len(ct.shape) - len(shape)
    axes = [axis for axis, n in enumerate(ct.shape) if axis < lead or (shape[axis - lead] == 1 and n != 1)]
    return view(over("sum", ct, axes), shape)


SIGNED: dict[str, Callable[[Expr, Expr], Expr]] = {"add": add, "sub": sub, "mul": mul, "div": div}


def in_place(e: Expr) -> bool:
    """Whether a formula is a name in another form, or a constant."""
    return e.op in ("name", "number", "constant", "iota") or (e.op in SILENT and in_place(e.args[0]))


def leaves(e: Expr) -> Iterator[Expr]:
    """The names in a formula, from left to right."""
    if e.op == "name":
        yield e
    for arg in e.args:
        yield from leaves(arg)


def substitute(e: Expr, by: Mapping[str, Expr]) -> Expr:
    """`e` with names replaced by formulas of the same shape."""
    if e.op == "name":
        return by.get(e.data, e)
    return rebuilt(e, [substitute(arg, by) for arg in e.args]) if e.args else e


def rebuilt(e: Expr, args: Sequence[Expr]) -> Expr:
    """`e` on other operands of the same shapes, signs in front."""
    first, *others = args
    if e.op in SIGNED and others:
        return SIGNED[e.op](first, others[0])
    if e.op == "neg":
        return neg(first)
    if e.op in ("sum", "mean"):
        return over(e.op, first, e.data)
    if e.op in ("repeat", "view") and args[0].op == "neg":
        return neg(replace(e, args=args[0].args))
    return replace(e, args=tuple(args))


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
    with _compat.enable_x64(True), jax.default_device(engine.host()):

        def f(x: Any) -> Any:
            return _compat.bind(equation, [*operands[:operand], x, *operands[operand + 1 :]], equation.params)

        out, pullback = jax.vjp(f, operands[operand])
        seeds = [
            jax.numpy.broadcast_to(ct, o.shape).astype(o.dtype)
            if jax.numpy.issubdtype(o.dtype, np.floating)
            else np.zeros(o.shape, jax.dtypes.float0)
            for ct, o in zip(cts, out, strict=True)
        ]
        return np.asarray(pullback(seeds)[0])


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
