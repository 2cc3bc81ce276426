"""What shapes alone say of a cotangent: which products, or ways of losing an axis, have the shape that it must have; and where a number decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from verify.derive.derivation import Derivation, compare
from verify.derive.example import Dims
from verify.derive.expressions import Expr, name, substitute
from verify.derive.notation import matrices, summed_axes, write
from verify.derive.reverse import Term
from verify.derive.values import evaluate

SQUARE = 4


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A product, the shapes of its factors, and what is wrong with it ("" where it has the wanted shape)."""

    formula: str
    shapes: tuple[str, str]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search for one argument's cotangent in one step.

    found: what the chain rule gives; square: formulas that are right if all sizes are equal, where every candidate has the shape; others: how many
    products with the operand itself there are, of which `others_fit` have the shape.
    """

    target: str
    shape: str
    step: int
    forward: str
    have: list[tuple[str, str]]
    candidates: list[Candidate]
    found: str
    square: list[str]
    others: int
    others_fit: list[str]


@dataclass(frozen=True, kw_only=True)
class Sum:
    """An argument that was repeated: ways to bring the cotangent to its shape, each with its distance from differences of the forward."""

    target: str
    shape: str
    step: int
    source: tuple[str, str]
    axes: str
    errors: list[tuple[str, float, bool]]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A product of arrays of more axes: which names the operand has, and which are therefore summed."""

    target: str
    shape: str
    step: int
    have: list[tuple[str, str]]
    summed: list[str]
    formula: str


def searches(d: Derivation) -> Iterator[Search | Sum | Axes]:
    """A search for each argument whose cotangent is a product of two matrices, or a sum; and the products of larger arrays."""
    for term in d.terms:
        e = term.value
        if e.op == "einsum" and not matrices(e) and (axes := summed_axes(e, d.dims)) is not None:
            have = [(write(arg, d.dims), d.dims.shape(arg.shape)) for arg in e.args]
            yield Axes(target=term.target, shape=d.dims.shape(e.shape), step=term.number, have=have, summed=axes, formula=write(e, d.dims))
    seen = set()
    same = aliases(d)
    for term in sorted(d.terms, key=lambda t: d.moving.index(t.operand) if t.operand in d.moving else len(d.moving)):
        if term.operand not in d.moving or term.operand in seen:
            continue
        e = term.value
        if e.op == "einsum" and matrices(e) and all(arg.op == "name" and len(arg.shape) == 2 for arg in (*e.args, *term.step.value.args)):
            seen.add(term.operand)
            yield _product(d, term, same.get(f"{term.step.name}_ct", f"{term.step.name}_ct"))
        elif e.op == "sum" and e.args[0].op == "name" and term.step.value.op in ("add", "sub"):
            seen.add(term.operand)
            yield _sum(d, term)


def aliases(d: Derivation) -> dict[str, str]:
    """Cotangents that are another one unchanged: h1_ct = y_ct."""
    values: dict[str, list[Expr]] = {}
    for term in d.terms:
        values.setdefault(term.target, []).append(term.value)
    found: dict[str, str] = {}
    for target, (value, *more) in values.items():
        if value.op == "name" and not more:
            found[target] = found.get(value.data, value.data)
    return found


