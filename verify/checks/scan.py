"""Is the rule right inside `jax.lax.scan`?

`scan` traces the rule once for all steps, adds up the cotangents of what all steps share, and insists that they keep their dtype: a wider cotangent than the
argument's, a residual kept in Python from step to step, or a value read at trace time breaks here. Patterns of scanned and shared arguments follow one
another from case to case. Compared with the reference, one step at a time.
"""

from __future__ import annotations

from verify import transforms
from verify.checks.transformed import examples, judge_program, pattern, takes_turn, unjudged
from verify.observation import Observation
from verify.records import Finding

CODE, NAME, TITLE = "V017", "scan", "the rule is right inside lax.scan"
EVERY, OFFSET, STEPS = 16, 11, 3


def applies(observation: Observation) -> bool:
    return takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    names = observation.call.names
    on = pattern(observation, len(names), observation.case.index // EVERY)
    some = examples(observation, "scan", on, count=STEPS)
    over = ", ".join(name for name, has in zip(names, on, strict=True) if has)
    return judge_program(
        NAME, observation, f"in a scan over {over},", lambda call: transforms.gradient_of_scan(call, on),
        (some.diff, observation.rest, some.cts), names, some.summed, again=True, some=some,
    )  # fmt: skip
