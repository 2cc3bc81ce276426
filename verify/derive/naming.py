"""Names for the steps of a tape: the user's variables where the source says them, the output's, else h and the step's number."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import verify
from verify._compat import source_line
from verify.derive.expressions import SILENT, Expr, leaves, name, substitute
from verify.derive.primitives import spread
from verify.derive.steps import Loop, Step, Tape

OWN = str(Path(verify.__file__).parent)


def finish(tape: Tape, outputs: int) -> Tape:
    """The tape with readable names. Its outputs are steps called y, or y1, y2, ... (out where an argument is called y)."""
    wanted = _variables(tape)
    arguments = {e.data for e in tape.inputs}
    y = next(text for text in ("y", "out", "result", "value") if not {text, f"{text}1"} & arguments)
    steps, finals = _with_outputs(tape, [y] if outputs == 1 else [f"{y}{k + 1}" for k in range(outputs)])
    taken = {y, *arguments, *finals.values()}
    names: dict[str, Expr] = {}
    for number, step in enumerate(steps, 1):
        text = finals.get(step.name) or _free(wanted.get(step.name, f"h{number}"), taken)
        taken.add(text)
        names[step.name] = name(text, step.value.shape)
    renamed = _renamed(steps, names)
    left_out = [
        (substitute(e, names), value)
        for e, value in tape.taken
        if all(not leaf.data.startswith("%") or leaf.data in names for leaf in leaves(e))
    ]
    return Tape(tape.inputs, renamed, [name(text, shape) for text, shape in _shapes(renamed, finals)], left_out)


def _renamed(steps: list[Step], names: dict[str, Expr]) -> list[Step]:
    """The steps, and the bodies of their loops (each once, though a loop may have several outputs)."""
    for loop in dict.fromkeys(step.value.data[0] for step in steps if step.value.op == "scan"):
        loop.body = _body(loop, names)
    return [replace(step, name=names[step.name].data, value=substitute(step.value, names)) for step in steps]


def _body(loop: Loop, outer: dict[str, Expr]) -> Tape:
    """A scan's step: names of outside as they are there, x_t for a slice of x, next_c1 for what c1 becomes, out1_t for what is stacked."""
    tape, names = loop.body, dict(outer)
    for e in tape.inputs:
        whole, slice_of, _ = e.data.partition("@t") if e.op == "name" else ("", "", "")
        if slice_of:
            names[e.data] = name(f"{outer[whole].data if whole in outer else whole}_t", e.shape)
    wanted = _variables(tape)
    taken = {e.data for e in names.values()} | {e.data for e in tape.inputs if e.op == "name"}
    for number, step in enumerate(tape.steps, 1):
        text = _free(wanted.get(step.name, f"s{number}"), taken)
        taken.add(text)
        names[step.name] = name(text, step.value.shape)
    steps, outputs = _renamed(tape.steps, names), []
    for k, (e, var) in enumerate(zip(tape.outputs, loop.avals[1], strict=True)):
        text = f"next_c{k + 1}" if k < loop.carried else f"out{k - loop.carried + 1}_t"
        steps.append(Step(text, substitute(spread(e, tuple(var.shape)), names), bool(np.issubdtype(var.dtype, np.floating))))
        outputs.append(name(text, var.shape))
    return Tape([substitute(e, names) for e in tape.inputs], steps, outputs)


def _shapes(steps: list[Step], finals: dict[str, str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    shapes = {step.name: step.value.shape for step in steps}
    yield from ((text, shapes[text]) for text in finals.values())


def _with_outputs(tape: Tape, texts: list[str]) -> tuple[list[Step], dict[str, str]]:
    """Steps, and which of them are the outputs. An output that is an argument, or a step twice, gets a step of its own."""
    steps, finals = list(tape.steps), {}
    by_name = {step.name: position for position, step in enumerate(steps)}
    used = [leaf.data for step in steps for leaf in leaves(step.value)] + [leaf.data for e in tape.outputs for leaf in leaves(e)]
    for text, e in zip(texts, tape.outputs, strict=True):
        inner = next(leaves(e), None)
        position = by_name.get(inner.data) if inner is not None else None
        if position is not None and e.op == "name" and used.count(e.data) == 1:
            finals[e.data] = text
        elif position is not None and e.op == "view" and e.data is None and e.args[0] is inner and used.count(inner.data) == 1:
            steps[position] = replace(steps[position], value=replace(e, args=(steps[position].value,)))
            finals[inner.data] = text
        else:
            moves = inner is not None and (steps[position].moves if position is not None else True)
            steps.append(Step(f"%{text}", e, moves))
            finals[f"%{text}"] = text
    return steps, finals


def _free(text: str, taken: set[str]) -> str:
    if text not in taken:
        return text
    return next(text + "'" * k for k in range(1, len(taken) + 2) if text + "'" * k not in taken)


def _variables(tape: Tape) -> dict[str, str]:
    """Step -> the variable that its statement assigns: of a statement's equations the last one makes the value."""
    found: dict[str, str] = {}
    places = [(_assignment(lines), e) for lines, e in tape.places]
    for (assigned, e), following in zip(places, [*(assigned for assigned, _ in places[1:]), None], strict=False):
        while e.op in SILENT:
            e = e.args[0]
        if assigned is not None and assigned != following and e.op == "name":
            found.setdefault(e.data, assigned[2])
    return found


def _assignment(lines: tuple[Any, ...]) -> tuple[str, int, str] | None:
    """Where the outermost equation outside of verify stands, and the variable that its line assigns."""
    for equation in lines:
        path, _, rest = source_line(equation).rpartition(".py:")
        number = rest.split(":")[0].split(" ")[0]
        if path and number.isdigit() and not path.startswith(OWN):
            return next((a for a in _assignments(path + ".py") if a[1] == int(number)), None)
    return None


@functools.lru_cache(maxsize=64)
def _assignments(path: str) -> tuple[tuple[str, int, str], ...]:
    """(path and first line of the statement, line, variable), for each line of each assignment of one variable."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except SyntaxError:
        return ()
    return tuple(
        (f"{path}:{node.lineno}", line, node.targets[0].id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        for line in _lines(node) - {line for inner in ast.walk(node) if isinstance(inner, ast.Lambda) for line in _lines(inner)}
    )


def _lines(node: Any) -> set[int]:
    return {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
