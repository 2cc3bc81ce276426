"""From the evidence of a failure, as it stands in the JSON, to figures: a title, a picture, and a sentence that says what it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from verify.report.svg import Level, Series, bar, heat, loglog, swatch

MARK_OF = {"float64": "circle", "float32": "square", "bfloat16": "triangle", "float16": "diamond", "mixed": "cross"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """key: (a swatch, what it stands for) for each kind of point or line; table: (element, got, want, error) of arrays that can be read."""

    title: str
    picture: Markup
    says: str
    key: tuple[tuple[Markup, str], ...] = ()
    table: tuple[tuple[str, str, str, str], ...] = ()
    scale: str = ""


def of(evidence: Mapping[str, Any]) -> list[Figure]:
    """The figures that a record of evidence (or an empty one) has data for."""
    found = [_errors(errors) for errors in evidence.get("errors") or ()]
    if curve := evidence.get("curve"):
        found += [_differences(curve), _remainder(curve)]
    if evidence.get("cases"):
        found.append(_cases(evidence["cases"], evidence.get("unit") or "its bound"))
    return found


def phases(timings: Mapping[str, float]) -> tuple[Markup, str] | None:
    """Where the time went, as a bar and in words; None where nothing is known."""
    shares = [(phase, float(seconds)) for phase, seconds in timings.items() if seconds > 0]
    if not shares:
        return None
    words = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in shares)
    return bar(words, shares), words


def _errors(errors: Mapping[str, Any]) -> Figure:
    name, shape, block = errors["argument"], tuple(errors["shape"]), tuple(errors["block"])
    cells = [[None if value is None else float(value) for value in row] for row in errors["cells"]]
    known = [value for row in cells for value in row if value is not None]
    largest = max(known, default=0.0)
    wrong = sum(value > 1 for value in known)
    rows, columns = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    of = f"{name} of shape {shape}" + (f", seen as {rows} rows of {columns}," if len(shape) > 2 else "")
    each = "" if block == (1, 1) else f" A cell is the worst of {block[0]} × {block[1]} elements."
    says = f"{wrong} of {len(known)} cells of {of} are out of bounds; the worst is {name}{_index(errors['worst'])}, {largest:.2g} times its bound.{each}"
    return Figure(
        title=f"Error of {name}, {errors['dtype']}",
        picture=heat(says, cells, (errors["cell"][0], errors["cell"][1])),
        says=says,
        table=tuple(_values(errors, cells)),
        scale=f"{largest:.1e}",
    )


def _values(errors: Mapping[str, Any], cells: Sequence[Sequence[float | None]]) -> Iterator[tuple[str, str, str, str]]:
    shape = errors["shape"]
    for r, (gots, wants) in enumerate(zip(errors.get("got") or (), errors.get("want") or (), strict=False)):
        for c, (got, want) in enumerate(zip(gots, wants, strict=False)):
            error = cells[r][c]
            yield _index(_unflat(r, c, shape)), f"{float(got):.6g}", f"{float(want):.6g}", "" if error is None else f"{error:.2g}"


def _differences(curve: Mapping[str, Any]) -> Figure:
    steps, want, rule = curve["steps"], float(curve["want"]), float(curve["rule"])
    size = float(curve.get("size") or 0) or abs(want) or 1.0
    slopes = [(float(a) - float(b)) / (2 * h) for h, a, b in zip(steps, curve["ahead"], curve["behind"], strict=True)]
    errors = [abs(slope - want) / size for slope in slopes]
    off, best = abs(rule - want) / size, min(errors)
    says = (
        f"Central differences {f'come within {best:.1e} of' if best else 'equal'} {curve['oracle']}; the rule stays {off:.1e} away."
        if off > best
        else f"The rule agrees with {curve['oracle']} along this direction as well as central differences do ({off:.1e}): the mistake does not show here."
    )
    return Figure(
        title="Finite differences against the step",
        picture=loglog(
            says,
            "step h",
            "relative error of the slope",
            [Series(tone="right", points=list(zip(steps, errors, strict=True)))],
            [Level(tone="wrong", y=off)],
        ),
        says=says,
        key=((swatch("right", "circle"), "central difference"), (swatch("wrong", "level"), "the rule's slope")),
    )


def _remainder(curve: Mapping[str, Any]) -> Figure:
    steps, want, rule, noise = curve["steps"], float(curve["want"]), float(curve["rule"]), float(curve.get("noise") or 0)
    rises = [float(a) - float(b) for a, b in zip(curve["ahead"], curve["behind"], strict=True)]

    def remainders(slope: float) -> list[tuple[float, float]]:
        return [(h, abs(rise - 2 * h * slope)) for h, rise in zip(steps, rises, strict=True)]

    orders = ((_order(remainders(slope), noise), whose) for slope, whose in ((rule, "the rule's gradient"), (want, "the oracle's")))
    told = " and ".join(f"h^{order:.1f} with {whose}" for order, whose in orders if order is not None)
    says = f"It shrinks like {told or 'rounding alone'}; a right gradient leaves h^3, or rounding alone."
    return Figure(
        title="Taylor remainder",
        picture=loglog(
            says,
            "step h",
            "remainder",
            [
                Series(tone="right", points=remainders(want)),
                Series(tone="wrong", points=remainders(rule), mark="square"),
            ],
            [Level(tone="faint", y=noise)],
        ),
        says=says,
        key=(
            (swatch("wrong", "square"), "with the rule's gradient"),
            (swatch("right", "circle"), "with the oracle's"),
            (swatch("faint", "level"), "rounding"),
        ),
    )


def _order(remainders: Sequence[tuple[float, float]], noise: float) -> float | None:
    """The slope over the shortest steps whose remainders stand out of rounding: larger steps show higher orders, too."""
    points = [(h, r) for h, r in remainders if r > 30 * noise][-4:]
    if len(points) < 2:
        return None
    (h0, r0), (h1, r1) = points[0], points[-1]
    return math.log(r0 / r1) / math.log(h0 / h1)


def _cases(cases: Sequence[Mapping[str, Any]], unit: str) -> Figure:
    wrong: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        if case.get("error") is not None:
            wrong.setdefault(case["dtype"], []).append((max(case["elements"], 1), float(case["error"])))
    fine = sorted({max(case["elements"], 1) for case in cases if case.get("error") is None})
    count = sum(map(len, wrong.values()))
    series = [Series(tone="wrong", points=points, mark=MARK_OF.get(dtype, "circle"), line=False) for dtype, points in wrong.items()]
    key = [(swatch("wrong", s.mark), dtype) for dtype, s in zip(wrong, series, strict=True)]
    if fine:
        series.append(Series(tone="right", points=[(size, 1.0) for size in fine], mark="tick", line=False))
        key.append((swatch("right", "tick"), "within the bound"))
    key.append((swatch("faint", "level"), unit))
    largest = {dtype: max(y for _, y in points) for dtype, points in wrong.items()}
    worst = ", ".join(f"{value:.2g} ({dtype})" for dtype, value in largest.items())
    says = f"Wrong in {count} of the {len(cases)} cases that the check compared. Largest error in units of {unit}: {worst}."
    return Figure(
        title="Error by size and dtype",
        picture=loglog(
            says,
            "elements of all arguments",
            f"worst error / {'bound' if unit == 'its bound' else 'autodiff error'}",
            series,
            [Level(tone="faint", y=1.0)],
        ),
        says=says,
        key=tuple(key),
    )


def _unflat(row: int, column: int, shape: Sequence[int]) -> list[int]:
    index: list[int] = [column] if shape else []
    for size in reversed(shape[:-1]):
        row, place = divmod(row, size)
        index.insert(0, place)
    return index


def _index(index: Sequence[int]) -> str:
    return f"[{', '.join(map(str, index))}]" if index else ""
