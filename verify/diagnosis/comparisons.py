"""Is the rule right for a reference in which one comparison is another: `<=` for `<`, a border one further, a mask that always holds?

Masks, lengths, windows, clips and piecewise functions are comparisons, and a backward often draws their border elsewhere than the forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import engine
from verify.diagnosis.evidence import Evidence
from verify.diagnosis.intermediates import describe
from verify.strip import evaluate

LIMIT = 16  # comparisons that are changed
SIGNS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
AT_EDGE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
BEYOND = {"<": -1, "<=": 1, ">": 1, ">=": -1}  # what is added to the right side, where the border is one off and not as at the edge
EDGE, BORDER, OTHER, ALWAYS, NEVER = WAYS = range(1, 6)


def comparisons(e: Evidence) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """Each change of one comparison of the reference: its key, a sentence, and the reference's gradient with it."""
    call = e.observation.call
    met: list[Any] = []

    def program(diff: list[Any], rest: list[Any], cts: list[Any], ways: Any) -> list[Any]:
        def change(equation: Any, inputs: list[Any], outputs: list[Any]) -> list[Any]:
            if equation.primitive.name not in SIGNS or len(met) == LIMIT:
                return outputs
            met.append(equation)
            return [_changed(equation.primitive.name, inputs, outputs[0], ways[len(met) - 1])]

        def changed(*leaves: Any) -> list[Any]:
            met.clear()
            return evaluate(jax.make_jaxpr(call.run_reference)(list(leaves), rest), jax.tree.leaves((leaves, rest)), change)

        return list(jax.vjp(changed, *diff)[1](cts))

    arguments = (e.observation.diff, e.observation.rest, e.cotangents)
    compiled = engine.exact(program, *arguments, np.zeros(LIMIT, np.int64), runs=engine.MANY)
    for k, equation in enumerate(met):
        for way in WAYS:
            if words := _words(equation, way):
                ways = np.zeros(LIMIT, np.int64)
                ways[k] = way
                yield f"{way} {describe(equation)}", f"the gradient is {words}", [np.asarray(g) for g in compiled(*arguments, ways)]


def _changed(name: str, inputs: list[Any], held: Any, way: Any) -> Any:
    """What the comparison says if it is changed in this way; 0 changes nothing."""
    left, right = inputs
    border = held
    if jnp.issubdtype(left.dtype, jnp.integer):
        moved = right + jnp.asarray(BEYOND[SIGNS[name]], right.dtype)
        border = {"lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal}[name](left, moved)
    return jnp.select(
        [way == EDGE, way == BORDER, way == OTHER, way == ALWAYS, way == NEVER],
        [held ^ (left == right), border, ~held, jnp.ones_like(held), jnp.zeros_like(held)],
        held,
    )


def _words(equation: Any, way: int) -> str:
    name = equation.primitive.name
    sign = SIGNS[name]
    where = f"the reference's comparison {sign}{describe(equation).removeprefix(name)}"
    if way == EDGE:
        return f"as if {AT_EDGE[sign]} stood for {where}: what is equal is taken to the wrong side"
    if way == BORDER:
        return f"as if the border were one off in {where}" if jnp.issubdtype(equation.invars[0].aval.dtype, jnp.integer) else ""
    if way == OTHER:
        return f"as if {OPPOSITE[sign]} stood for {where}"
    return f"as if {where} held {'everywhere' if way == ALWAYS else 'nowhere'}: it is not applied"
