"""Formulas as MathML, which browsers draw by themselves. The same trees as in `notation`, with the same names."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from html import escape

from verify.derive import notation
from verify.derive.example import Dims
from verify.derive.expressions import SILENT, Expr
from verify.derive.notation import ALIGNED, OVER, POWER, PRODUCT, SIGN, SUM, matrices, reduced, repeated, summed_axes, upstream

ATOM, LOGIC = notation.ATOM, notation.LOGIC
SIGNS = {"add": "+", "sub": "−", "mul": "⊙", "and": "∧", "or": "∨"}
COMPARED = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "=", "<": "&lt;", ">": "&gt;"}
STYLE = 'displaystyle="true"'
Inside = Callable[..., str]


def equation(target: str, sign: str, e: Expr, dims: Dims) -> str:
    """`target = e` as a <math> element."""
    return f"<math {STYLE}><mrow>{name(target)}<mo>{escape(sign)}</mo>{_top(e, dims)}</mrow></math>"


def formula(e: Expr, dims: Dims) -> str:
    """`e` as a <math> element."""
    return f"<math {STYLE}>{_top(e, dims)}</math>"


def name(text: str) -> str:
    """A variable: x_ct has ct below, h12 its number, y'' its primes.

    >>> name("h2_ct")
    '<msub><mi>h</mi><mrow><mn>2</mn><mo>,</mo><mtext>ct</mtext></mrow></msub>'
    """
    base, ct = text.removesuffix("_ct"), text.endswith("_ct")
    base, primes = base.rstrip("'"), "′" * (len(base) - len(base.rstrip("'")))
    found = (
        re.fullmatch(r"([A-Za-z]+?)_?(\d+|[a-z]{1,6})?", base)
        if re.fullmatch(r"[A-Za-z]+(\d+|_[a-z]+)", base) and not base.startswith("next_")
        else None
    )
    letter, below = (found[1], found[2]) if found else (base, None)
    body = f"<mi>{escape(letter)}</mi>"
    if primes:
        body = f'<mrow>{body}<mo lspace="0" rspace="0">{primes}</mo></mrow>'
    under = ([f"<mn>{below}</mn>" if below.isdigit() else f"<mtext>{below}</mtext>"] if below else []) + ["<mtext>ct</mtext>"] * ct
    if not under:
        return body
    low = "<mo>,</mo>".join(under)
    return f"<msub>{body}<mrow>{low}</mrow></msub>" if len(under) > 1 else f"<msub>{body}{low}</msub>"


def _top(e: Expr, dims: Dims) -> str:
    new = repeated(e, dims)
    text = _write(e, dims)[0]
    return f"<mrow>{_under('repeat', new)}{_called(text)}</mrow>" if new else text


def _called(*args: str) -> str:
    return "<mrow><mo>(</mo>" + "<mo>,</mo>".join(args) + "<mo>)</mo></mrow>"


def _under(word: str, axes: list[str]) -> str:
    body = f"<mo>{word}</mo>" if word == "∑" else f"<mi>{word}</mi>"
    return f"<munder>{body}<mtext>{escape(', '.join(axes))}</mtext></munder>" if axes else body


def _write(e: Expr, dims: Dims) -> tuple[str, int]:
    def inside(arg: Expr, least: int = 0) -> str:
        text, strength = _write(arg, dims)
        return text if strength >= least else _called(text)

    def explicit(arg: Expr) -> str:
        new = repeated(arg, dims)
        return f"<mrow>{_under('repeat', new)}{_called(inside(arg))}</mrow>" if new else inside(arg)

    while e.op in SILENT and not (e.op == "floated" and e.args[0].op == "compare"):
        e = e.args[0]
    if e.op in WRITTEN:
        return WRITTEN[e.op](e, dims, inside)
    args = [inside(arg) if e.op in ALIGNED else explicit(arg) for arg in e.args]
    if e.op in OVER:
        axes, shape = reduced(e)
        names = [] if len(axes) == len(shape) > 1 else [dims.of(shape[axis]) for axis in axes]
        if e.op == "sum" and len(axes) == len(shape) > 1:
            names = [dims.of(n) for n in shape]
        word = {"sum": "∑", "prod": "∏", "concatenate": "concat"}.get(e.op, e.op)
        atom = _strength(e.args[0], dims) >= ATOM and e.op == "sum"
        body = args[0] if atom else _called(*args, *(["<mtext>from the end</mtext>"] if e.op == "cumsum" and e.data[1] else []))
        return f"<mrow>{_under(word, names)}{body}</mrow>", PRODUCT if e.op == "sum" else ATOM
    return OTHER.get(e.op, _function)(e, dims, args), ATOM


def _strength(e: Expr, dims: Dims) -> int:
    return _write(e, dims)[1]


def _infix(left: int, right: int, result: int) -> Callable[[Expr, Dims, Inside], tuple[str, int]]:
    def write(e: Expr, dims: Dims, inside: Inside) -> tuple[str, int]:
        a, b = e.args
        sign = f"<mo>{SIGNS[e.op]}</mo>"
        if e.op == "mul" and (not a.shape or not b.shape):
            sign = '<mspace width="0.2em"/>' if a.op == "number" else "<mo>·</mo>"
        return f"<mrow>{inside(a, left)}{sign}{inside(b, right)}</mrow>", result

    return write


def _power(e: Expr, dims: Dims, inside: Inside) -> tuple[str, int]:
    exponent = f"<mn>{e.data:g}</mn>" if e.op == "power" else inside(e.args[1])
    return f"<msup>{inside(e.args[0], ATOM)}{exponent}</msup>", POWER


def _einsum(e: Expr, dims: Dims, inside: Inside) -> tuple[str, int]:
    if (forms := matrices(e)) is not None:
        factors = [
            f"<msup>{inside(arg, ATOM)}<mo>⊤</mo></msup>" if turned else inside(arg, PRODUCT + 1)
            for arg, turned in zip(e.args, forms, strict=True)
        ]
        return "<mrow>" + '<mspace width="0.25em"/>'.join(factors) + "</mrow>", PRODUCT
    axes = summed_axes(e, dims)
    a, b = (inside(arg, PRODUCT) for arg in e.args)
    if axes is None:
        left, right, out = ("".join(string.ascii_lowercase[i] for i in indices) for indices in e.data)
        return f"<mrow><mtext>einsum {left},{right}→{out}</mtext>{_called(a, b)}</mrow>", ATOM
    product = f"<mrow>{a}<mo>⊙</mo>{b}</mrow>"
    return (f"<mrow>{_under('∑', axes)}{_called(product)}</mrow>", PRODUCT) if axes else (product, PRODUCT)


def _number(e: Expr, dims: Dims, inside: Inside) -> tuple[str, int]:
    text = notation.number(e.data, dims)
    if found := re.fullmatch(r"(-?)1/sqrt\((.+)\)", text):
        return (
            f"<mrow>{'<mo>−</mo>' * bool(found[1])}<mfrac><mn>1</mn><msqrt><mtext>{escape(found[2])}</mtext></msqrt></mfrac></mrow>",
            PRODUCT,
        )
    if found := re.fullmatch(r"(\d(?:\.\d+)?)e([+-]\d+)", text):
        mantissa = "" if found[1] == "1" else f"<mn>{found[1]}</mn><mo>·</mo>"
        return f"<mrow>{mantissa}<msup><mn>10</mn><mn>{int(found[2])}</mn></msup></mrow>".replace("<mn>-", "<mn>−"), PRODUCT
    tag = "mn" if re.fullmatch(r"-?[\d.]+", text) else "mtext"
    return f"<{tag}>{escape(text).replace('-', '−')}</{tag}>", SIGN if text.startswith("-") else ATOM


def _where(e: Expr, dims: Dims, inside: Inside) -> tuple[str, int]:
    condition, a, b = (inside(arg) for arg in e.args)
    rows = f"<mtr><mtd>{a}</mtd><mtd><mrow><mtext>if\u00a0</mtext>{condition}</mrow></mtd></mtr><mtr><mtd>{b}</mtd><mtd><mtext>otherwise</mtext></mtd></mtr>"
    return f'<mrow><mo>{{</mo><mtable columnalign="left left">{rows}</mtable></mrow>', SUM


def _function(e: Expr, dims: Dims, args: list[str]) -> str:
    word = notation.CALLED.get(e.op, e.op)
    return f"<mrow><mi>{escape(word)}</mi>{_called(*args)}</mrow>"


def _equation(what: str, outputs: int, output: int, args: list[str]) -> str:
    which = f"<mo>[</mo><mn>{output}</mn><mo>]</mo>" if outputs > 1 else ""
    return f"<mrow><mtext>{escape(what)}</mtext>{_called(*args)}{which}</mrow>"


def _vjp(what: str, operand: str, cts: list[str]) -> str:
    return f"<mrow><msub><mi>vjp</mi><mrow><mtext>{escape(what)}</mtext><mo>,</mo>{operand}</mrow></msub>{_called(*cts)}</mrow>"


def _as_text(e: Expr, dims: Dims, args: list[str]) -> str:
    """What mathematics has no sign for, as in the text."""
    return f"<mtext>{escape(notation.write(e, dims))}</mtext>"


WRITTEN: dict[str, Callable[[Expr, Dims, Inside], tuple[str, int]]] = {
    "add": _infix(SUM, SUM, SUM),
    "sub": _infix(SUM, PRODUCT, SUM),
    "mul": _infix(PRODUCT, PRODUCT, PRODUCT),
    "and": _infix(LOGIC + 1, LOGIC + 1, LOGIC),
    "or": _infix(LOGIC + 1, LOGIC + 1, LOGIC),
    "div": lambda e, dims, inside: (f"<mfrac>{inside(e.args[0])}{inside(e.args[1])}</mfrac>", PRODUCT + 1),
    "neg": lambda e, dims, inside: (f"<mrow><mo>−</mo>{inside(e.args[0], PRODUCT)}</mrow>", SIGN),
    "power": _power,
    "pow": _power,
    "compare": lambda e, dims, inside: (f"<mrow>{inside(e.args[0], SUM)}<mo>{COMPARED[e.data]}</mo>{inside(e.args[1], SUM)}</mrow>", LOGIC),
    "einsum": _einsum,
    "number": _number,
    "where": _where,
    "name": lambda e, dims, inside: (name(e.data), ATOM),
    "constant": lambda e, dims, inside: (f"<mtext>{escape(e.data[0])}</mtext>", ATOM),
    "given": lambda e, dims, inside: (f"<mtext>{escape(notation.write(e, dims))}</mtext>", ATOM),
    "iota": lambda e, dims, inside: (f"<mtext>{escape(notation.write(e, dims))}</mtext>", ATOM),
}
OTHER: dict[str, Callable[[Expr, Dims, list[str]], str]] = {
    "exp": lambda e, dims, args: f"<msup><mi>e</mi>{args[0]}</msup>",
    "sqrt": lambda e, dims, args: f"<msqrt>{args[0]}</msqrt>",
    "abs": lambda e, dims, args: f"<mrow><mo>|</mo>{args[0]}<mo>|</mo></mrow>",
    "larger": lambda e, dims, args: f"<mrow><mo>[</mo>{args[0]}<mo>&gt;</mo>{args[1]}<mo>]</mo></mrow>",
    "floated": lambda e, dims, args: f"<mrow><mo>[</mo>{args[0]}<mo>]</mo></mrow>",
    "transpose": lambda e, dims, args: (
        f"<msup>{args[0]}<mo>⊤</mo></msup>" if e.args[0].op == "name" and len(e.shape) == 2 else _function(e, dims, args)
    ),
    "slice": _as_text,
    "scattered": _as_text,
    "jax": lambda e, dims, args: _equation(e.data[0].primitive.name, len(e.data[0].outvars), e.data[1], args),
    "pullback": lambda e, dims, args: _vjp(e.data[0].primitive.name, args[e.data[1]], [args[k] for k in upstream(e)]),
    "scan": lambda e, dims, args: _equation("scan", len(e.data[0].equation.outvars), e.data[1], args),
    "scan_back": lambda e, dims, args: _vjp("scan", args[e.data[2]], args[-1:]),
}
