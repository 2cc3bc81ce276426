"""A derivation as text of 80 columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from verify.derive import shapes, words
from verify.derive.candidates import Axes, Search, Sum, searches
from verify.derive.derivation import Derivation
from verify.derive.expressions import Expr
from verify.derive.notation import write

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
    held = words.held(d)
    for number, step in enumerate(d.tape.steps, 1):
        constant = "  (held constant)" if step.name in held else ""
        yield _line(f"  {number:>2} {step.name} = {write(step.value, d.dims)}{constant}", shapes.told(step.value, d.dims), 5)
        if step.body is not None and step.value.data[1] == 0:
            yield _prose(words.loop(step, d.dims), "     ")
            for inner in step.body.steps:
                yield _line(f"        {inner.name} = {write(inner.value, d.dims)}", shapes.told(inner.value, d.dims), 8)


def _backward(d: Derivation) -> Iterator[str]:
    last = 0
    for term in d.terms:
        if term.number != last:
            last = term.number
            yield f"  {term.number:>2} {term.step.name} = {write(term.step.value, d.dims)}"
        sign, value = words.signed(term)
        yield _line(f"       {term.target} {sign} {write(value, d.dims)}", shapes.told(value, d.dims), 7)


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
    lines = [(f"    {c.formula:<{width}}  {''.join(c.shapes)}", c.reason or "fits") for c in s.candidates]
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
