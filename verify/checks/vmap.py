"""Is the rule right under `jax.vmap`, for any subset of batched arguments?

A backward that sums over "all but the last axis", counts axes from the front or reads a size from a shape meets one more axis here. Patterns of batched and
unbatched arguments and cotangent follow one another from case to case, in `vmap` of the gradient (one cotangent per example, also where the cotangent alone is
batched) and in the gradient of `vmap` (cotangents of unbatched arguments are summed). Compared with the reference, one example at a time.
Cure: count axes from the end, and reduce over the axes that the primal broadcasts.
"""

from __future__ import annotations

from verify import transforms
from verify.batching import BLAME, shares_outputs
from verify.checks.compare import failed
from verify.checks.transformed import examples, judge_program, pattern, takes_turn, unjudged
from verify.observation import Observation
from verify.records import Finding, Status

CODE, NAME, TITLE = "V010", "vmap", "the rule is right under vmap"
EVERY, OFFSET = 8, 4
PATTERNS_OF_GIVEN = 3  # of a user's example arrays, so many patterns of each kind


def applies(observation: Observation) -> bool:
    return takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    case = observation.case
    turns = range(case.index * PATTERNS_OF_GIVEN, (case.index + 1) * PATTERNS_OF_GIVEN) if case.thorough else [case.index // EVERY]
    findings = [finding for turn in turns for finding in (_of_vmap if turn % 3 == 2 else _of_gradient)(observation, turn)]
    return findings


def _of_gradient(observation: Observation, turn: int) -> list[Finding]:
    names = observation.call.names
    *on, ct_on = pattern(observation, len(names) + 1, turn - turn // 3)
    some = examples(observation, "vmap", on, ct_on)
    over = ", ".join(name for name, has in zip([*names, "cotangent"], [*on, ct_on], strict=True) if has)
    return judge_program(
        NAME, observation, f"under vmap over {over},", lambda call: transforms.vmap_of_gradient(call, on, ct_on),
        (some.diff, observation.rest, some.cts), names, some.per_example, some=some,
    )  # fmt: skip


def _of_vmap(observation: Observation, turn: int) -> list[Finding]:
    case, names = observation.case, observation.call.names
    on = pattern(observation, len(names), turn // 3)
    some = examples(observation, "vmap", on)
    over = ", ".join(name for name, has in zip(names, on, strict=True) if has)
    findings = judge_program(
        NAME, observation, f"in the gradient of vmap over {over},", lambda call: transforms.gradient_of_vmap(call, on),
        (some.diff, observation.rest, some.cts), names, some.summed, some=some,
    )  # fmt: skip
    if failed(findings) and shares_outputs(observation.call.jaxpr, [*on, *([False] * len(observation.rest))]):
        message = f"in the gradient of vmap over {over} {BLAME}"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=case.address)]
    return findings
