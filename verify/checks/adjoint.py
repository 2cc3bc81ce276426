"""Does <ct, J v> = <J^T ct, v> hold, with J v by forward mode?

The rule gives J^T ct; JAX's forward mode of the reference gives J v, along a random direction v through all arguments. Forward mode shares neither the transposition
nor the residuals of reverse mode, so this is a further opinion beside autodiff in reverse and finite differences, exact to rounding. It is the exact oracle
that is left where the reference has no reverse mode (a `while_loop`): there single elements of the arguments are directions too.
"""

from __future__ import annotations

import numpy as np

from verify import engine, programs, tolerance, transforms
from verify.checks.along import judge_slope, merged
from verify.checks.transformed import takes_turn
from verify.noise import moved_by_ulps, roughened
from verify.observation import Observation, add_seconds
from verify.oracles.agreement import differences_tell
from verify.oracles.autodiff import at_kink
from verify.records import Finding, Status
from verify.slopes import directions
from verify.values import largest

CODE, NAME, TITLE = "V011", "adjoint", "<ct, J v> = <J^T ct, v>, with J v by forward mode"
EVERY, OFFSET = 8, 6


def applies(observation: Observation) -> bool:
    alone = observation.truth is None and bool(observation.measured) and differences_tell(observation)
    return alone or takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    case, call = observation.case, observation.call
    if at_kink(observation):
        message = "the inputs lie on a kink, where forward mode may pick another derivative"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=case.address)]
    alone = observation.truth is None
    every = [True] * len(observation.diff)
    moves = directions(case, observation.diff, every=alone)
    limit = observation.reference_limit
    if limit != "float64" and any(0 < largest(x) < tolerance.TINY[limit] for x in moves[0]):
        message = f"the reference computes in {limit}, in which so small a direction is 0"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=case.address)]
    try:
        program = engine.exact(transforms.tangents(transforms.plain(call), every), observation.diff, observation.rest, moves[0])
    except programs.StageError as error:
        return [
            Finding(check=NAME, status=Status.SKIP, message=f"the reference has no forward mode: {str(error)[:200]}", address=case.address)
        ]

    def slope(diff: list[np.ndarray], v: list[np.ndarray]) -> tuple[float, float]:
        terms = [ct * t for ct, t in zip(observation.cts["base"], program(diff, observation.rest, v), strict=True)]
        return float(sum(np.sum(term) for term in terms)), float(sum(np.sum(np.abs(term)) for term in terms))

    findings = []
    for v in moves:
        want, size = slope(observation.diff, v)
        jitters = (moved_by_ulps(case, k, limit, observation.diff) for k in range(tolerance.JITTERS))
        moved = [slope(diff, v)[0] for diff in jitters]
        noise, floor = max(abs(m - want) for m in moved), tolerance.FLOOR_ULPS * tolerance.EPS["float64"] * size
        finding = judge_slope(NAME, observation, v, want, tolerance.NOISE_FACTOR * noise + floor, "forward mode")
        if finding.status is Status.FAIL:  # nobody is accused of digits that the reference loses on its way
            rough = roughened([np.asarray(noise)], lambda diff, v=v: [np.asarray(slope(diff, v)[0])], case, observation.diff)
            finding = judge_slope(NAME, observation, v, want, tolerance.NOISE_FACTOR * float(rough[0]) + floor, "forward mode")
        findings.append(finding)
    add_seconds(observation.seconds, program.seconds)
    return merged(findings)
