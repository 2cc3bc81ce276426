"""`measure_power`: would the verification catch a mistake here?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from verify.api import as_spec
from verify.power import surgery
from verify.power.ladder import smallest_caught
from verify.power.mutant import Edit, mutated
from verify.power.plan import Plan, catching_check, plan
from verify.power.screen import Prepared, difference
from verify.records import Mutant, Power, Status
from verify.runner import run_spec
from verify.spec import Spec, SpecError

WHOSE = {"residual": "a residual", "upstream": "the incoming cotangent", "cotangent": "a cotangent"}


def measure_power(
    spec: Spec | str | Callable[..., object],
    cases: int | None = None,
    seed: int = 0,
    checks: Sequence[str] | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Power:
    """Break a rule's backward on purpose, one edit at a time, and count what the verification catches.

    Args:
        spec: as for `verify.run`: a Spec, the name of an installed one, "pkg.mod:function", or a function with jaxtyping annotations.
        cases: of the verification that is measured; 104 by default.
        seed: of these cases.
        checks: names or codes of the checks to measure; all by default.
        limit: try so many edits only, spread evenly over all; `left_out` says how many were not tried.
        progress: called as `progress(done, total)` after each edit.

    Returns:
        A Power; `bool(power)` is True when every mistake was caught, and `print(power)` shows each that was not, with its line in the source.

    Raises:
        SpecError: the unbroken rule is not PASS (mend it first), or it cannot be run as `verify.run` says.

    Example:
        >>> from verify import Arg, Spec
        >>> import jax, jax.numpy as jnp
        >>> double = jax.custom_vjp(lambda x: 2 * x)
        >>> double.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))
        >>> power = measure_power(Spec(name="double", fn=double, args={"x": Arg(dims="n")}, dtypes=()), cases=6, limit=4)
        >>> bool(power), power.kill_rate
        (True, 1.0)
    """
    start = time.perf_counter()
    spec = as_spec(spec)
    require_right(spec, cases, seed, checks)
    plan = prepare_plan(spec, cases, seed, checks)
    chosen = choose(list(plan.edits), limit)
    mutants = judge_edits(plan, chosen, progress)
    return summarised(plan, mutants, smallest_caught(plan), seed, start)


prepare_plan = plan


def require_right(spec: Spec, cases: int | None, seed: int, checks: Sequence[str] | None) -> None:
    """Raises SpecError unless the rule as it is passes: what is caught in a wrong rule says nothing."""
    if checks is not None and not checks:
        raise SpecError(f"{spec.name}: checks is empty, so nothing could be caught; leave it out for all")
    verdict = run_spec(spec, cases, seed, checks)
    wrong = verdict.status in (Status.FAIL, Status.ERROR) or (checks is None and verdict.status is not Status.PASS)
    if wrong:
        why = verdict.diagnosis or next((f.message for f in verdict.findings if f.status is verdict.status), "")
        raise SpecError(
            f"{spec.name}: the rule as it is gets the verdict {verdict.status}, so its power cannot be measured; mend the rule first "
            f"(verify run {spec.name}). {why}".rstrip()
        )


def choose(edits: Sequence[Edit], limit: int | None) -> list[Edit]:
    """All of them, or `limit` of them spread evenly. Raises SpecError for a limit below 1."""
    if limit is not None and limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    if limit is None or limit >= len(edits):
        return list(edits)
    return [edits[k * len(edits) // limit] for k in range(limit)]


def judge_edits(plan: Plan, edits: Sequence[Edit], progress: Callable[[int, int], None] | None = None) -> list[Mutant]:
    """What becomes of each edit."""
    mutants = []
    for edit in edits:
        mutants.append(_judged(plan, edit))
        if progress:
            progress(len(mutants), len(edits))
    return mutants


def summarised(plan: Plan, mutants: Sequence[Mutant], smallest: dict[str, float | None], seed: int, start: float) -> Power:
    return Power(
        name=plan.spec.name, mutants=tuple(mutants), smallest_caught=smallest, cases=len(plan.cases), pool=len(plan.pool), seed=seed,
        left_out=len(plan.edits) - len(mutants), seconds=time.perf_counter() - start,
    )  # fmt: skip


def _judged(plan: Plan, edit: Edit) -> Mutant:
    """Cases in which the edit changes a cotangent are judged until one FAILs; the others only if no such case did, as they can hardly tell.

    An edit that changes nothing in any case is looked for in the pool, and is no mistake if it changes nothing there.
    """
    spec, tried, quiet = mutated(plan.spec, edit), 0, []
    for prepared in plan.cases:
        if edit not in prepared.fits:
            continue
        if difference(prepared, edit) == 0:
            quiet.append(prepared)
            continue
        tried += 1
        if check := catching_check(spec, prepared.case, plan.selected):
            return _mutant(plan, edit, "killed", check=check, cases=tried, address=prepared.case.address)
    seen = None if tried else _noticed(plan.pool, edit)
    if not tried and seen is None:
        count = len(quiet) + sum(edit in prepared.fits for prepared in plan.pool)
        return _mutant(plan, edit, "equivalent", note=f"no cotangent changes in {count} inputs where it is made")
    for prepared in quiet:
        tried += 1
        if check := catching_check(spec, prepared.case, plan.selected):
            return _mutant(plan, edit, "killed", check=check, cases=tried, address=prepared.case.address)
    changed = tried - len(quiet)
    note = f"{tried} cases judged; it changes a cotangent in {changed} of them"
    if seen is not None:
        note += f", but with {seen.case.describe() or 'other values'} it does"
    return _mutant(plan, edit, "survived", cases=tried, note=note)


def _noticed(pool: Sequence[Prepared], edit: Edit) -> Prepared | None:
    return next((prepared for prepared in pool if difference(prepared, edit)), None)


def _mutant(plan: Plan, edit: Edit, status: str, **more: object) -> Mutant:
    equation, source = plan.edits[edit]
    where, code = surgery.source_text(source)
    words = f"{WHOSE[edit.where]} {edit.name}" if edit.where in WHOSE else edit.name
    return Mutant(edit=words, equation=equation, source=where, code=code, status=status, **more)  # type: ignore[arg-type]
