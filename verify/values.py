"""Values for the arguments of a case.

They are whole numbers from a counter-based generator, divided by a power of ten: no library's rounding enters, so the same address gives the
same bits on any machine, and failures are readable.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from verify.sizes import Sizes
from verify.spec import FLOAT_DTYPES, Arg, SpecError
from verify.styles import floats, with_equal_eigenvalues

KINK_DISTANCE = 2.0**-4  # ordinary draws stay this far from a declared kink


@dataclass(frozen=True)
class Key:
    """A PRNG key, by its seed."""

    seed: int


def generator(name: str, seed: int, index: int, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, (index << 32) | zlib.crc32(f"{name}:{purpose}".encode())]))


def draw_values(
    rng: np.random.Generator,
    arg: Arg,
    shape: tuple[int, ...],
    sizes: Sizes,
    style: str,
    dtype: str,
    kinks: tuple[float, ...] = (),
    scale: float = 1.0,
    one_signed: bool = False,
) -> Any:
    """Values for one array argument: float64 or complex128 (rounded to `dtype`), integers, booleans or a Key.

    `style` and `scale` (of "huge" and "tiny") say what kind of numbers, see `verify.styles`; one_signed: numbers without bounds are positive, whatever the style.
    """
    least, most = arg.bounds
    if arg.sample is not None:
        return sampled(rng, arg, shape, sizes, dtype)
    if arg.dtype == "key":
        return Key(int(rng.integers(2**31)))
    if arg.dtype == "bool":
        chance = (0.5, 0.8, 0.2, 1.0)[int(rng.integers(4))]
        values = rng.integers(1000, size=shape) < 1000 * chance
        if values.ndim and values.size and rng.integers(3) == 0:
            values[(..., 0, slice(None)) if values.ndim > 1 else ...] = False  # a whole row off: a mask with nothing left
        return values
    if dtype not in FLOAT_DTYPES:
        first = 0 if least is None else int(least)
        last = first + 10 if most is None else int(most)
        whole = rng.integers(first, max(last, first + 1), size=shape).astype(arg.dtype)
        whole = np.full_like(whole, whole.flat[0]) if style == "rows" and whole.size else whole  # all labels the same
        if arg.special and (style == "edges" or rng.integers(2)):
            marked = np.array(arg.special).astype(arg.dtype)[rng.integers(len(arg.special), size=shape)]
            whole = np.where(rng.integers(4, size=shape) == 0, marked, whole)
        return whole
    if is_complex(arg.dtype):
        return floats(rng, arg, shape, style, scale) + 1j * floats(rng, arg, shape, style, scale)
    values = floats(rng, arg, shape, style, scale)
    if one_signed and least is most is None:
        values = np.abs(values)
    if style == "ties" and values.size and _square(arg) and (least is None or least <= 0) and (most is None or most >= 0):
        values = with_equal_eigenvalues(rng, values)
    distance = min([KINK_DISTANCE, *(abs(a - b) / 4 for a in kinks for b in kinks if a != b)])
    for kink in kinks:
        away = values - kink
        values = np.where(np.abs(away) < distance, kink + np.where(away < 0, -1, 1) * (distance + np.abs(away)), values)
    if style == "edges":
        inside = [edge for edge in (0.0,) if (least is None or least <= edge) and (most is None or edge <= most)]
        bounds = [bound for bound in (least, most) if bound is not None]
        edges = np.array([*arg.special, *kinks, *inside, *bounds, *(values.reshape(-1)[:1])])
        if edges.size:
            values = np.where(rng.integers(8, size=shape) == 0, edges[rng.integers(edges.size, size=shape)], values)
            declared = np.array([*arg.special, *kinks][: values.size])
            values = np.concatenate([declared, values.reshape(-1)[declared.size :]]).reshape(shape)
        if inside:
            values = np.where(rng.integers(3) == 0, 0.0, values)  # nothing but zeros, now and then
    return _inside(round_to(values, dtype), arg, dtype)


def _square(arg: Arg) -> bool:
    """Whether the last two dimensions are the same one, as of a matrix that has eigenvalues."""
    dims = arg.dims.split()
    return len(dims) >= 2 and dims[-1] == dims[-2]


def sampled(rng: np.random.Generator, arg: Arg, shape: tuple[int, ...], sizes: Sizes, dtype: str) -> np.ndarray:
    """What the user's sample= gives, or a SpecError that says what was wanted."""
    assert arg.sample is not None
    wanted = f"sample(rng, sizes, dtype) must return numbers of shape {shape} for dims {arg.dims!r}"
    try:
        told = {"float64": "complex128"}.get(dtype, "complex64") if is_complex(arg.dtype) else dtype
        values = np.asarray(arg.sample(rng, sizes, told))
        values = wide(values) if values.dtype == ml_dtypes.bfloat16 else values
    except Exception as error:
        raise SpecError(f"Arg.sample raised {type(error).__name__}: {error}; {wanted}") from error
    if values.shape != shape or values.dtype.kind not in "fiubc":
        raise SpecError(f"Arg.sample returned {values.dtype} of shape {values.shape}; {wanted}")
    if is_complex(arg.dtype):
        return values.astype(np.complex128)
    return round_to(values, dtype) if dtype in FLOAT_DTYPES else values


