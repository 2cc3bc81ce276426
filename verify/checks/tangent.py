"""Is a `custom_jvp` rule right in forward mode?

The tangent of every output, element by element, against JAX's forward mode of the reference; linear in the tangents; zero for zero tangents; and right when only
some arguments move (a rule defined with `symbolic_zeros=True` or `defjvps` takes another path then). Reverse mode through the rule is judged by the
other checks. For a `custom_vjp`, which has no forward mode, there is nothing to compare.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verify import engine, programs, tolerance, transforms
from verify.checks.compare import compare, compare_twice, failed, skipped
from verify.checks.structure import raised
from verify.checks.transformed import pattern, takes_turn, unjudged
from verify.noise import moved_by_ulps, roughened, rounding_noise
from verify.observation import MIX, Observation, add_seconds
from verify.oracles.autodiff import at_kink
from verify.records import Estimate, Finding, Status
from verify.rounding import rounded_inside
from verify.slopes import direction_through
from verify.tolerance import noise_bound
from verify.values import largest, wide

CODE, NAME, TITLE = "V026", "tangent", "the tangents of a custom_jvp rule are right"
EVERY, OFFSET = 4, 1
CONSTANT = "; where nothing moves it is not 0, either"


def applies(observation: Observation) -> bool:
    return observation.call.forward_rules and observation.limit == "float64" and takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    case, call = observation.case, observation.call
    if at_kink(observation):
        return [
            Finding(check=NAME, status=Status.SKIP, message="the inputs lie on a kink, where many tangents are right", address=case.address)
        ]
    on = pattern(observation, len(observation.diff), case.index // EVERY)
    moves = [v if has else np.zeros_like(v) for v, has in zip(direction_through(case, observation.diff), on, strict=True)]

    def both(diff: list[np.ndarray], rest: list[object], tangent: list[np.ndarray]) -> dict[str, list[object]]:
        return {
            "rule": transforms.tangents(call.call, on)(diff, rest, tangent),
            "reference": reference_tangents(diff, rest, tangent),
        }

    def reference_tangents(diff: list[np.ndarray], rest: list[object], tangent: list[np.ndarray]) -> list[object]:
        with programs.stage("reference"):
            return transforms.tangents(transforms.plain(call), on)(diff, rest, tangent)

    try:
        program = engine.exact(both, observation.diff, observation.rest, moves)
    except programs.StageError as error:
        try:
            engine.exact(reference_tangents, observation.diff, observation.rest, moves)
        except programs.StageError:
            message = f"the reference has no forward mode: {str(error)[:200]}"
            return [Finding(check=NAME, status=Status.SKIP, message=message, address=case.address)]
        message = f"in forward mode the rule raises {raised(error.cause, 400)}"
        return [Finding(check=NAME, status=Status.FAIL, message=message, address=case.address)]
    base = program(observation.diff, observation.rest, moves)
    jitters = (moved_by_ulps(case, k, observation.reference_limit, observation.diff) for k in range(tolerance.JITTERS))
    moved = [program(diff, observation.rest, moves) for diff in jitters]
    noise = rounding_noise(base, moved)
    assert observation.truth is not None
    step = sum(largest(v) for v in moves)
    outputs = observation.truth["base"]["reference_out"]
    sizes = [max(largest(want), step * largest(out)) for want, out in zip(base["reference"], outputs, strict=True)]
    names = ["output"] if len(noise) == 1 else [f"output{k}" for k in range(len(noise))]
    by = ", ".join(name for name, has in zip(call.names, on, strict=True) if has)
    what = f"when {by} move{'s' if sum(on) == 1 else ''}, the tangent of"

    def estimate(rough: bool) -> Estimate:
        known = noise
        if rough:
            known = roughened(noise, lambda diff: program(diff, observation.rest, moves)["reference"], case, observation.diff)
            known = rounded_inside(known, reference_tangents, case, observation.diff, observation.rest, moves)
        error = tuple(noise_bound(want, own, size) for want, own, size in zip(base["reference"], known, sizes, strict=True))
        return Estimate(value=tuple(base["reference"]), error=error)

    findings = skipped(compare_twice(NAME, what, names, base["rule"], estimate, "float64", case.address))
    add_seconds(observation.seconds, program.seconds)
    if failed(findings):
        still = program(observation.diff, observation.rest, [np.zeros_like(v) for v in moves])["rule"]
        constant = any(np.any(wide(tangent)) for tangent in still)
        return [replace(f, message=f.message + CONSTANT) if constant and f.status is Status.FAIL else f for f in findings]
    other = [np.flip(v) for v in moves]
    second = program(observation.diff, observation.rest, other)
    mixed = program(observation.diff, observation.rest, [a + MIX * b for a, b in zip(moves, other, strict=True)])
    want, loose = _mix(base["rule"], second["rule"], estimate(False).error)
    what = "jvp(a - 2 b) differs from jvp(a) - 2 jvp(b): the tangent of"
    return findings + compare(NAME, what, names, mixed["rule"], Estimate(value=want, error=loose), "float64", case.address)


def _mix(
    first: list[np.ndarray], second: list[np.ndarray], error: tuple[np.ndarray, ...]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """What linearity wants for the mixed tangents, and the error of it."""
    want, loose = [], []
    for a, b, noise in zip(map(wide, first), map(wide, second), error, strict=True):
        want.append(a + MIX * b)
        loose.append((1 + abs(MIX)) * noise + noise_bound(a, 0 * a, 0.0) + abs(MIX) * noise_bound(b, 0 * b, 0.0))
    return tuple(want), tuple(loose)
