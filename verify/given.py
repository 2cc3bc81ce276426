"""Cases on arrays that the user gives, in the place of a spec's draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from verify.cases import Case, Static
from verify.spec import FLOAT_DTYPES, Arg, SpecError
from verify.values import Key, alike, draw_values, generator, round_to


def from_arrays(
    name: str, args: tuple[Any, ...], argument_names: tuple[str, ...], options: Mapping[str, Any], seed: int, index: int, dtype: str
) -> Case:
    """A case on the user's own example arrays: index 0 holds them as they are, later ones other values in the range of the given ones."""
    rng = generator(name, seed, index, "values")
    dtypes: list[str | None] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, (Static, Key)):
            dtypes.append(None)
            return value
        array = np.asarray(value) if hasattr(value, "__array__") else value
        is_float = jax.numpy.issubdtype(array.dtype, np.inexact)
        own = {"complex64": "float32", "complex128": "float64"}.get(str(array.dtype), str(array.dtype)) if is_float else None
        if own is not None and own not in FLOAT_DTYPES:
            raise SpecError(f"{name}: an argument is {own}, in which no derivative can be verified; known: {', '.join(FLOAT_DTYPES)}")
        user = None if own is None else own if dtype == "given" else dtype
        dtypes.append(user)
        if isinstance(array, jax.ShapeDtypeStruct):
            if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
                return Key(int(rng.integers(2**31)))
            kind = str(array.dtype)
            return draw_values(rng, Arg(dtype=kind), array.shape, {}, "fine", own or kind)
        if not is_float:
            return array
        if np.iscomplexobj(array):
            return (
                array.astype(np.complex128)
                if index == 0
                else alike(rng, array.astype(np.complex128)).astype(array.dtype).astype(np.complex128)
            )
        return round_to(array if index == 0 else alike(rng, np.asarray(array, np.float64)), own)  # type: ignore[arg-type]

    drawn = jax.tree.map(leaf, args, is_leaf=lambda node: isinstance(node, (Static, Key)))
    leaves = jax.tree.leaves(drawn, is_leaf=lambda node: isinstance(node, (Static, Key)))
    domains = tuple(None if dtype is None else _given_domain(leaf) for dtype, leaf in zip(dtypes, leaves, strict=True))
    label = "given" if dtype == "given" else dtype
    return Case(
        name=name, seed=seed, index=index, args=drawn, argument_names=argument_names, dtypes=tuple(dtypes), dtype=label, options=options,
        domains=domains,
    )  # fmt: skip


def _given_domain(given: np.ndarray) -> Any:
    """Arrays of one sign may stand for one another, and those of both; a symmetric or triangular matrix may not, as that may be required of it."""
    square = given.ndim >= 2 and given.shape[-1] == given.shape[-2] > 1
    if square and (np.array_equal(given, np.swapaxes(given, -1, -2)) or not np.tril(given, -1).any() or not np.triu(given, 1).any()):
        return None
    return ("given", bool(np.min(np.real(given), initial=0.0) < 0), bool(np.max(np.real(given), initial=0.0) > 0))
