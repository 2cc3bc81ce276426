"""How much does the rule keep between forward and backward, beside what autodiff keeps?

Bytes of the residuals that are not the arguments themselves, read off the traced forward, for the rule and for JAX's autodiff of the reference. It is a report, and a
FAIL only where the spec sets a limit: `Spec(residuals=0.5)` says that the rule saves at most half of what autodiff saves.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.extend import core

from verify import programs, transforms
from verify._compat import enable_x64
from verify.checks.transformed import takes_turn
from verify.observation import Observation
from verify.records import Finding, Status

CODE, NAME, TITLE = "V025", "residuals", "the bytes that the rule saves for the backward, beside autodiff's"
EVERY, OFFSET = 52, 16


def applies(observation: Observation) -> bool:
    return takes_turn(observation, EVERY, OFFSET)


def judge(observation: Observation) -> list[Finding]:
    call, case = observation.call, observation.case
    if observation.truth is None:
        return [Finding(check=NAME, status=Status.SKIP, message=observation.no_truth, address=case.address)]
    with enable_x64(True):
        try:
            own, plain = (saved_bytes(runs, observation.diff, observation.rest) for runs in (call, transforms.plain(call)))
        except programs.StageError as error:
            return [
                Finding(check=NAME, status=Status.SKIP, message=f"the forward rule cannot be traced alone: {error}", address=case.address)
            ]
    at = f" at {case.describe()}" if case.describe() else ""
    message = f"saves {own:,} bytes beside its arguments{at}; autodiff of the reference {plain:,}"
    limit = case.residuals
    if limit is not None and own > limit * plain:
        message = f"the rule {message}: more than {limit:g} times that, the limit that the spec sets (residuals={limit:g}). Save less, and recompute it"
        return [
            Finding(
                check=NAME, status=Status.FAIL, message=message, got=own, want=limit * plain, wrong=1, comparisons=1, address=case.address
            )
        ]
    return [Finding(check=NAME, status=Status.PASS, message=message, comparisons=1, address=case.address)]


def saved_bytes(call: Any, diff: list[Any], rest: list[Any]) -> int:
    """Bytes of the arrays that reverse mode keeps and that are neither arguments nor constants of the program."""

    def residuals(diff: list[Any], rest: list[Any]) -> list[Any]:
        with programs.stage("rule"):
            _, pullback = jax.vjp(lambda *leaves: call.run(leaves, rest), *diff)
            return jax.tree.leaves(pullback)

    jaxpr = jax.make_jaxpr(residuals)(diff, rest).jaxpr
    given = {id(var) for var in (*jaxpr.invars, *jaxpr.constvars)}
    kept = {id(var): var.aval for var in jaxpr.outvars if not isinstance(var, core.Literal) and id(var) not in given}
    return sum(int(aval.size) * aval.dtype.itemsize for aval in kept.values())
