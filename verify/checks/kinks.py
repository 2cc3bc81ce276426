"""Is the rule's value at kinks and ties a subgradient?

At relu's 0, or where two entries share the maximum, many derivatives are right, but not any. Two things are asked. Each element must lie between the one-sided
derivatives. And along directions that keep what is tied tied (equal entries move together; or whole arguments do, which keeps ties of their sums and products) the
function is smooth, so there the rule must follow its values: a `max` that gives its whole gradient to every one of two tied entries is twice too large. Which of
the right values the rule takes is its convention, and is reported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verify.checks.along import judge_slope
from verify.checks.compare import subscript
from verify.engine import Program
from verify.noise import jittered_together, rounding_noise
from verify.observation import Observation
from verify.oracles import autodiff, doubt
from verify.oracles.agreement import differences_tell, project
from verify.oracles.finite_difference import slope
from verify.oracles.sides import rounding_along, sides_at
from verify.records import Finding, Status
from verify.slopes import STEP_SIZES, slope_along
from verify.tolerance import JITTERS, NOISE_FACTOR, RELATIVE_64, SHARED_KINK, SINGULAR_DRIFT
from verify.values import rms, wide

CODE, NAME, TITLE = "V022", "kinks", "at kinks and ties the rule gives a subgradient"


def applies(observation: Observation) -> bool:
    return (
        bool(observation.measured) and observation.limit == "float64" and differences_tell(observation) and autodiff.jumps_here(observation)
    )


def judge(observation: Observation) -> list[Finding]:
    program, cts = observation.exact_program, observation.cts["base"]
    if program is None or observation.truth is None:
        return []
    moved = [jittered_together(program, observation.case, k, observation.diff, observation.rest, cts) for k in range(JITTERS)]
    noise = rounding_noise(observation.truth["base"], moved)
    found = _between(observation, noise)
    if found.status is Status.FAIL:
        found = _between(observation, noise, rough=True)
    return [found, *_along_ties(observation, program, noise)]


def _between(observation: Observation, noise: list[np.ndarray], rough: bool = False) -> Finding:
    """Each element lies between the one-sided derivatives, as far as these jump. `rough`: equal values were looked at in every order."""
    address, compared, convention = observation.case.address, 0, ""
    measured = observation.measured[0]
    known, smooth = autodiff.gradient(observation, replace(measured, noise=noise), rough), doubt.settled(observation)
    for leaf, (name, raw) in enumerate(zip(observation.call.names, measured.runs["base"]["rule"], strict=True)):
        sides, got = sides_at(observation, leaf), wide(raw)
        jumps = sides.jumps & np.isfinite(known.error[leaf])
        if smooth is not None:
            jumps &= ~np.isfinite(smooth[leaf][1])
        around = observation.found["around"][leaf]
        far = autodiff.bounded_jump(observation, leaf) & around.shared & ~np.isfinite(known.error[leaf])
        bound = np.where(far, SHARED_KINK * (around.high - around.low), known.error[leaf])
        off = ~(np.abs(got - known.value[leaf]) <= bound)
        asked = jumps | (far & off)  # a kink of several elements accuses a value far outside, and approves of none
        if not asked.any():
            continue
        compared += int(asked.sum())
        wrong = asked & off
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            message = (
                f"at a kink the cotangent of {name} is {got[index]:.6g} at {name}{subscript(index)} = {observation.diff[leaf][index]:.6g}, not between the "
                f"one-sided derivatives {sides.low[index]:.6g} and {sides.high[index]:.6g} ({int(wrong.sum())} of {int(asked.sum())} elements at kinks)"
            )
            return Finding(
                check=NAME, status=Status.FAIL, message=message, argument=name, index=index, got=float(got[index]), want=float(known.value[leaf][index]),
                bound=float(bound[index]), wrong=int(wrong.sum()), comparisons=int(asked.sum()), dtype="float64", address=address,
            )  # fmt: skip
        convention = convention or _convention(observation, leaf, got, jumps)
    status = Status.PASS if compared else Status.SKIP
    message = convention if compared else "the slopes of the sides differ only within rounding"
    return Finding(check=NAME, status=status, comparisons=compared, message=message, dtype="float64", address=address)


def _convention(observation: Observation, leaf: int, got: np.ndarray, jumps: np.ndarray) -> str:
    assert observation.truth is not None
    index = tuple(int(i) for i in np.argwhere(jumps)[0])
    behind, ahead = (float(observation.sides[k][leaf][index]) for k in (3, 2))
    want = float(observation.truth["base"]["reference"][leaf][index])
    name = observation.call.names[leaf]
    return (
        f"convention: at the kink {name} = {observation.diff[leaf][index]:.6g} the rule gives {got[index]:.6g}, JAX's autodiff of the reference {want:.6g}; "
        f"the one-sided derivatives are {behind:.6g} and {ahead:.6g}"
    )


def _along_ties(observation: Observation, program: Program, noise: list[np.ndarray]) -> list[Finding]:
    """Slopes along directions that keep ties, by finite differences."""
    assert observation.truth is not None
    gradient = observation.measured[0].runs["base"]["rule"]
    findings = []
    cts, center = observation.cts["base"], observation.truth["base"]["reference_out"]
    sides = [sides_at(observation, leaf) for leaf in range(len(observation.diff))]
    jumps = [side.jumps | side.singular for side in sides]  # of three that tie, the one in the middle has the same limit on both sides
    for v in [_tied(observation, 0), _tied(observation, 1), _shifted(observation), _scaled(observation)]:
        along = rounding_along(observation, v)
        if along is None:
            continue
        measured = slope_along(program, observation.diff, observation.rest, cts, "reference_out", "float64", v, center)
        want, error = slope(measured)
        quiet = [np.where(jump, own, n) for jump, own, n in zip(jumps, along, noise, strict=True)]  # a tie that the noise breaks is none
        rounding = float(sum(np.sum(n * np.abs(move)) for n, move in zip(quiet, v, strict=True)))
        own = RELATIVE_64 * project(gradient, v)[1] + NOISE_FACTOR * rounding
        finding = judge_slope(NAME, observation, v, want, error, "finite differences", own=own)
        if finding.status is Status.FAIL and finding.got is not None and _contradicted(observation, program, v, want, finding.got - want):
            continue
        if finding.status is Status.FAIL:
            findings.append(_worded(finding))
        elif finding.status is Status.PASS:
            findings.append(finding)
    return findings


def _contradicted(observation: Observation, program: Program, v: list[np.ndarray], want: float, off: float) -> bool:
    """Whether the reference's own slope at the inputs, or a shortest step away, is another one than the differences', by a tenth of what is held against the
    rule: where kinks lie close together (a sorted row of 512), every step crosses some.
    """
    steps = (0.0, STEP_SIZES[-1], -STEP_SIZES[-1])
    points = [[x + step * move for x, move in zip(observation.diff, v, strict=True)] for step in steps]
    slopes = [project(program(point, observation.rest, observation.cts["base"])["reference"], v)[0] for point in points]
    return not max(abs(own - want) for own in slopes) < SINGULAR_DRIFT * abs(off)


def _tied(observation: Observation, k: int) -> list[np.ndarray]:
    """The same random step for all equal values, over all arguments; with odd k, values at 0 stay."""
    rng = observation.case.rng(f"ties{k}")
    values = np.unique(np.concatenate([x.reshape(-1) for x in observation.diff]))
    size = rms(values) or 1.0
    steps = (
        (np.abs(values) + 0.05 * size) * np.where(rng.integers(2, size=values.shape), 1.0, -1.0) * rng.uniform(0.5, 1.0, size=values.shape)
    )
    if k % 2:
        steps = np.where(values == 0, 0.0, steps)
    return [np.where(np.isfinite(x), steps[np.minimum(np.searchsorted(values, x), values.size - 1)], 0.0) for x in observation.diff]


def _shifted(observation: Observation) -> list[np.ndarray]:
    """Every argument moves as a whole: sums of entries that tie still do. Powers of two are added without rounding to numbers of few digits."""
    rng = observation.case.rng("shifts")
    sizes = [2.0 ** np.floor(np.log2(rms(x) or 1.0)) * rng.choice((-1.0, -0.5, 0.5, 1.0)) for x in observation.diff]
    return [np.where(np.isfinite(x), size, 0.0) for x, size in zip(observation.diff, sizes, strict=True)]


def _scaled(observation: Observation) -> list[np.ndarray]:
    """All arguments grow alike: products, differences and distances that tie still do."""
    return [np.where(np.isfinite(x), x, 0.0) for x in observation.diff]


def _worded(finding: Finding) -> Finding:
    message = (
        f"at ties the rule gives no subgradient: when what is tied moves together the function is smooth, and its slope is {finding.want:.10g} "
        f"+- {finding.bound:.2g}, the rule's {finding.got:.10g}. The shares of tied entries must sum to one"
    )
    return replace(finding, message=message)
