"""Does the rule give the same without `jax.jit`?

Everything else here runs compiled. Python that looks at values, or keeps them between calls, behaves differently when JAX runs operation by operation.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from verify import engine, programs
from verify._compat import enable_x64
from verify.checks.compare import compare_twice
from verify.checks.structure import user_line
from verify.observation import Observation
from verify.oracles import autodiff
from verify.oracles.agreement import contradiction
from verify.printable import short
from verify.records import Finding, Status

CODE, NAME, TITLE = "V009", "jit", "the rule gives the same with and without jit"


def applies(observation: Observation) -> bool:
    case = observation.case
    return (
        bool(observation.measured)
        and (case.index == 0 if case.thorough else case.index == 1 and bool(case.sizes))
        and not contradiction(observation)
    )


def judge(observation: Observation) -> list[Finding]:
    call, address = observation.call, observation.case.address
    if observation.truth is None or observation.limit != "float64":
        reason = observation.no_truth or f"the rule computes in {observation.limit}; it is compared compiled only"
        return [Finding(check=NAME, status=Status.SKIP, message=reason, address=address)]
    try:
        with enable_x64(True), jax.default_device(engine.host()):
            arrays = [jax.numpy.asarray(x) for x in observation.diff]
            gradient = [np.asarray(g) for g in programs.rule(call.call)(arrays, observation.rest, observation.cts["base"])[1]]
    except Exception as error:
        message = f"without jit the rule raises {type(error).__name__} at {user_line(error)}: {short(error)}"
        return [Finding(check=NAME, status=Status.FAIL, message=message, address=address)]
    want = functools.partial(autodiff.gradient, observation, observation.measured[0])
    return compare_twice(NAME, "without jit, the cotangent of", call.names, gradient, want, "float64", address)
