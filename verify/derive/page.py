"""A derivation as one page that needs nothing else: MathML, the report's style sheet, no script."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from verify.derive import loops, mathml, shapes, words
from verify.derive.candidates import Axes, Search, searches
from verify.derive.derivation import Derivation
from verify.derive.expressions import Expr
from verify.derive.reverse import Term
from verify.derive.steps import Loop, Step


def render(d: Derivation, written: str, example: str) -> str:
    """The page: `written` is the operation's own derivation, `example` the worked example, both text."""
    style = Markup(
        "\n".join(
            (files(package) / sheet).read_text("utf-8") for package, sheet in (("verify.report", "page.css"), ("verify.derive", "page.css"))
        )
    )
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    against = list(dict.fromkeys(c.against for c in d.comparisons))
    by = {(c.of, c.against): c for c in d.comparisons}
    return _template().render(
        d=d, style=style, policy=f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'",
        written=written, example=example, words=words,
        inputs=[(Markup(f"<math>{mathml.name(e.data)}</math>"), shapes.of(e.shape, d.dims)) for e in d.tape.inputs],
        forward=[_forward(number, step, d) for number, step in enumerate(d.tape.steps, 1)],
        backward=_backward(d),
        finals=[_row(target, "=", e, d) for target, e in d.finals.items()],
        definitions=[_row(target, "=", e, d) for target, e in d.definitions.items()],
        searches=[(type(s).__name__, s, words.contracted(s) if isinstance(s, Axes) else "" if isinstance(s, Search) else words.summed(s)) for s in searches(d)],
        against=against, checks=[(of, [by.get((of, a)) for a in against]) for of in dict.fromkeys(c.of for c in d.comparisons)],
    )  # fmt: skip


Row = tuple[Markup, str]


def _row(target: str, sign: str, e: Expr, d: Derivation) -> Row:
    return Markup(mathml.equation(target, sign, e, d.dims)), shapes.told(e, d.dims)


def _forward(number: int, step: Step, d: Derivation) -> dict[str, Any]:
    formula, told = _row(step.name, "=", step.value, d)
    loop = words.loops_of(d.tape.steps).get(number)
    return {
        "number": number, "formula": formula, "shapes": told, "held": step.name in words.held(d),
        "loop": words.forward_loop(loop, d.dims) if loop else "", "body": [_row(s.name, "=", s.value, d) for s in loop.body.steps] if loop else [],
    }  # fmt: skip


def _backward(d: Derivation) -> list[dict[str, Any]]:
    """The steps in reverse, each with the cotangents that it hands down."""
    found = []
    told: list[Loop] = []
    for number, group in itertools.groupby(d.terms, key=lambda term: term.number):
        handed = list(group)
        step = handed[0].step
        loop = step.value.data[0] if step.value.op == "scan" and step.value.data[0] not in told else None
        told += [loop] if loop else []
        first = {"number": number, "formula": _row(step.name, "=", step.value, d)[0], "handed": [_handed(term, d) for term in handed]}
        inner = [_handed(term, d) for term in loops.terms(loop)] if loop else []
        found.append({**first, "loop": words.backward_loop(loop) if loop else "", "body": inner})
    return found


def _handed(term: Term, d: Derivation) -> Row:
    return _row(term.target, *words.signed(term), d)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((files("verify.derive") / "page.html").read_text("utf-8"))
