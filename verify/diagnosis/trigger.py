"""When does the rule fail? Sizes, options and absent arguments that separate the failing cases from the passing ones."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from verify.cases import Case, elements
from verify.diagnosis.conditions import border
from verify.sizes import count

STYLES = {
    "edges": "where inputs hold zeros or declared special values",
    "ties": "where inputs hold equal values",
    "rows": "where rows of inputs hold one value only",
    "huge": "for huge inputs",
    "tiny": "for tiny inputs",
    "spread": "for inputs of very different magnitudes",
    "large": "for large inputs",
    "small": "for small inputs",
    "positive": "for positive inputs",
}
ENOUGH = 2  # cases on each side, before a pattern is called one
BLOCKS = (2, 4, 8, 16, 32, 64, 128)
CHANCE = 0.05  # of all failing cases to have one value of an option by luck
SEVERAL = 3  # failing cases that share several options, before these are blamed
WAYS = 15  # of choosing the passing sizes among all, where there are two of them only
BY_LUCK = 1e-4  # of a number to separate all failing cases from all passing ones
BY_PARITY = 0.005  # the same of all failing cases to have an even size: eight of them are enough
RELATED = 8  # different sizes, failing and passing ones together, before a relation of two of them is blamed
SHAPES = 3  # different sizes that pass, before one of them is blamed: where all of them are 1, any of them could be

Condition = tuple[str, Callable[[Case], bool]]
Number = Callable[[Case], int]


def trigger(cases: Sequence[tuple[Case, bool]]) -> str | None:
    """A sentence such as "only when n > 64", or None where nothing simple separates the two."""
    failing = [case for case, failed in cases if failed]
    passing = [case for case, failed in cases if not failed and elements(case)]  # nothing is wrong in empty arrays
    if not failing or len(passing) < ENOUGH:
        return None
    ordinary = [case for case in passing if not case.stress and case.dtype == "float64"]  # at others a mistake may not show
    for some, which in ((passing, ""), (ordinary, " of ordinary values")):
        for words, holds in _conditions(failing, some) if len(some) >= ENOUGH else ():
            if all(map(holds, failing)) and not any(map(holds, some)):
                return f"it is wrong only {words} ({_counted(failing, some)}{which} agree)"
    return _together(failing, passing) or _together(failing, ordinary) or _shared(cases)


def _counted(failing: Sequence[Case], passing: Sequence[Case]) -> str:
    """How many cases say so; a report's other numbers are without the smaller ones that were tried."""
    smaller = ", smaller ones among them," if any(case.resized for case in (*failing, *passing)) else ""
    return f"{len(failing)} failing and {len(passing)} passing cases{smaller}"


def of_values(sentence: str) -> bool:
    """Whether it speaks of single values that an argument holds."""
    return re.search(r"where (inputs hold|\w+ holds) ", sentence) is not None


def _together(failing: Sequence[Case], passing: Sequence[Case]) -> str | None:
    """Options and absent arguments that only together are in every failing case and in no passing one."""
    drawn = [case for case in failing if not case.resized]
    if len(drawn) < SEVERAL:
        return None
    facts = [(words, holds) for words, holds in _of_options(drawn[0]) if all(map(holds, failing))]
    for fact in list(facts):  # those that none but the failing cases would miss
        fewer = [other for other in facts if other is not fact]
        if not any(all(holds(case) for _, holds in fewer) for case in passing):
            facts = fewer
    if len(facts) < 2 or any(all(holds(case) for _, holds in facts) for case in passing):
        return None
    share = math.prod(sum(map(holds, (*drawn, *passing))) / (len(drawn) + len(passing)) for _, holds in facts)
    if (1 - share) ** len(passing) >= CHANCE:  # too few passing cases to have met all of them together
        return None
    *most, last = [words for words, _ in facts]
    return f"it is wrong only {', '.join(most)} and {last} ({_counted(failing, passing)} agree)"


