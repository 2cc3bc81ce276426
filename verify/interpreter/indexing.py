"""Reading and writing at indices: dynamic slices, gather and scatter, with what XLA does where an index is out of range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from verify.interpreter.arithmetic import Rule

CLIPPED, DROPPED = (
    "CLIP",
    "FILL_OR_DROP",
)  # by the names of jax.lax.GatherScatterMode; a promise that is broken is taken as clipped or dropped


def _starts(starts: Sequence[np.ndarray], shape: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """A window that begins at `starts`, moved into the array where it reaches over an end."""
    first = [min(max(int(start), 0), whole - size) for start, whole, size in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(first, sizes, strict=True))


def _dynamic_slice(params: dict[str, Any], x: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    return x[_starts(starts, x.shape, params["slice_sizes"])]


def _dynamic_update_slice(params: dict[str, Any], x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    out = _writable(x, update)
    out[_starts(starts, x.shape, update.shape)] = update
    return out


def _writable(x: np.ndarray, update: np.ndarray) -> np.ndarray:
    """A copy; a complex one if what is written there is complex."""
    return np.array(x, np.result_type(x, update) if "c" in (x.dtype.kind, update.dtype.kind) else x.dtype)


def _mode(params: dict[str, Any]) -> str:
    return str(getattr(params["mode"], "name", params["mode"]))


def _windows(
    shape: Sequence[int],
    indices: np.ndarray,
    named: Sequence[int],
    sizes: Sequence[int],
    gone: Sequence[int],
    shared: Sequence[tuple[int, int]],
) -> tuple[list[np.ndarray], np.ndarray, tuple[int, ...]]:
    """The elements of each window, one array of indices for each axis, of shape (*points, *window); which windows lie inside; the window's shape.

    named: the axes that a row of `indices` gives the start of. sizes: of a window along every axis. gone: axes of size 1 that a window does not have.
    shared: pairs (axis of the array, axis of the indices) that go together.
    """
    points = indices.shape[:-1]
    windowed = [axis for axis in range(len(shape)) if axis not in gone and axis not in [axis for axis, _ in shared]]
    inside = np.ones(points, bool)
    elements = []
    for axis, whole in enumerate(shape):
        start: Any = np.zeros(points, np.int64)
        if axis in named:
            given = indices[..., list(named).index(axis)].astype(np.int64)
            inside &= (given >= 0) & (given <= whole - sizes[axis])
            start = np.clip(given, 0, max(whole - sizes[axis], 0))
        for _, along in (pair for pair in shared if pair[0] == axis):
            start = np.broadcast_to(np.arange(whole).reshape([-1 if k == along else 1 for k in range(len(points))]), points)
        start = start.reshape((*points, *(1 for _ in windowed)))
        if axis in windowed:
            start = start + np.arange(sizes[axis]).reshape([-1 if other == axis else 1 for other in windowed])
        elements.append(start)
    return elements, inside, tuple(sizes[axis] for axis in windowed)


def _gather(params: dict[str, Any], x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    numbers = params["dimension_numbers"]
    shared = list(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    sizes, gone = params["slice_sizes"], numbers.collapsed_slice_dims
    elements, inside, window = _windows(x.shape, indices, numbers.start_index_map, sizes, gone, shared)
    shape = (*inside.shape, *window)
    found = np.broadcast_to(x[tuple(elements)], shape) if x.size else np.zeros(shape, x.dtype)
    if _mode(params) == DROPPED:
        found = np.where(inside.reshape((*inside.shape, *(1 for _ in window))), found, _filling(params["fill_value"], x.dtype))
    return found.transpose(_places(len(shape), numbers.offset_dims, inside.ndim))


def _filling(value: Any, dtype: np.dtype) -> Any:
    if value is not None:
        return np.asarray(value, dtype)
    if dtype.kind in "fc":
        return np.asarray(np.nan, dtype)
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def _places(rank: int, of_window: Sequence[int], points: int) -> list[int]:
    """Which axis of (*points, *window) goes to each place of the result, whose places `of_window` are the window's."""
    window, others = iter(range(points, rank)), iter(range(points))
    return [next(window) if place in of_window else next(others) for place in range(rank)]


def _scatter(combine: Callable[..., Any] | None) -> Callable[..., np.ndarray]:
    """`combine.at` of what stands there and the updates, in their order; without it the last update stands."""

    def scatter(params: dict[str, Any], x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        numbers = params["dimension_numbers"]
        shared = list(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
        gone, kept = numbers.inserted_window_dims, iter(sorted(numbers.update_window_dims))
        without = (*gone, *numbers.operand_batching_dims)
        sizes = [1 if axis in without else updates.shape[next(kept)] for axis in range(x.ndim)]
        elements, inside, window = _windows(x.shape, indices, numbers.scatter_dims_to_operand_dims, sizes, gone, shared)
        shape = (*inside.shape, *window)
        order = _places(len(shape), numbers.update_window_dims, inside.ndim)
        values = updates.transpose(np.argsort(order))
        written = inside if _mode(params) != CLIPPED else np.ones_like(inside)
        at = tuple(np.broadcast_to(element, shape)[written] for element in elements)
        out = _writable(x, updates)
        if combine is None:
            out[at] = values[written]
        else:
            combine.at(out, at, values[written])  # type: ignore[attr-defined]
        return out

    return scatter


RULES: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter(None),
    "scatter-add": _scatter(np.add),
    "scatter-mul": _scatter(np.multiply),
    "scatter-min": _scatter(np.minimum),
    "scatter-max": _scatter(np.maximum),
}
