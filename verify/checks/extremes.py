"""Is the rule finite wherever the derivative is?

Large logits, zeros, rows without variance, tiny and huge magnitudes, and cotangents times and divided by a large power of two: a NaN or an infinity where float64
autodiff of the reference says a finite number that the dtype can hold is wrong, as one NaN ruins a training run. In low precision nobody is accused
where JAX's own autodiff overflows too.
"""

from __future__ import annotations

import numpy as np

from verify.checks.compare import subscript
from verify.observe import Measured, Observation
from verify.oracles import autodiff
from verify.oracles.agreement import contradiction
from verify.records import Finding, Status
from verify.values import wide

CODE, NAME, TITLE = "V021", "extremes", "no NaN or infinity where the derivative is finite"


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and observation.truth is not None and not contradiction(observation)


def judge(observation: Observation) -> list[Finding]:
    address, failures, compared = observation.case.address, [], 0
    for measured in observation.measured:
        known = autodiff.gradient(observation, measured)
        runs = (("base", 1.0), ("large", observation.ct_scale), ("small", 1 / observation.ct_scale))
        for run, factor in runs[:1] if observation.case.style == "huge" and measured.dtype != "float64" else runs:
            for leaf, (name, raw) in enumerate(zip(observation.call.names, measured.runs[run]["rule"], strict=True)):
                want, got = factor * known.value[leaf], wide(raw)
                judged = (np.isfinite(known.error[leaf]) | autodiff.bounded_jump(observation, leaf)) & measured.must_be_finite(
                    run, leaf, want
                )
                compared += int(judged.sum())
                wrong = judged & ~np.isfinite(got)
                if wrong.any():
                    jumps = ~np.isfinite(known.error[leaf])
                    failures.append(_failure(name, got, want, wrong, jumps, int(judged.sum()), factor, measured, address))
    if not compared:
        return [Finding(check=NAME, status=Status.SKIP, message="the derivative is finite nowhere here", address=address)]
    return failures or [Finding(check=NAME, status=Status.PASS, comparisons=compared, address=address)]


def _failure(
    name: str,
    got: np.ndarray,
    want: np.ndarray,
    wrong: np.ndarray,
    jumps: np.ndarray,
    judged: int,
    factor: float,
    measured: Measured,
    address: str,
) -> Finding:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    scaled = "" if factor == 1 else f" when the upstream cotangent is scaled by 2^{round(np.log2(factor))}"
    there = "the derivatives to both sides are finite" if jumps[index] else f"the derivative is {want[index]:.6g}"
    message = (
        f"the cotangent of {name} is {got[index]:.6g} at {name}{subscript(index)}{scaled}, where {there} "
        f"({int(wrong.sum())} of {judged} elements, {measured.dtype})"
    )
    return Finding(
        check=NAME, status=Status.FAIL, message=message, argument=name, index=index, got=float(got[index]), want=float(want[index]),
        wrong=int(wrong.sum()), comparisons=judged, dtype=measured.dtype, address=address,
    )  # fmt: skip
