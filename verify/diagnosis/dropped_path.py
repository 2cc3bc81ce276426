"""Which value of the forward does the rule treat as a constant?

The reference is differentiated again with the derivative of one intermediate scaled by m: 0 cuts the path through it, 2 counts it twice, -1
flips its sign. Where the result equals the rule's gradient, that intermediate is the mistake. All intermediates share one compiled program, with one m each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import engine
from verify.diagnosis.evidence import Evidence
from verify.diagnosis.products import describe
from verify.strip import evaluate

LIMIT = 200  # equations
WORDS = {
    0.0: "treats {} as a constant: its derivative is dropped",
    2.0: "counts the path through {} twice",
    -1.0: "has the wrong sign on the path through {}",
}


def dropped_path(e: Evidence) -> str | None:
    """A sentence that names the equation of the reference, or None."""
    observation = e.observation
    call = observation.call
    equations: list[Any] = []

    def program(diff: list[Any], rest: list[Any], cts: list[Any], keep: Any) -> list[Any]:
        equations.clear()

        def scale(equation: Any, outputs: list[Any]) -> list[Any]:
            if len(equations) >= LIMIT or not any(jnp.issubdtype(value.dtype, jnp.floating) for value in outputs):
                return outputs
            m = keep[len(equations)]
            equations.append(equation)
            return [_scaled(value, m) for value in outputs]

        def cut(*leaves: Any) -> list[Any]:
            equations.clear()
            jaxpr = jax.make_jaxpr(call.run_reference)(list(leaves), rest)
            return evaluate(jaxpr, jax.tree.leaves((leaves, rest)), scale)

        _, pullback = jax.vjp(cut, *diff)
        return list(pullback(cts))

    arguments = (observation.diff, observation.rest, e.cotangents)
    compiled = engine.exact(program, *arguments, np.ones(LIMIT))
    for m, words in WORDS.items():
        matches = [k for k in range(len(equations)) if _same_gradients(e, compiled(*arguments, _mask(k, m)))]
        if matches:
            chain = f" (and {len(matches) - 1} more values on the same path)" if len(matches) > 1 else ""
            return "the rule " + words.format(f"the reference's {describe(equations[matches[0]])}{chain}")
    return None


def _scaled(value: Any, m: Any) -> Any:
    """The same value, its derivative times m."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    m = m.astype(value.dtype)
    return m * value + (1 - m) * jax.lax.stop_gradient(value)


def _mask(k: int, m: float) -> np.ndarray:
    mask = np.ones(LIMIT)
    mask[k] = m
    return mask


def _same_gradients(e: Evidence, gradient: list[np.ndarray]) -> bool:
    return all(e.same(np.asarray(cut), got) for cut, got in zip(gradient, e.got, strict=True))
