"""What the rule and the reference really computed on one case: numbers only, no judgement.

Everything is traced once into one module. What the checks need beyond one gradient (another cotangent, a moved input, a repetition) is the same
compiled module run again, which costs microseconds where another trace costs tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verify import engine, programs, tolerance
from verify._compat import enable_x64, walk
from verify.apart import compiled_wrong
from verify.cases import Case
from verify.noise import Result, exact_noise, flushed, jittered, jumping, low_noise, rounding_noise, size_of_terms
from verify.observation import MIX, Measured, Observation, add_seconds, sides_of
from verify.slopes import slopes_along
from verify.spec import FLOAT_DTYPES, Spec
from verify.styles import EXTREME
from verify.turns import SHAPE_CASES
from verify.values import cast, largest, wide

COMPILED_EVERY = 16  # of so many cases, one shape goes through XLA in float64 even if NumPy could run it
AS_USERS = 32  # up to this index, cases in users' dtypes are compiled as users compile, on the default device; later ones cheaply
NO_REFERENCE = "the function knows no 64-bit types, and no reference says in float64 what is right"
KEPT = 8  # traces and programs of the last shapes


def observe(spec: Spec, case: Case) -> Observation:
    """Run a case. What the user's rule raises is kept in the observation; what primal or reference raise means a wrong spec, and is raised."""
    call, diff, rest = programs.bind(spec, case)
    dtypes = tuple(dtype or "float64" for dtype in case.dtypes if dtype is not None) or ("float64",) * len(diff)
    fixed = case.dtype == "float64" and any(dtype != "float64" for dtype in dtypes)  # the spec allows no float64 here
    no_float64 = alone = ""
    try:
        with enable_x64(True):
            low = programs.trace(call, cast(diff, dtypes), rest) if any(dtype != "float64" for dtype in dtypes) else None
            exact = low if fixed and spec.reference is not None and low else _traced_once(spec, call, diff, rest)
    except programs.StageError as error:  # kernels may know no 64-bit types
        fixed, dtypes = True, tuple("float32" if dtype == "float64" else dtype for dtype in dtypes)
        try:
            with enable_x64(False):
                exact = low = programs.trace(call, cast(diff, dtypes), rest)
        except programs.StageError:
            raise error from None
        no_float64 = f"the function cannot be traced with 64-bit types on ({str(error)[:200]}): it is judged in float32, with x64 off"
        alone = "" if spec.reference is not None else NO_REFERENCE
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
        return Observation(**seen, **_measure(case, exact, diff, dtypes, fixed, rest, cts, seconds, alone))
    except programs.StageError as error:
        if error.stage != "rule":
            raise
        return Observation(**seen, raised=error)


