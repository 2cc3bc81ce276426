"""A tape in fewer steps: what is needed, means, products in the wanted order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from verify.derive.expressions import Expr, einsum, leaves, name, substitute
from verify.derive.steps import Step, Tape


def tidied(tape: Tape) -> Tape:
    """The tape with only what its outputs need, in fewer steps."""
    for tidy in (_needed, _means, _ordered_products, _views_last, _needed):
        tidy(tape)
    return tape


def _uses(tape: Tape) -> dict[str, list[Step | None]]:
    """Name -> the steps that use it, once for each place; None for an output."""
    uses: dict[str, list[Step | None]] = {}
    for step in tape.steps:
        for leaf in leaves(step.value):
            uses.setdefault(leaf.data, []).append(step)
    for e in tape.outputs:
        for leaf in leaves(e):
            uses.setdefault(leaf.data, []).append(None)
    return uses


def _needed(tape: Tape) -> None:
    """Only what an output needs."""
    wanted = {leaf.data for e in tape.outputs for leaf in leaves(e)}
    kept = []
    for step in reversed(tape.steps):
        if step.name in wanted:
            kept.append(step)
            wanted |= {leaf.data for leaf in leaves(step.value)}
    tape.steps = kept[::-1]


def _fuse(tape: Tape, merge: Callable[[Expr, Expr], Expr | None]) -> None:
    """Where a step's only use is by another, `merge(its value, the other's value)` may make one of both."""
    uses, by_name, gone = _uses(tape), {step.name: step for step in tape.steps}, set()
    for position, step in enumerate(tape.steps):
        for used in dict.fromkeys(leaf.data for leaf in leaves(step.value)):
            if used in by_name and len(uses[used]) == 1 and (merged := merge(by_name[used].value, step.value)):
                tape.steps[position] = by_name[step.name] = replace(step, value=merged)
                gone.add(used)
    tape.steps = [step for step in tape.steps if step.name not in gone]


def _means(tape: Tape) -> None:
    """A sum divided by the number of what is summed."""

    def merge(inner: Expr, outer: Expr) -> Expr | None:
        if inner.op != "sum" or outer.op != "div" or outer.args[1].op != "number":
            return None
        count = int(np.prod([inner.args[0].shape[axis] for axis in inner.data]))
        if outer.args[1].data != count or next(leaves(outer.args[0])).shape != inner.shape:
            return None
        mean = replace(inner, op="mean")
        return substitute(outer.args[0], {next(leaves(outer)).data: mean})

    _fuse(tape, merge)


def _ordered_products(tape: Tape) -> None:
    """A transposed product is a product with its result's axes in another order."""

    def merge(inner: Expr, outer: Expr) -> Expr | None:
        if inner.op != "einsum" or outer.op != "transpose" or outer.args[0].op != "name":
            return None
        left, right, out = inner.data
        a, b = inner.args
        return einsum(a, b, (left, right, tuple(out[axis] for axis in outer.data)))

    _fuse(tape, merge)


def _views_last(tape: Tape) -> None:
    """A step that computes another form of a result computes the result; the form goes to where it is used."""
    by: dict[str, Expr] = {}
    steps = []
    for step in tape.steps:
        value = substitute(step.value, by)
        inner = value
        while inner.op == "view":
            inner = inner.args[0]
        steps.append(replace(step, value=inner))
        if inner is not value:
            by[step.name] = _rewrapped(value, inner, name(step.name, inner.shape))
    tape.steps = steps
    tape.outputs = [substitute(e, by) for e in tape.outputs]


def _rewrapped(value: Expr, inner: Expr, fresh: Expr) -> Expr:
    return fresh if value is inner else replace(value, args=(_rewrapped(value.args[0], inner, fresh),))
