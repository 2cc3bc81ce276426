"""What kind of numbers a case holds: a mistake may hide from ordinary values and show at zeros, ties, constant rows, or extreme magnitudes.

Whole numbers from a counter-based generator, divided by or multiplied with powers of ten: no library's rounding enters.
"""

from __future__ import annotations

import numpy as np

from verify.spec import Arg

ORDINARY = ("decimals", "decimals", "decimals", "fine", "fine", "fine", "large", "small", "positive")
STRESS = ("edges", "edges", "ties", "ties", "rows", "huge", "tiny", "spread")
STYLES = ORDINARY + STRESS
EXTREME = ("huge", "tiny", "spread")  # of magnitude, where a long step leaves the neighbourhood of some element
# In users' dtypes every other round holds values as activations are; these are the others, in turn. Where the range is narrow, inverse cubes of tiny values
# overflow in formulas that nobody calls wrong.
LOW_STRESS = {
    "float32": ("huge", "tiny", "rows", "ties", "spread"),
    "bfloat16": ("rows", "huge", "tiny", "spread", "ties"),
    "float16": ("huge", "ties", "rows"),
    "mixed": ("rows", "ties"),
}
UNIT_LOW = 2.0**-5  # the smallest magnitude of "unit" values: its inverse cube is a float16

FEW = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # values of "ties": equal entries in an array, and between arrays
HUGE = {
    "float64": (1e3, 1e6),
    "float32": (1e3, 1e10),
    "bfloat16": (1e3, 1e10),
    "float16": (1e3, 1e2, 1e4),
}
TINY = {
    "float64": (1e-9, 1e-30, 1e-100),
    "float32": (1e-3, 1e-6, 1e-20, 1e-40),
    "bfloat16": (1e-3, 1e-6, 1e-20, 1e-40),
    "float16": (1e-3, 1e-5, 1e-7),
}


def magnitude(turn: int, style: str, dtype: str) -> float:
    """The scale that all arguments of a "huge" or "tiny" case share, another one each turn; 1 for other styles."""
    scales = {"huge": HUGE, "tiny": TINY}.get(style, {}).get(dtype)
    return 1.0 if scales is None else scales[turn % len(scales)]


def floats(rng: np.random.Generator, arg: Arg, shape: tuple[int, ...], style: str, scale: float) -> np.ndarray:
    """Values of a style, inside of the argument's bounds."""
    if arg.low is not None or arg.high is not None:
        return _bounded(rng, arg, shape, style, scale)
    values = _free(rng, shape, style)
    return scale * values if style in ("huge", "tiny") else values


def _free(rng: np.random.Generator, shape: tuple[int, ...], style: str) -> np.ndarray:
    if style == "ties":
        return np.array(FEW)[rng.integers(len(FEW), size=shape)]
    if style == "rows":
        return _with_constant_rows(rng, _free(rng, shape, "fine"), np.array(FEW))
    if style == "spread":
        signs = np.where(rng.integers(2, size=shape), 1.0, -1.0)
        return signs * rng.integers(1, 1000, size=shape) * 10.0 ** rng.integers(-9, 1, size=shape)
    if style == "positive":
        return rng.integers(1, 300_000, size=shape) / 1e5
    if style in ("decimals", "edges") and np.prod(shape) <= 64:
        return rng.integers(-300, 301, size=shape) / 100
    if style == "unit":
        signs = np.where(rng.integers(2, size=shape), 1.0, -1.0)
        return signs * (UNIT_LOW + (1 - UNIT_LOW) * rng.integers(1, 100_000, size=shape) / 1e5)
    factor = {"small": 0.05, "large": 10.0}.get(style, 1.0)
    return factor * (rng.integers(-300_000, 300_001, size=shape) / 1e5)


def _bounded(rng: np.random.Generator, arg: Arg, shape: tuple[int, ...], style: str, scale: float) -> np.ndarray:
    """Between low and high; a bound that is not given is 4 away from the other, or as far as the style's magnitude says."""
    reach = max(4.0, min(scale, 1e6)) if style == "huge" else 4.0
    least, most = arg.bounds
    low = least if least is not None else min(most - reach, -most)  # type: ignore[operator]
    high = most if most is not None else low + reach
    parts = rng.integers(1, 10**6, size=shape) / 10**6
    if style == "ties":
        parts = rng.integers(1, 4, size=shape) / 4
    elif style == "rows":
        parts = _with_constant_rows(rng, parts, np.array((0.25, 0.5, 0.75)))
    elif style in ("spread", "tiny"):  # close to the bounds, or to 0 between them
        near = parts * (scale if low == 0 and style == "tiny" else 10.0 ** -rng.integers(0, 13, size=shape))
        if low < 0 < high and rng.integers(2):
            return np.where(rng.integers(2, size=shape), low, high) * near
        parts = near if style == "tiny" else np.where(rng.integers(2, size=shape), near, 1 - near)
    return low + (high - low) * parts


def _with_constant_rows(rng: np.random.Generator, values: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Some rows hold one value only (variance 0), the first one always where there are several."""
    if not values.ndim:
        return values
    rows = values.shape[:-1]
    constant = rng.integers(3, size=rows) == 0
    if rows and values.size:
        constant[(0,) * len(rows)] = True
    chosen = constants[rng.integers(constants.size, size=rows)]
    return np.where(constant[..., None], chosen[..., None], values)


def with_equal_eigenvalues(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Half of the time diagonal matrices in their place, with two different entries at most."""
    if rng.integers(2):
        return values
    diagonal = rng.choice(values.reshape(-1)[:2], size=values.shape[:-1])
    return diagonal[..., None] * np.eye(values.shape[-1])