def _inside(values: np.ndarray, arg: Arg, dtype: str) -> np.ndarray:
    """Ordinary values that rounding to a coarse dtype took outside of low and high move to the nearest value inside."""
    least, most = arg.bounds
    if dtype == "float64" or (least is None and most is None):
        return values
    low, high = (-np.inf if least is None else least), (np.inf if most is None else most)
    coarse = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    out = np.asarray(values)
    for bound, towards, beyond in ((low, np.inf, out < low), (high, -np.inf, out > high)):
        allowed = beyond & ~np.isin(out, [round_to(np.asarray(edge), dtype) for edge in arg.special])
        if allowed.any():
            edge = np.asarray(bound).astype(coarse)
            if (edge.astype(np.float64) < bound) == (towards > 0) and edge.astype(np.float64) != bound:
                edge = np.nextafter(edge, np.asarray(towards).astype(coarse))
            out = np.where(allowed, edge.astype(np.float64), out)
    return out


def is_complex(dtype: str) -> bool:
    return dtype.startswith("complex")


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` rounded to a float dtype, kept as float64."""
    wide = np.asarray(values, np.float64)
    if dtype == "bfloat16":
        return wide.astype(ml_dtypes.bfloat16).astype(np.float64)
    return wide.astype(dtype).astype(np.float64)


def alike(rng: np.random.Generator, given: np.ndarray) -> np.ndarray:
    """Values within the range of the given ones, without their structure (a symmetric or constant example hides mistakes); of ordinary size if none is finite."""
    if np.iscomplexobj(given):
        return alike(rng, given.real) + 1j * alike(rng, given.imag)
    finite = given[np.isfinite(given)]
    if not finite.size:
        return rng.integers(-300, 301, size=given.shape) / 100
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        low, high = (low - 1.0, high + 1.0) if low == 0 else sorted((0.5 * low, 1.5 * low))
    drawn = low + (high - low) * (rng.integers(0, 10**6 + 1, size=given.shape) / 10**6)
    return np.where(np.isfinite(given), drawn, given)


def cast(arrays: Sequence[np.ndarray], dtypes: Sequence[str]) -> list[np.ndarray]:
    """Each array in its dtype."""
    return [round_to(a, d).astype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for a, d in zip(arrays, dtypes, strict=True)]


def wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def largest(values: np.ndarray) -> float:
    finite = np.abs(wide(values)[np.isfinite(wide(values))])
    return float(finite.max()) if finite.size else 0.0


def rms(values: np.ndarray) -> float:
    """The typical size of the finite values; computed without overflow."""
    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if finite.size else 0.0
    return top * float(np.sqrt(np.mean((finite / top) ** 2))) if top else 0.0


def all_finite(arrays: Sequence[Any]) -> bool:
    return all(bool(np.isfinite(wide(array)).all()) for array in arrays)
