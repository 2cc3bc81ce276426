"""What the checks of transformations share: several examples of a case, the reference's answer for each, and who is to blame for an exception.

The reference is evaluated one example at a time, by the program that is compiled already; so no transformation of the reference enters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verify import engine, programs, transforms
from verify.checks.compare import compare, compare_twice, failed, skipped
from verify.checks.further import further, in_another_order
from verify.checks.structure import raised
from verify.observation import Observation, add_seconds
from verify.oracles.agreement import contradiction
from verify.oracles.autodiff import gradient_at, stacked
from verify.printable import short
from verify.records import Estimate, Finding, Status

PLAIN = "; so it is in a plain call with the values of one of these examples"


def takes_turn(observation: Observation, every: int, offset: int) -> bool:
    """Which cases a costly check looks at: one in `every`; of a user's own example arrays the first and one of the others."""
    case = observation.case
    if (
        not observation.measured or case.style == "huge" or contradiction(observation)
    ):  # of huge values sums and products overflow in any order
        return False
    return case.index in (0, 1 + offset % 3) if case.thorough else case.index % every == offset


def unjudged(name: str, observation: Observation) -> list[Finding]:
    """A SKIP where there is no reference to compare with, or none in the rule's own dtype, else nothing."""
    if observation.truth is None or observation.exact_program is None:
        reason = observation.no_truth
    elif observation.measured[0].dtype != "float64":
        reason = f"the function computes in {observation.measured[0].dtype}, and this is asked in float64 only"
    else:
        return []
    return [Finding(check=name, status=Status.SKIP, message=reason, address=observation.case.address)]


def pattern(observation: Observation, count: int, turn: int) -> list[bool]:
    """Which of `count` things are on: all, each one alone, all but one, in turn; then every other combination."""
    everything = [(1 << count) - 1]
    alone = [1 << bit for bit in reversed(range(count))]
    others = [everything[0] ^ single for single in alone] if count > 2 else []
    order = list(dict.fromkeys([*everything, *alone, *others, *range(1, 1 << min(count, 6))]))
    return [bool(order[turn % len(order)] >> bit & 1) for bit in range(count)]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples along a first axis where `on`, and the reference's gradient of each."""

    diff: list[np.ndarray]
    cts: list[np.ndarray]
    on: list[bool]
    ct_on: bool
    each: Callable[[bool], tuple[Estimate, ...]]

    def plain_is_wrong(self, observation: Observation) -> bool:
        """Whether the rule is wrong already in a plain call with one of the examples: then no transformation is to blame."""
        assert observation.exact_program is not None
        for b, known in enumerate(self.each(True)):
            diff = [x[b] if has else x for x, has in zip(self.diff, self.on, strict=True)]
            got = observation.exact_program(diff, observation.rest, [ct[b] if self.ct_on else ct for ct in self.cts])["rule"]
            if failed(compare("", "", observation.call.names, got, known, "float64", "")):
                return True
        return False

    def per_example(self, rough: bool) -> Estimate:
        return stacked(self.each(rough))

    def summed(self, rough: bool) -> Estimate:
        """The gradient of a program over all examples: of shared arguments the sum."""
        every = stacked(self.each(rough))
        return Estimate(
            value=tuple(v if has else v.sum(0) for v, has in zip(every.value, self.on, strict=True)),
            error=tuple(e if has else e.sum(0) for e, has in zip(every.error, self.on, strict=True)),
        )


def examples(observation: Observation, purpose: str, on: Sequence[bool], ct_on: bool = True, count: int = 2) -> Examples:
    """`count` examples: the case itself, and further ones."""
    rng = observation.case.rng(purpose)
    every = [observation.diff, *(further(observation, rng, on) for _ in range(count - 1))]
    diff = [np.stack(values) if has else values[0] for values, has in zip(zip(*every, strict=True), on, strict=True)]
    cts = [np.stack([ct, *(in_another_order(rng, ct) for _ in range(count - 1))]) if ct_on else ct for ct in observation.cts["base"]]

    @functools.cache
    def each(rough: bool) -> tuple[Estimate, ...]:
        apart = (
            ([x[b] if has else x for x, has in zip(diff, on, strict=True)], [ct[b] if ct_on else ct for ct in cts]) for b in range(count)
        )
        return tuple(gradient_at(observation, *example, rough) for example in apart)

    return Examples(diff=diff, cts=cts, on=list(on), ct_on=ct_on, each=each)


def judge_program(
    name: str, observation: Observation, what: str, make: Callable[[Any], Any], inputs: Sequence[Any], names: Sequence[str],
    want: Callable[[bool], Estimate], again: bool = False, some: Examples | None = None,
) -> list[Finding]:  # fmt: skip
    """Run `make(call)` on the inputs and compare. `what` begins the message: "under vmap over x,". `want`: what is right; with True, more room for the
    reference's rounding, before anybody is accused. `again`: run the user's Python anew. `some`: the examples that the inputs are, of which a plain call may be wrong.

    An exception is the rule's fault only where the same program of the reference works.
    """
    call, address = observation.call, observation.case.address
    try:
        program = engine.exact(make(call.call if again else call), *inputs)
    except programs.StageError as error:
        try:
            engine.exact(make(transforms.plain(call)), *inputs)
        except programs.StageError:
            message = f"{what} the reference raises too: {short(error)}"
            return [Finding(check=name, status=Status.SKIP, message=message, address=address)]
        message = f"{what} the rule raises {raised(error.cause, 500)}"
        return [Finding(check=name, status=Status.FAIL, message=message, address=address, dtype=observation.measured[0].dtype)]
    got = program(*inputs)
    add_seconds(observation.seconds, program.seconds)
    found = compare_twice(name, f"{what} the cotangent of", names, got, want, observation.measured[0].dtype, address)
    if some is not None and failed(found) and some.plain_is_wrong(observation):
        found = [replace(finding, message=finding.message + PLAIN) if finding.status is Status.FAIL else finding for finding in found]
    return skipped(found)