def _measure(
    case: Case, call: programs.Traced, diff: list[Any], dtypes: tuple[str, ...], fixed: bool, rest: list[Any], cts: Mapping[str, list[Any]],
    seconds: dict[str, float], alone: str,
) -> dict[str, Any]:  # fmt: skip
    compiled = case.index % COMPILED_EVERY < SHAPE_CASES
    program, no_truth = _compiled_once(
        call,
        compiled,
        not fixed,
        lambda: (
            (_own_values(call, diff, dtypes, rest), alone) if alone else _exact_program(call, diff, rest, cts["base"], not fixed, compiled)
        ),
    )
    rule_limit, reference_limit = lowest_float(call.jaxpr), lowest_float(program.jaxpr, programs.REFERENCE_PART)
    exact = _runs(program, diff, rest, cts)
    truth = None if no_truth else exact
    noise = out_noise = None
    fused = ""
    if truth is not None:
        noise, jitters = exact_noise(program, case, reference_limit, diff, rest, cts["base"], (exact["base"], exact["other"]))
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
        user = cast(diff, low)
        found = _measure_low(case, call.call, user, rest, cts, truth, moved, lost, seconds)
        if (
            measured
            and truth is not None
            and case.style in EXTREME
            and compiled_wrong(call.call, found, user, rest, cts["base"], truth["base"])
        ):
            fused = found.dtype
        else:
            measured.append(found)
    add_seconds(seconds, program.seconds)
    slopes_of = "primal" if alone or (not fixed and (rule_limit == "float64" or no_truth)) else "reference_out"
    slopes_limit = rule_limit if slopes_of == "primal" else reference_limit
    slopes = slopes_along(program, case, diff, rest, cts["base"], slopes_of, slopes_limit, every=bool(no_truth))
    sides = () if no_truth else sides_of(program, slopes[0].direction, diff, rest, cts["base"])
    return {
        "measured": tuple(measured), "truth": truth, "no_truth": no_truth, "slopes": slopes, "sides": sides, "limit": limit, "reference_limit": reference_limit,
        "exact_program": program, "fused": fused,
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


def forget() -> None:
    """Nothing is shared with what was judged before: a function's rule may have been defined anew since (`f.defvjp` in another cell of a notebook)."""
    with _lock:
        _lately.clear()


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
            return engine.exact(programs.core(call, with_rule=with_rule), diff, rest, cts, compiled=compiled, runs=engine.MANY), ""
    except programs.StageError as error:
        if error.stage != "reference" or call.has_reference:
            raise
        return engine.exact(
            programs.core(call, with_reference=False), diff, rest, cts, compiled=compiled, runs=engine.MANY
        ), f"JAX cannot differentiate the primal: {error}"


def _own_values(call: programs.Traced, diff: list[Any], dtypes: tuple[str, ...], rest: list[Any]) -> engine.Program:
    """The values of a function that knows no 64-bit types, at float64 inputs that are rounded for it."""
    with programs.stage("compilation"):
        program = engine.quick(lambda diff, rest: {"primal": call.run(diff, rest)}, cast(diff, dtypes), rest, x64=False)
    return replace(program, run=lambda diff, rest, cts: {"primal": [wide(out) for out in program(cast(diff, dtypes), rest)["primal"]]})


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
    sound = True

    def differentiated(by: programs.Traced) -> tuple[dict[str, Result], bool]:
        """JAX's autodiff in this precision, and whether its outputs have anything to do with the truth."""
        with programs.stage("compilation"):
            plain = (compiler if engine.accelerated() else engine.quick)(  # an accelerator's own rounding is part of the unit
                programs.core(by, with_rule=False), user, rest, cts["base"], x64=x64
            )
        found = _runs(plain, user, rest, cts)
        add_seconds(seconds, plain.seconds)
        return found, _sound(found["base"], truth["base"]) if truth else True

    if truth is not None:
        autodiff, sound = differentiated(traced)
        if not sound and traced.has_reference:  # it overflows where the function may not: its own formula is the unit then
            with contextlib.suppress(programs.StageError):
                own, its_sound = differentiated(replace(traced, call=replace(traced.call, has_reference=False)))
                autodiff, sound = (own, its_sound) if its_sound else (autodiff, sound)
        with np.errstate(invalid="ignore"):
            scores = max(map(largest, (*truth["base"]["reference_out"], *map(wide, user))), default=0.0)
            scores = min(scores, tolerance.RECOMPUTED_EXTREME if case.style in EXTREME else tolerance.RECOMPUTED)
            may_cancel = case.stress and case.style != "huge"  # what overflows is no rounding
            terms = size_of_terms(cts["base"], truth["base"]["reference_out"], [wide(x) for x in user]) if may_cancel else 0.0
            noise, out_noise = low_noise(autodiff, truth, moved, max(dtypes, key=_eps), scores, terms)
            noise = [np.full_like(n, np.inf) if jumps else n for n, jumps in zip(noise, jumping(lost, truth["base"]), strict=True)]
    measured = _measured("mixed" if case.dtype == "mixed" else max(dtypes, key=_eps), dtypes, runs, noise, out_noise)
    return replace(measured, autodiff=autodiff, sound=sound)


def _sound(base: Result, truth: Result) -> bool:
    return all(
        bool(np.all(np.abs(wide(out) - want)[np.isfinite(want)] <= tolerance.GROSS * largest(want)))
        for out, want in zip(base["reference_out"], truth["reference_out"], strict=True)
    )


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
