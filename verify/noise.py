"""How large rounding is on a case: measured, by running the same program on inputs moved by an ulp or two."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from verify import engine, tolerance
from verify.cases import Case
from verify.styles import EXTREME
from verify.values import largest, rms, wide

BEHIND = 0.618  # of the step ahead: to both sides alike, rounding may be as odd as a slope
Result = Mapping[str, list[np.ndarray]]


def jittered(program: engine.Program, case: Case, k: int, dtype: str, diff: list[Any], rest: list[Any], ct: list[Any]) -> Result:
    """The program at inputs and cotangents moved by an ulp or two: the same derivative, other rounding."""
    moved = moved_by_ulps(case, k, dtype, [*diff, *ct])
    return program(moved[: len(diff)], rest, moved[len(diff) :])


def moved_by_ulps(case: Case, k: int, dtype: str, arrays: Sequence[Any]) -> list[Any]:
    """Each value an ulp or two of `dtype` up or down; other signs for other k.

    Every other time in float64, ulps of 1, or of an array's typical value if that is less: small values beside a 1 inside of the function, as in (exp(x) - 1) / x, would keep
    the same rounding otherwise. What is 0, or nearly, keeps its sign.
    """
    rng = case.rng(f"jitter{k}")
    ulps = tolerance.JITTER_ULPS * tolerance.EPS[dtype]
    signs = [rng.choice((-1, 1), size=np.shape(values)) for values in arrays]
    if dtype != "float64" or k % 2 == 0:
        return [values * (1.0 + ulps * sign) for values, sign in zip(arrays, signs, strict=True)]
    sizes = [np.where(np.abs(v) > tolerance.NEARLY_0, np.maximum(np.abs(v), min(1.0, rms(wide(v)))), np.abs(v)) for v in arrays]
    sizes = [np.where(np.isfinite(size), size, 0.0) for size in sizes]  # infinities stay
    part = [rng.uniform(0.25, 1.0, size=np.shape(values)) for values in arrays]  # whole ulps would leave the rounding of 1 + x as it is
    return [values + ulps * size * sign * some for values, size, sign, some in zip(arrays, sizes, signs, part, strict=True)]


def jittered_alike(program: engine.Program, case: Case, dtype: str, diff: list[Any], rest: list[Any], ct: list[Any]) -> list[Result]:
    """Likewise, some times, but values that are equal, in one argument or in two, move alike."""
    values, places = _distinct(diff)
    results = []
    for k in range(tolerance.JITTERS):
        moved, *cts = moved_by_ulps(case, k, dtype, [values, *ct])
        results.append(program([moved[place] for place in places], rest, cts))
    return results


def flushed(program: engine.Program, dtype: str, diff: list[Any], rest: list[Any], ct: list[Any]) -> list[Result]:
    """The program at inputs whose denormal numbers are 0, and have the other sign: compiled code may read them as 0, and 0 may be a kink or a tie."""
    smallest = tolerance.SMALLEST_NORMAL.get(dtype, 0.0)
    if not any((np.abs(x[x != 0]) < smallest).any() for x in diff):
        return []
    return [program([np.where(np.abs(x) < smallest, instead * x, x) for x in diff], rest, ct) for instead in (0.0, -1.0)]


def jumping(results: list[Result], truth: Result, key: str = "reference") -> list[bool]:
    """Per leaf, whether any of the results is another gradient."""
    sizes = [tolerance.KINK_JUMP * largest(want) for want in truth[key]]
    return [any(not np.max(np.abs(r[key][i] - truth[key][i]), initial=0.0) <= size for r in results) for i, size in enumerate(sizes)]


def jittered_together(program: engine.Program, case: Case, k: int, diff: list[Any], rest: list[Any], ct: list[Any]) -> Result:
    """Likewise in float64, but equal values stay equal: at ties and kinks, where another rounding breaks them."""
    return program(moved_together(case, k, diff, tolerance.JITTER_ULPS * tolerance.EPS["float64"]), rest, ct)


def moved_together(case: Case, k: int, diff: list[Any], step: float) -> list[Any]:
    """Each value by a relative step up or down, equal values alike; other signs for other k."""
    values, places = _distinct(diff)
    factors = 1.0 + step * case.rng(f"together{k}").choice((-1, 1), size=values.shape)
    return [x * factors[place] for x, place in zip(diff, places, strict=True)]


def _distinct(diff: list[Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values of all arrays, each once, and where each element's stands among them."""
    values = np.unique(np.concatenate([x.reshape(-1) for x in diff]))
    return values, [np.minimum(np.searchsorted(values, x), values.size - 1) for x in diff]


