"""Formulas: small trees that `values` runs and `notation` writes, so that what is shown is what was run. Signs go to the front as they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


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