def _product(d: Derivation, term: Term, upstream: str) -> Search:
    step, dims = term.step, d.dims
    x, w = step.value.args
    ct = name(upstream, step.value.shape)
    value = substitute(term.value, {f"{step.name}_ct": ct})
    operand, other = (x, w) if x.data == term.operand else (w, x)
    forms = {e.data: [(e.data, e.shape, False), (f"{e.data}^T", e.shape[::-1], True)] for e in (other, ct, operand)}
    pairs = list(_pairs(forms[other.data], forms[ct.data]))
    tried = [
        Candidate(formula=f"{a[0]} @ {b[0]}", shapes=(dims.shape(a[1]), dims.shape(b[1])), reason=_reason(a[1], b[1], operand.shape, dims))
        for a, b in pairs
    ]
    rest = [*_pairs(forms[operand.data], forms[ct.data]), *_pairs(forms[operand.data], forms[other.data])]
    fit = [f"{a[0]} @ {b[0]}" for a, b in rest if not _reason(a[1], b[1], operand.shape, dims)]
    return Search(
        target=term.target, shape=dims.shape(operand.shape), step=term.number, forward=f"{x.data} @ {w.data}",
        have=[(e.data, dims.shape(e.shape)) for e in (other, ct)], candidates=tried,
        found=next(f"{a[0]} @ {b[0]}" for a, b in pairs if _is(value, a, b)), square=_square(step.value, operand.data, pairs, ct.data),
        others=len(rest), others_fit=fit,
    )  # fmt: skip


Form = tuple[str, tuple[int, ...], bool]


def _pairs(first: Sequence[Form], second: Sequence[Form]) -> Iterator[tuple[Form, Form]]:
    yield from itertools.product(first, second)
    yield from itertools.product(second, first)


def _is(e: Expr, a: Form, b: Form) -> bool:
    forms = matrices(e)
    assert forms is not None
    return [(arg.data, turned) for arg, turned in zip(e.args, forms, strict=True)] == [
        (form[0].removesuffix("^T"), form[2]) for form in (a, b)
    ]


def _reason(a: tuple[int, ...], b: tuple[int, ...], wanted: tuple[int, ...], dims: Dims) -> str:
    if a[1] != b[0]:
        return f"inner sizes {dims.of(a[1])} and {dims.of(b[0])} differ"
    result = (a[0], b[1])
    return "" if result == wanted else f"gives {dims.shape(result)}"


def _square(forward: Expr, operand: str, pairs: Sequence[tuple[Form, Form]], ct: str) -> list[str]:
    """Which candidates are right where all sizes are equal: compared with differences of <ct, forward>, which are exact, as it is linear."""
    rng = np.random.default_rng(0)
    names = [arg.data for arg in forward.args]
    size = (SQUARE, SQUARE)
    env = {text: rng.integers(-9, 10, size) / 4 for text in (*names, ct)}
    square = Expr("einsum", tuple(name(text, size) for text in names), size, forward.data)
    want = differences(lambda changed: evaluate(square, {**env, operand: changed}), env[operand], env[ct])
    found = []
    for a, b in pairs:
        left, right = (env[form[0].removesuffix("^T")].T if form[2] else env[form[0]] for form in (a, b))
        if compare("", "", left @ right, want, 1.0).agrees:
            found.append(f"{a[0]} @ {b[0]}")
    return found


def differences(forward: Callable[[np.ndarray], np.ndarray], at: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """The gradient of <ct, forward(at)> by central differences of step 1: exact for a linear function."""
    found = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[index] = 1.0
        found[index] = np.vdot(ct, forward(at + step) - forward(at - step)) / 2
    return found


def _sum(d: Derivation, term: Term) -> Sum:
    source, value = term.value.args[0], term.step.value
    ct, axes = np.asarray(d.env[source.data]), term.value.data
    forward = lambda changed: evaluate(value, {**d.env, term.operand: changed})  # noqa: E731
    want = differences(forward, np.asarray(d.env[term.operand]), np.asarray(d.env[f"{term.step.name}_ct"]))
    errors = []
    for what, reduce in (("sum", np.sum), ("mean", np.mean), ("max", np.max)):
        compared = compare("", "", reduce(ct, axis=axes).reshape(want.shape), want, float(np.max(np.abs(ct))))
        errors.append((what, compared.error, compared.agrees))
    names = ", ".join(d.dims.of(source.shape[axis]) for axis in axes)
    return Sum(
        target=term.target, shape=d.dims.shape(want.shape), step=term.number, source=(aliases(d).get(source.data, source.data), d.dims.shape(source.shape)), axes=names, errors=errors
    )  # fmt: skip
