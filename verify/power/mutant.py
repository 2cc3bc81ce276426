"""A function with the primal of another one and its derivative with one edit; it may be jitted, batched and differentiated like any other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from verify.backward import edits, surgery
from verify.backward.opened import Opened, is_float, opened, pulled
from verify.power import ends
from verify.spec import Spec


@dataclass(frozen=True)
class Edit:
    """One mistake. where: "equation", "residual", "upstream" or "cotangent"; name: of the edit in `edits.KINDS` or `ends`.

    target: the equation's key, the residual's number (`numbered`), the output's number, or the argument's path ("[0]['w']").
    """

    where: str
    target: Any
    name: str


def mutated(spec: Spec, edit: Edit, made: list[Edit] | None = None) -> Spec:
    """The spec with this mistake in the derivative of its function; the edit is added to `made` whenever an equation was found for it."""
    fn = spec.fn

    def function(*args: Any, **options: Any) -> Any:
        return _broken(opened(fn, args, options), edit, [] if made is None else made)

    return replace(spec, fn=functools.update_wrapper(function, fn) if hasattr(fn, "__name__") else function)


def _broken(call: Opened, edit: Edit, made: list[Edit]) -> Any:

    @jax.custom_vjp
    def rule(diff: list[Any], rest: list[Any]) -> Any:
        return call.plain(diff, rest)

    def forward(diff: list[Any], rest: list[Any]) -> tuple[Any, Any]:
        out, tree, pullback = replace(call, diff=diff, rest=rest).forward()
        return jax.tree.unflatten(tree, out), pullback

    def backward(pullback: Any, out_ct: Any) -> tuple[Any, None]:
        cts = [ct for ct in jax.tree.leaves(out_ct) if is_float(ct)]
        leaves, tree = jax.tree.flatten(pullback)
        jaxpr = jax.make_jaxpr(pulled(tree))(leaves, cts)
        if operation(edit, jaxpr) is not None:
            made.append(edit)
        return run(jaxpr, leaves, cts, call.paths, edit), None

    rule.defvjp(forward, backward)
    return rule(call.diff, call.rest)


def run(jaxpr: Any, residuals: Sequence[Any], cts: Sequence[Any], paths: Sequence[str], edit: Edit | None) -> list[Any]:
    """A traced pullback with one edit; without it where its target does not exist at these shapes."""
    residuals = changed("residual", residuals, numbered(residuals), edit)
    cts = changed("upstream", cts, range(len(cts)), edit)
    out = surgery.run(jaxpr, [*residuals, *cts], operation(edit, jaxpr))
    return changed("cotangent", out, paths, edit)


def numbered(residuals: Sequence[Any]) -> list[int]:
    """Residuals by their number from the nearer end, so that the last one, the forward's result perhaps, is so whichever optional arguments are absent."""
    count = len(residuals)
    return [i if 2 * i < count else i - count for i in range(count)]


def operation(edit: Edit | None, jaxpr: Any) -> surgery.Operation | None:
    """What an edit of an equation does in this program."""
    if edit is None or edit.where != "equation":
        return None
    paths = frozenset(
        place.path for place in surgery.places(jaxpr) if place.key == edit.target and edit.name in edits.edits_of(place.equation)
    )
    return surgery.Operation(paths, lambda equation, values: edits.edited(edit.name, equation, values)) if paths else None


def changed(where: str, arrays: Sequence[Any], names: Sequence[Any], edit: Edit | None) -> list[Any]:
    if edit is None or edit.where != where:
        return list(arrays)
    end, arrays = ends.end_of(where, edit.name), [jnp.asarray(array) for array in arrays]
    aimed = [name == edit.target and array.size > 0 and end.fits(array, arrays) for array, name in zip(arrays, names, strict=True)]
    return [end.change(array, arrays) if hit else array for array, hit in zip(arrays, aimed, strict=True)]
