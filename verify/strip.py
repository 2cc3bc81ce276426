"""The plain formula inside a function: every custom derivative rule replaced by its own primal.

What JAX derives from the result is the derivative that the rules claim to be; so a `custom_vjp` needs no reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.extend import core

from verify import _compat

After = Callable[[Any, list[Any], list[Any]], list[Any]]  # (equation, inputs, outputs) -> what stands for the outputs


def strip_custom_rules(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with every custom_vjp and custom_jvp rule in it, at any depth, replaced by its primal.

    Takes and returns pytrees of arrays like `function` itself; arguments by keyword are static options.

    >>> import jax, jax.numpy as jnp
    >>> wrong = jax.custom_vjp(jnp.sin)
    >>> wrong.defvjp(lambda x: (jnp.sin(x), None), lambda _, ct: (2 * ct,))
    >>> float(jax.grad(wrong)(0.0)), float(jax.grad(strip_custom_rules(wrong))(0.0))
    (2.0, 1.0)
    """

    def stripped(*args: Any, **options: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(partial(function, **options), return_shape=True)(*args)
        flat = evaluate(jaxpr, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return stripped


def evaluate(jaxpr: Any, args: Sequence[Any], after: After | None = None, keep_rules: bool = False, caller: Any = None) -> list[Any]:
    """Run a jaxpr equation by equation, without its custom rules unless `keep_rules`; `after(equation, inputs, outputs)` may replace an equation's outputs.

    Calls (`jit`, and the primals of custom rules that are not kept) are entered, so `after` sees their equations; loops and branches are single
    equations. Entering the calls also makes differentiation cheap: JAX differentiates each nested `jit` in a trace of its own.
    `caller`, the equation of the call that this is the jaxpr of: its source line is that of equations without one, as JAX keeps none in what it traced before (`jnp.tril`).
    """
    jaxpr = _compat.closed(jaxpr)
    env: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    env |= dict(zip(jaxpr.jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for equation in jaxpr.jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        if caller is not None and not _compat.source_line(equation):
            equation = equation.replace(source_info=caller.source_info)
        if (inner := _entered(equation, keep_rules)) is not None:
            outputs = evaluate(inner, values, after, keep_rules, caller=equation)
        else:
            outputs = _compat.bind(equation, values, equation.params if keep_rules else _without_rules(equation.params))
            if after is not None:
                outputs = after(equation, values, outputs)
        env |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def count_custom_rules(jaxpr: Any) -> int:
    """How many calls of custom rules a jaxpr holds, at any depth."""
    return sum(equation.primitive.name in _compat.CUSTOM_RULES for equation in _compat.walk(jaxpr))


def _entered(equation: Any, keep_rules: bool) -> Any:
    name = equation.primitive.name
    if name in _compat.CUSTOM_RULES and not keep_rules:
        return equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr"))
    return equation.params["jaxpr"] if name in ("jit", "pjit") else None


def _without_rules(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a loop, branch or remat, with the custom rules inside its jaxprs replaced."""
    if not any(count_custom_rules(inner) for inner in _compat.subjaxprs(params)):
        return params

    def rebuild(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(rebuild(item) for item in value) if not hasattr(value, "_fields") else value
        if not isinstance(value, (core.Jaxpr, core.ClosedJaxpr)):
            return value
        new = jax.make_jaxpr(lambda *args: evaluate(value, args))(*_compat.closed(value).in_avals)
        if isinstance(value, core.ClosedJaxpr):
            return new
        return new.jaxpr if not new.consts else value

    return {key: rebuild(value) for key, value in params.items()}
