"""Which jaxprs NumPy can run, and running them: calls, branches and loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from verify import _compat
from verify.interpreter.arithmetic import Rule
from verify.interpreter.continued import NOT_CONTINUED, RULES
from verify.interpreter.matrices import PLAIN

Rules = dict[str, Rule]
Run = Callable[[Sequence[Any]], list[np.ndarray]]

DTYPES = frozenset(("float64", "int64", "int32", "int8", "uint32", "uint8", "bool"))
LARGEST, HELD = 2**15, 2**26  # elements of an array, and of all in a program, which a run holds; beyond, compiled code wins
COMPILING = 400  # to lower and compile an equation takes as long as NumPy takes for so many
LONGEST = 4000  # equations in a run on complex numbers, which nobody compiles
CHECKPOINTS = ("remat2", "checkpoint")


class _UnknownError(Exception):
    """An operation or a dtype that NumPy does not know here."""


class _Size(NamedTuple):
    """How many equations are written in a program, how many a run computes (those of a loop once for each turn), and how many elements their results have."""

    written: int
    computed: int
    held: int


def knows(jaxpr: Any, runs: int = 1) -> bool:
    """Whether every operation is known, every dtype is double precision or whole, no array is large, and so many runs take no longer than to compile it first."""
    try:
        size = _size(jaxpr)
    except _UnknownError:
        return False
    return runs * size.computed <= COMPILING * max(size.written, 1) and size.held <= HELD


def continues(jaxpr: Any) -> bool:
    """Whether `run` can evaluate a float64 jaxpr on complex numbers with the rules of CONTINUED."""
    try:
        return _size(jaxpr).computed <= LONGEST and not any(equation.primitive.name in NOT_CONTINUED for equation in _compat.walk(jaxpr))
    except _UnknownError:
        return False


def _size(jaxpr: Any) -> _Size:
    jaxpr = _compat.closed(jaxpr).jaxpr
    if any(str(var.aval.dtype) not in DTYPES for var in jaxpr.invars):  # a key is no array of NumPy's, even if nothing reads it
        raise _UnknownError
    sizes = [_size_of(equation) for equation in jaxpr.eqns]
    return _Size(*map(sum, zip(*sizes, strict=True))) if sizes else _Size(0, 0, 0)


def _called(equation: Any) -> Any:
    """The program of a call, checkpoints among them."""
    return equation.params["jaxpr"] if equation.primitive.name in CHECKPOINTS else _compat.called(equation)


def _size_of(equation: Any) -> _Size:
    if (inner := _called(equation)) is not None:
        return _size(inner)
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        branches = [_size(branch) for branch in params["branches"]]
        return _Size(sum(b.written for b in branches), max(b.computed for b in branches), max(b.held for b in branches))
    if name == "custom_linear_solve":
        return _size(params["jaxprs"].solve)
    if name == "scan":
        turn = _size(params["jaxpr"])
        return _Size(turn.written, params["length"] * max(turn.computed, 1), turn.held + _elements(equation))
    if name == "platform_index" or knows_equation(equation):
        return _Size(1, 1, _elements(equation))
    raise _UnknownError


def _elements(equation: Any) -> int:
    return sum(var.aval.size for var in equation.outvars)


def knows_equation(equation: Any) -> bool:
    """Whether RULES has an operation, in a form that it computes as XLA does."""
    name, params = equation.primitive.name, equation.params
    known = name in RULES
    if params.get("preferred_element_type") is not None:  # sums of whole numbers in a wider type
        known = known and len({var.aval.dtype for var in (*equation.invars, *equation.outvars)}) == 1
    if name == "scatter":  # x.at[i].apply(f) is one, too, and f its program
        known = params["update_jaxpr"] is None
    known = known and all(params[key] == value for key, value in PLAIN.get(name, {}).items())
    return known and all(str(var.aval.dtype) in DTYPES and var.aval.size <= LARGEST for var in equation.outvars)


def apply(equation: Any, values: Sequence[Any], rules: Rules = RULES) -> list[np.ndarray]:
    """The results of one equation that `knows_equation` accepts."""
    return _plain(equation, rules)(values)


def _is_key(value: Any) -> bool:
    """Random keys are no arrays of NumPy's; a program with rules of its own may have them."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended)


def run(jaxpr: Any, args: Sequence[Any], rules: Rules = RULES) -> list[np.ndarray]:
    """Evaluate a jaxpr that `knows` accepts, on numpy arrays; with `rules=CONTINUED` one that `continues` accepts, on complex ones."""
    return prepared(jaxpr, rules)(args)


def needed(jaxpr: Any, outputs: Sequence[int]) -> list[int]:
    """The places of the equations that these outputs (given by place, too) depend on."""
    jaxpr = _compat.closed(jaxpr).jaxpr
    wanted, found = {id(jaxpr.outvars[k]) for k in outputs}, []
    for place in reversed(range(len(jaxpr.eqns))):
        if any(id(var) in wanted for var in jaxpr.eqns[place].outvars):
            found.append(place)
            wanted |= {id(atom) for atom in jaxpr.eqns[place].invars}
    return found[::-1]


def prepared(jaxpr: Any, rules: Rules = RULES, outputs: Sequence[int] | None = None) -> Run:
    """The same as a function of the arrays, for many runs: every variable has its place in a list, and every equation its function.

    `outputs`: the places of those that are wanted, by default all.
    """
    jaxpr = _compat.closed(jaxpr)
    outputs = range(len(jaxpr.jaxpr.outvars)) if outputs is None else outputs
    places: dict[Any, int] = {}
    start: list[Any] = []

    def place(atom: Any, value: Any = None) -> int:
        if isinstance(atom, core.Literal):
            start.append(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
            return len(start) - 1
        if atom not in places:
            places[atom] = len(start)
            start.append(value)
        return places[atom]

    for var, value in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
        place(var, np.asarray(value))
    given = [place(var) for var in jaxpr.jaxpr.invars]
    equations = [jaxpr.jaxpr.eqns[k] for k in needed(jaxpr, outputs)]
    steps = [(_step(e, rules), [place(atom) for atom in e.invars], [place(var) for var in e.outvars]) for e in equations]
    results = [place(jaxpr.jaxpr.outvars[k]) for k in outputs]

    def evaluate(args: Sequence[Any]) -> list[np.ndarray]:
        values = start.copy()
        for at, arg in zip(given, args, strict=True):
            values[at] = arg
        for function, operands, outputs in steps:
            for at, made in zip(outputs, function([values[k] for k in operands]), strict=True):
                values[at] = made
        return [values[k] for k in results]

    return evaluate


def _step(equation: Any, rules: Rules) -> Run:
    if (inner := _called(equation)) is not None:
        return prepared(inner, rules)
    if equation.primitive.name in CONTROL:
        return CONTROL[equation.primitive.name](equation, rules)
    return _plain(equation, rules)


def _plain(equation: Any, rules: Rules) -> Run:
    rule, params = rules[equation.primitive.name], equation.params

    def compute(values: Sequence[Any]) -> list[np.ndarray]:
        made = rule(params, *values)
        if type(made) is np.ndarray:  # nearly always
            return [made]
        return [value if _is_key(value) else np.asarray(value) for value in (made if isinstance(made, list) else [made])]

    return compute


def _platform_index(equation: Any, rules: Rules) -> Run:
    """Which of the branches of `jax.lax.platform_dependent` is the host's."""
    platforms = equation.params["platforms"]
    chosen = np.asarray(next(k for k, names in enumerate(platforms) if names is None or "cpu" in names), np.int32)
    return lambda values: [chosen]


def _cond(equation: Any, rules: Rules) -> Run:
    branches = [prepared(branch, rules) for branch in equation.params["branches"]]
    return lambda values: branches[min(max(int(np.real(values[0])), 0), len(branches) - 1)](values[1:])


def _scan(equation: Any, rules: Rules) -> Run:
    body, turns = prepared(equation.params["jaxpr"], rules), range(equation.params["length"])
    constants, carried = _compat.scan_parts(equation.params)
    order = slice(None, None, -1 if equation.params["reverse"] else 1)
    empty = [np.zeros(var.aval.shape, var.aval.dtype) for var in equation.outvars[carried:]]

    def scan(values: Sequence[Any]) -> list[np.ndarray]:
        fixed, carry, rows = values[:constants], values[constants : constants + carried], values[constants + carried :]
        made: list[list[np.ndarray]] = []
        for turn in turns[order]:
            out = body([*fixed, *carry, *(row[turn] for row in rows)])
            carry = out[:carried]
            made.append(out[carried:])
        return [*carry, *(np.stack(stack[order]) for stack in map(list, zip(*made, strict=True)))] if made else [*carry, *empty]

    return scan


def _linear_solve(equation: Any, rules: Rules) -> Run:
    """`jax.lax.custom_linear_solve` is what its own `solve` gives; the operands are the constants of its four programs, and the right-hand sides."""
    solve, counts = prepared(equation.params["jaxprs"].solve, rules), equation.params["const_lengths"]
    first, last = counts.matvec + counts.vecmat, sum(counts)
    return lambda values: solve([*values[first : first + counts.solve], *values[last:]])


CONTROL: dict[str, Callable[[Any, Rules], Run]] = {
    "platform_index": _platform_index,
    "cond": _cond,
    "scan": _scan,
    "custom_linear_solve": _linear_solve,
}
