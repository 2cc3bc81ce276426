"""Is the rule right when a program uses it twice?

Two calls on different inputs, both forwards before either backward, as in any network with two layers. A residual kept outside of JAX (a global, an attribute, a
cache by shape) then belongs to the other call. The user's Python runs anew.
"""

from __future__ import annotations

from verify import transforms
from verify.checks.transformed import examples, judge_program, takes_turn, unjudged
from verify.observation import Observation
from verify.records import Finding

CODE, NAME, TITLE = "V016", "reuse", "the rule is right when a program uses it twice"
EVERY, OFFSET = 16, 7


def applies(observation: Observation) -> bool:
    return takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    some = examples(observation, "reuse", [True] * len(observation.diff))
    inputs = (some.diff, observation.rest, some.cts)
    return judge_program(
        NAME,
        observation,
        "used twice in one program,",
        transforms.gradient_of_two_calls,
        inputs,
        observation.call.names,
        some.per_example,
        again=True,
        some=some,
    )
