"""Changes of a rule's own program that may mend it: the factor of a term, a constant, a slip undone, another value in the place of one.

The likeliest come first. Each is named by the line of the user's source on which it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from verify import engine
from verify._compat import enable_x64
from verify.backward import edits
from verify.backward.steps import Run, Step, Steps
from verify.diagnosis.evidence import Evidence
from verify.diagnosis.factors import WHOLE, readings
from verify.diagnosis.source import code_line, lines_alone, place, sentence

Use = tuple[int, int]  # a step, and which of its operands
Places = dict[Any, list[int]]  # the steps of an equation: one, or one in each turn of a loop
SLIGHT = ("round", "constant")  # edits that are tried as constants, or mend nothing in float64
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "select_n", "max", "min")
ROUNDING = 1e-9  # below, a factor is 0
FORM = "form"
NAMELESS = ("literal", "constant", "result", "row")


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


def changes(rule: Steps, e: Evidence) -> Iterator[Change]:
    """All that are tried. What the primal is made of stays."""
    free = sorted(rule.before(rule.results[-len(e.got) :]) - rule.before(rule.results[: -len(e.got)]))
    linear = rule.after([slot for slot, (name, _) in enumerate(rule.names) if name[0] == "upstream cotangent"])
    places: Places = {}
    for i in free:
        if rule.steps[i].equation is not None:
            places.setdefault(rule.steps[i].key, []).append(i)
    compared = {key: at for key, at in places.items() if key[1] in COMPARISONS}
    computed = {key: at for key, at in places.items() if key[1] not in COMPARISONS}
    yield from _undone(rule, compared)
    yield from _sizes_and_options(rule, e, computed)
    yield from _terms(rule, e, {key: at for key, at in places.items() if at[0] in linear})
    yield from _constants(rule, places)
    yield from _undone(rule, computed)
    yield from _forgotten(rule, free)
    yield from _reductions(rule, places)
    yield from _functions(rule, free)
    yield from _other_values(rule, free)  # the most by far


def _terms(rule: Steps, e: Evidence, places: Places) -> Iterator[Change]:
    """A part of a cotangent times a number. The cotangents are linear in that part, so one run without it tells which number.

    Of a chain of products each has the same factor: the last one comes first, whose result is nearest to what is wrong.
    """
    for key, at in reversed(places.items()):
        without = run(rule, {i: _times(rule.steps[i].run, 0.0) for i in at})
        m = None if without is None else _factor(e, without[-len(e.got) :])
        if m is None:
            continue
        names = ["0"] if abs(m) < ROUNDING else [f"{'-' if m < 0 else ''}{name}" for name in readings(e, abs(m))]
        for name in names:
            if name != "1" and not _is_odd(name):
                words = {"0": "is left out", "-1": "has the other sign"}.get(name, f"is multiplied by {name}")
                at_all = {i: _times(rule.steps[i].run, m) for i in at}
                yield Change(
                    key=("term", name, key), words=partial("if what the {} gives {}".format, place(rule.steps[at[0]]), words), at=at_all
                )


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"  # a key is no array of NumPy's


def _times(plain: Run, m: float) -> Run:
    return lambda values: [value * m if _is_float(value) else value for value in plain(values)]


def _factor(e: Evidence, without: Sequence[np.ndarray]) -> float | None:
    """m, such that without + m (got - without) is the right gradient, by least squares; None where that depends on nothing."""
    above = below = 0.0
    for part, got, want, known in zip(without, e.got, e.want, e.known, strict=True):
        unit = float(np.max(np.abs(want), where=known, initial=0.0)) or 1.0
        above += float(np.sum((want - part) / unit * ((got - part) / unit), where=known))
        below += float(np.sum(((got - part) / unit) ** 2, where=known))
    return above / below if below > 0 and np.isfinite([above, below]).all() else None


def _is_odd(name: str) -> bool:
    """A number that is no size, no option and no slip by itself."""
    plain = name.lstrip("-")
    return plain not in ("0", "1", *WHOLE) and plain.replace(".", "", 1).replace("e-", "", 1).replace("e+", "", 1).isdigit()


def _sizes_and_options(rule: Steps, e: Evidence, places: Places) -> Iterator[Change]:
    """A size or an option in the place of a number, which another may have made."""
    sizes = {name: float(size) for name, size in e.observation.case.sizes.items() if isinstance(size, int)}
    options = {name: float(v) for name, v in e.observation.case.options.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    named = options | sizes | {f"{name} - 1": n - 1 for name, n in sizes.items()} | {f"{name} + 1": n + 1 for name, n in sizes.items()}
    return _numbers(rule, places, lambda c: {name: (f"{name}, {value:g}", value) for name, value in named.items()})


def _constants(rule: Steps, places: Places) -> Iterator[Change]:
    """A number of the source with another sign, doubled, halved or one off."""
    return _numbers(rule, places, lambda c: {f"{other:g}": (f"{other:g}", other) for other in (-c, 2 * c, c / 2, c + 1, c - 1)})


def _numbers(rule: Steps, places: Places, others: Callable[[float], dict[str, tuple[str, float]]]) -> Iterator[Change]:
    for key, at in places.items():
        for operand, slot in enumerate(rule.steps[at[0]].inputs):
            value = rule.values[slot]
            if rule.names[slot][0][0] != "literal" or not _is_float(value):
                continue
            for name, (told, other) in others(float(value)).items():
                if other != value:
                    words = partial("if the number {:g} of the {} is {}".format, float(value), place(rule.steps[at[0]]), told)
                    at_all = _replaced(rule, [(i, operand) for i in at], lambda value, slot, step, other=other: np.full_like(value, other))
                    yield Change(key=("number", name, key, operand), words=words, at=at_all)


def _undone(rule: Steps, places: Places) -> Iterator[Change]:
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


def _forgotten(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
    """A value that is computed and never used, added to one of its shape."""
    unused = sorted(set(range(len(rule.steps))) - rule.before(rule.results))
    made: dict[Any, list[int]] = {}
    for slot in (slot for i in unused for slot in rule.steps[i].outputs if _is_float(rule.values[slot])):
        made.setdefault(rule.names[slot][0], []).append(slot)
    for name, key, where, uses in _groups(rule, free) if made else ():
        old = rule.values[_slot(rule, uses[0])]
        for other, slots in made.items():
            if other[0] not in NAMELESS and rule.values[slots[0]].shape == old.shape:
                at = _replaced(rule, uses, lambda value, slot, step, slots=slots: value + _made_before(rule, slots, step))
                words = sentence(rule, f"if {where} adds ", slots[0], ", which is computed and never used, to ", _slot(rule, uses[0]))
                yield Change(key=("forgotten", other, name, key), words=words, at=at)


def _reductions(rule: Steps, places: Places) -> Iterator[Change]:
    """All sums of a line over one axis more."""
    lines: dict[str, list[int]] = {}
    for key, at in places.items():
        if key[1] == "reduce_sum":
            lines.setdefault(lines_alone(key[0]), []).extend(at)
    for source, at in lines.items():
        for k in range(max(rule.values[rule.steps[i].outputs[0]].ndim for i in at)):
            for name, reduce in (("summed", np.sum), ("averaged", np.mean)):
                if all(_along(reduce, rule.values[rule.steps[i].outputs[0]], k) is not None for i in at):
                    words = partial(
                        "if what is summed in {} is {} along axis {} of the result, too".format,
                        code_line(source) or "the backward",
                        name,
                        k,
                    )
                    yield Change(
                        key=("reduction", name, k, source), words=words, at={i: _further(rule.steps[i].run, reduce, k) for i in at}
                    )


def _further(plain: Run, reduce: Callable[..., np.ndarray], axis: int) -> Run:
    return lambda values: [_along(reduce, value, axis) for value in plain(values)]


def _other_values(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
    """Another value of the same shape in the place of one, the last that was made before it first."""
    made: dict[Any, list[int]] = {}
    for slot, (name, _) in enumerate(rule.names):
        if name[0] not in NAMELESS:
            made.setdefault(name, []).append(slot)
    for name, key, where, uses in _groups(rule, free):
        old = rule.values[_slot(rule, uses[0])]
        for other, slots in reversed(made.items()):
            new = rule.values[slots[0]]
            if other != name and new.shape == old.shape and new.dtype == old.dtype:
                at = _replaced(rule, uses, lambda value, slot, step, slots=slots: _made_before(rule, slots, step))
                words = sentence(rule, f"if {where} takes ", slots[0], " in the place of ", _slot(rule, uses[0]))
                yield Change(key=("value", other, name, key), words=words, at=at)


def _functions(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
    """A function of a value in its place."""
    for name, key, where, uses in _groups(rule, free):
        slot = _slot(rule, uses[0])
        for form, function in FORMS.items():
            before, after = form.split("{}")
            if function(rule.values[slot]) is not None:
                at = _replaced(rule, uses, lambda value, slot, step, function=function: function(value))
                words = sentence(rule, f"if {where} takes {before}", slot, f"{after} in its place")
                yield Change(key=(FORM, form, name, key), words=words, at=at)


def _square(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray | None]:
    return lambda x: function(x) if x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1 else None


def _along(reduce: Callable[..., np.ndarray], x: np.ndarray, axis: int) -> np.ndarray | None:
    return np.broadcast_to(reduce(x, axis=axis, keepdims=True), x.shape) if x.ndim > axis and x.shape[axis] > 1 else None


def _turned(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2)


FORMS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "the transpose of {}": _square(_turned),
    "minus {}": np.negative,
    "the square of {}": np.square,
    "the square root of {}": np.sqrt,
    "1 / {}": lambda x: 1 / x,
    "1 - {}": lambda x: 1 - x,
    "the exponential of {}": np.exp,
    "the sum of {} and its transpose": _square(lambda x: x + _turned(x)),
    "the difference of {} and its transpose": _square(lambda x: x - _turned(x)),
    "the lower triangle of {}": _square(np.tril),
    "the lower triangle with half of the diagonal of {}": _square(lambda x: (np.tril(x) + np.tril(x, -1)) / 2),
    **{f"{{}} reversed along axis {k}": lambda x, k=k: np.flip(x, k) if x.ndim > k and x.shape[k] > 1 else None for k in range(3)},
    **{f"the sum along axis {k} of {{}}": lambda x, k=k: _along(np.sum, x, k) for k in range(3)},
    **{f"the mean along axis {k} of {{}}": lambda x, k=k: _along(np.mean, x, k) for k in range(3)},
}


def _groups(rule: Steps, free: Sequence[int]) -> Iterator[tuple[Any, Any, str, list[Use]]]:
    """(name of a value, key, place in words, uses): all of them, those on each line, in each equation, each alone; none twice."""
    by_name: dict[Any, list[Use]] = {}
    for i in free:
        for operand, slot in enumerate(rule.steps[i].inputs):
            if rule.names[slot][0][0] not in ("literal", "row") and _is_float(rule.values[slot]) and rule.values[slot].size:
                by_name.setdefault(rule.names[slot][0], []).append((i, operand))
    for name, uses in by_name.items():
        groups: dict[Any, tuple[str, list[Use]]] = {"all": ("the backward", uses)}
        for use in uses:
            step = rule.steps[use[0]]
            groups.setdefault(lines_alone(step.key[0]), (code_line(step.key[0]) or "the backward", []))[1].append(use)
        for key in (lambda step, operand: step.key, lambda step, operand: (step.key, operand)):
            for use in uses:
                step = rule.steps[use[0]]
                groups.setdefault(key(step, use[1]), (f"the {place(step)}", []))[1].append(use)
        distinct = {frozenset(some): (key, words) for key, (words, some) in groups.items()}  # in the words of the smallest place
        for some, (key, words) in distinct.items():
            yield name, key, words, sorted(some)


def _slot(rule: Steps, use: Use) -> int:
    return rule.steps[use[0]].inputs[use[1]]


def _replaced(rule: Steps, uses: Sequence[Use], instead: Callable[[Any, int, Step], Any]) -> dict[int, Run]:
    """Some operands of some steps in another form; `instead(value, its number, step)` may raise ValueError."""
    operands: dict[int, set[int]] = {}
    for i, operand in uses:
        operands.setdefault(i, set()).add(operand)

    def changed(i: int) -> Run:
        step = rule.steps[i]
        return lambda values: step.run(
            [instead(value, step.inputs[k], step) if k in operands[i] else value for k, value in enumerate(values)]
        )

    return {i: changed(i) for i in operands}


def _made_before(rule: Steps, slots: Sequence[int], step: Step) -> Any:
    """The value of that name in this turn of the loops, or outside of them. Raises ValueError where it is made later."""
    for slot in reversed(slots):
        turn = rule.names[slot][1]
        if slot < step.outputs[0] and turn == step.turn[: len(turn)]:
            return rule.values[slot]
    raise ValueError("not made yet")