def roughened(noise: list[np.ndarray], gradient: Callable[[list[Any]], list[np.ndarray]], case: Case, diff: list[Any]) -> list[np.ndarray]:
    """The noise, or if it is larger, per element, how far the reference's gradient is off a straight line over so short steps that a smooth one has none: what is left is rounding.

    It costs more than moving the inputs by ulps, and sees what that leaves alone: the rounding of 1 - cos x is the same for neighbours of a small x. Of extreme
    inputs it is the same for longer steps, too, and errors below the square of those are left to the other cases.
    """
    base, bent = gradient(diff), []
    shortest = (tolerance.SHORT_STEP, tolerance.SHORT_STEP_EXTREME) if case.style in EXTREME else (tolerance.SHORT_STEP,)
    with np.errstate(invalid="ignore"):
        for k, start in itertools.product(range(tolerance.JITTERS), shortest):
            step = (1.0 + k / 3) * 2**k * start  # no multiple of another one
            ahead, behind = (gradient(moved_together(case, k, diff, way * step)) for way in (1.0, -BEHIND))
            bent.append([(BEHIND * a + b) / (1 + BEHIND) - value for a, b, value in zip(ahead, behind, base, strict=True)])
    rough = [tolerance.smoothed(np.stack([one[i] for one in bent]), value) for i, value in enumerate(base)]
    return [np.fmax(own, more) for own, more in zip(noise, rough, strict=True)]


def rounding_noise(
    base: Result,
    moved: Sequence[Result],
    reference: str = "reference",
    rule: str = "rule",
    stress: bool = False,
    alike: Callable[[], Sequence[Result]] | None = None,
    least: float = 0.0,
) -> list[np.ndarray]:
    """Per element, how far results spread when the inputs move by an ulp: the reference's around its base, and the rule's own, if it ran.

    The rule's is measured among the moved inputs only, so that a rule that is wrong at special values (0, ties) is not excused. A rule that is wrong at x = y, or where two
    distances are equal, is wrong at some of the moved inputs and right at others: where its spread is a part of the gradient (or, at `stress` values, of a gradient as large as the cotangents, `least`), it must be no switch, and be there
    also if equal inputs stay equal (`alike` runs these). At `stress` values
    (saturated rows, huge logits) exact zeros of the derivative are rounding residues in a right rule, here and there by luck: there its largest spread counts
    for the whole array.
    """
    noise = _spread(base[reference], [other[reference] for other in moved])
    if rule in base:
        ill = np.inf if stress else tolerance.CANNOT_TELL
        own = _spread(moved[0][rule], [other[rule] for other in moved[1:]], ill)
        gross = [tolerance.KINK_JUMP * max(largest(want), least if stress else 0.0) for want in base[reference]]
        if alike is not None and any(bool((a > size).any()) for a, size in zip(own, gross, strict=True)):
            for runs in (moved, alike()):
                found = zip(own, _unlike_a_switch([run[rule] for run in runs], ill), gross, strict=True)
                own = [np.where(a > size, np.fmin(a, b), a) for a, b, size in found]
        noise = [np.maximum(a, b) if np.isfinite(b).all() else a for a, b in zip(noise, own, strict=True)]
    return noise


def size_of_terms(cts: Sequence[Any], outputs: Sequence[Any], diff: Sequence[Any]) -> float:
    """How large the terms may be that cancel in a cotangent, such as a cotangent times a value times a key."""
    through = sum(float(np.sum(np.abs(ct * out)[np.isfinite(out)])) for ct, out in zip(cts, outputs, strict=True))
    return through * max(map(largest, diff), default=0.0)


