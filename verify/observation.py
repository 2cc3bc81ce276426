"""What was seen of one case: the rule, the reference and their noise, as numbers.

Made by `verify.observe`, read by the oracles and the checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verify import engine, programs, tolerance
from verify.cases import Case
from verify.noise import Result
from verify.slopes import Slope
from verify.spec import Spec
from verify.styles import EXTREME
from verify.values import largest, rms, wide

MIX = -2.0  # the third cotangent is first - 2 second: exact in every dtype, as cotangents are small multiples of a power of two


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rule run with its arguments in `dtypes`, and the reference's rounding noise in the same dtypes.

    runs: "base", "repeat", "other", "mix", "zero", "large", "small" (which cotangent) -> results of `programs.core`.
    noise, out_noise: per leaf and per output, how far the reference is from the truth at "base", per element.
    autodiff: in low precision, the same runs of JAX's autodiff of the reference.
    sound: whether the reference's outputs in these dtypes have anything to do with the truth: they may overflow, on the way or at the end.
    """

    dtype: str
    dtypes: tuple[str, ...]
    runs: Mapping[str, Result]
    noise: list[np.ndarray]
    out_noise: list[np.ndarray]
    autodiff: Mapping[str, Result] = field(default_factory=dict)
    sound: bool = True

    def must_be_finite(self, run: str, leaf: int, want: np.ndarray) -> np.ndarray:
        """Where a value that is not finite is a mistake: `want` is far below the largest number of the dtype, and JAX's autodiff attains it."""
        return (np.abs(want) <= tolerance.HUGE[self.dtypes[leaf]] * tolerance.NEAR_HUGE) & self.attainable(run, leaf)

    def attainable(self, run: str, leaf: int) -> np.ndarray:
        """Where JAX's autodiff in the same dtype has a finite value: elsewhere nobody is accused of having none.

        Nowhere, if the reference's output overflows in this dtype: a finite gradient beside it is luck.
        """
        plain = self.autodiff.get(run)
        if not plain:
            return np.ones(np.shape(self.noise[leaf]), bool)
        return np.isfinite(wide(plain["reference"][leaf])) & self.sound


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All numbers of one case.

    measured: the rule in float64, if it computes in float64, and in the case's own dtype, if that is another.
    truth: the float64 reference at each cotangent; None, with `no_truth` saying why, if JAX could not differentiate it.
    sides: the reference's gradient a little ahead and behind along the first slope's direction, at the two shortest steps: (far ahead, far
        behind, near ahead, near behind).
    limit, reference_limit: the least precise dtype in which primal and reference compute although their arguments are float64. A backward that rounds where
        its primal does not is judged in float64, and wrong there.
    no_float64: why the function was not run with 64-bit types at all, "" if it was.
    fused: the dtype in which the case was not judged, as only the compiler's fusion makes the rule wrong there (`verify.apart`); "" if it was.
    raised: the exception that the rule raised, in which case nothing was measured.
    """

    spec: Spec
    case: Case
    call: programs.Traced
    diff: list[np.ndarray]
    rest: list[Any]
    cts: Mapping[str, list[np.ndarray]]
    rules: int
    measured: tuple[Measured, ...] = ()
    truth: Mapping[str, Result] | None = None
    no_truth: str = ""
    no_float64: str = ""
    fused: str = ""
    slopes: tuple[Slope, ...] = ()
    sides: tuple[list[np.ndarray], ...] = ()
    limit: str = "float64"
    reference_limit: str = "float64"
    raised: programs.StageError | None = None
    exact_program: engine.Program | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)  # what one check computed and others need, too

    @property
    def finite_somewhere(self) -> bool:
        """Whether any element of the reference's value is finite (or there is none)."""
        outputs = self.truth["base"]["reference_out"] if self.truth else []
        return not any(out.size for out in outputs) or any(bool(np.isfinite(out).any()) for out in outputs)

    @property
    def blurred(self) -> bool:
        """Whether a function that knows no 64-bit types leaves too few digits to compare: of exponentials and differences of large numbers in float32, in any
        formula, and of difference quotients in 16 bits, where no reference says what is right.
        """
        few = self.truth is None and tolerance.EPS[self.limit] > tolerance.EPS["float32"]
        return bool(self.no_float64) and (few or self.case.style in ("large", *EXTREME))

    @property
    def another_function(self) -> bool:
        """Whether function and reference have, at huge inputs, nothing to do with one another, both finite: masks of -1e9 are no longer far away."""
        if self.case.style != "huge" or self.truth is None or not self.measured or not self.call.has_reference:
            return False
        base, wants = self.measured[0].runs["base"], self.truth["base"]["reference_out"]
        values = [wide(out) for out in (*base["primal"], *base["out"], *wants)]
        return all(np.isfinite(value).all() for value in values) and any(
            bool(np.any(np.minimum(np.abs(primal - want), np.abs(out - want)) > tolerance.GROSS * largest(want)))
            for primal, out, want in zip(base["primal"], base["out"], wants, strict=True)
        )

    @property
    def ct_scale(self) -> float:
        """How many times the cotangent of the run "large" is that of "base"; "small" is divided by it. A power of 2."""
        return next(
            (float(large.flat[0] / base.flat[0]) for large, base in zip(self.cts["large"], self.cts["base"], strict=True) if base.size), 1.0
        )

    def natural(self, leaf: int, most: float = tolerance.SATURATION) -> float:
        """The natural size of a gradient with respect to one leaf: cotangent * output / argument."""
        outputs = self.truth["base"]["reference_out"] if self.truth else self.measured[0].runs["base"]["out"]
        return natural_scale(self.diff[leaf], self.cts["base"], outputs, most)

    def scale(self, leaf: int) -> float:
        """The size of a gradient whose rounding a float64 bound allows for: the natural one, and that of what is hidden."""
        return max(self.natural(leaf), self.hidden)

    @property
    def hidden(self) -> float:
        """The gradient of something of order 1 inside of the function, which the output need not show: a softmax of one class, a log cosh.

        It leaves rounding residues where the derivative is 0; and at extreme inputs, which vanish beside it or saturate it, the formulas that JAX differentiates
        lose digits that no movement of the inputs by an ulp shows.
        """
        return sum(largest(ct) for ct in self.cts["base"]) * (1.0 if self.case.stress else tolerance.HIDDEN)

    def visible(self, leaf: int) -> float:
        """The size of a gradient that counts as one: an error far below it can be told. Of extreme inputs only what the output shows."""
        return self.natural(leaf) if self.case.stress else self.scale(leaf)


def natural_scale(x: np.ndarray, cts: Sequence[np.ndarray], outputs: Sequence[np.ndarray], most: float = tolerance.SATURATION) -> float:
    """cotangent * output / argument, the units of a gradient. Of large arguments more, as where they saturate (logits), rounding does not shrink with them."""
    size = sum(largest(ct) * largest(out) for ct, out in zip(cts, outputs, strict=True))
    typical = rms(x) or 1.0
    return size / typical * min(max(typical, 1.0) ** 2, most)


def sides_of(
    program: engine.Program, direction: list[np.ndarray], diff: list[np.ndarray], rest: list[Any], cts: list[np.ndarray]
) -> tuple[list[np.ndarray], ...]:
    """The reference's gradient along the direction: (far ahead, far behind, near ahead, near behind)."""
    return tuple(
        program([x + sign * step * v for x, v in zip(diff, direction, strict=True)], rest, cts)["reference"]
        for step in tolerance.SIDE_STEPS
        for sign in (1, -1)
    )


def add_seconds(total: dict[str, float], more: Mapping[str, float]) -> None:
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds
