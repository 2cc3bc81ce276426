"""A tape backward: what each step's pullback adds to the cotangents of its operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify.derive.expressions import Expr, name
from verify.derive.pullbacks import pull
from verify.derive.steps import Step, Tape
from verify.derive.values import evaluate


@dataclass(frozen=True, kw_only=True)
class Term:
    """A line of the backward: what the pullback of a step adds to the cotangent of one of its operands."""

    step: Step
    number: int
    operand: str
    value: Expr
    first: bool

    @property
    def target(self) -> str:
        return f"{self.operand}_ct"


def backward(tape: Tape, moving: Sequence[str]) -> list[Term]:
    """The tape in reverse: a step whose result has a cotangent hands it to its operands."""
    moves = {*moving, *(step.name for step in tape.steps if step.moves)}
    reached = {y.data for y in tape.outputs}
    terms: list[Term] = []
    for number in range(len(tape.steps), 0, -1):
        step = tape.steps[number - 1]
        if step.name not in reached or step.name not in moves:
            continue
        y = name(step.name, step.value.shape)
        for operand, ct in pull(step.value, y, name(f"{step.name}_ct", y.shape)):
            if operand in moves:
                terms.append(Term(step=step, number=number, operand=operand, value=ct, first=operand not in reached))
                reached.add(operand)
    return terms


def run(terms: Sequence[Term], env: Mapping[str, Any]) -> dict[str, Any]:
    """All values, and the cotangents that the terms make of them, in order."""
    found = dict(env)
    for term in terms:
        value = evaluate(term.value, found)
        found[term.target] = value if term.first else found[term.target] + value
    return found
