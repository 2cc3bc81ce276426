"""What the rule and the reference really computed on one case: numbers only, no judgement.

Everything is traced once into one module. What the checks need beyond one gradient (another cotangent, a moved input, a repetition) is the same
compiled module run again, which costs microseconds where another trace costs tens of milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from verify import engine, programs, tolerance
from verify._compat import enable_x64, walk
from verify.cases import SHAPE_CASES, Case
from verify.noise import Result, flushed, jittered, jumping, low_noise, rounding_noise
from verify.slopes import Slope, slopes_along
from verify.spec import FLOAT_DTYPES, Spec
from verify.styles import EXTREME
from verify.values import cast, largest, rms, wide

COMPILED_EVERY = 16  # of so many cases, one shape goes through XLA in float64 even if NumPy could run it
AS_USERS = 32  # up to this index, cases in users' dtypes are compiled as users compile, on the default device; later ones cheaply
KEPT = 8  # traces and programs of the last shapes
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


def observe(spec: Spec, case: Case) -> Observation:
    """Run a case. What the user's rule raises is kept in the observation; what primal or reference raise means a wrong spec, and is raised."""
    call, diff, rest = programs.bind(spec, case)
    dtypes = tuple(dtype or "float64" for dtype in case.dtypes if dtype is not None) or ("float64",) * len(diff)
    fixed = case.dtype == "float64" and any(dtype != "float64" for dtype in dtypes)  # the spec allows no float64 here
    no_float64 = ""
    try:
        with enable_x64(True):
            low = programs.trace(call, cast(diff, dtypes), rest) if any(dtype != "float64" for dtype in dtypes) else None
            exact = low if fixed and spec.reference is not None and low else _traced_once(spec, call, diff, rest)
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
        "spec": spec,
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
    compiled = case.index % COMPILED_EVERY < SHAPE_CASES
    program, no_truth = _compiled_once(
        call, compiled, not fixed, lambda: _exact_program(call, diff, rest, cts["base"], not fixed, compiled)
    )
    rule_limit, reference_limit = lowest_float(call.jaxpr), lowest_float(program.jaxpr, programs.REFERENCE_PART)
    exact = _runs(program, diff, rest, cts)
    truth = None if no_truth else exact
    noise = out_noise = None
    if truth is not None:
        jitters = [jittered(program, case, k, reference_limit, diff, rest, cts["base"]) for k in range(tolerance.JITTERS)]
        noise = rounding_noise(exact["base"], jitters, stress=case.stress)
        out_noise = rounding_noise(exact["base"], jitters, "reference_out", "out")
    measured: list[Measured] = []
    if not fixed and rule_limit == "float64":
        measured.append(_measured("float64", ("float64",) * len(diff), exact, noise, out_noise))
    limit = max(rule_limit, *dtypes, key=_eps) if fixed or rule_limit != "float64" else "float64"
    low = tuple(limit if dtype == "float64" else dtype for dtype in dtypes)
    if any(dtype != "float64" for dtype in low):
        moved = (
            []
            if truth is None
            else [jittered(program, case, k, max(low, key=_eps), diff, rest, cts["base"]) for k in range(tolerance.JITTERS)]
        )
        lost = [] if truth is None else flushed(program, max(low, key=_eps), diff, rest, cts["base"])
        measured.append(_measure_low(case, call.call, cast(diff, low), rest, cts, truth, moved, lost, seconds))
    add_seconds(seconds, program.seconds)
    slopes_of = "primal" if not fixed and (rule_limit == "float64" or no_truth) else "reference_out"
    slopes_limit = rule_limit if slopes_of == "primal" else reference_limit
    slopes = slopes_along(program, case, diff, rest, cts["base"], slopes_of, slopes_limit, every=bool(no_truth))
    sides = () if no_truth else sides_of(program, slopes[0].direction, diff, rest, cts["base"])
    return {
        "measured": tuple(measured), "truth": truth, "no_truth": no_truth, "slopes": slopes, "sides": sides, "limit": limit, "reference_limit": reference_limit,
        "exact_program": program,
    }  # fmt: skip


_lately: dict[Any, Any] = {}  # what consecutive cases of one shape share: key -> (what the key's identities belong to, result)

_lock = threading.Lock()


def _shared(key: tuple[Any, ...], keep: Any, make: Callable[[], Any]) -> Any:
    """The result of the last calls with this key; a few are kept, in order of use.

    `keep` holds the objects whose identity is in the key, so that no other object gets it meanwhile. Each thread has its own: JAX's traces are not made to be
    replayed by two at a time.
    """
    key = (*key, threading.get_ident())
    with _lock:
        found = _lately.pop(key, None)
    if found is None:
        found = (keep, make())
    with _lock:
        _lately[key] = found
        while len(_lately) > KEPT:
            del _lately[next(iter(_lately))]
    return found[1]


def _traced_once(spec: Spec, call: programs.Call, diff: list[Any], rest: list[Any]) -> programs.Traced:
    shapes = tuple((np.shape(leaf), str(leaf.dtype)) for leaf in (*diff, *rest))
    bound = (call.diff_slots, call.rest_slots, call.pairs, repr(call.statics), repr(call.tree), repr(call.options))
    key = ("trace", id(spec.fn), id(spec.reference), shapes, bound)
    return _shared(key, (spec.fn, spec.reference), lambda: programs.trace(call, diff, rest))