def _shared(cases: Sequence[tuple[Case, bool]]) -> str | None:
    """Options, large sizes, even and odd ones that every failing case has, though some passing ones have them, too: the mistake needs more than these to show."""
    drawn = [(case, failed) for case, failed in cases if not case.resized]  # smaller cases keep the options of the one they come from
    failing = [case for case, failed in drawn if failed]
    if not failing:
        return None
    smaller = [case for case, failed in cases if failed and case.resized]  # what these lack is no part of the mistake

    def luck(holds: Callable[[Case], bool]) -> float:
        return (sum(holds(case) for case, _ in drawn) / len(drawn)) ** len(failing) if all(map(holds, failing + smaller)) else 1.0

    def has(name: str, value: object) -> Callable[[Case], bool]:
        return lambda case: repr(case.options.get(name)) == repr(value)

    def lacks(name: str, value: object) -> Callable[[Case], bool]:
        return lambda case: not has(name, value)(case)

    shared = [f"{name}={value!r}" for name, value in failing[0].options.items() if luck(has(name, value)) < CHANCE]
    for name in failing[0].options:
        values = {repr(case.options[name]): case.options[name] for case, _ in drawn}
        never = [value for value in values.values() if luck(lacks(name, value)) < CHANCE]
        if len(never) == 1 and len({repr(case.options[name]) for case in failing}) > 1:
            shared.append(f"another {name} than {never[0]!r}")
    for name in failing[0].sizes:
        lowest = min(_number(case, name) for case in failing)
        if luck(lambda case, name=name, lowest=lowest: _number(case, name) >= lowest) < BY_LUCK:
            shared.append(f"{name} >= {lowest}")
        for words, rest in (("even", 0), ("odd", 1)):
            if luck(lambda case, name=name, rest=rest: _number(case, name) % 2 == rest) < BY_PARITY:
                shared.append(f"an {words} {name}")
    return f"all {len(failing)} failing cases have {' and '.join(shared)}" if shared else None


def _conditions(failing: Sequence[Case], passing: Sequence[Case]) -> Iterator[Condition]:
    first = failing[0]
    right, wrong = _shapes(passing), _shapes(failing)
    of_sizes = len(failing) >= ENOUGH and (right >= SHAPES or (right > 1 and math.comb(right + wrong, right) >= WAYS))
    # Beside ordinary cases alone any style of failing ones is the only one, so that it takes several of them.
    often = sum(not case.resized for case in failing) >= SEVERAL or any(case.stress for case in passing)
    style: list[Condition] = [(STYLES[first.style], lambda case: case.style == first.style)] if first.style in STYLES and often else []
    yield from style if first.style == "edges" else ()  # all of these hold zeros, where the mistake is at another special value, too
    # Numbers of few digits are often equal, and the more there are, the more often: then sizes are to blame.
    in_float64 = any(case.dtype == "float64" for case in failing)
    for position, name in enumerate(first.argument_names if in_float64 else ()):
        yield from _of_values(name, position, failing)
    yield from style
    if first.dtype != "float64":
        yield f"in {first.dtype}", lambda case: case.dtype == first.dtype
    yield from _of_options(first)
    for name in first.sizes if of_sizes else ():
        numbers = [_number(case, name) for case in failing]
        lowest, highest = min(numbers), max(numbers)
        if lowest == highest:
            yield f"when {name} is {lowest}", lambda case, name=name, lowest=lowest: _number(case, name) == lowest
        yield f"when {name} >= {lowest}", lambda case, name=name, lowest=lowest: _number(case, name) >= lowest
        yield f"when {name} <= {highest}", lambda case, name=name, highest=highest: _number(case, name) <= highest
        for block in BLOCKS:
            yield f"when {name} is no multiple of {block}", lambda case, name=name, block=block: _number(case, name) % block != 0
            yield f"when {name} is a multiple of {block}", lambda case, name=name, block=block: _number(case, name) % block == 0
        yield f"when {name} is no power of 2", lambda case, name=name: _number(case, name).bit_count() != 1
        for block in BLOCKS:
            if lowest > block:  # the first block is right, too
                for words, whole in (("a multiple", True), ("no multiple", False)):
                    yield (
                        f"when {name} is {words} of {block}, and above {block}",
                        lambda case, name=name, block=block, whole=whole: (
                            _number(case, name) > block and (_number(case, name) % block == 0) is whole
                        ),
                    )
    both = {**{name: _size(name) for name in first.sizes if of_sizes}, **_whole_numbers((*failing, *passing))}
    for a, b in itertools.combinations(both, 2):
        yield from _of_two(a, both[a], b, both[b], several=right + wrong >= RELATED)
    if 1 / math.comb(len(failing) + len(passing), len(failing)) < BY_LUCK:
        for position, name in enumerate(first.argument_names):
            yield from _of_scalar(name, position, failing, passing)


def _of_values(name: str, position: int, failing: Sequence[Case]) -> Iterator[Condition]:
    """Zeros and equal values of an argument: random numbers are neither, and where one is drawn the other often is, too. Of indices equal ones alone."""
    if all(isinstance(value := case.args[position], np.ndarray) and value.dtype.kind in "iu" and value.ndim for case in failing):
        yield f"where {name} holds equal values", lambda case: np.unique(case.args[position]).size < np.size(case.args[position])
        return

    def both(case: Case) -> bool:
        return all(holds(case) for _, holds in facts)

    facts: list[Condition] = [
        (words, lambda case, holds=holds: isinstance(value := case.args[position], np.ndarray) and value.dtype.kind == "f" and holds(value))
        for words, holds in (
            ("a 0", lambda value: bool((value == 0).any())),
            ("equal values", lambda value: np.unique(value).size < value.size),
        )
    ]
    if all(map(both, failing)):
        yield f"where {name} holds a 0 and equal values", both
    yield from ((f"where {name} holds {words}", holds) for words, holds in facts)


def _of_options(first: Case) -> Iterator[Condition]:
    for name, value in first.options.items():
        yield (
            f"with {name}={value!r}",
            lambda case, name=name, value=value: case.options.get(name) == value and type(case.options.get(name)) is type(value),
        )
    for position, name in enumerate(first.argument_names):
        yield f"with {name}=None", lambda case, position=position: case.args[position] is None
        yield f"when {name} is given", lambda case, position=position: case.args[position] is not None


def _shapes(cases: Sequence[Case]) -> int:
    return len({tuple(case.sizes.items()) for case in cases})


def _size(name: str) -> Number:
    return lambda case: _number(case, name)


def _whole_numbers(cases: Sequence[Case]) -> dict[str, Number]:
    """Arguments that are one whole number in each case: a length, a position."""
    found: dict[str, Number] = {}
    for position, name in enumerate(cases[0].argument_names):
        values = [case.args[position] for case in cases]
        if all(isinstance(v, np.ndarray | np.generic) and v.ndim == 0 and v.dtype.kind in "iu" for v in values):
            found[name] = lambda case, position=position: int(case.args[position])
    return found


def _of_two(a: str, first: Number, b: str, second: Number, several: bool) -> Iterator[Condition]:
    """Relations of two sizes, or of a size and a length; where `several` shapes are known, those too that often hold by luck."""
    yield f"when {a} == {b}", lambda case: first(case) == second(case)
    yield f"when {a} != {b}", lambda case: first(case) != second(case)
    if not several:
        return
    yield f"when {a} < {b}", lambda case: first(case) < second(case)
    yield f"when {a} > {b}", lambda case: first(case) > second(case)
    for one, x, other, y in ((a, first, b, second), (b, second, a, first)):
        yield f"when {one} is no multiple of {other}", lambda case, x=x, y=y: y(case) != 0 and x(case) % y(case) != 0


def _of_scalar(name: str, position: int, failing: Sequence[Case], passing: Sequence[Case]) -> Iterator[Condition]:
    """An argument that is one number, above or below some border."""
    values = [[case.args[position] for case in cases if case.args[position] is not None] for cases in (failing, passing)]
    if len(values[0]) < len(failing) or not all(map(_is_scalar, itertools.chain(*values))):
        return
    hit, missed = map(np.array, values)
    above, below = border(hit, missed, more=True), border(hit, missed, more=False)
    yield f"when {name} is {above:.6g} or more", lambda case: case.args[position] is not None and case.args[position] >= above
    yield f"when {name} is {below:.6g} or less", lambda case: case.args[position] is not None and case.args[position] <= below


def _is_scalar(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic) and value.ndim == 0 and value.dtype.kind == "f"


def _number(case: Case, name: str) -> int:
    return count(case.sizes[name])
