"""Is the wrong cotangent a product of two known arrays, and the right one of which two?

Most backward rules are products of what is at hand: the arguments, the upstream cotangent, the intermediates of the forward, and their transposes. On
a square case a wrong product has the right shape. All products of two known arrays are tried against the wrong and the right cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from verify.diagnosis.evidence import Evidence
from verify.diagnosis.intermediates import Named, lettered

LIMIT = 24  # arrays; pairs of them and of their transposes are tried


def wrong_product(e: Evidence, leaf: int) -> str | None:
    """A sentence that names the product and the right one, or None."""
    known = known_arrays(e)
    got = next(products(e, e.got[leaf], known), None)
    if got is None:
        return None
    want = next(products(e, e.want[leaf], known), None)
    if want is None or got[0] == want[0]:
        return None
    return lettered(f"it equals {got[0]} where {want[0]} is wanted: {_difference(got, want)}")


def strange_product(e: Evidence, leaf: int) -> str | None:
    """A product where the right cotangent is none."""
    got = next(products(e, e.got[leaf], known_arrays(e)), None)
    return lettered(f"it equals {got[0]}, which is not the derivative") if got else None


def _difference(got: tuple[str, Any], want: tuple[str, Any]) -> str:
    plain = [[name.removesuffix("^T") for name in parts] for _, parts in (got, want)]
    if " * " in got[0] and " @ " in want[0]:
        return "an elementwise product instead of a matrix product"
    if plain[0] == plain[1]:
        return "a transpose is forgotten or misplaced"
    if sorted(plain[0]) == sorted(plain[1]):
        return "the factors are in the wrong order"
    swapped = [(a, b) for a, b in zip(sorted(set(plain[0]) - set(plain[1])), sorted(set(plain[1]) - set(plain[0])), strict=False)]
    if len(swapped) == 1:
        return f"it uses {swapped[0][0]} in the place of {swapped[0][1]} (a wrong or stale residual?)"
    return "another product"


def known_arrays(e: Evidence) -> list[Named]:
    observation = e.observation
    many = len(e.cotangents) > 1
    known = [(f"y{k}_ct" if many else "y_ct", ct) for k, ct in enumerate(e.cotangents)]
    known += list(zip(e.names, observation.diff, strict=True))
    known += [(name, value) for name, value in e.intermediates if np.issubdtype(value.dtype, np.floating)]
    return [(name, value) for name, value in known if value.ndim and value.size][:LIMIT]


def products(e: Evidence, target: np.ndarray, known: list[Named]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every product of two known arrays that equals the target; matrix products first."""
    if target.ndim == 0 or not target.any():
        return
    matrices = [form for name, value in known for form in _forms(name, value)]
    flat = target.reshape(-1, target.shape[-1]) if target.ndim >= 2 else target[None]
    for (left, a), (right, b) in _pairs(matrices):
        if a.shape[1] == b.shape[0] and (a.shape[0], b.shape[1]) == flat.shape and e.same(a @ b, flat):
            yield f"{left} @ {right}", (left, right)
    for (left, a), (right, b) in _pairs(matrices):
        if left <= right and a.shape == b.shape == flat.shape and e.same(a * b, flat):
            yield f"{left} * {right} (element by element)", (left, right)


def _pairs(matrices: list[Named]) -> Iterator[tuple[Named, Named]]:
    """Products with the upstream cotangent first, as a backward has it as a factor."""
    order: Callable[[tuple[Named, Named]], bool] = lambda pair: not any(name.endswith("_ct") or "_ct^" in name for name, _ in pair)  # noqa: E731
    yield from sorted(((a, b) for a in matrices for b in matrices), key=order)


def _forms(name: str, value: np.ndarray) -> Iterator[Named]:
    matrix = value.reshape(-1, value.shape[-1]) if value.ndim >= 2 else value[None]
    yield name, matrix
    if value.ndim >= 2:
        yield f"{name}^T", matrix.T
