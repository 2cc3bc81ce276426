"""Formulas as a line of text: `y_ct @ w^T`, `sum_batch(y_ct)`. Axes have names, so an operand that lacks one is repeated along it."""

from __future__ import annotations

import math
import string
from collections.abc import Callable

from verify.derive.example import Dims
from verify.derive.expressions import SILENT, Expr
from verify.derive.values import FUNCTIONS
from verify.sizes import parse

LOGIC, SUM, PRODUCT, SIGN, POWER, ATOM = range(6)
INFIX = {"add": (" + ", SUM, SUM), "sub": (" - ", SUM, PRODUCT), "mul": (" * ", PRODUCT, PRODUCT), "div": (" / ", PRODUCT, SIGN)}
INFIX |= {"pow": ("^", ATOM, ATOM), "and": (" and ", LOGIC + 1, LOGIC + 1), "or": (" or ", LOGIC + 1, LOGIC + 1)}
CALLED = {"maximum": "max", "minimum": "min", "logistic": "sigmoid"}
ALIGNED = (*FUNCTIONS, "erf", "maximum", "minimum", "where", "not", "larger")
OVER = ("sum", "mean", "max", "min", "prod", "repeat", "concatenate", "cumsum", "flip")


def write(e: Expr, dims: Dims) -> str:
    """The formula of `e`."""
    new = repeated(e, dims)
    text = _write(e, dims)[0]
    return f"repeat_{','.join(new)}({text})" if new else text


def _write(e: Expr, dims: Dims) -> tuple[str, int]:
    def inside(arg: Expr, least: int = 0) -> str:
        text, strength = _write(arg, dims)
        return text if strength >= least else f"({text})"

    def explicit(arg: Expr) -> str:
        """An operand whose axes must be all there."""
        new = repeated(arg, dims)
        return f"repeat_{','.join(new)}({inside(arg)})" if new else inside(arg)

    while e.op in SILENT and not (e.op == "floated" and e.args[0].op == "compare"):
        e = e.args[0]
    if e.op in INFIX:
        sign, left, right = INFIX[e.op]
        return inside(e.args[0], left) + sign + inside(e.args[1], right), {"pow": POWER, "and": LOGIC, "or": LOGIC}.get(e.op, left)
    if e.op == "neg":
        return f"-{inside(e.args[0], PRODUCT)}", SIGN
    if e.op == "power":
        return f"{inside(e.args[0], ATOM)}^{_exponent(e.data)}", POWER
    if e.op == "compare":
        return f"{inside(e.args[0], SUM)} {e.data} {inside(e.args[1], SUM)}", LOGIC
    if e.op == "einsum":
        return _product(e, dims, inside)
    if e.op in LEAVES:
        text = LEAVES[e.op](e, dims)
        strength = SIGN if text.startswith("-") else PRODUCT if "/" in text else ATOM
        return text, strength if e.op == "number" else ATOM
    args = [inside(arg) if e.op in ALIGNED else explicit(arg) for arg in e.args]
    if e.op in OVER:
        return (
            f"{e.op.replace('concatenate', 'concat')}{_over(e, dims)}({', '.join(args)}{', from the end' if e.op == 'cumsum' and e.data[1] else ''})",
            ATOM,
        )
    return OTHER[e.op](e, dims, args) if e.op in OTHER else f"{CALLED.get(e.op, e.op)}({', '.join(args)})", ATOM


def repeated(e: Expr, dims: Dims) -> list[str]:
    """Names of the axes along which a view repeats an array."""
    found: list[str] = []
    while e.op in SILENT:
        inner = e.args[0]
        if e.op == "view" and e.data is not None:
            found += [
                dims.of(n) for axis, n in enumerate(e.shape) if n != 1 and (axis not in e.data or inner.shape[e.data.index(axis)] == 1)
            ]
        e = inner
    return found


def _over(e: Expr, dims: Dims) -> str:
    """The names of the axes; nothing where it is all of them."""
    axes, shape = reduced(e)
    if len(axes) == len(shape) and len(axes) > 1:
        return ""
    return "_" + ",".join(dims.of(shape[axis]) for axis in axes)


