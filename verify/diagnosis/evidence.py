"""The numbers that a diagnosis reads: one failing case, in the dtype in which the rule was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.observe import Observation
from verify.oracles import autodiff
from verify.tolerance import EPS, noise_bound
from verify.values import wide


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """got and want: the cotangent of each argument leaf by the rule and by the oracle; loose: how far equal arrays may differ."""

    observation: Observation
    got: list[np.ndarray]
    want: list[np.ndarray]
    loose: float

    @property
    def names(self) -> tuple[str, ...]:
        return self.observation.call.names

    @property
    def cotangents(self) -> list[np.ndarray]:
        return self.observation.cts["base"]

    @property
    def others(self) -> list[tuple[str, Any]]:
        """The arguments without a derivative, by name: indices, masks, keys."""
        return list(zip(self.observation.call.call.rest_names, self.observation.rest, strict=True))

    def wrong(self, leaf: int) -> bool:
        return bool(self.got[leaf].size) and not self.same(self.got[leaf], self.want[leaf])

    def wrong_elements(self, leaf: int) -> np.ndarray:
        got, want = self.got[leaf], self.want[leaf]
        size = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
        return ~(np.abs(got - want) <= self.loose * max(size, 1e-300))

    def equals_rule(self, gradient: list[np.ndarray]) -> bool:
        """Whether a gradient is what the rule gives, of every argument."""
        pairs = list(zip(gradient, self.got, strict=True))
        return all(not got.size or self.same(np.asarray(other), got) for other, got in pairs)

    def reference(self, diff: list[Any], rest: list[Any], cts: list[Any]) -> list[np.ndarray]:
        """The reference's gradient at other inputs of the same shapes."""
        program = self.observation.exact_program
        assert program is not None  # where there is a truth
        return program(diff, rest, cts)["reference"]

    def same(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Equal up to rounding, relative to the largest element; arrays of zeros carry no information and equal nothing but zeros."""
        if a.shape != b.shape or not a.size or not np.isfinite(a).all() or not np.isfinite(b).all():
            return False
        size = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))))
        return size == 0.0 or float(np.max(np.abs(a - b))) <= self.loose * size


def gather(observation: Observation | None) -> Evidence | None:
    """The evidence in an observation, or None where the rule or the oracle has no numbers."""
    if observation is None or observation.truth is None or not observation.measured:
        return None
    measured = observation.measured[0]
    want = list(autodiff.gradient(observation, measured).value)
    got = [wide(value) for value in measured.runs["base"]["rule"]]
    loose = float(noise_bound(np.ones(()), np.zeros(()), 1.0, max(measured.dtypes, key=lambda name: EPS[name])))
    return Evidence(observation=observation, got=got, want=want, loose=10 * loose)
