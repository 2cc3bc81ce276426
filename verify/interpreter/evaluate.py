"""Which jaxprs NumPy can run, and running them: calls, branches and loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from verify import _compat
from verify.interpreter.continued import NOT_CONTINUED, RULES

DTYPES = frozenset(("float64", "int64", "int32", "int8", "uint32", "uint8", "bool"))
LARGEST = 2**15  # elements of an array; beyond, compiled code wins
LONGEST = 4000  # equations in a run, those of a loop once for each turn; beyond, compiled code wins, too
CHECKPOINTS = ("remat2", "checkpoint")
NEVER = 10 * LONGEST


def knows(jaxpr: Any) -> bool:
    """Whether every operation is known, every dtype is double precision or whole, no array is large and no loop is long."""
    return _cost(jaxpr) <= LONGEST


def continues(jaxpr: Any) -> bool:
    """Whether `run` can evaluate a float64 jaxpr on complex numbers with the rules of CONTINUED."""
    return knows(jaxpr) and not any(equation.primitive.name in NOT_CONTINUED for equation in _compat.walk(jaxpr))


def _cost(jaxpr: Any) -> int:
    """How many equations a run computes; NEVER where one is not known."""
    jaxpr = _compat.closed(jaxpr).jaxpr
    if any(str(var.aval.dtype) not in DTYPES for var in jaxpr.invars):  # a key is no array of NumPy's, even if nothing reads it
        return NEVER
    total = 0
    for equation in jaxpr.eqns:
        total += _cost_of(equation)
        if total > LONGEST:
            return NEVER
    return total


def _called(equation: Any) -> Any:
    """The program of a call, checkpoints among them."""
    return equation.params["jaxpr"] if equation.primitive.name in CHECKPOINTS else _compat.called(equation)


def _cost_of(equation: Any) -> int:
    if (inner := _called(equation)) is not None:
        return _cost(inner)
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return max(map(_cost, params["branches"]))
    if name == "scan":
        return params["length"] * max(_cost(params["jaxpr"]), 1)
    return 1 if name == "platform_index" or knows_equation(equation) else NEVER


def knows_equation(equation: Any) -> bool:
    """Whether RULES has an operation, in a form that it computes as XLA does."""
    known = equation.primitive.name in RULES
    if known and equation.params.get("preferred_element_type") is not None:  # sums of whole numbers in a wider type
        known = len({var.aval.dtype for var in (*equation.invars, *equation.outvars)}) == 1
    return known and all(str(var.aval.dtype) in DTYPES and var.aval.size <= LARGEST for var in equation.outvars)


def apply(equation: Any, values: Sequence[Any], rules: dict[str, Callable[..., Any]] = RULES) -> list[np.ndarray]:
    """The results of one equation that `knows_equation` accepts."""
    made = rules[equation.primitive.name](equation.params, *values)
    return [np.asarray(value) for value in (made if isinstance(made, list) else [made])]


def run(jaxpr: Any, args: Sequence[Any], rules: dict[str, Callable[..., Any]] = RULES) -> list[np.ndarray]:
    """Evaluate a jaxpr that `knows` accepts, on numpy arrays; with `rules=CONTINUED` one that `continues` accepts, on complex ones."""
    jaxpr = _compat.closed(jaxpr)
    env: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, map(np.asarray, jaxpr.consts), strict=True))
    env |= dict(zip(jaxpr.jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return np.asarray(atom.val, getattr(atom.aval, "dtype", None)) if isinstance(atom, core.Literal) else env[atom]

    for equation in jaxpr.jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        if (inner := _called(equation)) is not None:
            made = run(inner, values, rules)
        elif equation.primitive.name in CONTROL:
            made = CONTROL[equation.primitive.name](equation, values, rules)
        else:
            made = apply(equation, values, rules)
        env |= dict(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _platform_index(equation: Any, values: Sequence[Any], rules: dict[str, Callable[..., Any]]) -> list[np.ndarray]:
    """Which of the branches of `jax.lax.platform_dependent` is the host's."""
    platforms = equation.params["platforms"]
    return [np.asarray(next(k for k, names in enumerate(platforms) if names is None or "cpu" in names), np.int32)]


def _cond(equation: Any, values: Sequence[Any], rules: dict[str, Callable[..., Any]]) -> list[np.ndarray]:
    branches = equation.params["branches"]
    return run(branches[min(max(int(np.real(values[0])), 0), len(branches) - 1)], values[1:], rules)


def _scan(equation: Any, values: Sequence[Any], rules: dict[str, Callable[..., Any]]) -> list[np.ndarray]:
    length, inner = equation.params["length"], _compat.closed(equation.params["jaxpr"])
    constants, carried = _compat.scan_parts(equation.params)
    fixed, carry, rows = values[:constants], list(values[constants : constants + carried]), values[constants + carried :]
    stacks: list[list[np.ndarray]] = [[] for _ in equation.outvars[carried:]]
    turns = range(length)
    for turn in reversed(turns) if equation.params["reverse"] else turns:
        made = run(inner, [*fixed, *carry, *(row[turn] for row in rows)], rules)
        carry = made[:carried]
        for stack, value in zip(stacks, made[carried:], strict=True):
            stack.append(value)
    order = slice(None, None, -1) if equation.params["reverse"] else slice(None)
    empty = [np.zeros(var.aval.shape, var.aval.dtype) for var in equation.outvars[carried:]]
    return [*carry, *(np.stack(stack[order]) if stack else none for stack, none in zip(stacks, empty, strict=True))]


CONTROL: dict[str, Callable[..., list[np.ndarray]]] = {"platform_index": _platform_index, "cond": _cond, "scan": _scan}
