"""The same measurement in several processes; for operations that have a name, as a function cannot be sent to a process."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, zip_longest

from verify.power.ladder import smallest_caught
from verify.power.measure import choose, judge_edits, measure_power, require_right, summarised
from verify.power.plan import prepare_plan
from verify.records import Mutant, Power
from verify.registry import resolve


def measure_named(
    name: str, cases: int | None = None, seed: int = 0, checks: Sequence[str] | None = None, limit: int | None = None, jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Power:  # fmt: skip
    """`measure_power` of an operation named as on the command line, with `jobs` processes. Raises SpecError as that does."""
    if jobs == 1:
        return measure_power(resolve(name), cases, seed, checks, limit, progress)
    start = time.perf_counter()
    spec = resolve(name)
    require_right(spec, cases, seed, checks)
    orders = [(name, cases, seed, checks, limit, part, jobs) for part in range(1, jobs)]
    with ProcessPoolExecutor(jobs - 1, mp_context=multiprocessing.get_context("spawn")) as pool:  # fork after JAX has started hangs
        others = [pool.submit(_part, *order) for order in orders]
        plan = prepare_plan(spec, cases, seed, checks)
        mine = judge_edits(plan, choose(list(plan.edits), limit)[0::jobs], progress)
        smallest = smallest_caught(plan)
        parts = [mine, *(other.result() for other in others)]
    in_order = [mutant for mutant in chain.from_iterable(zip_longest(*parts)) if mutant is not None]
    return summarised(plan, in_order, smallest, seed, start)


def _part(name: str, cases: int | None, seed: int, checks: Sequence[str] | None, limit: int | None, part: int, jobs: int) -> list[Mutant]:
    sys.stdout = sys.stderr  # what the users' functions print is not the report
    plan = prepare_plan(resolve(name), cases, seed, checks)
    return judge_edits(plan, choose(list(plan.edits), limit)[part::jobs])
