"""What the rule and the reference really computed on one case: numbers only, no judgement.

Everything is traced once into one module. What the checks need beyond one gradient (another cotangent, a moved input, a repetition) is the same
compiled module run again, which costs microseconds where another trace costs tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from verify import engine, programs, tolerance
from verify._compat import enable_x64, walk
from verify.cases import Case
from verify.spec import FLOAT_DTYPES, Spec
from verify.values import round_to

Result = Mapping[str, list[np.ndarray]]
COMPILED_EVERY = 8  # of so many cases, one goes through XLA in float64 even if NumPy could run it
MIX = -2.0  # the third cotangent is first - 2 second: exact in every dtype, as cotangents are small multiples of a power of two


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rule run with its arguments in `dtypes`, and the reference's rounding noise in the same dtypes.

    runs: "base", "repeat", "other", "mix", "zero" (which cotangent) -> results of `programs.core`.
    noise, out_noise: per leaf and per output, how far the reference is from the truth at "base", per element.
    """

    dtype: str
    dtypes: tuple[str, ...]
    runs: Mapping[str, Result]
    noise: list[np.ndarray]
    out_noise: list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Slope:
    """<cotangent, f(x + step v) - f(x)> along one direction v, for each step ahead and behind.

    rounding: the noise of each of these numbers, in the same units.
    """

    direction: list[np.ndarray]
    steps: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray
    rounding: float


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All numbers of one case.

    measured: the rule in float64, if it computes in float64, and in the case's own dtype, if that is another.
    truth: the float64 reference at each cotangent; None, with `no_truth` saying why, if JAX could not differentiate it.
    sides: the reference's gradient a little ahead and behind along the first slope's direction, at the two shortest steps: (far ahead, far
        behind, near ahead, near behind).
    limit, reference_limit: the least precise dtype in which rule and reference compute although their arguments are float64.
    no_float64: why the function was not run with 64-bit types at all, "" if it was.
    raised: the exception that the rule raised, in which case nothing was measured.
    """

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
    slopes: tuple[Slope, ...] = ()
    sides: tuple[list[np.ndarray], ...] = ()
    limit: str = "float64"
    reference_limit: str = "float64"
    raised: programs.StageError | None = None
    exact_program: engine.Program | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def scale(self, leaf: int) -> float:
        """The natural size of a gradient with respect to one leaf: cotangent * output / argument."""
        outputs = self.truth["base"]["reference_out"] if self.truth else self.measured[0].runs["base"]["out"]
        size = sum(largest(ct) * largest(out) for ct, out in zip(self.cts["base"], outputs, strict=True))
        x = self.diff[leaf][np.isfinite(self.diff[leaf])]
        typical = float(np.sqrt(np.mean(x**2))) if x.size else 0.0
        return size / typical if typical > 0 else size


def observe(spec: Spec, case: Case) -> Observation:
    """Run a case. What the user's rule raises is kept in the observation; what primal or reference raise means a wrong spec, and is raised."""
    call, diff, rest = programs.bind(spec, case)
    dtypes = tuple(dtype or "float64" for dtype in case.dtypes if dtype is not None) or ("float64",) * len(diff)
    fixed = case.dtype == "float64" and any(dtype != "float64" for dtype in dtypes)  # the spec allows no float64 here
    no_float64 = ""
    try:
        with enable_x64(True):
            low = programs.trace(call, cast(diff, dtypes), rest) if any(dtype != "float64" for dtype in dtypes) else None
            exact = low if fixed and spec.reference is not None and low else programs.trace(call, diff, rest)
    except programs.StageError as error:  # kernels may know no 64-bit types; then only a reference can say what is right
        if spec.reference is None:
            raise
        fixed, dtypes = True, tuple("float32" if dtype == "float64" else dtype for dtype in dtypes)
        try:
            with enable_x64(False):
                exact = low = programs.trace(call, cast(diff, dtypes), rest)
        except programs.StageError:
            raise error from None
        no_float64 = f"the function cannot be traced with 64-bit types on ({str(error)[:200]}): it is judged in float32, with x64 off"
    cts = _cotangents(case, (low or exact).shapes)
    seconds: dict[str, float] = {}
    seen: dict[str, Any] = {
        "case": case,
        "call": exact,
        "diff": diff,
        "rest": rest,
        "cts": cts,
        "rules": exact.rules,
        "seconds": seconds,
        "no_float64": no_float64,
    }
    try:
        return Observation(**seen, **_measure(case, exact, diff, dtypes, fixed, rest, cts, seconds))
    except programs.StageError as error:
        if error.stage != "rule":
            raise
        return Observation(**seen, raised=error)


