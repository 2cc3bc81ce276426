"""What a tape is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from verify import _compat
from verify.derive.expressions import Expr


@dataclass(frozen=True)
class Step:
    """One equation, `name = value`. `moves`: whether it depends on a differentiable argument."""

    name: str
    value: Expr
    moves: bool


@dataclass
class Tape:
    """The steps to `outputs` (names of steps or of arguments), and what was left out."""

    inputs: list[Expr]
    steps: list[Step]
    outputs: list[Expr]
    taken: list[tuple[Expr, bool]] = field(default_factory=list)  # conditions of selects that were the same everywhere
    places: list[tuple[Any, Expr]] = field(default_factory=list)  # an equation of the user's function itself, and its result


@dataclass(eq=False)
class Loop:
    """A scan: its equation, and the tape of one of its steps (inputs: constants, carries, slices; outputs: next carries, what is stacked)."""

    equation: Any
    body: Tape

    @property
    def fixed(self) -> int:
        return _compat.scan_parts(self.equation.params)[0]

    @property
    def carried(self) -> int:
        return _compat.scan_parts(self.equation.params)[1]

    @property
    def avals(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Shapes and dtypes of a step's inputs and outputs."""
        jaxpr = _compat.closed(self.equation.params["jaxpr"])
        return jaxpr.in_avals, jaxpr.out_avals

    @property
    def order(self) -> range:
        """The steps as they are run."""
        forward = range(self.equation.params["length"])
        return forward[::-1] if self.equation.params["reverse"] else forward
