"""A traced program as one flat list of steps with all their values: any of them can be changed, and what follows is run again.

Calls are entered, and so is the branch that a choice takes; a loop of few turns is unrolled. NumPy runs the operations that it knows, JAX the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from verify import _compat, interpreter
from verify.backward import surgery

TURNS = 24  # of a loop that is unrolled
MOST = 2000  # steps
SLOW = 10  # how many of NumPy's steps on small arrays one of JAX's costs
ELEMENTS = 2000  # that cost one step more
Turn = tuple[int, ...]
Run = Callable[[list[Any]], list[Any]]


class NotFollowedError(Exception):
    """The program has too many steps to try anything with them, or calls back to Python, which is not called again for a trial."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """key: the equation's name in the source, the same in every turn and at every shape; turn: of the loops around it; inputs, outputs: numbers of values;
    cost: in steps of NumPy on small arrays.

    equation: None where a loop takes a slice or stacks its results, and where the program returns one.
    """

    key: surgery.Key
    turn: Turn
    equation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    run: Run
    cost: int


class Steps:
    """steps: in order; values: of inputs, constants and every step's outputs, by number; names: of each value, and in which turn of the loops it is made."""

    def __init__(self, jaxpr: Any, args: Sequence[Any], names: Sequence[Any]) -> None:
        self.steps: list[Step] = []
        self.values: list[Any] = []
        self.names: list[tuple[Any, Turn]] = []
        self._counts: dict[Any, int] = {}
        self._costs: dict[tuple[int, ...], int] = {}
        inputs = [self._new(value, name, ()) for value, name in zip(args, names, strict=True)]
        made = self._follow(jaxpr, inputs, (), (), (), library=False)
        self.results = [self._add(("", "result", k), (), None, [slot], list, [("result", k)])[0] for k, slot in enumerate(made)]

    def again(self, changes: Mapping[int, Run]) -> list[Any]:
        """The results with other outputs of some steps, by number: what follows from these is computed again."""
        new: dict[int, Any] = {}
        for i in range(min(changes, default=0), len(self.steps)):
            step = self.steps[i]
            run = changes.get(i)
            if run is None and not any(slot in new for slot in step.inputs):
                continue
            values = [new.get(slot, self.values[slot]) for slot in step.inputs]
            new.update(zip(step.outputs, (run or step.run)(values), strict=True))
        return [new.get(slot, self.values[slot]) for slot in self.results]

    def cost(self, changed: Sequence[int]) -> int:
        """What `again` costs at most, in steps of NumPy. Many changes are made at the same steps, so it is remembered."""
        key = tuple(changed)
        if key not in self._costs:
            later = self.after([slot for i in changed for slot in self.steps[i].outputs])
            self._costs[key] = sum(self.steps[i].cost for i in later.union(changed))
        return self._costs[key]

    def before(self, slots: Sequence[int]) -> set[int]:
        """The steps from which these values follow."""
        wanted, found = set(slots), set()
        for i in range(len(self.steps) - 1, -1, -1):
            if any(slot in wanted for slot in self.steps[i].outputs):
                found.add(i)
                wanted.update(self.steps[i].inputs)
        return found

    def after(self, slots: Sequence[int]) -> set[int]:
        """The steps that follow from these values."""
        made, found = set(slots), set()
        for i, step in enumerate(self.steps):
            if any(slot in made for slot in step.inputs):
                found.add(i)
                made.update(step.outputs)
        return found

    def _new(self, value: Any, name: Any, turn: Turn) -> int:
        self.values.append(_plain(value))
        self.names.append((name, turn))
        return len(self.values) - 1

    def _follow(self, jaxpr: Any, inputs: Sequence[int], body: Any, outer: surgery.Lines, turn: Turn, library: bool) -> list[int]:
        """The numbers of a program's results; body: the loop that it is in."""
        jaxpr = _compat.closed(jaxpr)
        env: dict[Any, int] = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
        env |= {
            var: self._new(value, ("constant", k), turn)
            for k, (var, value) in enumerate(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
        }
        for equation in jaxpr.jaxpr.eqns:
            source = outer if library else surgery.lines_of(equation) or outer
            where = (source, equation.primitive.name, body, turn)
            self._counts[where] = self._counts.get(where, -1) + 1
            key = surgery.key_of(source, equation, self._counts[where])
            slots = []
            for k, atom in enumerate(equation.invars):
                slots.append(self._new(_number(atom), ("literal", key, k), turn) if isinstance(atom, core.Literal) else env[atom])
            env |= dict(zip(equation.outvars, self._outputs(equation, key, slots, body, source, turn, library), strict=True))
        return [
            self._new(_number(atom), ("constant", "result"), turn) if isinstance(atom, core.Literal) else env[atom]
            for atom in jaxpr.jaxpr.outvars
        ]

    def _outputs(
        self, equation: Any, key: surgery.Key, slots: list[int], body: Any, source: surgery.Lines, turn: Turn, library: bool
    ) -> list[int]:
        name, params = equation.primitive.name, equation.params
        if (program := _compat.called(equation)) is not None:
            return self._follow(program, slots, body, source, turn, library or surgery.is_library(equation, program))
        if name == "cond":
            platforms = params.get("branches_platforms")
            branch = min(surgery.taken(platforms)) if platforms else int(self.values[slots[0]])
            program = params["branches"][min(max(branch, 0), len(params["branches"]) - 1)]
            return self._follow(program, slots[1:], key, source, turn, library)
        if name == "scan" and params["length"] <= TURNS:
            return self._unrolled(equation, key, slots, source, turn, library)
        return self._add(key, turn, equation, slots, _runner(equation), [(key, k) for k in range(len(equation.outvars))])

    def _unrolled(self, equation: Any, key: surgery.Key, slots: list[int], source: surgery.Lines, turn: Turn, library: bool) -> list[int]:
        constants, carried = _compat.scan_parts(equation.params)
        fixed, carry, rows = slots[:constants], slots[constants : constants + carried], slots[constants + carried :]
        length = equation.params["length"]
        order = range(length)[::-1] if equation.params["reverse"] else range(length)
        stacks: list[list[int]] = [[] for _ in equation.outvars[carried:]]
        for t in order:
            now = (*turn, t)
            own = [
                self._add(key, now, None, [slot], lambda values, t=t: [values[0][t]], [("row", key, k)])[0] for k, slot in enumerate(rows)
            ]
            made = self._follow(equation.params["jaxpr"], [*fixed, *carry, *own], key, source, now, library)
            carry = made[:carried]
            for stack, slot in zip(stacks, made[carried:], strict=True):
                stack.append(slot)
        results = [self._add(key, turn, None, [slot], list, [(key, k)])[0] for k, slot in enumerate(carry)]
        for k, (stack, var) in enumerate(zip(stacks, equation.outvars[carried:], strict=True)):
            forward = stack[::-1] if equation.params["reverse"] else stack
            shape, dtype = var.aval.shape, var.aval.dtype
            results += self._add(
                key, turn, None, forward, lambda values, shape=shape, dtype=dtype: [np.stack(values) if values else np.zeros(shape, dtype)],
                [(key, carried + k)],
            )  # fmt: skip
        return results

    def _add(self, key: surgery.Key, turn: Turn, equation: Any, inputs: Sequence[int], run: Run, names: Sequence[Any]) -> list[int]:
        if len(self.steps) == MOST or (equation is not None and "callback" in equation.primitive.name):
            raise NotFollowedError
        outputs = [self._new(value, name, turn) for value, name in zip(run([self.values[slot] for slot in inputs]), names, strict=True)]
        cost = 1 if equation is None or interpreter.knows_equation(equation) else SLOW
        cost += sum(np.size(self.values[slot]) for slot in (*inputs, *outputs)) // ELEMENTS
        if equation is not None and equation.primitive.name == "dot_general":
            cost += int(np.prod([float(np.size(self.values[slot])) for slot in (*inputs, *outputs)]) ** 0.5) // (10 * ELEMENTS)
        self.steps.append(Step(key=key, turn=turn, equation=equation, inputs=tuple(inputs), outputs=tuple(outputs), run=run, cost=cost))
        return outputs


def _number(literal: Any) -> np.ndarray:
    return np.asarray(literal.val, literal.aval.dtype)


def _runner(equation: Any) -> Run:
    if interpreter.knows_equation(equation):
        return lambda values: interpreter.apply(equation, values)
    compiled = jax.jit(
        lambda *values: _compat.bind(equation, values, equation.params)
    )  # custom_linear_solve mixes up its operands outside of jit
    return lambda values: [_plain(value) for value in compiled(*values)]


def _plain(value: Any) -> Any:
    """A NumPy array, but of keys, which NumPy does not have."""
    return value if jnp.issubdtype(value.dtype, jax.dtypes.extended) else np.asarray(value)