def _compiled_once(call: programs.Traced, compiled: bool, with_rule: bool, make: Callable[[], Any]) -> tuple[engine.Program, str]:
    program, no_truth = _shared(("program", id(call), compiled, with_rule), call, make)
    seconds: dict[str, float] = {}
    if not program.seconds.get("counted"):
        seconds, program.seconds["counted"] = dict(program.seconds), 1.0
    return replace(program, seconds=seconds), no_truth


def _exact_program(
    call: programs.Traced, diff: list[Any], rest: list[Any], cts: list[Any], with_rule: bool, compiled: bool
) -> tuple[engine.Program, str]:
    """The float64 program, and why it has no reference in it ("" if it has). A given reference must be differentiable."""
    try:
        with programs.stage("compilation"):
            return engine.exact(programs.core(call, with_rule=with_rule), diff, rest, cts, compiled=compiled), ""
    except programs.StageError as error:
        if error.stage != "reference" or call.has_reference:
            raise
        return engine.exact(
            programs.core(call, with_reference=False), diff, rest, cts, compiled=compiled
        ), f"JAX cannot differentiate the primal: {error}"


def _measure_low(
    case: Case, call: programs.Call, user: list[Any], rest: list[Any], cts: Mapping[str, list[Any]], truth: Mapping[str, Result] | None,
    moved: list[Result], lost: list[Result], seconds: dict[str, float],
) -> Measured:  # fmt: skip
    """The rule in low precision. `moved` is the truth at inputs moved by an ulp of that precision: what no stable algorithm can do better than.

    `lost` is the truth without denormal numbers: where it is another, nobody can tell.
    """
    dtypes = tuple(str(array.dtype) for array in user)
    x64 = case.dtype == "mixed" or "float64" in dtypes  # the others as most users run: x64 off
    with enable_x64(x64):
        traced = programs.trace(call, user, rest)
    with programs.stage("compilation"):
        compiler = engine.full if case.thorough or case.index < AS_USERS else engine.quick
        program = compiler(programs.core(traced, with_reference=False), user, rest, cts["base"], x64=x64)
    runs = _runs(program, user, rest, cts)
    add_seconds(seconds, program.seconds)
    noise = out_noise = None
    autodiff: dict[str, Result] = {}
    if truth is not None:
        with programs.stage("compilation"):
            plain = (compiler if engine.accelerated() else engine.quick)(  # an accelerator's own rounding is part of the unit
                programs.core(traced, with_rule=False), user, rest, cts["base"], x64=x64
            )
        autodiff = _runs(plain, user, rest, cts)
        add_seconds(seconds, plain.seconds)
        with np.errstate(invalid="ignore"):
            scores = max(map(largest, (*truth["base"]["reference_out"], *map(wide, user))), default=0.0)
            scores = min(scores, tolerance.RECOMPUTED_EXTREME if case.style in EXTREME else tolerance.RECOMPUTED)
            noise, out_noise = low_noise(autodiff, truth, moved, max(dtypes, key=_eps), scores)
            noise = [np.full_like(n, np.inf) if jumps else n for n, jumps in zip(noise, jumping(lost, truth["base"]), strict=True)]
    measured = _measured("mixed" if case.dtype == "mixed" else max(dtypes, key=_eps), dtypes, runs, noise, out_noise)
    sound = truth is None or all(
        bool(np.all(np.abs(wide(out) - want)[np.isfinite(want)] <= tolerance.GROSS * largest(want)))
        for out, want in zip(autodiff["base"]["reference_out"], truth["base"]["reference_out"], strict=True)
    )
    return replace(measured, autodiff=autodiff, sound=sound)


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
    """Random, of both signs (long sums: of one, so that a small accumulator is filled), nowhere 0 and never all equal; exact in the output's dtype."""
    rng = case.rng("cotangents")

    def some(one_signed: bool = False) -> list[np.ndarray]:
        bits = min((tolerance.CT_BITS[str(shape.dtype)] for shape in shapes), default=3)
        steps, spacing = 3 * 2**bits, 2.0**bits
        signs = 1 if one_signed else 2
        return [rng.integers(1, steps + 1, size=s.shape) * np.where(rng.integers(signs, size=s.shape), -1, 1) / spacing for s in shapes]

    base, other = some(one_signed=case.long), some()
    mix = [a + MIX * b for a, b in zip(base, other, strict=True)]
    dtypes = {*(str(shape.dtype) for shape in shapes), *(dtype for dtype in case.dtypes if dtype is not None)}
    factor = 2.0 ** min(tolerance.CT_SCALE[dtype] for dtype in dtypes)
    large, small = ([scale * ct for ct in base] for scale in (factor, 1 / factor))
    return {"base": base, "other": other, "mix": mix, "zero": [np.zeros_like(ct) for ct in base], "large": large, "small": small}


def lowest_float(jaxpr: Any, part: str = "") -> str:
    """The least precise float dtype that a program, or a part of the core program, computes in."""
    found = {"float64"}
    for equation in walk(jaxpr, lambda outer: part in str(outer.source_info.name_stack)):
        found |= {str(var.aval.dtype) for var in equation.outvars if hasattr(var.aval, "dtype")}
    return max((name for name in found if name in FLOAT_DTYPES), key=_eps)


def _eps(dtype: str) -> float:
    return tolerance.EPS[dtype]


def add_seconds(total: dict[str, float], more: Mapping[str, float]) -> None:
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds
