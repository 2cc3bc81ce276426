"""Which options a case has, and which optional arguments are absent: all combinations in turn, and so that each small size and each dtype meets them all.

What is wrong for two columns and one padding alone is missed by chance where options and sizes are drawn without looking at each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
        parts = [[*map(repr, options.items()), *absent] for options, absent in self._combinations]
        names = list(dict.fromkeys(part for some in parts for part in some))
        self._holds = np.array([[part in some for part in names] for some in parts], int)  # by combination, its values and absent arguments
        self._met: dict[Any, np.ndarray] = {}  # a small size or a dtype -> how often it has met each combination
        self._seen = np.zeros(len(parts), bool)
        self._last: int | None = None

    @property
    def many(self) -> bool:
        return len(self._combinations) > OPTIONS_FIRST

    def first(self, index: int) -> dict[str, Any]:
        """The options whose turn it is."""
        return self._combinations[self._order(index)[0]][0]

    def choose(self, index: int, sizes: Sizes, dtype: str, along: frozenset[str]) -> Combination:
        """Of the combinations that the sizes allow, first those that no case has had, then the one that these small sizes and this dtype have met least; among equals, the
        one whose turn it is.

        along: optional arguments that are wanted here.
        """
        low = dtype != "float64"
        marks: list[Any] = [(name, size) for name, size in sizes.items() if isinstance(size, int) and size <= SMALL] + [dtype] * low
        shape = (len(marks), len(self._combinations))
        met = np.array([self._met.setdefault(mark, np.zeros(shape[1], int)) for mark in marks]).reshape(shape)
        allowed = np.array([which for which in self._order(index) if belong(self._spec, sizes, self._combinations[which][0])])
        new = (met == 0).sum(0)
        without = np.array([bool(absent & along) for _, absent in self._combinations])
        parts_met = self._holds @ (met @ self._holds).sum(0)
        best = np.lexsort([key[allowed] for key in (parts_met, met.sum(0), -new, self._seen, without)])[0]
        chosen = int(allowed[best])
        same = index % SHAPE_CASES and index >= OPTIONS_FIRST and not (self.many or low or along) and self._last in allowed
        if same and self._last is not None and not new[chosen]:
            chosen = self._last
        for mark in marks:
            self._met[mark][chosen] += 1
        self._seen[chosen] = True
        self._last = chosen
        return self._combinations[chosen]

    def _order(self, index: int) -> list[int]:
        """All combinations, the one of this case first."""
        each = index < OPTIONS_FIRST or self.many
        block, place = divmod(index if each else index // SHAPE_CASES, len(self._combinations))
        order = generator(self._spec.name, self._seed, block, "options").permutation(len(self._combinations)).tolist()
        return [*order[place:], *order[:place]]
