"""The pullback of each operation: from the cotangent of its result to the cotangents of its operands, as formulas.

Broadcasting and summing are each other's transposes: the pullback of a sum is a repeat, and an operand that was broadcast gets a sum (`fitted`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from verify.derive.expressions import (
    Expr,
    add,
    compare,
    div,
    einsum,
    fitted,
    function,
    in_place,
    is_number,
    mul,
    neg,
    number,
    over,
    power,
    repeat,
    sub,
    view,
    where,
)  # fmt: skip

Cotangents = Sequence["Expr | None"]  # of each operand; None where nothing flows


def pull(e: Expr, y: Expr, ct: Expr) -> list[tuple[str, Expr]]:
    """(operand's name, its cotangent) for the equation y = e. `ct` is y's cotangent; terms of the same name add up."""
    if in_place(e):
        return _through(e, ct)
    if e.op == "view":  # a result in another form
        return pull(e.args[0], view(y, e.args[0].shape), view(ct, e.args[0].shape))
    found = []
    for operand, cotangent in zip(e.args, PULLBACKS[e.op](e, y, ct), strict=True) if e.op in PULLBACKS else ():
        if cotangent is not None:
            found += _through(operand, fitted(cotangent, operand.shape))
    return found


def _through(operand: Expr, ct: Expr) -> list[tuple[str, Expr]]:
    """Past the views of a name, to the name. A value that is held constant gets nothing, as does a number."""
    if operand.op == "name":
        return [(operand.data, ct)]
    return _through(operand.args[0], _unview(operand, ct)) if operand.op == "view" else []


def _unview(e: Expr, ct: Expr) -> Expr:
    (inner,) = e.args
    if e.data is None:
        return view(ct, inner.shape)
    axes = [axis for axis, n in enumerate(e.shape) if n != 1 and (axis not in e.data or inner.shape[e.data.index(axis)] == 1)]
    return view(over("sum", ct, axes), inner.shape)


def _multiplied(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    a, b = e.args
    return mul(ct, b), mul(ct, a)


def _divided(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    _, b = e.args
    return div(ct, b), None if is_number(b) else neg(div(mul(ct, y), b))


def _raised(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    a, b = e.args
    by_base = mul(ct, mul(b, Expr("pow", (a, sub(b, number(1))), y.shape)))
    safe = where(compare(">", a, number(0)), a, number(1))  # 0**b is flat in b
    return by_base, None if is_number(b) else mul(ct, mul(y, function("log", safe)))


def _extreme(sign: int) -> Callable[[Expr, Expr, Expr], Cotangents]:
    """The larger (or smaller) operand gets the cotangent; where both are equal, half each."""

    def pullback(e: Expr, y: Expr, ct: Expr) -> Cotangents:
        a, b = e.args
        first, second = (mul(ct, Expr("larger", pair, y.shape)) for pair in ((a, b), (b, a)))
        return (first, second) if sign > 0 else (second, first)

    return pullback


def _extreme_over(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    """Equal shares to the elements that attain the extremum."""
    (a,) = e.args
    hit = Expr("floated", (compare("==", a, repeat(y, e.data, a.shape)),), a.shape)
    return (mul(hit, repeat(div(ct, over("sum", hit, e.data)), e.data, a.shape)),)


def _einsum(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    """The result and the operand change places."""
    a, b = e.args
    left, right, out = e.data
    return einsum(ct, b, (out, right, left)), einsum(a, ct, (left, out, right))


def _powered(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    return (mul(number(e.data), mul(ct, power(e.args[0], e.data - 1))),)


def _reduced(share: Callable[[Expr], Expr]) -> Callable[[Expr, Expr, Expr], Cotangents]:
    return lambda e, y, ct: (repeat(share(div(ct, number(_count(e)))) if e.op == "mean" else share(ct), e.data, e.args[0].shape),)


def _count(e: Expr) -> int:
    return math.prod(e.args[0].shape[axis] for axis in e.data)


def _concatenated(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    start, found = 0, []
    for arg in e.args:
        bounds = tuple((start, start + n, 1) if axis == e.data else (0, n, 1) for axis, n in enumerate(arg.shape))
        found.append(Expr("slice", (ct,), arg.shape, bounds))
        start += arg.shape[e.data]
    return found


def _by_jax(e: Expr, y: Expr, ct: Expr) -> Cotangents:
    equation, output = e.data
    cts = [ct if k == output else number(0) for k in range(len(equation.outvars))]
    return [
        Expr("pullback", (*e.args, *cts), arg.shape, (equation, k)) if np.issubdtype(var.aval.dtype, np.inexact) else None
        for k, (arg, var) in enumerate(zip(e.args, equation.invars, strict=True))
    ]


def _chain(slope: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr, Expr], Cotangents]:
    """Of a function of one array, element by element: `slope(x, y)` is its derivative, in terms of what is shortest to write."""
    return lambda e, y, ct: (mul(ct, slope(e.args[0], y)),)


def _over(denominator: Callable[[Expr, Expr], Expr], sign: int = 1) -> Callable[[Expr, Expr, Expr], Cotangents]:
    def pullback(e: Expr, y: Expr, ct: Expr) -> Cotangents:
        ct = div(ct, denominator(e.args[0], y))
        return (ct if sign > 0 else neg(ct),)

    return pullback


_one = number(1)
PULLBACKS: dict[str, Callable[[Expr, Expr, Expr], Cotangents]] = {
    "add": lambda e, y, ct: (ct, ct),
    "sub": lambda e, y, ct: (ct, neg(ct)),
    "mul": _multiplied,
    "div": _divided,
    "neg": lambda e, y, ct: (neg(ct),),
    "power": _powered,
    "pow": _raised,
    "maximum": _extreme(1),
    "minimum": _extreme(-1),
    "where": lambda e, y, ct: (None, where(e.args[0], ct, number(0)), where(e.args[0], number(0), ct)),
    "sum": _reduced(lambda ct: ct),
    "mean": _reduced(lambda ct: ct),
    "max": _extreme_over,
    "min": _extreme_over,
    "prod": lambda e, y, ct: (div(repeat(mul(ct, y), e.data, e.args[0].shape), e.args[0]),),
    "einsum": _einsum,
    "transpose": lambda e, y, ct: (Expr("transpose", (ct,), e.args[0].shape, tuple(np.argsort(e.data).tolist())),),
    "reshape": lambda e, y, ct: (Expr("reshape", (ct,), e.args[0].shape),),
    "slice": lambda e, y, ct: (Expr("scattered", (ct,), e.args[0].shape, e.data),),
    "concatenate": _concatenated,
    "flip": lambda e, y, ct: (Expr("flip", (ct,), y.shape, e.data),),
    "cumsum": lambda e, y, ct: (Expr("cumsum", (ct,), y.shape, (e.data[0], not e.data[1])),),
    "jax": _by_jax,
    "exp": _chain(lambda x, y: y),
    "exp2": _chain(lambda x, y: mul(number(math.log(2)), y)),
    "log": _over(lambda x, y: x),
    "log1p": _over(lambda x, y: add(_one, x)),
    "expm1": _chain(lambda x, y: add(y, _one)),
    "sin": _chain(lambda x, y: function("cos", x)),
    "cos": _chain(lambda x, y: neg(function("sin", x))),
    "tan": _chain(lambda x, y: add(_one, power(y, 2))),
    "tanh": _chain(lambda x, y: sub(_one, power(y, 2))),
    "sinh": _chain(lambda x, y: function("cosh", x)),
    "cosh": _chain(lambda x, y: function("sinh", x)),
    "asin": _over(lambda x, y: function("sqrt", sub(_one, power(x, 2)))),
    "acos": _over(lambda x, y: function("sqrt", sub(_one, power(x, 2))), sign=-1),
    "atan": _over(lambda x, y: add(_one, power(x, 2))),
    "sqrt": _over(lambda x, y: mul(number(2), y)),
    "cbrt": _over(lambda x, y: mul(number(3), power(y, 2))),
    "rsqrt": _chain(lambda x, y: mul(number(-0.5), power(y, 3))),
    "abs": _chain(lambda x, y: function("sign", x)),
    "logistic": _chain(lambda x, y: mul(y, sub(_one, y))),
    "erf": _chain(lambda x, y: mul(number(2 / math.sqrt(math.pi)), function("exp", neg(power(x, 2))))),
}  # names not listed (floor, sign, comparisons) have the derivative 0