def _measure(
    case: Case, call: programs.Traced, diff: list[Any], dtypes: tuple[str, ...], fixed: bool, rest: list[Any], cts: Mapping[str, list[Any]],
    seconds: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    program, no_truth = _exact_program(call, diff, rest, cts["base"], with_rule=not fixed, compiled=case.index % COMPILED_EVERY == 0)
    rule_limit, reference_limit = lowest_float(program.jaxpr, programs.RULE_PART), lowest_float(program.jaxpr, programs.REFERENCE_PART)
    exact = _runs(program, diff, rest, cts)
    truth = None if no_truth else exact
    noise = out_noise = None
    if truth is not None:
        jitters = [_jittered(program, case, k, reference_limit, diff, rest, cts["base"]) for k in range(tolerance.JITTERS)]
        noise, out_noise = rounding_noise(exact["base"], jitters), rounding_noise(exact["base"], jitters, "reference_out", "out")
    measured: list[Measured] = []
    if not fixed and rule_limit == "float64":
        measured.append(_measured("float64", ("float64",) * len(diff), exact, noise, out_noise))
    limit = max(rule_limit, *dtypes, key=_eps) if fixed or rule_limit != "float64" else "float64"
    low = tuple(limit if dtype == "float64" else dtype for dtype in dtypes)
    if any(dtype != "float64" for dtype in low):
        moved = (
            []
            if truth is None
            else [_jittered(program, case, k, max(low, key=_eps), diff, rest, cts["base"]) for k in range(tolerance.JITTERS)]
        )
        measured.append(_measure_low(case, call.call, cast(diff, low), rest, cts, truth, moved, seconds))
    add_seconds(seconds, program.seconds)
    slopes_of = "primal" if not fixed and (rule_limit == "float64" or no_truth) else "reference_out"
    slopes_limit = rule_limit if slopes_of == "primal" else reference_limit
    slopes = slopes_along(program, case, diff, rest, cts["base"], slopes_of, slopes_limit, every=bool(no_truth))
    sides = (
        ()
        if no_truth
        else tuple(
            program([x + sign * step * v for x, v in zip(diff, slopes[0].direction, strict=True)], rest, cts["base"])["reference"]
            for step in slopes[0].steps[-2:]
            for sign in (1, -1)
        )
    )
    return {
        "measured": tuple(measured), "truth": truth, "no_truth": no_truth, "slopes": slopes, "sides": sides, "limit": limit, "reference_limit": reference_limit,
        "exact_program": program,
    }  # fmt: skip


def _exact_program(
    call: programs.Traced, diff: list[Any], rest: list[Any], cts: list[Any], with_rule: bool, compiled: bool
) -> tuple[engine.Program, str]:
    """The float64 program, and why it has no reference in it ("" if it has). A given reference must be differentiable."""
    try:
        return engine.exact(programs.core(call, with_rule=with_rule), diff, rest, cts, compiled=compiled), ""
    except programs.StageError as error:
        if error.stage != "reference" or call.has_reference:
            raise
        return engine.exact(
            programs.core(call, with_reference=False), diff, rest, cts, compiled=compiled
        ), f"JAX cannot differentiate the primal: {error}"


def _measure_low(
    case: Case, call: programs.Call, user: list[Any], rest: list[Any], cts: Mapping[str, list[Any]], truth: Mapping[str, Result] | None,
    moved: list[Result], seconds: dict[str, float],
) -> Measured:  # fmt: skip
    """The rule in low precision. `moved` is the truth at inputs moved by an ulp of that precision: what no stable algorithm can do better than."""
    dtypes = tuple(str(array.dtype) for array in user)
    x64 = case.dtype == "mixed" or "float64" in dtypes  # the others as most users run: x64 off
    with enable_x64(x64):
        traced = programs.trace(call, user, rest)
    program = engine.full(programs.core(traced, with_reference=False), user, rest, cts["base"], x64=x64)
    runs = _runs(program, user, rest, cts)
    add_seconds(seconds, program.seconds)
    noise = out_noise = None
    if truth is not None:
        plain = engine.quick(programs.core(traced, with_rule=False), user, rest, cts["base"], x64=x64)
        autodiff = _runs(plain, user, rest, cts)
        add_seconds(seconds, plain.seconds)
        with np.errstate(invalid="ignore"):
            noise, out_noise = _low_noise(autodiff, truth, moved)
    return _measured("mixed" if case.dtype == "mixed" else max(dtypes, key=_eps), dtypes, runs, noise, out_noise)


def _low_noise(
    autodiff: Mapping[str, Result], truth: Mapping[str, Result], moved: list[Result]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """How far autodiff in low precision is from the truth at each cotangent, and what moving the inputs does, per leaf and per output."""
    by_leaf, by_output = (
        [
            tolerance.smoothed(
                np.stack([wide(autodiff[k][key][i]) - truth[k][key][i] for k in samples] + [m[key][i] - exact for m in moved]),
                exact,
                ill=tolerance.LOW_ILL,
            )
            for i, exact in enumerate(truth["base"][key])
        ]
        for key, samples in (("reference", ("base", "other", "mix")), ("reference_out", ("base",)))
    )
    return by_leaf, by_output


def _measured(dtype: str, dtypes: tuple[str, ...], runs: Mapping[str, Result], noise: Any, out_noise: Any) -> Measured:
    base = runs["base"]
    noise = [np.zeros(np.shape(g)) for g in base["rule"]] if noise is None else noise
    out_noise = [np.zeros(np.shape(o)) for o in base["out"]] if out_noise is None else out_noise
    return Measured(dtype=dtype, dtypes=dtypes, runs=runs, noise=noise, out_noise=out_noise)


def _runs(program: engine.Program, diff: list[Any], rest: list[Any], cts: Mapping[str, list[Any]]) -> dict[str, Result]:
    runs = {name: program(diff, rest, ct) for name, ct in cts.items()}
    runs["repeat"] = program(diff, rest, cts["base"])
    return runs


def _cotangents(case: Case, shapes: Sequence[Any]) -> dict[str, list[np.ndarray]]:
    """Random, of both signs, nowhere 0 and never all equal; exact in the output's dtype."""
    rng = case.rng("cotangents")

    def some() -> list[np.ndarray]:
        steps, spacing = (3072, 1024.0) if all(shape.dtype == np.float64 for shape in shapes) else (24, 8.0)
        return [rng.integers(1, steps + 1, size=s.shape) * np.where(rng.integers(2, size=s.shape), 1, -1) / spacing for s in shapes]

    base, other = some(), some()
    mix = [a + MIX * b for a, b in zip(base, other, strict=True)]
    return {"base": base, "other": other, "mix": mix, "zero": [np.zeros_like(ct) for ct in base]}


def _jittered(program: engine.Program, case: Case, k: int, dtype: str, diff: list[Any], rest: list[Any], ct: list[Any]) -> Result:
    """The program at inputs and cotangents moved by an ulp or two: the same derivative, other rounding."""
    rng = case.rng(f"jitter{k}")
    ulps = tolerance.JITTER_ULPS * tolerance.EPS[dtype]
    moved = [[values * (1.0 + ulps * rng.choice((-1, 1), size=values.shape)) for values in arrays] for arrays in (diff, ct)]
    return program(moved[0], rest, moved[1])


def rounding_noise(base: Result, moved: Sequence[Result], reference: str = "reference", rule: str = "rule") -> list[np.ndarray]:
    """Per element, how far results spread when the inputs move by an ulp: the reference's around its base, and the rule's own, if it ran.

    The rule's is measured among the moved inputs only, so that a rule that is wrong at special values (0, ties) is not excused.
    """
    noise = _spread(base[reference], [other[reference] for other in moved])
    if rule in base:
        own = _spread(moved[0][rule], [other[rule] for other in moved[1:]])
        noise = [np.maximum(a, b) if np.isfinite(b).all() else a for a, b in zip(noise, own, strict=True)]
    return noise


def _spread(base: list[np.ndarray], others: list[list[np.ndarray]]) -> list[np.ndarray]:
    with np.errstate(invalid="ignore"):
        return [tolerance.smoothed(np.stack([other[i] - value for other in others]), value) for i, value in enumerate(base)]


def slopes_along(
    program: engine.Program, case: Case, diff: list[Any], rest: list[Any], ct: list[Any], key: str, dtype: str, every: bool
) -> tuple[Slope, ...]:
    center = program(diff, rest, ct)[key]
    rounding = tolerance.EPS[dtype] * float(np.sqrt(sum(np.sum((c * o) ** 2) for c, o in zip(ct, center, strict=True))))
    steps = tolerance.FIRST_STEP * tolerance.STEP_RATIO ** -np.arange(tolerance.STEPS)

    def rise(direction: list[np.ndarray], step: float) -> float:
        out = program([x + step * v for x, v in zip(diff, direction, strict=True)], rest, ct)[key]
        return float(sum(np.sum(c * (o - o0)) for c, o, o0 in zip(ct, out, center, strict=True)))

    with np.errstate(invalid="ignore", over="ignore"):
        return tuple(
            Slope(
                direction=v, steps=steps, rounding=rounding,
                ahead=np.array([rise(v, step) for step in steps]), behind=np.array([rise(v, -step) for step in steps]),
            )
            for v in _directions(case, diff, every)
        )  # fmt: skip


def _directions(case: Case, diff: list[np.ndarray], every: bool) -> list[list[np.ndarray]]:
    """One random direction through all arguments; with `every`, single elements too, as no other oracle looks at them.

    Steps are relative to each element, so that a positive argument stays positive; an element at 0 moves by a twentieth of the typical size.
    """
    rng = case.rng("directions")
    full = []
    for x in diff:
        finite = x[np.isfinite(x)]
        typical = float(np.sqrt(np.mean(finite**2))) if finite.size else 1.0
        move = np.abs(x) + 0.05 * (typical or 1.0)
        full.append(
            np.where(np.isfinite(x), move, 0.0) * np.where(rng.integers(2, size=x.shape), 1.0, -1.0) * rng.uniform(0.5, 1.0, size=x.shape)
        )
    directions = [full]
    if every:
        elements = [(leaf, index) for leaf, x in enumerate(diff) for index in np.ndindex(x.shape)]
        chosen = (
            elements
            if len(elements) <= tolerance.COORDINATES
            else [elements[i] for i in rng.permutation(len(elements))[: tolerance.COORDINATES]]
        )
        for leaf, index in chosen:
            single = [np.zeros_like(x) for x in diff]
            single[leaf][index] = full[leaf][index]
            directions.append(single)
    return directions


def lowest_float(jaxpr: Any, part: str) -> str:
    """The least precise float dtype that a part of the core program computes in."""
    found = {"float64"}
    for equation in walk(jaxpr, lambda outer: part in str(outer.source_info.name_stack)):
        found |= {str(var.aval.dtype) for var in equation.outvars if hasattr(var.aval, "dtype")}
    return max((name for name in found if name in FLOAT_DTYPES), key=_eps)


def _eps(dtype: str) -> float:
    return tolerance.EPS[dtype]


def cast(arrays: Sequence[np.ndarray], dtypes: Sequence[str]) -> list[np.ndarray]:
    """Each array in its dtype."""
    return [round_to(a, d).astype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for a, d in zip(arrays, dtypes, strict=True)]


def wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def largest(values: np.ndarray) -> float:
    finite = np.abs(wide(values)[np.isfinite(wide(values))])
    return float(finite.max()) if finite.size else 0.0


def add_seconds(total: dict[str, float], more: Mapping[str, float]) -> None:
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds
