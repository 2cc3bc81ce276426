"""A change of a rule's own program: other outputs of some steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from verify import engine
from verify._compat import enable_x64
from verify.backward.steps import Run, Step, Steps

Use = tuple[int, int]  # a step, and which of its operands
Places = dict[Any, list[int]]  # the steps of an equation: one, or one in each turn of a loop


@dataclass(frozen=True, kw_only=True)
class Change:
    """key: the same in every case; words: what follows "the gradient is right", made when they are wanted; at: other outputs of some steps, by number."""

    key: Any
    words: Callable[[], str]
    at: dict[int, Run]


def run(rule: Steps, at: dict[int, Run]) -> list[Any] | None:
    """The results with a change; None where its shapes do not fit."""
    try:
        with enable_x64(True), jax.default_device(engine.host()):
            return rule.again(at)
    except (TypeError, ValueError, IndexError, jax.errors.JaxRuntimeError):
        return None


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"  # a key is no array of NumPy's


def replaced(rule: Steps, uses: Sequence[Use], instead: Callable[[Any, Step], Any]) -> dict[int, Run]:
    """Some operands of some steps in another form; `instead(value, step)` may raise ValueError."""
    operands: dict[int, set[int]] = {}
    for i, operand in uses:
        operands.setdefault(i, set()).add(operand)

    def changed(i: int) -> Run:
        step = rule.steps[i]
        return lambda values: step.run([instead(value, step) if k in operands[i] else value for k, value in enumerate(values)])

    return {i: changed(i) for i in operands}
