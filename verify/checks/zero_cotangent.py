"""Does a zero upstream cotangent give zero, exactly?

A linear map takes 0 to 0. A constant added in the backward, or 0/0 in it, shows here: JAX passes zeros whenever an output is not used by the loss, so
a NaN at a zero cotangent poisons gradients that have nothing to do with this operation.
"""

from __future__ import annotations

import numpy as np

from verify.checks.compare import subscript
from verify.observation import Observation
from verify.oracles import autodiff
from verify.records import Finding, Status
from verify.values import wide

CODE, NAME, TITLE = "V006", "zero-cotangent", "a zero upstream cotangent gives zero"


def applies(observation: Observation) -> bool:
    return bool(observation.measured)


def judge(observation: Observation) -> list[Finding]:
    address, failures, compared = observation.case.address, [], 0
    for measured in observation.measured:
        errors = (
            autodiff.gradient(observation, measured).error
            if observation.truth
            else [
                np.where(np.isfinite(wide(g)), 0, np.inf) for g in measured.runs["base"]["rule"]
            ]  # nobody knows whether there is a derivative
        )
        for leaf, (name, raw) in enumerate(zip(observation.call.names, measured.runs["zero"]["rule"], strict=True)):
            got = wide(raw)
            known = np.isfinite(errors[leaf]) & measured.attainable("zero", leaf)
            compared += int(known.sum())
            wrong = known & (got != 0)
            if wrong.any():
                index = tuple(int(i) for i in np.argwhere(wrong)[0])
                message = f"a zero upstream cotangent gives {got[index]:.6g} at {name}{subscript(index)} ({int(wrong.sum())} of {got.size} elements), not 0"
                failures.append(
                    Finding(check=NAME, status=Status.FAIL, message=message, argument=name, index=index, got=float(got[index]), want=0.0, bound=0.0,
                            wrong=int(wrong.sum()), comparisons=int(known.sum()), dtype=measured.dtype, address=address)
                )  # fmt: skip
    return failures or [Finding(check=NAME, status=Status.PASS, comparisons=compared, address=address)]
