"""A rule called with shapes alone: what it returns, and whether that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from verify.auditing.rules import Rule, Signature
from verify.cases import Static
from verify.printable import short


def arrays(args: Any) -> list[Any]:
    """The leaves of a signature's arguments that are arrays, or the shapes of some."""
    leaves = jax.tree.leaves(args, is_leaf=lambda node: isinstance(node, Static))
    return [leaf for leaf in leaves if not isinstance(leaf, Static)]


def refusal(rule: Rule, signature: Signature) -> str:
    """What the rule raises when a call that works is differentiated; "" if it can be."""
    if not rule.whole or not outputs(rule, signature.args):
        return ""
    call, values = _on_arrays(rule, signature.args)
    floats = [i for i, value in enumerate(values) if jax.numpy.issubdtype(value.dtype, np.inexact)]

    def gradient(*given: Any) -> Any:
        def of_floats(floating: list[Any]) -> list[Any]:
            moved = dict(zip(floats, floating, strict=True))
            out = jax.tree.leaves(call(*(moved.get(i, array) for i, array in enumerate(given))))
            return [leaf for leaf in out if jax.numpy.issubdtype(leaf.dtype, np.inexact)]

        out, pullback = jax.vjp(of_floats, [given[i] for i in floats])
        return pullback(out)

    try:
        jax.eval_shape(gradient, *(jax.ShapeDtypeStruct(value.shape, value.dtype) for value in values))
    except Exception as error:
        return f"{type(error).__name__}: {short(error, 200)}"
    return ""


def outputs(rule: Rule, args: tuple[Any, ...], dtype: str | None = None) -> list[Any]:
    """The shapes that the function returns for these arguments, with floats in `dtype`; none if it cannot be traced with them."""

    def shape(value: Any) -> Any:
        floating = jax.numpy.issubdtype(value.dtype, np.floating)
        return jax.ShapeDtypeStruct(value.shape, dtype if dtype and floating else value.dtype)

    call, values = _on_arrays(rule, args)
    try:
        return jax.tree.leaves(jax.eval_shape(call, *map(shape, values)))
    except Exception:
        return []


def _on_arrays(rule: Rule, args: tuple[Any, ...]) -> tuple[Callable[..., Any], list[Any]]:
    """The rule as a function of the arrays among its arguments, and these."""
    leaves, tree = jax.tree.flatten(args, is_leaf=lambda node: isinstance(node, Static))

    def call(*given: Any) -> Any:
        left = iter(given)
        return rule.function(*jax.tree.unflatten(tree, [leaf.value if isinstance(leaf, Static) else next(left) for leaf in leaves]))

    return call, arrays(args)
