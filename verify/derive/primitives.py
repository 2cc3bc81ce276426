"""JAX's primitives as formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from verify import _compat, engine, interpreter
from verify.derive.expressions import Expr, add, compare, einsum, function, is_number, mul, neg, over, power, sub, view, where
from verify.derive.values import FUNCTIONS, is_key

SIGNS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
ELEMENTWISE = (*FUNCTIONS, "erf", "add", "sub", "mul", "div", "neg", "power", "pow", "maximum", "minimum")
RESHAPED = ("reshape", "squeeze", "transpose", "slice", "rev", "broadcast_in_dim", "copy")  # one number everywhere stays that
LOWEST = np.finfo(np.float64).min


def compute(equation: Any, values: Sequence[Any]) -> list[Any]:
    """An equation's outputs: by NumPy where it is a float64 operation that the interpreter knows, else by JAX."""
    if interpreter.knows_equation(equation):
        with np.errstate(all="ignore"):
            return interpreter.apply(equation, [np.asarray(v) for v in values])
    with _compat.enable_x64(True), jax.default_device(engine.host()):
        out = _compat.bind(equation, values, equation.params)
    return [value if is_key(value) else np.asarray(value) for value in out]


def formula(equation: Any, args: list[Expr], output: int) -> Expr:
    """One output of an equation as a formula; what has none here is left to JAX."""
    what, shape = equation.primitive.name, tuple(equation.outvars[output].aval.shape)
    found = None
    if what in RESHAPED and is_number(args[0]):
        return args[0]
    if what == "convert_element_type":
        found = _converted(equation, args[0])
    elif not _plain(equation):
        found = None
    elif what in FUNCTIONS or what == "erf":
        found = function(what, args[0])
    elif what in SIGNS:
        found = compare(SIGNS[what], *args)
    elif what in RULES:
        found = RULES[what](equation.params, *args)
    if found is None:
        return Expr("jax", tuple(args), shape, (equation, output))
    return spread(_compact(found), shape)


def _compact(e: Expr) -> Expr:
    """A function of one array with axes of size 1 is that form of the function of the array without them."""
    arrays = [arg for arg in e.args if arg.op != "number"]
    if e.op not in ELEMENTWISE or len(arrays) != 1 or arrays[0].op != "view" or arrays[0].data is not None:
        return e
    inner = arrays[0].args[0]
    return view(replace(e, args=tuple(inner if arg is arrays[0] else arg for arg in e.args), shape=inner.shape), e.shape)


def _plain(equation: Any) -> bool:
    """Whether RULES means what the primitive does: real numbers, and logic of booleans."""
    kinds = [np.dtype(v.aval.dtype).kind if not is_key(v.aval) else "" for v in equation.invars]
    if equation.primitive.name in ("and", "or", "not"):
        return set(kinds) == {"b"}
    if equation.primitive.name in ("div", "integer_pow", "pow") and kinds[0] != "f":
        return False
    return all(kind and kind in "fiub" for kind in kinds)


def spread(e: Expr, shape: tuple[int, ...]) -> Expr:
    """`e`, repeated to `shape` (as it was written, without a word); numbers have no shape."""
    if e.shape == shape or e.op == "number":
        return e
    lead = len(shape) - len(e.shape)
    return view(e, shape, tuple(range(lead, len(shape))))


def key(e: Expr) -> Any:
    """Equal for formulas that are written alike."""
    data = id(e.data[1]) if e.op in ("constant", "given") else (id(e.data[0]), e.data[1]) if e.op in ("jax", "scan") else e.data
    return e.op, e.shape, data, tuple(map(key, e.args))


def _converted(equation: Any, a: Expr) -> Expr | None:
    source, target = (np.dtype(v.aval.dtype).kind for v in (equation.invars[0], equation.outvars[0]))
    if source == target or (source in "iu" and target in "iu"):
        return a
    if is_number(a):
        return a
    return Expr("floated", (a,), a.shape) if target == "f" and source in "biu" else None


def _broadcast(params: dict[str, Any], a: Expr, *_: Any) -> Expr:
    return a if a.op == "number" else view(a, params["shape"], tuple(params["broadcast_dimensions"]))


def _reshape(params: dict[str, Any], a: Expr, *_: Any) -> Expr | None:
    new = tuple(params["new_sizes"])
    if params["dimensions"] is not None:
        return None
    same = [n for n in a.shape if n != 1] == [n for n in new if n != 1]
    return view(a, new) if same else Expr("reshape", (a,), new)


