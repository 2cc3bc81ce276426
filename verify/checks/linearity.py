"""Is the backward linear in the upstream cotangent?

A derivative is a linear map, so bwd(a - 2 b) = bwd(a) - 2 bwd(b) whatever the function. A backward that clips, squares, takes a sign or adds a constant is
no derivative. No oracle is needed: the rule is compared with itself.
"""

from __future__ import annotations

import numpy as np

from verify.checks.compare import compare
from verify.observe import MIX, Observation
from verify.oracles.autodiff import coarsest
from verify.records import Estimate, Finding
from verify.tolerance import HUGE, noise_bound
from verify.values import wide

CODE, NAME, TITLE = "V005", "linearity", "the backward is linear in the upstream cotangent"


def applies(observation: Observation) -> bool:
    return bool(observation.measured)


def judge(observation: Observation) -> list[Finding]:
    findings = []
    for measured in observation.measured:
        runs = measured.runs
        first, second, mixed = ([wide(g) for g in runs[key]["rule"]] for key in ("base", "other", "mix"))
        want = tuple(a + MIX * b for a, b in zip(first, second, strict=True))
        parts = 1 + abs(MIX)
        dtype = coarsest(observation, measured)
        bounds = (
            noise_bound(abs(a) + abs(MIX * b), parts * noise, parts * observation.scale(leaf), dtype)
            for leaf, (a, b, noise) in enumerate(zip(first, second, measured.noise, strict=True))
        )
        error = tuple(np.where(abs(value) + bound > HUGE[dtype], np.inf, bound) for value, bound in zip(want, bounds, strict=True))
        estimate = Estimate(value=want, error=error)
        what = "bwd(a - 2 b) differs from bwd(a) - 2 bwd(b): the cotangent of"
        findings += compare(NAME, what, observation.call.names, mixed, estimate, measured.dtype, observation.case.address)
    return findings
