"""The numbers that a diagnosis reads: one failing case, in the dtype in which the rule was judged."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.cases import Case
from verify.diagnosis import intermediates
from verify.observation import Observation
from verify.observe import observe
from verify.oracles import autodiff
from verify.programs import StageError
from verify.spec import Spec
from verify.tolerance import EPS, noise_bound
from verify.values import wide

ROUNDING = 1e-3  # a slack beyond this part of the numbers themselves would make anything equal
Explained = dict[str, str]  # what a mistake is, the same in every case -> the sentence about this case


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """got and want: the cotangent of each argument leaf by the rule and by the oracle.

    known: the elements that the oracle judges.
    loose: how far equal arrays may differ, relative to their largest element; slack: how far by rounding, of each leaf, as the checks allow.
    """

    observation: Observation
    got: list[np.ndarray]
    want: list[np.ndarray]
    known: list[np.ndarray]
    loose: float
    slack: list[float]

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

    @functools.cached_property
    def intermediates(self) -> list[intermediates.Named]:
        """What the reference computes on the way."""
        return intermediates.of_reference(self.observation)

    def wrong(self, leaf: int) -> bool:
        return bool(self.got[leaf].size) and not self.same(self.got[leaf], self.want[leaf], self.slack[leaf])

    def wrong_elements(self, leaf: int) -> np.ndarray:
        got, want = self.got[leaf], self.want[leaf]
        size = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
        return self.known[leaf] & ~(np.abs(got - want) <= max(self.loose * size, min(self.slack[leaf], ROUNDING * size), 1e-300))

    def equals_rule(self, gradient: list[np.ndarray]) -> bool:
        """Whether a gradient is what the rule gives, of every argument."""
        triples = list(zip(gradient, self.got, self.slack, strict=True))
        return all(not got.size or self.same(np.asarray(other), got, slack) for other, got, slack in triples)

    def reference(self, diff: list[Any], rest: list[Any], cts: list[Any]) -> list[np.ndarray]:
        """The reference's gradient at other inputs of the same shapes."""
        program = self.observation.exact_program
        assert program is not None  # where there is a truth
        return program(diff, rest, cts)["reference"]

    def same(self, a: np.ndarray, b: np.ndarray, slack: float = 0.0) -> bool:
        """Equal up to rounding, relative to the largest element; arrays of zeros carry no information and equal nothing but zeros."""
        if a.shape != b.shape or not a.size or not np.isfinite(a).all() or not np.isfinite(b).all():
            return False
        size = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))))
        return size == 0.0 or float(np.max(np.abs(a - b))) <= max(self.loose * size, min(slack, ROUNDING * size))


def gather(spec: Spec, case: Case) -> Evidence | None:
    """The evidence in a case, or None where the function, the rule or the oracle has no numbers."""
    try:
        observation = observe(spec, case)
    except StageError:  # at sizes that nobody declared
        return None
    return of(observation) if observation.truth is not None and observation.measured else None


def of(observation: Observation) -> Evidence:
    """The evidence in what was seen of a case, which has a truth."""
    measured = observation.measured[0]
    estimate = autodiff.gradient(observation, measured)
    want, got = list(estimate.value), [wide(value) for value in measured.runs["base"]["rule"]]
    known = [np.isfinite(error) | ~np.isfinite(value) for value, error in zip(estimate.value, estimate.error, strict=True)]
    known = [
        seen | (~np.isfinite(g) & autodiff.bounded_jump(observation, leaf)) for leaf, (seen, g) in enumerate(zip(known, got, strict=True))
    ]
    dtype = max(measured.dtypes, key=lambda name: EPS[name])
    loose = float(noise_bound(np.ones(()), np.zeros(()), 1.0, dtype))
    bounds = [noise_bound(w, n, observation.scale(leaf), dtype) for leaf, (w, n) in enumerate(zip(want, measured.noise, strict=True))]
    slack = [float(np.max(bound, where=np.isfinite(bound), initial=0.0)) for bound in bounds]
    return Evidence(observation=observation, got=got, want=want, known=known, loose=10 * loose, slack=slack)
