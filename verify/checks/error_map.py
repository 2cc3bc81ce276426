"""The errors of one array as a small matrix, for a picture: whole, whatever the array's size. Only failures are worth one."""

from __future__ import annotations

import numpy as np

from verify.records import ErrorMap

ROWS, COLUMNS = 10, 20  # of the picture
READABLE = 24  # elements whose values are kept, too


def error_map(name: str, dtype: str, got: np.ndarray, want: np.ndarray, bound: np.ndarray, worst: tuple[int, ...]) -> ErrorMap:
    """`bound` is NaN where nothing was compared; `worst` is the index of the worst element."""
    matrix = (-1, got.shape[-1]) if got.ndim else (1, 1)
    with np.errstate(all="ignore"):
        off = np.where(np.isfinite(got), np.abs(got - want), np.inf)
        off = np.where(got == want, 0.0, off)  # of equal infinities, too
        errors = np.where(np.isnan(bound), np.nan, off / np.maximum(bound, 1e-300)).reshape(matrix)
    rows, columns = errors.shape
    block = (-(-rows // ROWS), -(-columns // COLUMNS))
    cells = [[_worst(errors[r : r + block[0], c : c + block[1]]) for c in range(0, columns, block[1])] for r in range(0, rows, block[0])]
    row, column = np.unravel_index(int(np.ravel_multi_index(worst, got.shape)) if worst else 0, errors.shape)
    readable = got.size <= READABLE
    return ErrorMap(
        argument=name, dtype=dtype, shape=got.shape, block=block, cells=tuple(map(tuple, cells)), worst=worst,
        cell=(int(row) // block[0], int(column) // block[1]),
        got=_rows(got.reshape(matrix)) if readable else (), want=_rows(want.reshape(matrix)) if readable else (),
    )  # fmt: skip


def _worst(block: np.ndarray) -> float | None:
    """Three digits are enough for a colour."""
    compared = block[~np.isnan(block)]
    return float(f"{compared.max():.3g}") if compared.size else None


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
