"""What differs between the JAX versions that verify supports (0.7.2, 0.10.2, 0.12), and the few places that are not public API.

Tested with JAX 0.7.2, 0.10.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.extend import core, source_info_util

if hasattr(jax, "enable_x64"):
    enable_x64: Callable[[bool], AbstractContextManager[None]] = jax.enable_x64
else:  # 0.7.2
    from jax.experimental import enable_x64 as enable_x64  # type: ignore[no-redef,attr-defined]

DEPTH = 32  # calls that are told of where an equation was written
CUSTOM_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
CALLS = ("jit", "pjit", "closed_call", "core_call", *CUSTOM_RULES)


def closed(jaxpr: Any) -> core.ClosedJaxpr:
    """A ClosedJaxpr from either kind (JAX 0.12 keeps open ones in some parameters)."""
    return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())


def subjaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs in an equation's parameters, open or closed, also inside tuples."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (core.Jaxpr, core.ClosedJaxpr)):
                yield item


def called(equation: Any) -> Any:
    """The program that a call runs once (of a custom rule its primal); None for every other equation."""
    if equation.primitive.name not in CALLS:
        return None
    return next((equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params), None)


def walk(jaxpr: Any, enter: Callable[[Any], bool] = lambda equation: True) -> Iterator[Any]:
    """Every equation of a jaxpr, at any depth; of the outermost equations only those that `enter` accepts."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if enter(equation):
            yield equation
            for inner in subjaxprs(equation.params):
                yield from walk(inner)


def bind(equation: Any, values: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    """Run one equation on new values, with new parameters, as if it stood at its own source line.

    A custom rule is left to its own lines: its forward and backward are traced here, and would all get that one.
    """
    prepared = equation.primitive.get_bind_params(params)
    subfuns, params = prepared if isinstance(prepared, tuple) else ([], prepared)  # JAX 0.7.2 returns a pair
    custom = equation.primitive.name in CUSTOM_RULES
    line = nullcontext() if custom else source_info_util.user_context(equation.source_info.traceback)
    with line, equation.ctx.manager:
        out = equation.primitive.bind(*subfuns, *values, **params)
    return list(out) if equation.primitive.multiple_results else [out]


def scan_parts(params: dict[str, Any]) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()  # JAX 0.12
    return len(constants.vals), len(carried.vals)


def source_line(equation: Any) -> str:
    """Where the user wrote an equation: "/path/file.py:12:4 (function)", or "" if unknown."""
    summary = source_info_util.summarize(equation.source_info)
    return "" if summary == "unknown" else summary


def source_lines(equation: Any) -> list[str]:
    """The same for each call on the way there, the innermost first; "unknown" if nothing is known."""
    return source_info_util.summarize(equation.source_info, num_frames=DEPTH).split("\n")[::-1]


def rule_source(equation: Any) -> tuple[str, str]:
    """Name and place ("file:line") of the function that a custom rule's equation computes; "?" and "" if unknown."""
    jaxpr = closed(equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr")))
    told = getattr(jaxpr.jaxpr.debug_info, "func_src_info", None) or ""
    name, _, place = told.partition(" at ")
    return name or "?", place