def reduced(e: Expr) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes over which `e` goes, and the shape that has them."""
    axes = e.data if e.op not in ("concatenate", "cumsum") else (e.data if e.op == "concatenate" else e.data[0],)
    return axes, e.shape if e.op in ("repeat", "concatenate", "cumsum", "flip") else e.args[0].shape


def matrices(e: Expr) -> tuple[bool, bool] | None:
    """Of a product of two matrices or vectors: whether each is transposed. None for other products."""
    left, right, out = e.data
    if max(len(left), len(right), len(out)) > 2:
        return None
    summed = [i for i in left if i in right and i not in out]
    if len(summed) != 1 or len(out) != len(left) + len(right) - 2:
        return None
    forms = len(left) == 2 and left[0] == summed[0], len(right) == 2 and right[1] == summed[0]
    ordered = [i for i in (*left, *right) if i != summed[0]] == list(out)
    return forms if ordered else None


def summed_axes(e: Expr, dims: Dims) -> list[str] | None:
    """Names of the axes that a sum of products sums over, if every axis can be told by its name."""
    left, right, out = e.data
    size = dict(zip((*left, *right), (*e.args[0].shape, *e.args[1].shape), strict=True))
    if len({dims.of(n) for n in size.values()}) < len(size):
        return None
    return [dims.of(size[i]) for i in size if i not in out]


def _product(e: Expr, dims: Dims, inside: Callable[..., str]) -> tuple[str, int]:
    if (forms := matrices(e)) is not None:
        a, b = (inside(arg, PRODUCT + 1) + "^T" * turned for arg, turned in zip(e.args, forms, strict=True))
        return f"{a} @ {b}", PRODUCT
    axes = summed_axes(e, dims)
    a, b = (inside(arg, PRODUCT) for arg in e.args)
    if axes is None:
        left, right, out = ("".join(string.ascii_lowercase[i] for i in indices) for indices in e.data)
        return f"einsum({left},{right}->{out}; {a}, {b})", ATOM
    return (f"sum_{','.join(axes)}({a} * {b})", ATOM) if axes else (f"{a} * {b}", PRODUCT)


def number(value: float, dims: Dims) -> str:
    """A number, or the size that it is: "D", "1/sqrt(H)"."""
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    for size in dims.names:
        for of, text in ((size, "{}"), (1 / size, "1/{}"), (size**-0.5, "1/sqrt({})")):
            if size >= 5 and math.isclose(abs(value), of, rel_tol=1e-14):
                return "-" * (value < 0) + text.format(dims.of(size))
    return f"{value:.6g}"


def _exponent(value: float) -> str:
    return f"{value:g}" if value >= 0 else f"({value:g})"


def _bounds(e: Expr, shape: tuple[int, ...], dims: Dims) -> str:
    """Bounds by name where the axis's own size is made of the same names: 0:d and d:2*d of 2*d."""

    def bound(position: int, n: int) -> str:
        text = dims.of(position)
        (own,), (dim,) = parse(dims.of(n)), parse(text)
        return text if dim.names and set(dim.names) <= set(own.names) else str(position)

    parts = []
    for (start, stop, step), n in zip(e.data, shape, strict=True):
        whole = (start, stop, step) == (0, n, 1)
        parts.append(":" if whole else f"{bound(start, n)}:{bound(stop, n)}" + (f":{step}" if step != 1 else ""))
    return ", ".join(parts)


def upstream(e: Expr) -> list[int]:
    """Which operands of the pullback of a loop, or of one by JAX, are cotangents of its results: those that are not 0."""
    if e.op == "scan_back":
        return [len(e.args) - 1]
    return [k for k in range(len(e.data[0].invars), len(e.args)) if e.args[k].op != "number"]


LEAVES: dict[str, Callable[[Expr, Dims], str]] = {
    "name": lambda e, dims: e.data,
    "number": lambda e, dims: number(e.data, dims),
    "constant": lambda e, dims: e.data[0],
    "given": lambda e, dims: f"{e.data[0]}(...)",
    "iota": lambda e, dims: f"arange({dims.of(e.shape[e.data])})",
}
OTHER: dict[str, Callable[[Expr, Dims, list[str]], str]] = {
    "larger": lambda e, dims, args: f"[{args[0]} > {args[1]}]",
    "floated": lambda e, dims, args: f"[{args[0]}]",
    "transpose": lambda e, dims, args: f"{args[0]}^T" if len(e.shape) == 2 and e.args[0].op == "name" else f"transpose({args[0]})",
    "slice": lambda e, dims, args: f"{args[0]}[{_bounds(e, e.args[0].shape, dims)}]",
    "scattered": lambda e, dims, args: f"zeros.put([{_bounds(e, e.shape, dims)}], {args[0]})",
    "jax": lambda e, dims, args: (
        f"{e.data[0].primitive.name}({', '.join(args)})" + (f"[{e.data[1]}]" if len(e.data[0].outvars) > 1 else "")
    ),
    "scan": lambda e, dims, args: f"scan({', '.join(args)})" + (f"[{e.data[1]}]" if len(e.data[0].equation.outvars) > 1 else ""),
    "scan_back": lambda e, dims, args: f"vjp(scan, {args[e.data[2]]})({args[-1]})",
    "pullback": lambda e, dims, args: f"vjp({e.data[0].primitive.name}, {args[e.data[1]]})({', '.join(args[k] for k in upstream(e))})",
}
