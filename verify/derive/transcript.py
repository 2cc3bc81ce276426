"""A derivation as text of 80 columns."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator

from verify.derive import loops, shapes, words
from verify.derive.candidates import Axes, Search, Sum, searches
from verify.derive.derivation import Derivation
from verify.derive.expressions import Expr
from verify.derive.notation import write
from verify.derive.reverse import Term
from verify.derive.steps import Loop

WIDTH, COLUMN = 80, 36
HARD = "\N{NO-BREAK SPACE}"


def render(d: Derivation) -> str:
    """The whole derivation."""
    blocks = [
        f"Derivation from shapes\n{_prose(words.setting(d))}",
        _section(words.FORWARD, [*_inputs(d), *_forward(d), *map(_prose, words.notes(d))]),
        _section(words.BACKWARD, [_prose(words.rules(d)), *_backward(d)]),
        _section(words.TOGETHER, _together(d)),
    ]
    if found := list(searches(d)):
        blocks.append(_section(words.SEARCH, [line for s in found for line in _searched(s)]))
    blocks.append(_section(words.CHECK, _check(d)))
    return "\n\n".join(blocks)


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *lines])


def _prose(text: str, indent: str = "  ") -> str:
    return _filled(indent + text, indent, WIDTH)


def _line(left: str, right: str, indent: int) -> str:
    """Formula and shapes side by side, or below each other."""
    if len(left) <= COLUMN - 2 and COLUMN + len(right) <= WIDTH:
        return f"{left:<{COLUMN}}{right}"
    if len(left) + 2 + len(right) <= WIDTH:
        return f"{left}{right:>{WIDTH - len(left)}}"
    below = "\n".join(f"{part:>{WIDTH}}" for part in _filled(right, "", WIDTH - 8).split("\n"))
    return f"{_filled(left, ' ' * (indent + 2), WIDTH)}\n{below}"


def _filled(text: str, indent: str, width: int) -> str:
    """Broken between words, but not within a shape."""
    whole = re.sub(r"\([^()]*\)", lambda shape: shape[0].replace(" ", HARD), text)
    return textwrap.fill(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False).replace(HARD, " ")


def _inputs(d: Derivation) -> Iterator[str]:
    yield _prose("   ".join(f"{e.data} {shapes.of(e.shape, d.dims)}".replace(" ", HARD) for e in d.tape.inputs))


def _forward(d: Derivation) -> Iterator[str]:
    held, first = words.held(d), words.loops_of(d.tape.steps)
    for number, step in enumerate(d.tape.steps, 1):
        constant = "  (held constant)" if step.name in held else ""
        yield _line(f"  {number:>2} {step.name} = {write(step.value, d.dims)}{constant}", shapes.told(step.value, d.dims), 5)
        if number in first:
            yield _prose(words.forward_loop(first[number], d.dims), "     ")
            for inner in first[number].body.steps:
                yield _line(f"       {inner.name} = {write(inner.value, d.dims)}", shapes.told(inner.value, d.dims), 7)


def _backward(d: Derivation) -> Iterator[str]:
    told: list[Loop] = []
    for number, group in itertools.groupby(d.terms, key=lambda term: term.number):
        handed = list(group)
        yield f"  {number:>2} {handed[0].step.name} = {write(handed[0].step.value, d.dims)}"
        yield from (_term(term, d, 7) for term in handed)
        value = handed[0].step.value
        if value.op == "scan" and value.data[0] not in told:
            told.append(value.data[0])
            yield _prose(words.backward_loop(value.data[0]), "     ")
            yield from (_term(term, d, 7) for term in loops.terms(value.data[0]))


def _term(term: Term, d: Derivation, indent: int) -> str:
    sign, value = words.signed(term)
    return _line(f"{' ' * indent}{term.target} {sign} {write(value, d.dims)}", shapes.told(value, d.dims), indent)


def _together(d: Derivation) -> list[str]:
    lines = [_equation(target, e, d) for target, e in d.finals.items()]
    if without := words.without(d):
        lines.append(_prose(without))
    if d.definitions:
        lines += ["  where", *(_equation(target, e, d) for target, e in d.definitions.items())]
    return lines


def _equation(target: str, e: Expr, d: Derivation) -> str:
    return _line(f"    {target} = {write(e, d.dims)}", shapes.told(e, d.dims), 4)


def _searched(s: Search | Sum | Axes) -> Iterable[str]:
    return _search(s) if isinstance(s, Search) else [_prose(words.summed(s) if isinstance(s, Sum) else words.contracted(s))]


def _search(s: Search) -> Iterator[str]:
    yield _prose(words.asked(s))
    width = max(len(c.formula) for c in s.candidates)
    lines = [(f"   {c.formula:<{width}}  {''.join(c.shapes)}", c.reason or "fits") for c in s.candidates]
    wide = any(len(line) + 2 + len(reason) > WIDTH for line, reason in lines)
    yield from (f"{line}  {reason.removeprefix('inner sizes ') if wide else reason}" for line, reason in lines)
    yield _prose(words.answered(s))


def _check(d: Derivation) -> Iterator[str]:
    against = list(dict.fromkeys(c.against for c in d.comparisons))
    names = list(dict.fromkeys(c.of for c in d.comparisons))
    width = max(map(len, names))
    yield _prose(words.COMPARED)
    yield "    " + " " * width + "".join(f"{text:>11}" for text in against)
    by = {(c.of, c.against): c for c in d.comparisons}
    for text in names:
        cells = [words.cell(by.get((text, a))) for a in against]
        yield (f"    {text:<{width}}" + "".join(f"{cell:>11}" for cell in cells)).rstrip()
    yield _prose(words.verdict(d))
