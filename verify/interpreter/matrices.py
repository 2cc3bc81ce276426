"""Factorisations and triangular solves of stacks of matrices, by LAPACK and BLAS: what XLA calls on the CPU, too.

Where they fail (a matrix that is not positive definite, NaN), the result is NaN, as XLA's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy.linalg import blas, lapack

from verify.interpreter.arithmetic import Rule

Matrices = Callable[..., Sequence[np.ndarray]]  # of single matrices: the results


def _each(function: Matrices, shapes: Sequence[tuple[int, ...]], *stacks: np.ndarray) -> list[np.ndarray]:
    """`function(*matrices)` of each of the stacks' matrices; shapes: of its results, which are NaN where it fails."""
    batch = stacks[0].shape[:-2]
    count = math.prod(batch)
    made: list[list[np.ndarray]] = [[] for _ in shapes]
    for matrices in zip(*(x.reshape(count, *x.shape[-2:]) for x in stacks), strict=True):
        try:
            results = function(*matrices)
        except np.linalg.LinAlgError:
            results = [np.full(shape, np.nan) for shape in shapes]
        for column, result in zip(made, results, strict=True):
            column.append(result)
    return [
        np.stack(column).reshape((*batch, *shape)) if column else np.zeros((*batch, *shape))
        for column, shape in zip(made, shapes, strict=True)
    ]


def _cholesky(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    return _each(lambda a: [np.linalg.cholesky(a)], [x.shape[-2:]], x)[0]


def _triangular_solve(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    def solve(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
        if not b.size:
            return [b]
        (trsm,) = blas.get_blas_funcs(("trsm",), (a, b))  # of complex numbers, too: the solution is analytic
        side, lower, transposed, diagonal = (int(params[key]) for key in ("left_side", "lower", "transpose_a", "unit_diagonal"))
        return [trsm(1.0, a, b, side=1 - side, lower=lower, trans_a=transposed, diag=diagonal)]

    return _each(solve, [y.shape[-2:]], x, y)[0]


def _lu(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    rows, columns = x.shape[-2:]

    def factors(a: np.ndarray) -> list[np.ndarray]:
        order = np.arange(rows)
        if not a.size:
            return [a, np.zeros(0), order]
        (getrf,) = lapack.get_lapack_funcs(("getrf",), (a,))
        both, pivots, _ = getrf(a)
        for k, pivot in enumerate(pivots):
            order[[k, pivot]] = order[[pivot, k]]
        return [both, pivots, order]

    both, pivots, order = _each(factors, [(rows, columns), (min(rows, columns),), (rows,)], x)
    return [both, pivots.astype(np.int32), order.astype(np.int32)]


def _qr(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    rows, columns = x.shape[-2:]
    inner = rows if params["full_matrices"] else min(rows, columns)
    mode: Literal["complete", "reduced"] = "complete" if params["full_matrices"] else "reduced"
    return _each(lambda a: np.linalg.qr(a, mode=mode), [(rows, inner), (inner, columns)], x)


def _eigh(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    n = x.shape[-1]
    triangle: Literal["L", "U"] = "L" if params["lower"] else "U"
    return _each(lambda a: np.linalg.eigh(a, UPLO=triangle)[::-1], [(n, n), (n,)], x)


def _svd(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    rows, columns = x.shape[-2:]
    inner = min(rows, columns)
    left, right = (rows, columns) if params["full_matrices"] else (inner, inner)
    if not params["compute_uv"]:
        return _each(lambda a: [np.linalg.svd(a, compute_uv=False)], [(inner,)], x)

    def svd(a: np.ndarray) -> list[np.ndarray]:
        u, s, vt = np.linalg.svd(a, full_matrices=params["full_matrices"])
        return [s, u, vt]

    return _each(svd, [(inner,), (rows, left), (right, columns)], x)


RULES: dict[str, Rule] = {"cholesky": _cholesky, "triangular_solve": _triangular_solve, "lu": _lu, "qr": _qr, "eigh": _eigh, "svd": _svd}
PLAIN: dict[str, dict[str, Any]] = {  # the parameters that are known
    "qr": {"pivoting": False},
    "eigh": {"sort_eigenvalues": True, "subset_by_index": None},
    "svd": {"subset_by_index": None},
}
