"""`measure_power`: would the verification catch a mistake here?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from verify.api import as_spec
from verify.backward import surgery
from verify.backward.edits import cannot_run
from verify.errors import InternalError
from verify.power.ladder import smallest_caught
from verify.power.mutant import Edit, mutated
from verify.power.plan import Plan, catching_check, prepare_plan
from verify.power.screen import Prepared, difference
from verify.records import Mutant, Power, Status
from verify.runner import run_spec
from verify.spec import Spec, SpecError

CHEAP = 2  # cases in float64 to judge before one in each of the users' dtypes, which is compiled
TOGETHER = 12  # cases that are compared before the most telling of them are judged
ENOUGH = 8  # failing to fail in so many cases that the edit changes is survival; a longer run might still catch it, so this errs to its disfavour
ENOUGH_INPUTS = 24  # in which an edit is made and changes nothing, before it is called none
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
    mutants = judge_edits(plan, choose(list(plan.edits), limit), progress)
    return summarised(plan, mutants, smallest_caught(plan), seed, start)


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
    """The verification's cases are judged until one FAILs, of a dozen those first in which the edit changes a cotangent the most tellingly.

    An edit that changes nothing in any of them is looked for in the pool, and is no mistake if it changes nothing there. A transpose or
    an exchange that only a coincidence of sizes permits is caught where a case's sizes forbid it, as the backward raises there.
    """
    placed: list[Edit] = []
    spec, made = mutated(plan.spec, edit, placed), [prepared for prepared in plan.cases if edit in prepared.fits]
    sizes: dict[int, float] = {}
    tried: list[Prepared] = []

    def size(prepared: Prepared) -> float:
        if id(prepared) not in sizes:
            sizes[id(prepared)] = difference(prepared, edit)
        return sizes[id(prepared)]

    def caught(cases: Iterable[Prepared]) -> Mutant | None:
        for prepared in cases:
            if size(prepared) == 0 or any(prepared is one for one in tried):
                continue
            tried.append(prepared)
            if check := catching_check(spec, prepared.case, plan.selected):
                return _mutant(plan, edit, "killed", check=check, cases=len(tried), address=prepared.case.address)
            if len(tried) == ENOUGH:
                break
        return None

    if mutant := caught(_first(made)):
        return mutant
    for start in range(0, len(made), TOGETHER):
        if len(tried) >= ENOUGH:
            break
        if mutant := caught(sorted(made[start : start + TOGETHER], key=size, reverse=True)):
            return mutant
    changed = sum(size > 0 for size in sizes.values())
    if not changed and (mutant := _stopped_by_shapes(plan, edit)):
        return mutant
    noticed, count = (None, 0) if changed else _noticed(plan, edit, len(made))
    if not changed and noticed is None:
        return _mutant(plan, edit, "equivalent", note=f"no cotangent changes in {count} inputs where it is made")
    note = f"a cotangent changes in {changed} of {len(sizes)} cases; {len(tried)} of these were judged"
    if noticed is not None:
        note = f"no cotangent changes in the {len(plan.cases)} cases, but with {noticed.case.describe() or 'other values'} one does"
    if tried and edit.where == "equation" and not placed:
        raise InternalError(f"verify lost sight of an equation of {plan.spec.name} between two traces: {plan.edits[edit]}")
    return _mutant(plan, edit, "survived", cases=len(tried), note=note)


def _stopped_by_shapes(plan: Plan, edit: Edit) -> Mutant | None:
    for prepared in plan.cases:
        if what := _forbidden(prepared, edit):
            note = f"the shapes of this case forbid it: {what}"
            return _mutant(plan, edit, "killed", check="structure", address=prepared.case.address, note=note)
    return None


def _forbidden(prepared: Prepared, edit: Edit) -> str:
    """The equation or cotangent whose shape lets no edit move its axes; "" if there is none."""
    if edit.where == "equation":
        own = (place.equation for place in surgery.places(prepared.jaxpr) if place.key == edit.target)
        return next((surgery.equation_text(equation) for equation in own if cannot_run(edit.name, equation)), "")
    if edit.where == "cotangent" and edit.name == "transposed" and edit.target in prepared.paths:
        shape = prepared.want[prepared.paths.index(edit.target)].shape
        return str(shape) if shape[-1:] != shape[-2:-1] else ""
    return ""


def _first(made: Sequence[Prepared]) -> list[Prepared]:
    """A few cheap ones in float64, then one in each of the users' dtypes."""
    exact = [prepared for prepared in made if prepared.case.dtype == "float64"][:CHEAP]
    return exact + list({prepared.case.dtype: prepared for prepared in reversed(made) if prepared.case.dtype != "float64"}.values())[::-1]


def _noticed(plan: Plan, edit: Edit, count: int) -> tuple[Prepared | None, int]:
    """An input of the pool in which the edit changes a cotangent, if there is one; and in how many it was made, beside `count`."""
    for inputs, enough in ((plan.pool, math.inf), (plan.more(), ENOUGH_INPUTS)):
        for prepared in inputs:
            if count >= enough:
                break
            if edit in prepared.fits:
                count += 1
                if difference(prepared, edit):
                    return prepared, count
    return None, count


def _mutant(plan: Plan, edit: Edit, status: str, **more: object) -> Mutant:
    equation, source = plan.edits[edit]
    where, code = surgery.source_text(source)
    words = f"{WHOSE[edit.where]} {edit.name}" if edit.where in WHOSE else edit.name
    return Mutant(edit=words, equation=equation, source=where, code=code, status=status, **more)  # type: ignore[arg-type]
