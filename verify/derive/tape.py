"""A function's jaxpr as a tape: one formula for each equation that matters, in the order in which they are computed.

What a reader would not write is left out: conversions, changes of shape that only add or drop axes of size 1, broadcasts (an operand says by its
shape along which axes it is repeated), arithmetic of constants, selects that take the same branch everywhere in several runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.extend import core

from verify import _compat
from verify.derive import primitives
from verify.derive.expressions import Expr, in_place, name, number, view
from verify.derive.steps import Loop, Step, Tape
from verify.derive.tidy import tidied
from verify.derive.values import is_key

INLINE = ("compare", "not")  # written where they are used
CALLS = (*_compat.CALLS, "checkpoint", "remat2")


@dataclass
class _Known:
    """What is known of a variable of the jaxpr: its formula, its values in each run, what it depends on."""

    formula: Expr
    values: list[Any]
    given: bool  # depends on an argument
    moves: bool  # depends on a differentiable argument


def record(jaxpr: Any, inputs: Sequence[Expr], runs: Sequence[Sequence[Any]], moving: int) -> Tape:
    """The tape of a jaxpr. `runs` are several values of all inputs, of which the first `moving` are differentiated."""
    builder = _Builder(len(runs))
    known = [_Known(e, list(values), True, k < moving) for k, (e, values) in enumerate(zip(inputs, zip(*runs, strict=True), strict=True))]
    outputs = [
        view(out.formula, np.shape(out.values[0]), ()) if out.formula.op == "number" and np.ndim(out.values[0]) else out.formula
        for out in builder.run(_compat.closed(jaxpr), known)
    ]
    return tidied(Tape(list(inputs), builder.steps, outputs, builder.taken, builder.places))


class _Builder:
    def __init__(self, runs: int, numbers: Iterator[int] | None = None, fold: bool = True) -> None:
        self.runs, self.fold = runs, fold
        self.numbers = numbers or itertools.count()
        self.steps: list[Step] = []
        self.taken: list[tuple[Expr, bool]] = []
        self.places: list[tuple[Any, Expr]] = []
        self.seen: dict[Any, Expr] = {}

    def run(self, jaxpr: Any, args: Sequence[_Known], outer: tuple[Any, ...] = ()) -> list[_Known]:
        env: dict[Any, _Known] = dict(zip(jaxpr.jaxpr.invars, args, strict=True))
        for var, value in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
            env[var] = self.constant(value)

        def read(atom: Any) -> _Known:
            return self.constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None))) if isinstance(atom, core.Literal) else env[atom]

        for equation in jaxpr.jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            inner = _inner(equation)
            lines = (*outer, equation)
            results = self.run(_compat.closed(inner), operands, lines) if inner is not None else self.equation(equation, operands)
            env |= dict(zip(equation.outvars, results, strict=True))
            if inner is None:
                self.places.append((lines, results[0].formula))
        return [read(atom) for atom in jaxpr.jaxpr.outvars]

    def constant(self, value: Any) -> _Known:
        array = np.asarray(value) if not is_key(value) else value
        plain = not is_key(value) and array.dtype.kind in "fiub" and array.size and (array == array.flat[0]).all()
        formula = number(array.flat[0].item()) if plain else Expr("constant", shape=tuple(np.shape(value)), data=("constant", array))
        long = [axis for axis, n in enumerate(formula.shape) if n > 1]
        if formula.op == "constant" and len(long) == 1 and array.dtype.kind in "iu" and (array.ravel() == np.arange(array.size)).all():
            formula = Expr("iota", shape=array.shape, data=long[0])
        return _Known(formula, [value] * self.runs, False, False)

    def equation(self, equation: Any, operands: list[_Known]) -> list[_Known]:
        given, moves = any(o.given for o in operands), any(o.moves for o in operands)
        if not given:
            return [self.constant(value) for value in primitives.compute(equation, [o.values[0] for o in operands])]
        runs = [primitives.compute(equation, [o.values[k] for o in operands]) for k in range(self.runs)]
        looped = equation.primitive.name == "scan" and equation.params["length"] > 0 and moves
        loop = Loop(equation, self.body(equation, operands)) if looped else None
        found = []
        for k, var in enumerate(equation.outvars):
            values = [run[k] for run in runs]
            floating = np.issubdtype(var.aval.dtype, np.inexact)
            formula = self.same_branch(equation, operands) or primitives.formula(equation, [o.formula for o in operands], k)
            if loop is not None:
                formula = Expr("scan", formula.args, formula.shape, (loop, k))
            if formula.op in ("jax", "scan") and not (moves and floating) and self.fold:  # not differentiated: only its value counts
                formula = Expr("given", shape=formula.shape, data=(equation.primitive.name, values[0]))
            found.append(_Known(self.named(formula, moves and floating), values, True, moves and floating))
        return found

    def body(self, equation: Any, operands: list[_Known]) -> Tape:
        """One step of a scan: with constants as they are called outside, carries c1, c2, ... and slices x_t of x."""
        fixed, carried = _compat.scan_parts(equation.params)
        known: list[_Known] = []
        for k, (operand, var) in enumerate(zip(operands, _compat.closed(equation.params["jaxpr"]).in_avals, strict=True)):
            called = operand.formula.data if operand.formula.op == "name" else None
            if k < fixed:
                label = called or f"k{k + 1}"
            elif k < fixed + carried:
                label = f"c{k - fixed + 1}"
            else:
                label = f"{called}@t" if called else f"x{k - fixed - carried + 1}_t"
            if any(label == other.formula.data for other in known):
                label = f"{label}{k}"
            values = [np.asarray(v)[0] if k >= fixed + carried else v for v in operand.values]  # a step is as good as any to trace it
            constant = k < fixed and operand.formula.op == "number"
            formula = operand.formula if constant else name(label, var.shape)
            known.append(_Known(formula, values, not constant, bool(np.issubdtype(var.dtype, np.floating)) and not constant))
        inner = _Builder(self.runs, self.numbers, fold=False)
        outputs = [out.formula for out in inner.run(_compat.closed(equation.params["jaxpr"]), known)]
        return tidied(Tape([k.formula for k in known], inner.steps, outputs, inner.taken, inner.places))

    def same_branch(self, equation: Any, operands: list[_Known]) -> Expr | None:
        """The branch that a select takes everywhere in all runs."""
        if equation.primitive.name != "select_n" or (operands[0].given and not self.fold):
            return None
        taken = {np.asarray(v).flat[0].item() for v in operands[0].values if np.size(v)}
        if len(taken) != 1 or not all((np.asarray(v) == next(iter(taken))).all() for v in operands[0].values):
            return None
        if operands[0].given:
            self.taken.append((operands[0].formula, bool(next(iter(taken)))))
        branch = operands[1 + int(next(iter(taken)))].formula
        return primitives.spread(branch, tuple(equation.outvars[0].aval.shape))

    def named(self, formula: Expr, moves: bool) -> Expr:
        """The formula if it is written in place, else the name of a step, of the same step if the formula was there before."""
        if in_place(formula) or formula.op in INLINE:
            return formula
        if formula.op == "view":
            return replace(formula, args=(self.named(formula.args[0], moves),))
        key = primitives.key(formula)
        if key not in self.seen:
            self.steps.append(Step(f"%{next(self.numbers)}", formula, moves))
            self.seen[key] = name(self.steps[-1].name, formula.shape)
        return self.seen[key]


def _inner(equation: Any) -> Any:
    if equation.primitive.name not in CALLS:
        return None
    return next((equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params), None)