def _squeeze(params: dict[str, Any], a: Expr) -> Expr:
    return view(a, [n for axis, n in enumerate(a.shape) if axis not in params["dimensions"]])


def _dot_general(params: dict[str, Any], a: Expr, b: Expr) -> Expr | None:
    if is_number(a) or is_number(b):
        return None
    (a_sum, b_sum), (a_batch, b_batch) = params["dimension_numbers"]
    left = list(range(len(a.shape)))
    right = list(range(len(left), len(left) + len(b.shape)))
    for i, j in zip((*a_sum, *a_batch), (*b_sum, *b_batch), strict=True):
        right[j] = left[i]
    out = [left[i] for i in a_batch]
    out += [left[i] for i in left if i not in (*a_sum, *a_batch)]
    out += [right[j] for j in range(len(right)) if j not in (*b_sum, *b_batch)]
    return einsum(a, b, (tuple(left), tuple(right), tuple(out)))


def _select(params: dict[str, Any], which: Expr, *cases: Expr) -> Expr | None:
    if len(cases) != 2:
        return None
    return where(which, cases[1], cases[0])


def _add(params: dict[str, Any], a: Expr, b: Expr) -> Expr:
    return b if is_number(a, 0) else a if is_number(b, 0) else add(a, b)


def _maximum(params: dict[str, Any], a: Expr, b: Expr) -> Expr:
    for low, other in ((a, b), (b, a)):
        if low.op == "number" and low.data <= LOWEST:
            return other
    return Expr("maximum", (a, b), tuple(np.broadcast_shapes(a.shape, b.shape)))


def _slice(params: dict[str, Any], a: Expr) -> Expr:
    bounds = tuple(zip(params["start_indices"], params["limit_indices"], params["strides"] or (1,) * len(a.shape), strict=True))
    return Expr("slice", (a,), tuple(len(range(*b)) for b in bounds), bounds)


def _transpose(params: dict[str, Any], a: Expr) -> Expr:
    order = tuple(params["permutation"])
    return Expr("transpose", (a,), tuple(a.shape[axis] for axis in order), order)


def _concatenate(params: dict[str, Any], *parts: Expr) -> Expr | None:
    axis = params["dimension"]
    if any(is_number(part) for part in parts):
        return None
    shape = [sum(p.shape[i] for p in parts) if i == axis else n for i, n in enumerate(parts[0].shape)]
    return Expr("concatenate", parts, tuple(shape), axis)


def _pair(op: str) -> Callable[..., Expr]:
    return lambda params, a, b: Expr(op, (a, b), tuple(np.broadcast_shapes(a.shape, b.shape)))


def _along(op: str) -> Callable[..., Expr | None]:
    return lambda params, a: None if is_number(a) else over(op, a, params["axes"])


RULES: dict[str, Callable[..., Expr | None]] = {
    "add": _add,
    "add_any": _add,
    "sub": lambda params, a, b: a if is_number(b, 0) else sub(a, b),
    "mul": lambda params, a, b: mul(a, b) if is_number(a, 1) or is_number(b, 1) else _pair("mul")(params, a, b),
    "div": lambda params, a, b: a if is_number(b, 1) else _pair("div")(params, a, b),
    "neg": lambda params, a: neg(a),
    "square": lambda params, a: power(a, 2),
    "integer_pow": lambda params, a: power(a, params["y"]),
    "pow": lambda params, a, b: power(a, b.data) if is_number(b) else _pair("pow")(params, a, b),
    "max": _maximum,
    "min": _pair("minimum"),
    "and": _pair("and"),
    "or": _pair("or"),
    "not": lambda params, a: function("not", a),
    "select_n": _select,
    "reduce_sum": _along("sum"),
    "reduce_max": _along("max"),
    "reduce_min": _along("min"),
    "reduce_prod": _along("prod"),
    "stop_gradient": lambda params, a: Expr("held", (a,), a.shape),
    "copy": lambda params, a: a,
    "copy_p": lambda params, a: a,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "dot_general": _dot_general,
    "slice": _slice,
    "concatenate": _concatenate,
    "rev": lambda params, a: Expr("flip", (a,), a.shape, tuple(params["dimensions"])),
    "cumsum": lambda params, a: Expr("cumsum", (a,), a.shape, (params["axis"], params["reverse"])),
}
