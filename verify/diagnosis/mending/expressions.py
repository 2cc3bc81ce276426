"""Changes of what an equation computes: the factor of a term, another number, a slip undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from verify.backward import edits
from verify.backward.steps import Run, Step, Steps
from verify.diagnosis.evidence import Evidence
from verify.diagnosis.factors import fitted, is_number, readings
from verify.diagnosis.intermediates import lettered
from verify.diagnosis.mending.change import Change, Places, is_float, replaced, run
from verify.diagnosis.mending.source import place

SLIGHT = ("round", "constant")  # edits that are tried as constants, or mend nothing in float64
ROUNDING = 1e-9  # below, a factor is 0


def terms(rule: Steps, e: Evidence, places: Places) -> Iterator[Change]:
    """A part of a cotangent times a number. The cotangents are linear in that part, so one run without it tells which number.

    Of a chain of products each has the same factor: the last one comes first, whose result is nearest to what is wrong.
    """
    for key, at in reversed(places.items()):
        without = run(rule, {i: _times(rule.steps[i].run, 0.0) for i in at})
        m = None if without is None else fitted(e, without[-len(e.got) :], e.got, e.want)
        if m is None:
            continue
        names = ["0"] if abs(m) < ROUNDING else [f"{'-' if m < 0 else ''}{name}" for name in readings(e, abs(m))]
        for name in names:
            if name in ("0", "-1") or (name != "1" and not is_number(name.lstrip("-"))):
                at_all = {i: _times(rule.steps[i].run, m) for i in at}
                yield Change(key=("term", name, key), words=partial(_scaled, rule.steps[at[0]], name), at=at_all)


def _scaled(step: Step, factor: str) -> str:
    words = {"0": "is left out", "-1": "has the other sign"}.get(factor, f"is multiplied by {factor}")
    return f"if what the {place(step)} gives {lettered(words)}"


def _times(plain: Run, m: float) -> Run:
    return lambda values: [value * m if is_float(value) else value for value in plain(values)]


def sizes_and_options(rule: Steps, e: Evidence, places: Places) -> Iterator[Change]:
    """A size or an option in the place of a number, which another may have made."""
    sizes = {name: float(size) for name, size in e.observation.case.sizes.items() if isinstance(size, int)}
    options = {name: float(v) for name, v in e.observation.case.options.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    named = options | sizes | {f"{name} - 1": n - 1 for name, n in sizes.items()} | {f"{name} + 1": n + 1 for name, n in sizes.items()}
    return _numbers(rule, places, lambda c: {name: (f"{name}, {value:g}", value) for name, value in named.items()})


def constants(rule: Steps, places: Places) -> Iterator[Change]:
    """A number of the source with another sign, doubled, halved or one off."""
    return _numbers(rule, places, lambda c: {f"{other:g}": (f"{other:g}", other) for other in (-c, 2 * c, c / 2, c + 1, c - 1)})


def _numbers(rule: Steps, places: Places, others: Callable[[float], dict[str, tuple[str, float]]]) -> Iterator[Change]:
    for key, at in places.items():
        for operand, slot in enumerate(rule.steps[at[0]].inputs):
            value = rule.values[slot]
            if rule.names[slot][0][0] != "literal" or not is_float(value):
                continue
            for name, (told, other) in others(float(value)).items():
                if other != value:
                    words = partial("if the number {:g} of the {} is {}".format, float(value), place(rule.steps[at[0]]), told)
                    at_all = replaced(rule, [(i, operand) for i in at], lambda value, step, other=other: np.full_like(value, other))
                    yield Change(key=("number", name, key, operand), words=words, at=at_all)


def undone(rule: Steps, places: Places) -> Iterator[Change]:
    """The slips that a backward may hold, as changes of what stands there."""
    for key, at in places.items():
        for name in edits.edits_of(rule.steps[at[0]].equation):
            if any(word in name for word in SLIGHT):
                continue
            fitting = [i for i in at if name in edits.edits_of(rule.steps[i].equation)]
            words = partial("with one change of the {}: {}".format, place(rule.steps[at[0]]), name)
            yield Change(key=("slip", name, key), words=words, at={i: _edited(name, rule.steps[i].equation) for i in fitting})


def _edited(name: str, equation: Any) -> Run:
    return lambda values: [np.asarray(value) for value in edits.edited(name, equation, values)]
