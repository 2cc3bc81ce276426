"""Steps and values of a rule's program in words: the line of the user's source, and the name that stands there."""

from __future__ import annotations

import ast
import contextlib
import linecache
import re
from collections.abc import Callable
from typing import Any

from verify.backward.steps import Step, Steps
from verify.backward.surgery import source_text

OPERATORS: dict[str, type[ast.operator]] = {
    "dot_general": ast.MatMult, "mul": ast.Mult, "add": ast.Add, "sub": ast.Sub, "div": ast.Div, "pow": ast.Pow, "integer_pow": ast.Pow,
}  # fmt: skip


def place(step: Step) -> str:
    """The operation and its expression in the source, or else the whole line."""
    line = _expression(step.key[0], step.key[1]) or code_line(step.key[0])
    return f"{step.key[1]} in {line}" if line else step.key[1]


def _expression(source: str, primitive: str) -> str:
    """The smallest expression that starts where this operation does, if its line has more than one; "" where the line alone tells nothing of it."""
    at = re.match(r"(.*?):(\d+):(\d+)", source)
    if at is None or primitive not in OPERATORS:
        return ""
    place, code = source_text(source)
    raw = linecache.getline(at[1], int(at[2]))
    column = int(at[3]) - (len(raw) - len(raw.lstrip()))
    with contextlib.suppress(SyntaxError, ValueError):
        found = [
            node
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.BinOp) and isinstance(node.op, OPERATORS[primitive]) and node.col_offset == column
        ]
        if found:
            text = min((ast.get_source_segment(code, node) or code for node in found), key=len)
            return f"`{text[:120]}`, {place.split(', called')[0].rsplit('/', 1)[-1]}"
    return ""


def lines_alone(source: str) -> str:
    """A source without its columns: the lines alone."""
    return re.sub(r"(:\d+):\d+", r"\1", source)


def code_line(source: str, caller: bool = False) -> str:
    """The line's text and place; with `caller`, where a helper was called from."""
    place, code = source_text(source)
    places = [one.rsplit("/", 1)[-1] for one in place.split(", called from ")[: 2 if caller else 1]]
    return f"`{code[:120]}`, {', called from '.join(places)}" if code else ""


def sentence(rule: Steps, *parts: str | int) -> Callable[[], str]:
    """Words and values, by number, made when they are wanted; two of one line, as of a helper, are told apart by who calls it."""

    def words() -> str:
        told = [_value(rule, part) for part in parts if not isinstance(part, str)]
        places = [value.rpartition("`, ")[2] for value in told]
        caller = len(set(places)) < len(places)
        return "".join(part if isinstance(part, str) else _value(rule, part, caller) for part in parts)

    return words


def _value(rule: Steps, slot: int, caller: bool = False) -> str:
    """An argument, the name that the source gives to a value, or what makes it."""
    name = rule.names[slot][0]
    if name[0] == "argument":
        return f"argument {name[1]}"
    if name[0] == "upstream cotangent":
        return "the upstream cotangent" if name[1] is None else f"the upstream cotangent of output {name[1]}"
    if name[0] == "constant":
        return "a constant array"
    key = name[1] if name[0] == "row" else name[0]
    line = code_line(key[0], caller)
    if name[0] == "row":
        return f"what the scan in {line} runs over" if line else "what the scan runs over"
    if variable := _variable(rule, slot, key):
        return f"`{variable}` of {line.rpartition('`, ')[2]}"
    return f"the {key[1]} in {line}" if line else f"the {key[1]}"


def _variable(rule: Steps, slot: int, key: Any) -> str:
    """The name to which the source assigns a value; "" where it is none, one of several, or not the last of its line."""
    made = next(step for step in rule.steps if slot in step.outputs)
    last = [step for step in rule.steps if lines_alone(step.key[0]) == lines_alone(key[0])][-1]
    with contextlib.suppress(SyntaxError, ValueError):
        (statement,) = ast.parse(source_text(key[0])[1]).body
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and made.key == last.key:
            return "" if isinstance(statement.targets[0], (ast.Tuple, ast.List)) else ast.unparse(statement.targets[0])
    return ""
