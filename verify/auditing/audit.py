"""`verify.audit`: every custom rule that a program calls, verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from verify.auditing.baseline import Gap, declared
from verify.auditing.collect import collect
from verify.auditing.examine import examine
from verify.auditing.rules import Rule
from verify.environment import environment
from verify.errors import SpecError
from verify.records import Report, Status, Verdict


def audit(
    program: Callable[..., Any],
    *args: Any,
    seed: int = 0,
    checks: Sequence[str] | None = None,
    rules: Sequence[str] = (),
    baseline: Sequence[Gap] = (),
    budget: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Find every custom rule that `program(*args)` calls, at any depth, and verify each against JAX's autodiff of its own primal.

    The program is traced, and run once if all of `args` are concrete, so that each rule is verified at the values that the program gives it; a loss, a whole
    train step, a model's apply. Rules are found inside of jit, scan, while, cond, checkpoint, vmap, shard_map and grad. Each is verified once for each
    combination of shapes (three at most), at other sizes where it accepts them, and in the other float dtypes.

    JAX's caches are emptied: what was compiled before is compiled again at its next call.

    Args:
        program: any function that JAX can trace.
        *args: its arguments: pytrees of arrays or `jax.ShapeDtypeStruct`; all other leaves are static.
        seed: of values, cotangents and directions that are drawn.
        checks: names or codes of the checks to make; all by default.
        rules: parts of names; only rules that have one of them in their name.
        baseline: differences that are meant, see `verify.auditing.baseline`.
        budget: seconds after which no further rule is begun; those left are SKIP.
        progress: called as `progress(done, total)` after each rule.

    Returns:
        A Report with one Verdict for each rule: its name ("module:function"), location ("file:line"), calls. Empty if the program calls none.

    Raises:
        SpecError: the program cannot be traced with these arguments.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> halve = jax.custom_vjp(lambda x: x / 2)
        >>> halve.defvjp(lambda x: (x / 2, None), lambda _, ct: (ct,))
        >>> report = audit(jax.grad(lambda x: jax.nn.relu(halve(x)).sum()), jnp.array([1.0, -2.0, 3.0]))
        >>> [(verdict.name.split(":")[1], str(verdict.status)) for verdict in report]
        [('<lambda>', 'FAIL'), ('relu', 'PASS')]
    """
    if not callable(program):
        raise SpecError(f"audit: program must be callable, got {type(program).__name__}")
    found, notes = collect(program, args)
    wanted = named(found, rules)
    verdicts = []
    for verdict in examine_all(wanted, notes, seed, checks, budget):
        verdicts.append(verdict)
        if progress:
            progress(len(verdicts), len(wanted))
    return reported(verdicts, baseline)


def examine_all(
    found: Sequence[Rule], notes: Sequence[str] = (), seed: int = 0, checks: Sequence[str] | None = None, budget: float | None = None
) -> Iterator[Verdict]:
    """The verdicts on rules that were heard, in their order; `notes` go with each."""

    def judged(rule: Rule) -> Verdict:
        verdict = examine(rule, seed, checks)
        return replace(verdict, notes=(*verdict.notes, *notes))

    return within(budget, found, judged)


def within(budget: float | None, rules: Sequence[Rule], judged: Callable[[Rule], Verdict]) -> Iterator[Verdict]:
    """A verdict on each rule; SKIP on those for which no time is left."""
    start = time.perf_counter()
    for rule in rules:
        if budget is not None and time.perf_counter() - start > budget:
            late = f"not verified: the budget of {budget:g} s was spent"
            yield Verdict(name=rule.name, status=Status.SKIP, notes=(late,), location=rule.location, calls=rule.calls)
        else:
            yield judged(rule)


def named(rules: Sequence[Rule], parts: Sequence[str]) -> list[Rule]:
    """Those that have one of `parts` in their name, or all if there are none."""
    return [rule for rule in rules if not parts or any(part in rule.name for part in parts)]


def reported(verdicts: Iterable[Verdict], baseline: Sequence[Gap] = ()) -> Report:
    """The worst first, as the baseline sees them."""
    seen = [declared(verdict, baseline) for verdict in verdicts]
    return Report(verdicts=tuple(sorted(seen, key=lambda verdict: -verdict.status.badness)), environment=environment())
