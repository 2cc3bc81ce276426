"""Which one change of the rule's own forward or backward would make its gradient right?

The mistake stands in the rule's source, so the sentence names a line of it: another value in the place of one that it uses, a constant, a factor of one term, or
a slip undone. A change that mends the first case must mend the others, leave right what is right, and leave the primal as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from verify import engine, programs
from verify._compat import enable_x64
from verify.backward.opened import opened
from verify.backward.steps import NotFollowedError, Steps
from verify.diagnosis.evidence import Evidence, Explained
from verify.diagnosis.mending.change import Change, Places, run
from verify.diagnosis.mending.expressions import constants, sizes_and_options, terms, undone
from verify.diagnosis.mending.values import FORM, forgotten, functions, other_turns, other_values, reductions

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "select_n", "max", "min")
WORK = 150_000  # steps that are run in search of a change
MOST = 60  # changes that mend a case, of which one must mend the others
FEW = 2  # that mend the only case there is: one of more is no more likely than the others


def mends(wrong: Sequence[Evidence], right: Sequence[Evidence]) -> list[str]:
    """A sentence that names a change which mends the wrong cases, or none. `right` are cases that must stay right."""
    followed = [(e, rule) for e in wrong if any(want.any() for want in e.want) and (rule := _followed(e)) is not None]
    if not followed:
        return []
    (first, rule), *others = followed
    found = _mending(first, rule)
    if not others and len(found) > FEW:
        return []
    for e, rule in others:
        found = _mending(e, rule, found) if found else {}
    for e in right if found else ():
        spoilt = _spoilt(e, found)
        found = {key: text for key, text in found.items() if key not in spoilt}
    by_kind = sorted(found, key=lambda key: key.startswith(f"('{FORM}'"))  # a value that is at hand says more than a function of another
    return [f"the gradient is right {found[key]}" for key in by_kind[:1]]


def _mending(e: Evidence, rule: Steps, known: Explained | None = None) -> Explained:
    """The changes that mend a case, by key; with `known`, those of them."""
    found: Explained = {}
    left = WORK
    for change in _changes(rule, e):
        key = str(change.key)
        if key in found or (known is not None and key not in known):
            continue
        left -= rule.cost(list(change.at))
        if left < 0 or (known is None and len(found) == MOST):
            break
        if is_right(e, run(rule, change.at)):
            found[key] = change.words()
    return found


def _changes(rule: Steps, e: Evidence) -> Iterator[Change]:
    """All that are tried. What the primal is made of stays."""
    free = sorted(rule.before(rule.results[-len(e.got) :]) - rule.before(rule.results[: -len(e.got)]))
    linear = rule.after([slot for slot, (name, _) in enumerate(rule.names) if name[0] == "upstream cotangent"])
    places: Places = {}
    for i in free:
        if rule.steps[i].equation is not None:
            places.setdefault(rule.steps[i].key, []).append(i)
    compared = {key: at for key, at in places.items() if key[1] in COMPARISONS}
    computed = {key: at for key, at in places.items() if key[1] not in COMPARISONS}
    yield from undone(rule, compared)
    yield from sizes_and_options(rule, e, computed)
    yield from terms(rule, e, {key: at for key, at in places.items() if at[0] in linear})
    yield from constants(rule, places)
    yield from undone(rule, computed)
    yield from forgotten(rule, free)
    yield from reductions(rule, places)
    yield from other_turns(rule, free)
    yield from functions(rule, free)
    yield from other_values(rule, free)  # the most by far


def _spoilt(e: Evidence, known: Explained) -> set[str]:
    """The changes that make a right case wrong."""
    rule = _followed(e)
    if rule is None:
        return set()
    made = ((str(change.key), change) for change in _changes(rule, e))
    return {key for key, change in made if key in known and not is_right(e, run(rule, change.at))}


def _followed(e: Evidence) -> Steps | None:
    """The rule's forward and backward in steps, its results the outputs and then the cotangents; None where they cannot be followed."""
    observation = e.observation
    found: dict[str, Any] = {}

    def spy(*args: Any, **options: Any) -> Any:
        out, tree, pullback = opened(observation.spec.fn, args, options).forward()
        found["cts"] = list(pullback(found["cts"])[0])
        return jax.tree.unflatten(tree, out)

    def both(diff: list[Any], rest: list[Any], cts: list[Any]) -> tuple[list[Any], list[Any]]:
        found["cts"] = cts
        return call.run(diff, rest), found["cts"]

    arguments = (observation.diff, observation.rest, e.cotangents)
    leaves = jax.tree.leaves(arguments)
    if observation.measured[0].dtype != "float64":
        return None
    names = [("argument", name) for name in e.names] + [("argument", name) for name, _ in e.others]
    names += [("upstream cotangent", k if len(e.cotangents) > 1 else None) for k in range(len(e.cotangents))]
    try:
        with enable_x64(True), jax.default_device(engine.host()):
            call, _, _ = programs.bind(replace(observation.spec, fn=spy), observation.case)
            jaxpr = jax.make_jaxpr(both)(*arguments)
            rule = Steps(jaxpr, leaves, names)
    except (programs.StageError, NotFollowedError, NotImplementedError, TypeError, ValueError, jax.errors.JaxRuntimeError):
        return None
    cts = [rule.values[slot] for slot in rule.results[-len(e.got) :]]
    return rule if e.equals_rule(cts) else None


def is_right(e: Evidence, results: Sequence[Any] | None) -> bool:
    """Whether all cotangents are the oracle's, where it has any."""
    if results is None:
        return False
    cts = results[-len(e.want) :]
    judged = ((np.where(known, ct, 0), np.where(known, want, 0)) for ct, want, known in zip(cts, e.want, e.known, strict=True))
    return all(
        not ct.size or not (ct.any() or want.any()) or e.same(ct, want, slack) for (ct, want), slack in zip(judged, e.slack, strict=True)
    )
