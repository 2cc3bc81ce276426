"""Is the rule right when two of its arguments are the same array?

Self-attention, tied weights and `f(x, x)` pass one array twice; its cotangent is the sum of both. A rule that compares its arguments (`if x is y`), writes into
one of them, or keeps residuals under the array's identity is wrong only here. Looked at where two arguments have one shape and one domain; the user's
Python runs anew.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from verify import transforms
from verify.checks.transformed import Examples, judge_program, takes_turn, unjudged
from verify.observation import Observation
from verify.oracles.autodiff import gradient_at
from verify.records import Estimate, Finding

CODE, NAME, TITLE = "V015", "sharing", "the rule is right when two arguments are the same array"
EVERY, OFFSET = 4, 3


def applies(observation: Observation) -> bool:
    sizes = [size for size in observation.case.sizes.values() if isinstance(size, int)]
    square = len(sizes) > 1 and len(set(sizes)) == 1 and sizes[0] > 1  # then shapes coincide that rarely do
    return any(_pairs(observation)) and (takes_turn(observation, EVERY, OFFSET) or (square and takes_turn(observation, 1, 0)))


def judge(observation: Observation) -> list[Finding]:
    if reason := unjudged(NAME, observation):
        return reason
    pairs = list(_pairs(observation))
    first, second = pairs[observation.case.index // EVERY % len(pairs)]
    diff = [observation.diff[first] if leaf == second else x for leaf, x in enumerate(observation.diff)]

    names, cts = observation.call.names, observation.cts["base"]

    @functools.cache
    def each(rough: bool) -> tuple[Estimate]:
        return (gradient_at(observation, diff, cts, rough),)

    def want(rough: bool) -> Estimate:
        (apart,) = each(rough)
        value, error = list(apart.value), list(apart.error)
        for part in (value, error):
            part[first] = part[first] + part[second]
            part[second] = 0 * part[second]
        return Estimate(value=tuple(value), error=tuple(error))

    apart = Examples(diff=diff, cts=cts, on=[False] * len(diff), ct_on=False, each=each)
    return judge_program(
        NAME, observation, f"with one array for {names[first]} and {names[second]},", lambda call: transforms.gradient_of_shared(call, first, second),
        (diff, observation.rest, cts), names, want, again=True, some=apart,
    )  # fmt: skip


def _pairs(observation: Observation) -> Iterator[tuple[int, int]]:
    case = observation.case
    domains = [domain for domain, dtype in zip(case.domains, case.dtypes, strict=True) if dtype is not None]
    if len(domains) != len(observation.diff):
        return
    for a, b in itertools.combinations(range(len(domains)), 2):
        if (
            domains[a] is not None
            and domains[a] == domains[b]
            and observation.diff[a].shape == observation.diff[b].shape
            and observation.diff[a].size
        ):
            yield a, b
