"""Which options a case has, and which optional arguments are absent: all combinations in turn, and so that each small size and each dtype meets them all.

What is wrong for two columns and one padding alone is missed by chance where options and sizes are drawn without looking at each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from verify.domains import belong, combinations_of
from verify.sizes import Sizes
from verify.spec import Spec
from verify.values import generator

SHAPE_CASES = 2  # consecutive cases of one shape, with other values: tracing a new shape costs most
OPTIONS_FIRST = (
    16  # up to this index, cases of one shape have other options: a cache that forgets them shows. With more combinations always
)
SMALL = 3  # sizes up to this are special ones: an empty axis, one element, the first that a window or a difference fits into

Combination = tuple[dict[str, Any], frozenset[str]]  # options, absent arguments


class Turns:
    """The combinations of a spec's options for cases 0, 1, 2, ...: asked for in this order, the same for a seed on any machine."""

    def __init__(self, spec: Spec, seed: int, optional: Sequence[str]) -> None:
        self._spec, self._seed = spec, seed
        self._combinations = combinations_of(spec, optional)
        self._met: Counter[tuple[Any, Any]] = Counter()  # (a small size or a dtype, a combination or a part of one) -> how often
        self._seen: set[int] = set()
        self._last: int | None = None

    @property
    def many(self) -> bool:
        return len(self._combinations) > OPTIONS_FIRST

    def first(self, index: int) -> dict[str, Any]:
        """The options whose turn it is."""
        return self._combinations[self._order(index)[0]][0]

    def choose(self, index: int, sizes: Sizes, dtype: str, along: frozenset[str]) -> Combination:
        """Of the combinations that the sizes allow, the one that these small sizes and this dtype have met least; among equals, the one whose turn it is.

        along: optional arguments that are wanted here.
        """
        marks: list[Any] = [(name, size) for name, size in sizes.items() if isinstance(size, int) and size <= SMALL]
        low = dtype != "float64"
        if low:
            marks.append(dtype)

        def met(which: int) -> tuple[bool, bool, int, int, int]:
            times = [self._met[mark, which] for mark in marks]
            parts = sum(self._met[mark, part] for mark in marks for part in self._parts(which))
            return bool(self._combinations[which][1] & along), which in self._seen, -times.count(0), sum(times), parts

        allowed = [which for which in self._order(index) if belong(self._spec, sizes, self._combinations[which][0])]
        chosen = min(allowed, key=met)
        same = index % SHAPE_CASES and index >= OPTIONS_FIRST and not (self.many or low or along) and self._last in allowed
        if same and self._last is not None and not met(chosen)[2]:  # nothing here that is new
            chosen = self._last
        self._met.update((mark, what) for mark in marks for what in (chosen, *self._parts(chosen)))
        self._seen.add(chosen)
        self._last = chosen
        return self._combinations[chosen]

    def _order(self, index: int) -> list[int]:
        """All combinations, the one of this case first."""
        each = index < OPTIONS_FIRST or self.many
        block, place = divmod(index if each else index // SHAPE_CASES, len(self._combinations))
        order = generator(self._spec.name, self._seed, block, "options").permutation(len(self._combinations)).tolist()
        return [*order[place:], *order[:place]]

    def _parts(self, which: int) -> Iterator[tuple[str, str]]:
        options, absent = self._combinations[which]
        yield from ((name, repr(value)) for name, value in options.items())
        yield from (("absent", name) for name in absent)
