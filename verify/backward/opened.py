"""A call of the user's function, its forward and its pullback apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from verify.backward import surgery


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
            return [leaf for leaf in out if is_float(leaf)], out

        _, pullback, out = jax.vjp(flat, diff, has_aux=True)
        return out, tree[0], pullback

    def plain(self, diff: list[Any], rest: list[Any]) -> Any:
        return self.fn(*self.fill(diff, rest), **self.options)


def opened(fn: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Opened:
    """Tell floating-point arrays, other arrays and static values apart."""
    with_paths, tree = jax.tree_util.tree_flatten_with_path(args)
    leaves = [leaf for _, leaf in with_paths]
    floats = [i for i, leaf in enumerate(leaves) if is_float(leaf)]
    others = [i for i, leaf in enumerate(leaves) if i not in floats and hasattr(leaf, "dtype")]

    def fill(diff: Sequence[Any], rest: Sequence[Any]) -> tuple[Any, ...]:
        new = list(leaves) if len(floats) + len(others) < len(leaves) else [None] * len(leaves)
        for i, leaf in zip((*floats, *others), (*diff, *rest), strict=True):
            new[i] = leaf
        return jax.tree.unflatten(tree, new)

    paths = [jax.tree_util.keystr(with_paths[i][0]) for i in floats]
    return Opened(fn, [jnp.asarray(leaves[i]) for i in floats], [leaves[i] for i in others], paths, fill, options)


def is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def pulled(tree: Any) -> Callable[[list[Any], list[Any]], list[Any]]:
    """A pullback as a function of its residuals and of the cotangents of the floating-point outputs."""
    return lambda leaves, cts: list(jax.tree.unflatten(tree, leaves)(cts)[0])
