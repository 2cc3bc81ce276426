"""Is the rule right when only some arguments are differentiated, or only some outputs used?

JAX differentiates by what the loss depends on. Then a rule defined with `symbolic_zeros=True` sees `perturbed=False` and `SymbolicZero`, and takes another
path than in a test that differentiates everything; and every rule gets zeros for outputs that the loss leaves out. Each argument alone, all but one, each output alone, in
turn; the user's Python runs anew.
"""

from __future__ import annotations

import numpy as np

from verify import transforms
from verify.checks.transformed import judge_program, pattern, takes_turn, unjudged
from verify.observation import Observation
from verify.oracles.autodiff import gradient_at
from verify.records import Estimate, Finding, Status

CODE, NAME, TITLE = "V014", "arguments", "the rule is right for any subset of arguments and outputs"
EVERY, OFFSET = 8, 1
SUBSETS_OF_GIVEN = 4


def applies(observation: Observation) -> bool:
    return takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    case, leaves, outputs = observation.case, len(observation.diff), len(observation.cts["base"])
    if leaves == outputs == 1:
        return [Finding(check=NAME, status=Status.SKIP, message="one argument and one output: there are no subsets", address=case.address)]
    turns = range(case.index * SUBSETS_OF_GIVEN, (case.index + 1) * SUBSETS_OF_GIVEN) if case.thorough else [case.index // EVERY]
    return [finding for turn in turns for finding in _subset(observation, turn, leaves, outputs)]


def _subset(observation: Observation, turn: int, leaves: int, outputs: int) -> list[Finding]:
    arguments = pattern(observation, leaves, turn + 1)
    used = pattern(observation, outputs, turn + turn // max(outputs, 1) + 1)
    cts = [ct if use else np.zeros_like(ct) for ct, use in zip(observation.cts["base"], used, strict=True)]
    names = [name for name, active in zip(observation.call.names, arguments, strict=True) if active]

    def want(rough: bool) -> Estimate:
        all_of_it = gradient_at(observation, observation.diff, cts, rough)
        return Estimate(
            value=tuple(v for v, active in zip(all_of_it.value, arguments, strict=True) if active),
            error=tuple(e for e, active in zip(all_of_it.error, arguments, strict=True) if active),
        )

    by = f"differentiating by {', '.join(names)} alone" if not all(arguments) else "differentiating by all arguments"
    of = (
        ""
        if all(used)
        else f" a loss that uses output{'s' if sum(used) > 1 else ''} {', '.join(str(k) for k, use in enumerate(used) if use)} only"
    )
    return judge_program(
        NAME, observation, f"{by}{of},", lambda call: transforms.gradient_of_some(call, arguments, used),
        (observation.diff, observation.rest, observation.cts["base"]), names, want, again=True,
    )  # fmt: skip
