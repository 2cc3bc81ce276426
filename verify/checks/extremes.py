"""Is the rule finite wherever the derivative is?

Large logits, zeros, rows without variance, tiny and huge magnitudes, and cotangents times and divided by a large power of two: a NaN or an infinity where float64
autodiff of the reference says a finite number that the dtype can hold is wrong, as one NaN ruins a training run. In low precision nobody is accused
where JAX's own autodiff overflows too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verify.checks.compare import subscript
from verify.observation import Observation
from verify.oracles import autodiff
from verify.oracles.agreement import contradiction
from verify.records import Finding, Status
from verify.values import wide

CODE, NAME, TITLE = "V021", "extremes", "no NaN or infinity where the derivative is finite"


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and observation.truth is not None and not contradiction(observation)


def judge(observation: Observation) -> list[Finding]:
    address, failures, compared = observation.case.address, [], 0
    bounded = [autodiff.bounded_jump(observation, leaf) for leaf in range(len(observation.diff))]
    for measured in observation.measured:
        known = autodiff.gradient(observation, measured)
        runs = (("base", 1.0), ("large", observation.ct_scale), ("small", 1 / observation.ct_scale))
        for run, factor in runs[:1] if observation.case.style == "huge" and measured.dtype != "float64" else runs:
            for leaf, (name, raw) in enumerate(zip(observation.call.names, measured.runs[run]["rule"], strict=True)):
                want, got = factor * known.value[leaf], wide(raw)
                judged = (np.isfinite(known.error[leaf]) | bounded[leaf]) & measured.must_be_finite(run, leaf, want)
                compared += int(judged.sum())
                if (judged & ~np.isfinite(got)).any():
                    at_jump = ~np.isfinite(known.error[leaf])
                    failures.append(replace(_failure(name, got, want, judged, at_jump, factor, measured.dtype), address=address))
    if not compared:
        return [Finding(check=NAME, status=Status.SKIP, message="the derivative is finite nowhere here", address=address)]
    return failures or [Finding(check=NAME, status=Status.PASS, comparisons=compared, address=address)]


def _failure(name: str, got: np.ndarray, want: np.ndarray, judged: np.ndarray, at_jump: np.ndarray, factor: float, dtype: str) -> Finding:
    wrong = np.argwhere(judged & ~np.isfinite(got))
    index = tuple(int(i) for i in wrong[0])
    scaled = "" if factor == 1 else f" when the upstream cotangent is scaled by 2^{round(np.log2(factor))}"
    there = "the derivatives to both sides are finite" if at_jump[index] else f"the derivative is {want[index]:.6g}"
    message = (
        f"the cotangent of {name} is {got[index]:.6g} at {name}{subscript(index)}{scaled}, where {there} "
        f"({len(wrong)} of {judged.sum()} elements, {dtype})"
    )
    return Finding(
        check=NAME, status=Status.FAIL, message=message, argument=name, index=index, got=float(got[index]), want=float(want[index]), wrong=len(wrong),
        comparisons=int(judged.sum()), dtype=dtype,
    )  # fmt: skip
