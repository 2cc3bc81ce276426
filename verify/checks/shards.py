"""One example of a case for each simulated device, and what each cotangent is on them: what `sharding` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import devices, tolerance
from verify.checks.transformed import Examples, examples
from verify.observation import Observation
from verify.oracles.autodiff import coarsest
from verify.records import Estimate
from verify.values import cast


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One example for each device: which arguments have one each (`split`; the others are the same on all), and their values in float64."""

    some: Examples
    dtypes: tuple[str, ...]
    keys: tuple[Any, ...]  # per array in `rest`: the implementation of a PRNG key, or None
    rest: list[np.ndarray]

    @property
    def split(self) -> list[bool]:
        return self.some.on

    @property
    def arrays(self) -> list[np.ndarray]:
        return [*cast(self.some.diff, self.dtypes), *self.rest, *self.some.cts]

    @property
    def all_split(self) -> list[bool]:
        return [*self.split, *(False for _ in self.rest), *(True for _ in self.some.cts)]

    @property
    def inputs(self) -> int:
        """How many of the arrays are the function's arguments."""
        return len(self.split) + len(self.rest)

    def unpack(self, arrays: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """diff, rest and cts as the function takes them."""
        count = len(self.split)
        rest = [
            leaf if key is None else jax.random.wrap_key_data(leaf, impl=key)
            for leaf, key in zip(arrays[count : self.inputs], self.keys, strict=True)
        ]
        return list(arrays[:count]), rest, list(arrays[self.inputs :])


def setting_of(observation: Observation, split: Sequence[bool]) -> Setting:
    """Examples for the devices: the case's own, and further ones. split: of each floating-point argument."""
    is_key = [isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in observation.rest]
    return Setting(
        some=examples(observation, "sharding", split, count=devices.COUNT),
        dtypes=observation.measured[0].dtypes,
        keys=tuple(jax.random.key_impl(leaf) if key else None for leaf, key in zip(observation.rest, is_key, strict=True)),
        rest=[np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(observation.rest, is_key, strict=True)],
    )


def estimate_of(observation: Observation, setting: Setting, rough: bool) -> Estimate:
    """The reference, one example at a time: stacked for arguments that are split, summed for the others.

    A rule that knows no float64 has on each device the noise that was measured on the case itself, at least.
    """
    estimate, measured = setting.some.summed(rough), observation.measured[0]
    if measured.dtype == "float64":
        return estimate
    errors = []
    for leaf, (value, error, on) in enumerate(zip(estimate.value, estimate.error, setting.split, strict=True)):
        known = measured.noise[leaf]
        level = np.max(known[np.isfinite(known)], initial=0.0) * (1 if on else devices.COUNT)
        errors.append(np.fmax(error, tolerance.noise_bound(value, level, observation.scale(leaf), coarsest(observation, measured))))
    return Estimate(value=estimate.value, error=tuple(errors))
