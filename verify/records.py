"""The records that travel from one stage to the next. They hold results and compute nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np


class Status(StrEnum):
    """What a finding or a verdict says; worse ones later."""

    SKIP = "SKIP"
    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    FAIL = "FAIL"

    @property
    def badness(self) -> int:
        return list(Status).index(self)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A gradient as one oracle knows it, per argument leaf, and how far to trust each element.

    error is a bound: an element of a right rule lies within `error` of `value`. An infinite or NaN error means "cannot tell".
    """

    value: tuple[np.ndarray, ...]
    error: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class ErrorMap:
    """Where one array is wrong: it is seen as a matrix (rows: all axes but the last), each cell of which holds an error in units of its bound.

    Above 1 is wrong; None was not compared. In large arrays a cell is the worst of a `block` of rows and columns. worst: the index of the worst element;
    cell: its row and column in `cells`. got, want: the values, cell by cell, of arrays so small that they can be read.
    """

    argument: str
    dtype: str
    shape: tuple[int, ...]
    block: tuple[int, int]
    cells: tuple[tuple[float | None, ...], ...]
    worst: tuple[int, ...]
    cell: tuple[int, int]
    got: tuple[tuple[float, ...], ...] = ()
    want: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check saw, in numbers.

    cases and comparisons count what was really compared; index, got, want and bound describe the worst element.
    detectable is the smallest relative error that the check would have caught in any one element (of at least `tolerance.CONSIDERED` of its
    array's largest), the median over cases. units: in low precision, the worst error in units of the error that JAX's autodiff makes there.
    """

    check: str
    status: Status
    message: str = ""
    argument: str | None = None
    index: tuple[int, ...] | None = None
    got: float | None = None
    want: float | None = None
    bound: float | None = None
    wrong: int = 0
    comparisons: int = 0
    cases: int = 1
    detectable: float | None = None
    address: str | None = None
    dtype: str | None = None
    units: float | None = None
    errors: ErrorMap | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values of the function along one direction v through all arguments, and the slope that the rule claims there.

    ahead, behind: <cotangent, f(x + h v) - f(x)> and the same with -h, for each step h. rule, want: <gradient, v> by the rule and by `oracle`.
    size: the sum of the magnitudes of the terms of `rule`; noise: the rounding of each value of ahead and behind.
    """

    steps: tuple[float, ...]
    ahead: tuple[float, ...]
    behind: tuple[float, ...]
    rule: float
    want: float
    size: float
    noise: float
    oracle: str


@dataclass(frozen=True, kw_only=True)
class CaseError:
    """How wrong the worst element is in one case, by one check: in units of its bound, or of autodiff's own error; None where the case is not FAIL."""

    elements: int
    dtype: str
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What can be seen of a failure, for pictures. It decides nothing.

    check: the check that fails. address, case: of the case that shows most, which errors and curve are taken from; the smallest one, which the verdict names,
    is often a single element. cases: every case that was judged, in the order they ran, with its error in units of `unit`. reproduce: lines of Python.
    """

    check: str
    address: str | None = None
    case: str = ""
    errors: tuple[ErrorMap, ...] = ()
    curve: Curve | None = None
    cases: tuple[CaseError, ...] = ()
    unit: str = ""
    reproduce: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What verify says of one operation. `bool(verdict)` is True for PASS only.

    smallest_detectable is the smallest relative error in any one element that the most exact gradient comparison would have caught, in half of the
    cases or more. location, calls: of a rule that was found in a program, "file:line" and how often it is called. installed: whether the command line
    finds the operation by its name.
    """

    name: str
    status: Status
    findings: tuple[Finding, ...] = ()
    comparisons: int = 0
    cases: int = 0
    shapes: int = 0
    smallest_detectable: float | None = None
    diagnosis: str = ""
    address: str | None = None
    smallest_case: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    evidence: Evidence | None = None
    location: str = ""
    calls: int = 0
    installed: bool = True

    def __bool__(self) -> bool:
        return self.status is Status.PASS

    def __str__(self) -> str:
        from verify.report.text import render_verdict

        return render_verdict(self)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Verdicts, what they were measured on, and what was asked for (seed, cases, checks, date). `bool(report)` is True when there is a verdict and all are PASS.

    `print(report)` is the text, `report.to_html()` a page that needs no network, `report.to_json()` what both are made from.
    """

    verdicts: tuple[Verdict, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.verdicts) and all(self.verdicts)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __str__(self) -> str:
        from verify.report.text import render_report

        return render_report(self)

    def to_json(self) -> str:
        """One JSON object, as `verify run --json` writes it; `verify/report/schema.json` describes it."""
        from verify.report.json import render

        return render(self)

    def to_html(self) -> str:
        """One page, as `verify run --html` writes it."""
        from verify.report.html import render
        from verify.report.json import record

        return render(record(self))


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One deliberate mistake in a backward pass, and what became of it.

    edit: the mistake in words; equation: what it was made on, as in one of the cases; source, code: the user's line ("" if unknown).
    status: "killed" (the verification FAILs, by `check` in the case `address`), "survived", or "equivalent" (it changes no result).
    cases: how many were judged; note: why it is equivalent, or what is known of its survival.
    """

    edit: str
    equation: str
    source: str
    code: str
    status: str
    check: str | None = None
    cases: int = 0
    address: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Power:
    """Which deliberate mistakes the verification of one operation catches. `bool(power)` is True when there were some and all were caught.

    smallest_caught: dtype -> the smallest relative error of a whole cotangent that is caught, the worst over arguments; None where none is.
    left_out: how many mutants were not tried, because of a limit.
    """

    name: str
    mutants: tuple[Mutant, ...]
    smallest_caught: Mapping[str, float | None] = field(default_factory=dict)
    cases: int = 0
    pool: int = 0
    seed: int = 0
    left_out: int = 0
    seconds: float = 0.0

    def _with(self, status: str) -> tuple[Mutant, ...]:
        return tuple(mutant for mutant in self.mutants if mutant.status == status)

    @property
    def killed(self) -> tuple[Mutant, ...]:
        return self._with("killed")

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        return self._with("survived")

    @property
    def equivalents(self) -> tuple[Mutant, ...]:
        return self._with("equivalent")

    @property
    def kill_rate(self) -> float | None:
        """Killed mutants of those that change a result; None if there are none."""
        wrong = len(self.killed) + len(self.survivors)
        return len(self.killed) / wrong if wrong else None

    def __bool__(self) -> bool:
        return bool(self.killed) and not self.survivors

    def __str__(self) -> str:
        from verify.report.power import render_power

        return render_power(self)
