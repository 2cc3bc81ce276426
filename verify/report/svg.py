"""Pictures as SVG: a log-log chart and a heat map. Their colours are the page's; every number in them is rounded, so the same record gives the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 220, 50, 16, 12, 38
HEAT_WIDTH, LARGEST_CELL, LOWEST_CELL = 340, 30, 14
SHADES = 5  # of what is wrong; 0 is right
MARKS = {  # circles and squares are points of a thick pen, see the style sheet: a chart has dozens
    "circle": "M{x} {y}h0",
    "square": "M{x} {y}h0",
    "triangle": "M{x} {y}m0-4l4 7h-8z",
    "diamond": "M{x} {y}m0-4.5l4.5 4.5l-4.5 4.5l-4.5-4.5z",
    "cross": "M{x} {y}m-3.5-3.5l7 7m0-7l-7 7",
    "tick": "M{x} {y}m0-4v8",
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind. mark: a name in MARKS; line: whether they are joined. tone: a class of the style sheet."""

    tone: str
    points: Sequence[tuple[float, float]]
    mark: str = "circle"
    line: bool = True


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line across the chart."""

    tone: str
    y: float


def loglog(description: str, x_label: str, y_label: str, series: Iterable[Series], levels: Iterable[Level] = ()) -> Markup:
    """Both axes logarithmic; what is not positive is left out, an infinite y is drawn at the upper edge. `description` is for those who cannot see it."""
    drawn = [Series(tone=s.tone, mark=s.mark, line=s.line, points=[(x, y) for x, y in s.points if x > 0 and y > 0]) for s in series]
    flat = [level for level in levels if 0 < level.y < math.inf]
    xs = _Axis([x for s in drawn for x, _ in s.points], LEFT, WIDTH - RIGHT)
    ys = _Axis([y for s in drawn for _, y in s.points if y < math.inf] + [level.y for level in flat], HEIGHT - BOTTOM, TOP)
    parts = [_frame(xs, ys, x_label, y_label)]
    for level in flat:
        y = ys.place(level.y)
        parts.append(Markup('<path class="level {}" d="M{} {}H{}"/>').format(level.tone, LEFT, y, WIDTH - RIGHT))
    for s in drawn:
        places = [(xs.place(x), ys.place(y)) for x, y in s.points]
        if s.line and len(places) > 1:
            parts.append(Markup('<path class="line {}" d="M{}"/>').format(s.tone, "L".join(f"{x} {y}" for x, y in places)))
        if places:
            parts.append(_marks(s.tone, s.mark, places))
    return _svg(WIDTH, HEIGHT, description, parts)


def swatch(tone: str, mark: str) -> Markup:
    """A mark (or "level", a dashed line) beside the words that explain it."""
    drawn = Markup('<path class="level {}" d="M0 6H16"/>').format(tone) if mark == "level" else _marks(tone, mark, [("8", "6")])
    return Markup('<svg class="swatch" width="16" height="12" aria-hidden="true">{}</svg>').format(drawn)


def heat(description: str, cells: Sequence[Sequence[float | None]], cell: tuple[int, int]) -> Markup:
    """Cells by how far they are above 1, in shades that a logarithm spreads evenly; `cell` is marked."""
    count = len(cells[0])
    width = min(HEAT_WIDTH // count, LARGEST_CELL)
    height = max(min(width, LARGEST_CELL), LOWEST_CELL)
    top = max((value for row in cells for value in row if value is not None and value < math.inf), default=1.0)
    paths: dict[str, list[str]] = {}
    for r, row in enumerate(cells):
        for c, value in enumerate(row):
            paths.setdefault(shade(value, top), []).append(f"M{c} {r}h1v1h-1z")
    parts = [Markup('<g transform="scale({} {})">').format(width, height)]
    parts += [Markup('<path class="{}" d="{}"/>').format(name, "".join(squares)) for name, squares in sorted(paths.items())]
    parts.append(Markup("</g>"))
    x, y = cell[1] * width, cell[0] * height
    parts.append(Markup('<rect class="worst" x="{}" y="{}" width="{}" height="{}"/>').format(x + 1, y + 1, width - 2, height - 2))
    parts.append(Markup('<path class="at" d="M{} {}l6 6m0-6l-6 6"/>').format(_number(x + width / 2 - 3), _number(y + height / 2 - 3)))
    return _svg(count * width, len(cells) * height, description, parts)


def shade(value: float | None, top: float) -> str:
    """The class of a cell: none, h0 (right), h1 to h5."""
    if value is None:
        return "none"
    if value <= 1:
        return "h0"
    if value >= top or top <= 1:
        return f"h{SHADES}"
    return f"h{min(1 + int(SHADES * math.log(value) / math.log(top)), SHADES)}"


def bar(description: str, shares: Sequence[tuple[str, float]]) -> Markup:
    """One bar, split into shares of their sum; each a class `p0`, `p1`, ..."""
    total = sum(size for _, size in shares) or 1.0
    parts, x = [], 0.0
    for k, (_, size) in enumerate(shares):
        parts.append(Markup('<rect class="p{}" x="{}" y="0" width="{}" height="8"/>').format(k, _number(x), _number(240 * size / total)))
        x += 240 * size / total
    return _svg(240, 8, description, parts)


class _Axis:
    """From a decade at or below the smallest value to one at or above the largest, onto pixels."""

    def __init__(self, values: Sequence[float], start: int, stop: int) -> None:
        low, high = (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))) if values else (0, 1)
        self.low, self.high, self.start, self.stop = low, max(high, low + 1), start, stop

    def place(self, value: float) -> str:
        share = 1.0 if value == math.inf else (math.log10(value) - self.low) / (self.high - self.low)
        return _number(self.start + share * (self.stop - self.start))

    @property
    def ticks(self) -> list[int]:
        every = max(1, math.ceil((self.high - self.low) / 6))
        return [exponent for exponent in range(self.low, self.high + 1) if exponent % every == 0]

    def at(self, exponent: int) -> str:
        return _number(self.start + (exponent - self.low) / (self.high - self.low) * (self.stop - self.start))


def _frame(xs: _Axis, ys: _Axis, x_label: str, y_label: str) -> Markup:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [Markup('<path class="grid" d="{}"/>').format("".join(f"M{LEFT} {ys.at(k)}H{right}" for k in ys.ticks))]
    parts.append(Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(LEFT, TOP, bottom, right))
    parts.append(Markup('<g text-anchor="end">'))
    parts += [Markup('<text x="{}" y="{}">{}</text>').format(LEFT - 5, _number(float(ys.at(k)) + 3.5), _power(k)) for k in ys.ticks]
    parts.append(Markup('</g><g text-anchor="middle">'))
    parts += [Markup('<text x="{}" y="{}">{}</text>').format(xs.at(k), bottom + 14, _power(k)) for k in xs.ticks]
    parts.append(Markup('<text x="{}" y="{}">{}</text>').format((LEFT + right) // 2, HEIGHT - 6, x_label))
    middle = (TOP + bottom) // 2
    parts.append(Markup('<text transform="translate(11 {}) rotate(-90)">{}</text></g>').format(middle, y_label))
    return Markup("").join(parts)


def _marks(tone: str, mark: str, places: Iterable[tuple[str, str]]) -> Markup:
    return Markup('<path class="{} {}" d="{}"/>').format(mark, tone, "".join(MARKS[mark].format(x=x, y=y) for x, y in places))


def _power(exponent: int) -> str:
    return str(10**exponent) if 0 <= exponent <= 3 else f"10{str(exponent).translate(SUPERSCRIPTS)}"


def _svg(width: int, height: int, description: str, parts: Iterable[Markup]) -> Markup:
    opening = Markup('<svg role="img" viewBox="0 0 {0} {1}" width="{0}" height="{1}" aria-label="{2}">').format(width, height, description)
    return opening + Markup("").join(parts) + Markup("</svg>")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
