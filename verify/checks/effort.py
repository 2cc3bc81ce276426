"""Which cases are small enough for a check that runs the function several times more, or operation by operation."""

from __future__ import annotations

from verify.observation import Observation

LARGE = 2**18  # elements of all floating-point arguments together, as in `verify.check`


def small(observation: Observation) -> bool:
    return sum(values.size for values in observation.diff) <= LARGE
