"""A traced backward pass run again, equation by equation, with some changed; and where each equation stands in the user's source."""

from __future__ import annotations

import itertools
import linecache
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.extend import core, linear_util, source_info_util

from verify import _compat, engine

INLINE = ("jit", "pjit", "closed_call", "core_call")
REBUILT = ("scan", "cond", "checkpoint", "remat2")  # run with a changed inner program; loops with a condition may never end, so they stay
JAX = str(Path(jax.__file__).parent)
VERIFY = f"{Path(__file__).parents[1]}/"
CALLED_FROM, LOCAL = " < ", "<locals>"
# The source ("/path/file.py:12:4 (function) < /path/file.py:40:8 (caller)", or ""), the primitive, and which of these in one run of the line.
Key = tuple[str, str, int]
Path_ = tuple[Any, ...]
Lines = tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """Equations to change: where they are in the traced program, and what computes their outputs instead."""

    paths: frozenset[Path_]
    replacement: Callable[[Any, list[Any]], list[Any]]

    def within(self, path: Path_) -> bool:
        """Whether one of them is this equation or inside of it."""
        return any(one[: len(path)] == path for one in self.paths)


@dataclass(frozen=True)
class Place:
    """An equation of a traced program: its name in the source (key), which several equations may have, and where it is in this program (path)."""

    key: Key
    path: Path_
    equation: Any


def places(jaxpr: Any) -> list[Place]:
    """Every equation that can be changed, in order.

    The user's line of an equation inside of a library's `jit` is the line of the call. A line of a helper is told apart by the line that calls it. A line
    of a function inside of a function is not, so a slip in it is made in each run: in the first block of a loop, in the others, in what is left over.
    Equations of a line are counted within a loop's body or a branch: JAX keeps so few lines of the way there that two of its runs may look the same.
    """
    counts: dict[tuple[Lines, str, Path_], int] = {}
    found = []
    for path, body, equation, lines in _visit(jaxpr, (), (), library=False):
        which = (lines, equation.primitive.name, body)
        counts[which] = counts.get(which, -1) + 1
        found.append(Place(key_of(lines, equation, counts[which]), path, equation))
    return found


def key_of(lines: Lines, equation: Any, count: int) -> Key:
    return CALLED_FROM.join(lines[: 1 if LOCAL in lines[0] else 2]) if lines else "", equation.primitive.name, count


def _visit(jaxpr: Any, path: Path_, outer: Lines, library: bool, body: Path_ = ()) -> Iterator[tuple[Path_, Path_, Any, Lines]]:
    """(path, that of the loop's body or the branch that it is in, equation, lines) of each equation that holds no others."""
    for i, equation in enumerate(_compat.closed(jaxpr).jaxpr.eqns):
        source = outer if library else lines_of(equation) or outer
        inside = inner(equation)
        if not inside:
            yield (*path, i), body, equation, source
        for label, program in inside:
            here = (*path, i, label)
            own = here if equation.primitive.name in REBUILT else body
            yield from _visit(program, here, source, library or is_library(equation, program), own)


def lines_of(equation: Any) -> Lines:
    """The user's line, and those that called it."""
    lines = itertools.takewhile(lambda line: not line.startswith(VERIFY), _compat.source_lines(equation))
    return tuple(line for line in lines if line != "unknown")


def is_library(equation: Any, program: Any) -> bool:
    """A function that JAX itself jits, such as `jnp.where`: it is traced once, so its lines are those of whoever came first."""
    info = getattr(_compat.closed(program).jaxpr, "debug_info", None)
    return equation.primitive.name in INLINE and str(getattr(info, "func_src_info", "")).partition(" at ")[2].startswith(JAX)


def inner(equation: Any) -> list[tuple[Any, Any]]:
    """The programs inside of an equation that may be changed, by label."""
    name, params = equation.primitive.name, equation.params
    if name in _compat.CUSTOM_RULES:
        return [(label, params[label]) for label in ("call_jaxpr", "fun_jaxpr") if label in params][:1]
    if name == "cond":
        platforms = params.get("branches_platforms") or [None] * len(params["branches"])
        return [(("branches", k), branch) for k, branch in enumerate(params["branches"]) if k in taken(platforms)]
    if name in INLINE or name in REBUILT:
        return [(label, params[label]) for label in ("jaxpr", "call_jaxpr") if label in params][:1]
    return []


