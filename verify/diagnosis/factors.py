"""A constant factor between the rule's cotangent and the right one, read in the sizes and options of the case: sqrt(H), 1/n, d/n, 1 - rate."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from verify.diagnosis.evidence import Evidence
from verify.diagnosis.intermediates import Named, lettered

COPIES = tuple(f"[{name} " for name in ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze"))  # the same numbers again
WHOLE = ("2", "0.5", "3", "4", "10")  # factors that are slips by themselves; "1" is a sign


def factors(e: Evidence, leaf: int) -> dict[str, float]:
    """Readings of a constant factor between got and want: "-1", "sqrt(H)", "1/n", "2"; empty where the ratio is not constant."""
    got, want = e.got[leaf], e.want[leaf]
    ratio = constant_ratio(got, want)
    if ratio is None or not e.same(got, ratio * want):
        return {}
    found = readings(e, abs(ratio))
    several = np.count_nonzero(want) > 1  # of a single number, some factor makes any other
    return dict.fromkeys(found, ratio) if several or not is_number(found[0]) else {}


def varying(e: Evidence, leaf: int) -> dict[str, float]:
    """Readings of a factor that differs from element to element: an argument or what the reference computes on the way, or a size over it."""
    got, want = e.got[leaf], e.want[leaf]
    if not want.any() or not np.isfinite(got).all() or not np.isfinite(want).all():
        return {}
    of_arguments = [*zip(e.names, e.observation.diff, strict=True), *e.others]
    found = {}
    for name, values in [*of_arguments, *_computed(e)]:
        for factor in _spread(values, want.shape):
            for size, number in {"": 1.0, **_sizes(e)}.items():
                with np.errstate(all="ignore"):
                    if e.same(got, want * factor / number):
                        found[f"{name}/{size}" if size else name] = 1.0
                    if e.same(got, np.where(want == 0, 0, want * number / factor)):
                        found[f"{size or 1}/{name}"] = 1.0
    return found


def _spread(values: Any, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An array that varies, along the first or the last axes of a shape."""
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.number) or values.size < 2 or not np.ptp(values):
        return
    forms = dict.fromkeys([values.shape, values.shape + (1,) * (len(shape) - values.ndim)])
    for form in forms:
        with contextlib.suppress(ValueError):
            yield np.broadcast_to(values.reshape(form), shape).astype(np.float64)


def readings(e: Evidence, factor: float) -> list[str]:
    """What a positive number may stand for in this case: "sqrt(H)", "1/n", an option, "2", or else itself."""
    return [name for name, value in _readings(e) if abs(factor / value - 1) < 4 * e.loose] or [f"{factor:.6g}"]


def is_number(name: str) -> bool:
    """A number that is no size, no option and no slip by itself."""
    return name.replace(".", "", 1).replace("e-", "", 1).replace("e+", "", 1).isdigit() and name not in ("1", *WHOLE)


def fitted(e: Evidence, start: Sequence[np.ndarray], through: Sequence[np.ndarray], to: Sequence[np.ndarray]) -> float | None:
    """m, such that start + m (through - start) is nearest to `to`, by least squares over all arguments, each in units of its own largest element."""
    above = below = 0.0
    for a, b, c, known in zip(start, through, to, e.known, strict=True):
        unit = max(float(np.max(np.abs(array), where=known, initial=0.0)) for array in (b, c)) or 1.0
        path = (b - a) / unit
        above += float(np.sum((c - a) / unit * path, where=known))
        below += float(np.sum(path * path, where=known))
    return above / below if below > 0 and np.isfinite([above, below]).all() else None


def constant_ratio(got: np.ndarray, want: np.ndarray) -> float | None:
    """The median of got / want where it hardly varies, else None."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    matters = np.abs(want) > 1e-3 * np.max(np.abs(want), initial=0.0)
    if not matters.any() or not np.isfinite(got).all() or not np.isfinite(want).all():
        return None
    ratios = got[matters] / want[matters]
    ratio = float(np.median(ratios))
    return ratio if ratio and np.max(np.abs(ratios - ratio)) <= 1e-3 * abs(ratio) else None


def _readings(e: Evidence) -> Iterator[tuple[str, float]]:
    yield "1", 1.0
    sizes = e.observation.case.sizes
    for name, size in sizes.items():
        number = float(np.prod(size)) if isinstance(size, tuple) else float(size)
        label = f"prod({name})" if isinstance(size, tuple) else name
        if number > 1:
            yield f"sqrt({label})", number**0.5
            yield f"1/sqrt({label})", number**-0.5
            yield label, number
            yield f"1/{label}", 1 / number
            yield f"{label}^2", number**2
    numbers = _sizes(e)
    for (above, a), (below, b) in itertools.permutations(numbers.items(), 2):
        yield f"{above}/{below}", a / b
    for (first, a), (second, b) in itertools.combinations(numbers.items(), 2):
        yield f"{first}*{second}", a * b
        yield f"1/({first}*{second})", 1 / (a * b)
    yield from ((name, float(name)) for name in WHOLE)
    for name, value in e.observation.case.options.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            yield name, value
            yield f"1/{name}", 1 / value
        if isinstance(value, float) and 0 < value < 1:
            yield f"1 - {name}", 1 - value
            yield f"1/(1 - {name})", 1 / (1 - value)
    for name, values in zip(e.names, e.observation.diff, strict=True):
        if values.size == 1 and (value := float(values.reshape(-1)[0])) > 0:
            yield from ((name, value), (f"1/{name}", 1 / value), (f"{name}^2", value**2), (f"1/{name}^2", 1 / value**2))
    for name, value in _of_reference(e):
        yield from ((name, value), (f"1/{name}", 1 / value))
        for dim, number in numbers.items():
            yield from ((f"{name}/{dim}", value / number), (f"{dim}/{name}", number / value))


def _sizes(e: Evidence) -> dict[str, float]:
    return {name: float(size) for name, size in e.observation.case.sizes.items() if not isinstance(size, tuple) and size > 1}


def _of_reference(e: Evidence) -> Iterator[tuple[str, float]]:
    """The single numbers that the reference computes: how many labels count, the sum of the weights."""
    for name, values in _computed(e):
        if values.size == 1 and np.isfinite(value := float(values.reshape(-1)[0])) and value > 0:
            yield name, value


def _computed(e: Evidence) -> list[Named]:
    """Of equal values the last first, as it is the one that is used."""
    return [(name, value) for name, value in reversed(e.intermediates) if not name.startswith(COPIES)]


def factor_sentence(readings: dict[str, float]) -> str | None:
    """Words for the readings that all failing cases share."""
    if not readings:
        return None
    name, ratio = next(iter(readings.items()))
    sign = "has the wrong sign" if ratio < 0 else ""
    if name == "1":
        return f"it {sign}" if sign else None
    size = f"is the right one times {name}" + (" in these cases (a count of theirs?)" if is_number(name) else "")
    hint = ""
    if name.startswith("sqrt("):
        hint = f": a factor 1/{name} is missing"
    elif name.startswith("1/sqrt("):
        hint = f": a factor {name} too much"
    return lettered(f"it {size}{hint}" + (f", and {sign}" if sign else ""))
