"""Outputs of a custom_vjp that `vmap` shares over the examples, of which JAX itself gets the gradient wrong.

Let f(x, s) return (x s, x^2), and let vmap have an axis of examples for s alone. Then x^2 is the same for all examples, and so is its cotangent, which JAX sums over them. But
x_ct, which the backward makes of both cotangents, has one value for each example, and JAX sums these too: the share of x^2 is counted once per example. No
backward can help it. JAX 0.10 and earlier give the wrong number, JAX 0.12 raises and offers `defvjp(..., generic_batching=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from verify import _compat

BLAME = (
    "JAX itself goes wrong, whatever the backward is: an output that is the same for all examples has a cotangent, which JAX counts once per example "
    "(JAX 0.12 raises instead; defvjp(..., generic_batching=True) cures it there)"
)


def shares_outputs(jaxpr: Any, batched: Sequence[bool]) -> bool:
    """Whether a custom_vjp in a program, some of whose inputs have an axis of examples, has an output without one, and an input without."""
    return _visit(jaxpr, batched)[1]


def _visit(jaxpr: Any, batched: Sequence[bool]) -> tuple[list[bool], bool]:
    """Which outputs depend on the batched inputs, and whether a rule inside is as said above."""
    jaxpr = _compat.closed(jaxpr).jaxpr
    depends = dict(zip(jaxpr.invars, batched, strict=True))
    found = False

    def read(atom: Any) -> bool:
        return not isinstance(atom, core.Literal) and depends.get(atom, False)

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = [any(inputs)] * len(equation.outvars)
        if any(inputs) and (inner := _compat.called(equation)) is not None:
            outputs, deeper = _visit(inner, inputs)
            shared = "custom_vjp" in equation.primitive.name and not all(outputs) and not all(inputs)
            found = found or deeper or shared
        depends |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars], found
