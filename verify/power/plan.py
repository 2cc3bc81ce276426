"""What one measurement works with: the verification's cases and an independent pool of inputs, prepared, and the edits to try."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import jax
import numpy as np

from verify import checks as all_checks
from verify.cases import Case, draw
from verify.judging import judge
from verify.power.mutant import Edit
from verify.power.screen import Prepared, prepare
from verify.printable import short
from verify.profiles import case_count
from verify.programs import StageError
from verify.records import Status
from verify.spec import Spec, SpecError

POOL = 96  # inputs that tell whether an edit is a mistake at all: two periods of the drawn sizes and values
MOST = 4 * POOL  # the same for an edit that is made in few of them: large arrays of an optional argument, say
POOL_SEED = 0x5EED  # the pool's draws differ from those of every seed that people use
FEW = 4  # elements of all arguments together: below, everything looks alike


@dataclass(frozen=True, kw_only=True)
class Plan:
    """cases: of the verification, those that tell most for their cost first; pool: other inputs, and more of them when asked for; edits: with (equation, source)
    of each."""

    spec: Spec
    selected: tuple[ModuleType, ...]
    cases: tuple[Prepared, ...]
    pool: tuple[Prepared, ...]
    more: Callable[[], Iterator[Prepared]]
    edits: dict[Edit, tuple[str, str]]


def prepare_plan(spec: Spec, cases: int | None, seed: int, checks: Sequence[str] | None) -> Plan:
    """Draw and prepare everything. Raises SpecError where nothing can be traced in float64."""
    jax.clear_caches()  # functions that the verification has traced already carry the lines of whoever called them then
    drawn = sorted(draw(spec, seed, range(case_count(cases, seed))), key=_cost)
    others = sorted(draw(replace(spec, dtypes=()), seed ^ POOL_SEED, range(POOL)), key=_cost)
    mine, pool = tuple(_prepared(spec, drawn)), tuple(_prepared(spec, others))
    for kind, done in ((drawn, mine), (others, pool)):
        if not done:
            raise SpecError(
                f"{spec.name}: its backward cannot be traced in float64, so it cannot be broken on purpose: {_trouble(spec, kind[0])}"
            )
    further = (case for case in draw(replace(spec, dtypes=()), seed ^ POOL_SEED, range(POOL, MOST)))
    found: dict[Edit, tuple[str, str]] = {}
    for prepared in (*mine, *pool):
        for edit, made_on in prepared.fits.items():
            found.setdefault(edit, made_on)
    return Plan(
        spec=spec,
        selected=all_checks.select(list(checks) if checks is not None else None),
        cases=mine,
        pool=pool,
        more=_remembered(_prepared(spec, further)),
        edits=found,
    )


def _prepared(spec: Spec, cases: Iterable[Case]) -> Iterator[Prepared]:
    """Those of the cases whose backward can be traced."""
    for case in cases:
        with contextlib.suppress(StageError):
            yield prepare(spec, case)


def _trouble(spec: Spec, case: Case) -> str:
    try:
        prepare(spec, case)
    except StageError as error:
        return short(error)
    return ""


def _remembered(source: Iterator[Prepared]) -> Callable[[], Iterator[Prepared]]:
    """Go through it any number of times; each is made once, and only when somebody gets so far."""
    made: list[Prepared] = []

    def again() -> Iterator[Prepared]:
        yield from made
        for one in source:
            made.append(one)
            yield one

    return again


def _cost(case: Case) -> tuple[bool, bool, int]:
    """Low precision is compiled, so it comes last; in arrays with a size of 0 or 1 few mistakes show."""
    sizes = [n for size in case.sizes.values() for n in (size if isinstance(size, tuple) else (size,))]
    elements = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(case.args) if isinstance(leaf, np.ndarray))
    return (case.dtype != "float64", min(sizes, default=2) <= 1 or elements < FEW, elements)


def catching_check(spec: Spec, case: Case, selected: Sequence[ModuleType]) -> str | None:
    """A check that FAILs: gradient, which catches nearly all and costs a fraction of the others; else the first.

    An edit keeps shapes and dtypes; so the structure check has nothing to say of it.
    """
    for some in (tuple(check for check in selected if check.NAME == "gradient"), selected):
        for finding in judge(spec, case, some).findings if some else ():
            if finding.status is Status.FAIL and finding.check != "structure":
                return finding.check
    return None
