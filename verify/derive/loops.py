"""A scan, forward and backward, by the tape of one of its steps: backpropagation through time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from verify.derive.expressions import Expr
from verify.derive.pullbacks import PULLBACKS
from verify.derive.reverse import Term, backward, run
from verify.derive.steps import Loop
from verify.derive.values import VALUE, evaluate, typed


def terms(loop: Loop) -> list[Term]:
    """One step backward, from the cotangents of next_c1, ... and out1_t, ... to those of the step's inputs."""
    floats = [e.data for e, var in zip(loop.body.inputs, loop.avals[0], strict=True) if e.op == "name" and var.dtype == float]
    return backward(loop.body, floats)


def _forward(loop: Loop, operands: Sequence[Any]) -> tuple[dict[int, dict[str, Any]], list[Any]]:
    """The values of each step, and the outputs."""
    fixed, carried, inputs = loop.fixed, loop.carried, loop.body.inputs
    values = typed(loop.equation, operands)
    carry, steps, stacked = values[fixed : fixed + carried], {}, {}
    for t in loop.order:
        given = [*values[:fixed], *carry, *(x[t] for x in values[fixed + carried :])]
        env = {e.data: value for e, value in zip(inputs, given, strict=True) if e.op == "name"}
        for step in loop.body.steps:
            env[step.name] = evaluate(step.value, env)
        out = [np.broadcast_to(env[y.data], y.shape) for y in loop.body.outputs]
        carry, steps[t], stacked[t] = out[:carried], env, out[carried:]
    return steps, [*carry, *(np.stack([stacked[t][k] for t in sorted(stacked)]) for k in range(len(loop.body.outputs) - carried))]


def _value(e: Expr, *operands: Any) -> Any:
    loop, output = e.data
    return _forward(loop, operands)[1][output]


def _backward(e: Expr, *values: Any) -> Any:
    """The cotangent of one operand, from that of one output: the steps in reverse, a carry's cotangent handed from each to the one before."""
    (loop, output, operand), (*operands, ct) = e.data, values
    fixed, carried = loop.fixed, loop.carried
    steps, back = _forward(loop, operands)[0], terms(loop)
    names = [f"{x.data}_ct" if x.op == "name" else "" for x in loop.body.inputs]
    handed = [ct if output == k else np.zeros(y.shape) for k, y in enumerate(loop.body.outputs[:carried])]
    found = np.zeros(e.shape)
    for t in reversed(loop.order):
        stacked = [ct[t] if output == carried + k else np.zeros(y.shape) for k, y in enumerate(loop.body.outputs[carried:])]
        seeds = {f"{y.data}_ct": seed for y, seed in zip(loop.body.outputs, [*handed, *stacked], strict=True)}
        env = run(back, steps[t] | seeds)
        handed = [env.get(names[fixed + k], np.zeros(y.shape)) for k, y in enumerate(loop.body.outputs[:carried])]
        if operand < fixed:
            found += env.get(names[operand], 0.0)
        elif operand >= fixed + carried:
            found[t] = env.get(names[operand], 0.0)
    return handed[operand - fixed] if fixed <= operand < fixed + carried else found


def _pullback(e: Expr, y: Expr, ct: Expr) -> list[Expr | None]:
    loop, output = e.data
    return [
        Expr("scan_back", (*e.args, ct), tuple(var.aval.shape), (loop, output, k)) if np.issubdtype(var.aval.dtype, np.floating) else None
        for k, var in enumerate(loop.equation.invars)
    ]


VALUE |= {"scan": _value, "scan_back": _backward}
PULLBACKS["scan"] = _pullback
