"""Changes of what an equation takes: another value in the place of one, a function of it, a value that was forgotten, a sum over one axis more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from verify.backward.steps import Run, Step, Steps
from verify.diagnosis.mending.change import Change, Places, Use, is_float, replaced
from verify.diagnosis.mending.source import code_line, lines_alone, place, sentence

FORM = "form"
NAMELESS = ("literal", "constant", "result", "row")


def forgotten(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
    """A value that is computed and never used, added to one of its shape."""
    unused = sorted(set(range(len(rule.steps))) - rule.before(rule.results))
    made: dict[Any, list[int]] = {}
    for slot in (slot for i in unused for slot in rule.steps[i].outputs if is_float(rule.values[slot])):
        made.setdefault(rule.names[slot][0], []).append(slot)
    for name, key, where, uses in _groups(rule, free) if made else ():
        old = rule.values[_slot(rule, uses[0])]
        for other, slots in made.items():
            if other[0] not in NAMELESS and rule.values[slots[0]].shape == old.shape:
                at = replaced(rule, uses, lambda value, step, slots=slots: value + _made_before(rule, slots, step))
                words = sentence(rule, f"if {where} adds ", slots[0], ", which is computed and never used, to ", _slot(rule, uses[0]))
                yield Change(key=("forgotten", other, name, key), words=words, at=at)


def reductions(rule: Steps, places: Places) -> Iterator[Change]:
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


def other_values(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
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
                at = replaced(rule, uses, lambda value, step, slots=slots: _made_before(rule, slots, step))
                words = sentence(rule, f"if {where} takes ", slots[0], " in the place of ", _slot(rule, uses[0]))
                yield Change(key=("value", other, name, key), words=words, at=at)


def functions(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
    """A function of a value in its place."""
    for name, key, where, uses in _groups(rule, free):
        slot = _slot(rule, uses[0])
        for form, function in FORMS.items():
            before, after = form.split("{}")
            if function(rule.values[slot]) is not None:
                at = replaced(rule, uses, lambda value, step, function=function: function(value))
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


def other_turns(rule: Steps, free: Sequence[int]) -> Iterator[Change]:
    """In a loop, the value of the index before or after: a coefficient that is one step late."""
    made: dict[Any, dict[Any, int]] = {}
    for slot, (name, turn) in enumerate(rule.names):
        if turn and name[0] not in ("literal", "constant", "result"):
            made.setdefault(name, {})[turn] = slot
    for name, key, where, uses in _groups(rule, free, rows=True) if made else ():
        own = made.get(name, {})
        if not all(rule.names[_slot(rule, use)][1] == rule.steps[use[0]].turn != () for use in uses):
            continue
        for words, way in (("next index", 1), ("index before", -1)):
            at = replaced(rule, uses, partial(_beside, rule, own, way, name[0] == "row"))
            told = sentence(rule, f"if {where} takes ", _slot(rule, uses[0]), f" at the {words}")
            yield Change(key=("turn", way, name, key), words=told, at=at)


def _beside(rule: Steps, own: dict[Any, int], way: int, row: bool, value: Any, step: Step) -> Any:
    """The value one index on; where there is none, as at the end, its own. Raises ValueError where it is made later."""
    slot = own.get((*step.turn[:-1], step.turn[-1] + way))
    if slot is not None and not row and slot > step.outputs[0]:
        raise ValueError("not made yet")
    return value if slot is None else rule.values[slot]


def _groups(rule: Steps, free: Sequence[int], rows: bool = False) -> Iterator[tuple[Any, Any, str, list[Use]]]:
    """(name of a value, key, place in words, uses): all of them, those on each line, in each equation, each alone; none twice."""
    by_name: dict[Any, list[Use]] = {}
    for i in free:
        for operand, slot in enumerate(rule.steps[i].inputs):
            if (
                rule.names[slot][0][0] not in (("literal",) if rows else ("literal", "row"))
                and is_float(rule.values[slot])
                and rule.values[slot].size
            ):
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


def _made_before(rule: Steps, slots: Sequence[int], step: Step) -> Any:
    """The value of that name in this turn of the loops, or outside of them. Raises ValueError where it is made later."""
    for slot in reversed(slots):
        turn = rule.names[slot][1]
        if slot < step.outputs[0] and turn == step.turn[: len(turn)]:
            return rule.values[slot]
    raise ValueError("not made yet")
