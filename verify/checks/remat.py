"""Is the rule right under `jax.checkpoint`?

The forward rule runs a second time, during the backward pass, and its residuals must be the same again. State kept in Python between forward and backward,
a random number drawn anew, or a residual that is no array shows here.
"""

from __future__ import annotations

import functools

from verify import transforms
from verify.checks.transformed import judge_program, takes_turn, unjudged
from verify.observation import Observation
from verify.oracles import autodiff
from verify.records import Finding

CODE, NAME, TITLE = "V018", "remat", "the rule is right under jax.checkpoint"
EVERY, OFFSET = 16, 15


def applies(observation: Observation) -> bool:
    return takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    want = functools.partial(autodiff.gradient, observation, observation.measured[0])
    inputs = (observation.diff, observation.rest, observation.cts["base"])
    return judge_program(
        NAME, observation, "under jax.checkpoint,", transforms.gradient_of_checkpoint, inputs, observation.call.names, want, again=True
    )
