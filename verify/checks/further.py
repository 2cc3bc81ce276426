"""Further examples of a case, for programs that need several: a batch, the steps of a scan, one for each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verify import tolerance
from verify.observation import Observation
from verify.spec import Arg, SpecError
from verify.values import largest, sampled, wide


def further(observation: Observation, rng: np.random.Generator, on: Sequence[bool]) -> list[np.ndarray]:
    """The case's arguments, with other values where `on`: drawn anew by `sample=`, or else the same ones in another order, which keeps their bounds.

    Where these leave the function's domain (a matrix that is given as it is and has to be symmetric), as function and reference then have two values, or
    only one, the case's own stand in their place; and where a `sample=` needs more than its own arguments.
    """
    assert observation.exact_program is not None
    own = observation.diff
    try:
        others = [_another(observation, rng, k) for k in range(len(own))]  # of all: one sample= may go by what another one drew
    except SpecError:
        return list(own)
    diff = [other if has else x for other, x, has in zip(others, own, on, strict=True)]
    here, there = (observation.exact_program(values, observation.rest, observation.cts["base"]) for values in (own, diff))
    return diff if _one_value(there) or not _one_value(here) else list(own)


def in_another_order(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    return rng.permutation(values.reshape(-1)).reshape(values.shape)


def _another(observation: Observation, rng: np.random.Generator, leaf: int) -> np.ndarray:
    case, values = observation.case, observation.diff[leaf]
    drawn = [(domain, dtype) for domain, dtype in zip(case.domains, case.dtypes, strict=True) if dtype is not None]
    is_pair = leaf in observation.call.call.pair_leaves
    if len(drawn) == len(observation.diff) and (domain := drawn[leaf][0]) and isinstance(arg := domain[0], Arg) and arg.sample:
        anew = sampled(rng, arg, values.shape[:-1] if is_pair else values.shape, case.sizes, str(drawn[leaf][1]))
        return np.stack([anew.real, anew.imag], -1) if is_pair else anew
    if is_pair:
        packed = in_another_order(rng, values[..., 0] + 1j * values[..., 1])
        return np.stack([packed.real, packed.imag], -1)
    return in_another_order(rng, values)


def _one_value(run: Mapping[str, Any]) -> bool:
    """Whether function and reference have the same value, roughly; or are not both in the program, as of a kernel that knows no 64-bit types."""
    for raw, reference in zip(run.get("primal", ()), run["reference_out"], strict="primal" in run):
        got, want = wide(raw), wide(reference)
        known = np.isfinite(want)
        if not np.all(np.isfinite(got) == known) or np.any(
            np.abs(got - want)[known] > tolerance.ONE_VALUE * (np.abs(want)[known] + 1e-3 * largest(want))
        ):
            return False
    return True
