"""A function with the primal of another one and its derivative with one edit; it may be jitted, batched and differentiated like any other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from verify.power import edits, ends, surgery
from verify.spec import Spec


@dataclass(frozen=True)
class Edit:
    """One mistake. where: "equation", "residual", "upstream" or "cotangent"; name: of the edit in `edits.KINDS` or `ends`.

    target: the equation's key, the residual's number (`numbered`), the output's number, or the argument's path ("[0]['w']").
    """

    where: str
    target: Any
    name: str


@dataclass(frozen=True)
class Opened:
    """A call `fn(*args, **options)` as a function of flat lists: floating-point leaves, and the other arrays."""

    fn: Callable[..., Any]
    diff: list[Any]
    rest: list[Any]
    paths: list[str]
    fill: Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]
    options: Mapping[str, Any]

    def forward(self) -> tuple[list[Any], Any, Any]:
        """(output leaves, their tree, the pullback of the floating-point ones)."""
        return self._forward(self.diff, self.rest)

    def _forward(self, diff: list[Any], rest: list[Any]) -> tuple[list[Any], Any, Any]:
        tree: list[Any] = []

        def flat(diff: list[Any]) -> tuple[list[Any], list[Any]]:
            jaxpr, shape = jax.make_jaxpr(lambda d, r: self.fn(*self.fill(d, r), **self.options), return_shape=True)(diff, rest)
            tree.append(jax.tree.structure(shape))
            out = surgery.run(jaxpr, [*diff, *rest], lines=True)
            return [leaf for leaf in out if _is_float(leaf)], out

        _, pullback, out = jax.vjp(flat, diff, has_aux=True)
        return out, tree[0], pullback

    def plain(self, diff: list[Any], rest: list[Any]) -> Any:
        return self.fn(*self.fill(diff, rest), **self.options)


def opened(fn: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Opened:
    """Tell floating-point arrays, other arrays and static values apart."""
    with_paths, tree = jax.tree_util.tree_flatten_with_path(args)
    leaves = [leaf for _, leaf in with_paths]
    floats = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    others = [i for i, leaf in enumerate(leaves) if i not in floats and hasattr(leaf, "dtype")]

    def fill(diff: Sequence[Any], rest: Sequence[Any]) -> tuple[Any, ...]:
        new = list(leaves) if len(floats) + len(others) < len(leaves) else [None] * len(leaves)
        for i, leaf in zip((*floats, *others), (*diff, *rest), strict=True):
            new[i] = leaf
        return jax.tree.unflatten(tree, new)

    paths = [jax.tree_util.keystr(with_paths[i][0]) for i in floats]
    return Opened(fn, [jnp.asarray(leaves[i]) for i in floats], [leaves[i] for i in others], paths, fill, options)


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


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
        cts = [ct for ct in jax.tree.leaves(out_ct) if _is_float(ct)]
        leaves, tree = jax.tree.flatten(pullback)
        jaxpr = jax.make_jaxpr(pulled(tree))(leaves, cts)
        if operation(edit, jaxpr) is not None:
            made.append(edit)
        return run(jaxpr, leaves, cts, call.paths, edit), None

    rule.defvjp(forward, backward)
    return rule(call.diff, call.rest)


def pulled(tree: Any) -> Callable[[list[Any], list[Any]], list[Any]]:
    """A pullback as a function of its residuals and of the cotangents of the floating-point outputs."""
    return lambda leaves, cts: list(jax.tree.unflatten(tree, leaves)(cts)[0])


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
