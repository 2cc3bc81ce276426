"""One example of a case for each simulated device, and what each cotangent is on them: what `sharding` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import devices, tolerance
from verify.checks.further import further, in_another_order
from verify.noise import jittered, rounding_noise
from verify.observation import Observation
from verify.oracles.autodiff import coarsest, gradient_at
from verify.records import Estimate
from verify.values import cast


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One example for each device: which arguments have one each (`split`; the others are the same on all), and their values in float64."""

    split: tuple[bool, ...]
    diff: list[np.ndarray]
    cts: list[np.ndarray]
    dtypes: tuple[str, ...]
    keys: tuple[Any, ...]  # per array in `rest`: the implementation of a PRNG key, or None
    rest: list[np.ndarray]

    @property
    def arrays(self) -> list[np.ndarray]:
        return [*cast(self.diff, self.dtypes), *self.rest, *self.cts]

    @property
    def all_split(self) -> list[bool]:
        return [*self.split, *(False for _ in self.rest), *(True for _ in self.cts)]

    def unpack(self, arrays: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """diff, rest and cts as the function takes them."""
        count, middle = len(self.diff), len(self.diff) + len(self.rest)
        rest = [
            leaf if key is None else jax.random.wrap_key_data(leaf, impl=key)
            for leaf, key in zip(arrays[count:middle], self.keys, strict=True)
        ]
        return list(arrays[:count]), rest, list(arrays[middle:])


def setting_of(observation: Observation, split: tuple[bool, ...]) -> Setting:
    """Examples for the devices: the case's own, and further ones. split: of each floating-point argument."""
    rng, others = observation.case.rng("sharding"), range(devices.COUNT - 1)
    every = [observation.diff, *(further(observation, rng, split) for _ in others)]
    is_key = [isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in observation.rest]
    return Setting(
        split=split,
        diff=[np.stack(values) if on else values[0] for values, on in zip(zip(*every, strict=True), split, strict=True)],
        cts=[np.stack([ct, *(in_another_order(rng, ct) for _ in others)]) for ct in observation.cts["base"]],
        dtypes=observation.measured[0].dtypes,
        keys=tuple(jax.random.key_impl(leaf) if key else None for leaf, key in zip(observation.rest, is_key, strict=True)),
        rest=[np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(observation.rest, is_key, strict=True)],
    )


def estimate_of(observation: Observation, setting: Setting, rough: bool) -> Estimate:
    """The reference, one example at a time: stacked for arguments that are split, summed for the others. Noise is measured on each example.

    `rough`, before anybody is accused in float64: with more room for the reference's rounding, as the check `gradient` has it.
    """
    program, measured = observation.exact_program, observation.measured[0]
    assert program is not None
    dtype = coarsest(observation, measured)
    wants, noises, allowed = [], [], []
    for k in range(devices.COUNT):
        diff = [values[k] if on else values for values, on in zip(setting.diff, setting.split, strict=True)]
        cts = [ct[k] for ct in setting.cts]
        base = program(diff, observation.rest, cts)
        moved = [
            jittered(program, observation.case, j, observation.reference_limit, diff, observation.rest, cts)
            for j in range(tolerance.JITTERS)
        ]
        wants.append(base["reference"])
        noises.append(rounding_noise(base, moved))
        more = gradient_at(observation, diff, cts, rough).error if rough and dtype == "float64" else [np.zeros_like(w) for w in wants[-1]]
        allowed.append(more)
    values, errors = [], []
    for leaf, on in enumerate(setting.split):
        known = measured.noise[leaf]
        level = float(np.max(known[np.isfinite(known)], initial=0.0))
        scale = observation.scale(leaf)
        bounds = [
            np.fmax(tolerance.noise_bound(w[leaf], np.maximum(n[leaf], level), scale, dtype), more[leaf])
            for w, n, more in zip(wants, noises, allowed, strict=True)
        ]
        each = [w[leaf] for w in wants]
        values.append(np.stack(each) if on else np.sum(each, axis=0))
        errors.append(np.stack(bounds) if on else np.sum(bounds, axis=0))
    return Estimate(value=tuple(values), error=tuple(errors))