def exact_noise(
    program: engine.Program, case: Case, dtype: str, diff: list[Any], rest: list[Any], ct: list[Any], truths: Sequence[Result]
) -> tuple[list[np.ndarray], list[Result]]:
    """The noise of a float64 program's gradients around the first of `truths`, which is at `ct`, and the program at the moved inputs that show it."""
    moved = [jittered(program, case, k, dtype, diff, rest, ct) for k in range(tolerance.JITTERS)]
    ulp = tolerance.EPS[dtype] * size_of_terms(ct, truths[0]["reference_out"], diff)
    least = sum(map(largest, ct))
    if case.style == "huge":  # few ulps of huge terms look like a switch between two values
        least = max(least, tolerance.FLOOR_ULPS * ulp / tolerance.KINK_JUMP)
    alike = functools.partial(jittered_alike, program, case, dtype, diff, rest, ct)
    noise = rounding_noise(truths[0], moved, stress=case.stress, alike=alike, least=least)
    if case.stress:
        noise = _ulp_of_terms(noise, truths, ulp)
    return recomputed(noise, truths, diff) if case.style == "huge" else noise, moved


def _ulp_of_terms(noise: list[np.ndarray], truths: Sequence[Result], ulp: float) -> list[np.ndarray]:
    """What is below an ulp of the terms is nothing but their rounding, even if no moved input shows it."""
    below = [np.isfinite(ulp) and max(largest(truth["reference"][i]) for truth in truths) <= ulp for i in range(len(noise))]
    return [np.maximum(own, ulp) if nothing else own for own, nothing in zip(noise, below, strict=True)]


def _unlike_a_switch(results: list[list[np.ndarray]], ill: float) -> list[np.ndarray]:
    """The spread of results as their nearest neighbours show it: rounding spreads all of them, and what switches between two values gives one of them twice."""
    spreads = []
    for leaf in zip(*results, strict=True):
        pairs = [np.abs(a - b) for a, b in itertools.combinations(leaf, 2)]
        near = np.sort(np.stack(pairs), axis=0)[1]
        spreads.append(tolerance.smoothed(tolerance.NOISE_FACTOR * near[None], leaf[0], ill))
    return spreads


def _spread(base: list[np.ndarray], others: list[list[np.ndarray]], ill: float = tolerance.CANNOT_TELL) -> list[np.ndarray]:
    with np.errstate(invalid="ignore"):
        return [tolerance.smoothed(np.stack([other[i] - value for other in others]), value, ill) for i, value in enumerate(base)]


def recomputed(noise: list[np.ndarray], truths: Sequence[Result], diff: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The noise in float64 at huge inputs, or if it is larger what recomputing exp(score - output) costs: whole numbers moved by whole ulps keep its rounding."""
    scores = max(map(largest, (*truths[0]["reference_out"], *diff)), default=0.0)
    part = tolerance.LOW_ULPS / tolerance.NOISE_FACTOR * tolerance.EPS["float64"] * min(scores, tolerance.RECOMPUTED_64)
    return [np.maximum(own, part * max(largest(truth["reference"][i]) for truth in truths)) for i, own in enumerate(noise)]


def low_noise(
    autodiff: Mapping[str, Result], truth: Mapping[str, Result], moved: list[Result], dtype: str, largest_score: float, terms: float = 0.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """How far autodiff in low precision is from the truth at each cotangent, and what moving the inputs does, per leaf and per output.

    In float32 at least what recomputing exp(score - output) costs, where scores or output are large: forward-backward in logarithms is no worse an algorithm.
    `terms` is the size of those that may cancel in a gradient, where they do (saturated rows).
    """
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
    if dtype == "float32":
        recomputed = tolerance.LOW_ULPS / tolerance.LOW_FACTOR[dtype] * tolerance.EPS[dtype] * largest_score
        by_leaf = [np.maximum(noise, recomputed * np.abs(want)) for noise, want in zip(by_leaf, truth["base"]["reference"], strict=True)]
    return _ulp_of_terms(by_leaf, [truth["base"]], tolerance.EPS[dtype] * terms) if terms else by_leaf, by_output