def taken(platforms: Sequence[Sequence[str] | None]) -> set[int]:
    """Which branches can run here: of a choice by platform (`jax.lax.platform_dependent`) the host's where there is no accelerator, of any other all."""
    if engine.accelerated():
        return set(range(len(platforms)))
    own = {k for k, names in enumerate(platforms) if names is not None and engine.host().platform in names}
    return own or {k for k, names in enumerate(platforms) if names is None}


def run(jaxpr: Any, args: Sequence[Any], operation: Operation | None = None, path: Path_ = (), lines: bool = False) -> list[Any]:
    """Evaluate a jaxpr on arrays or tracers, with the operation's equations replaced.

    lines: let the backward of a custom_vjp be traced with the lines of its own source (JAX gives all of it the line of the call).
    """
    jaxpr = _compat.closed(jaxpr)
    env: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    env |= dict(zip(jaxpr.jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for i, equation in enumerate(jaxpr.jaxpr.eqns):
        here, values = (*path, i), [read(atom) for atom in equation.invars]
        aimed = operation is not None and operation.within(here)
        name = equation.primitive.name
        if operation is not None and here in operation.paths:
            outputs = operation.replacement(equation, values)
        elif name in INLINE or (aimed and name in _compat.CUSTOM_RULES):
            ((label, program),) = inner(equation)
            outputs = run(program, values, operation, (*here, label), lines)
        elif aimed and operation is not None:
            outputs = _compat.bind(equation, values, _rebuilt(equation, operation, here))
        else:
            outputs = _compat.bind(equation, values, _with_lines(equation.params) if lines else equation.params)
        env |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _rebuilt(equation: Any, operation: Operation, here: Path_) -> dict[str, Any]:
    """The parameters of a loop, branch or checkpoint, with the operation done inside."""
    params = dict(equation.params)
    for label, program in inner(equation):
        if not operation.within((*here, label)):
            continue
        changed: Any = jax.make_jaxpr(
            lambda *args, program=program, label=label: run(program, args, operation, (*here, label))
        )(*_compat.closed(program).in_avals)  # fmt: skip
        changed = changed if isinstance(program, core.ClosedJaxpr) else changed.jaxpr if not changed.consts else program
        if isinstance(label, tuple):
            branches = list(params[label[0]])
            branches[label[1]] = changed
            params[label[0]] = tuple(branches)
        else:
            params[label] = changed
    return params


class _NoTraceback:
    """Makes JAX look for the user's line itself: a context with nothing in it, unlike None, replaces the one of the call."""

    def __bool__(self) -> bool:
        return False

    def as_python_traceback(self) -> None:
        return None


def _with_lines(params: dict[str, Any]) -> dict[str, Any]:
    rule: Any = params.get("bwd")
    if not hasattr(rule, "call_wrapped"):
        return params

    def backward(*args: Any) -> Any:
        with source_info_util.user_context(_NoTraceback()):  # type: ignore[arg-type]
            return rule.call_wrapped(*args)

    return {**params, "bwd": linear_util.wrap_init(backward, debug_info=rule.debug_info)}


def source_text(source: str) -> tuple[str, str]:
    """("folder/file.py:12", the text of that line) of a key's source, with the line that calls it if it has one; ("", "") if unknown."""
    lines = [match for line in source.split(CALLED_FROM) if (match := re.match(r"(.*?):(\d+)(?::\d+)?(?: |$)", line))]
    if not lines:
        return "", ""
    return ", called from ".join(_place(match) for match in lines), linecache.getline(lines[0][1], int(lines[0][2])).strip()


def _place(match: re.Match[str]) -> str:
    path = Path(match[1])
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{match[2]}"


def equation_text(equation: Any) -> str:
    """An equation in one line: "float64[2,3] = mul(float64[2,1], 2.0)"."""
    operands = ", ".join(str(atom.val) if isinstance(atom, core.Literal) else atom.aval.str_short() for atom in equation.invars)
    params = equation.params
    more = {
        "dot_general": lambda: f"; contract {params['dimension_numbers'][0]}, batch {params['dimension_numbers'][1]}",
        "transpose": lambda: f"; permutation {params['permutation']}",
        "broadcast_in_dim": lambda: f"; dimensions {params['broadcast_dimensions']}",
        "integer_pow": lambda: f"; exponent {params['y']}",
    }.get(equation.primitive.name, lambda: f"; axes {params['axes']}" if "axes" in params else "")()
    return f"{', '.join(var.aval.str_short() for var in equation.outvars)} = {equation.primitive.name}({operands}{more})"
