"""From a rule that was heard to its verdict.

It is judged where the program calls it (the program's values, and others of their range), at other sizes where the rule allows them, and in the
other float dtypes that it accepts. What raises outside of the program's own shapes and dtypes is no accusation; nor is a failure anywhere but at the program's
values, where these are known: it is INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from verify.auditing.calls import arrays, outputs, refusal
from verify.auditing.rules import Rule, Signature
from verify.cases import Case, Static
from verify.errors import SpecError
from verify.given import from_arrays
from verify.observe import NO_REFERENCE
from verify.records import Finding, Status, Verdict
from verify.runner import run_cases
from verify.signature import argument_names
from verify.spec import USER_DTYPES, Spec
from verify.values import generator

SIGNATURES = 3  # of one rule that are verified, the smallest first
DRAWS = 2  # at each, besides the program's own values
OTHER_SIZES = 3
LARGE = 2**16  # elements of all arguments: above, only the checks that use one compiled program again
TOO_LARGE = 2**21  # above, the program's own sizes are left out if there are others
PRIMES = (3, 2, 5, 7, 11, 13, 17)
DRAWN_RAISE = "the function itself raises at values that were drawn"
DRAWN_UNTOLD = "right at the program's own values; at others that were drawn nothing could be told"
WRONG_ELSEWHERE = "right at the program's own values; wrong at others that were drawn, at other sizes or in other dtypes"
WHAT_THEN = (
    ": if such arguments are allowed the rule is wrong, if not, nothing is known against it (verify.check judges arguments that you give)"
)
ONE_DTYPE = "it takes no other dtypes than those that it was made for: verified as the program calls it when all of its numbers are float64"
STANDING = "it cannot be called outside of the program: verified as it stands there"
OUTSIDE = "it cannot be called outside of the program"
SLOW_SIZE = 64  # other sizes stay below, beside one that is larger


def examine(rule: Rule, seed: int = 0, checks: Sequence[str] | None = None, guessed: bool = False) -> Verdict:
    """The verdict on one rule; it has the rule's name, location and number of calls.

    guessed: nobody calls it with these arguments, so that it may raise.
    """
    verdict = _examined(rule, seed, checks, guessed)
    blind = verdict.status not in (Status.PASS, Status.SKIP) and not verdict.comparisons  # it raises, or nothing could be compared
    in_float32 = any(NO_REFERENCE in finding.message for finding in verdict.findings)  # coarsely, by its own values
    others = [(rule.in_float64, ONE_DTYPE)] if blind or in_float32 else []
    others += [(rule.standing, STANDING)] if blind else []
    for other, why in others:
        if (instead := other()) and (again := _examined(instead, seed, checks, guessed)).comparisons:
            return _labelled(rule, replace(again, name=rule.name, notes=(why, *again.notes[1:])))
    if verdict.status is Status.ERROR:  # the program calls it, and nothing was raised there
        return _demoted(replace(verdict, notes=(*verdict.notes, OUTSIDE)))
    return verdict


def _examined(rule: Rule, seed: int, checks: Sequence[str] | None, guessed: bool) -> Verdict:
    spec = Spec(name=rule.name, fn=rule.function, dtypes=())  # the cases have theirs
    notes: list[str] = []
    try:
        own: list[int] = []
        cases = [replace(case, beyond=case.beyond or guessed) for case in _cases(rule, seed, notes, own)]
        if not cases:
            return _labelled(
                rule,
                Verdict(
                    name=rule.name, status=Status.SKIP, notes=("no argument is a floating-point array: there is no derivative to verify",)
                ),
            )
        verdict = run_cases(spec, cases, checks)
        if verdict.status in (Status.FAIL, Status.ERROR, Status.INCONCLUSIVE):
            verdict = _at_drawn_values_only(spec, [case for case in cases if case.index in own], checks, verdict)
        if verdict.status is Status.SKIP:  # nothing was compared: no success, and no reason to leave it out
            verdict = replace(verdict, status=Status.INCONCLUSIVE)
    except SpecError as error:
        finding = Finding(check="structure", status=Status.INCONCLUSIVE, message=str(error))
        return _labelled(rule, Verdict(name=rule.name, status=Status.INCONCLUSIVE, findings=(finding,)))
    shapes = len({tuple(np.shape(leaf) for leaf in jax.tree.leaves(case.args)) for case in cases})
    evidence = replace(verdict.evidence, address=None) if verdict.evidence else None  # no address leads back to a program's values
    return _labelled(rule, replace(verdict, address=None, evidence=evidence, shapes=shapes, notes=(*verdict.notes, *notes)))


def _at_drawn_values_only(spec: Spec, own: Sequence[Case], checks: Sequence[str] | None, verdict: Verdict) -> Verdict:
    """The verdict on a rule that is wrong, raises or cannot be judged somewhere: does it at the program's own values?

    Others may break what it requires of its arguments (sorted, symmetric, normalised, sizes that belong together), so a rule that is right where it is
    called is not accused of them. It is no success either: the program's values may happen to hide a mistake.
    """
    alone = run_cases(spec, own, checks) if own else None
    if verdict.status is Status.ERROR:
        raised = next(finding.message for finding in verdict.findings if finding.status is Status.ERROR)
        if alone is None:
            return replace(_demoted(verdict), notes=(DRAWN_RAISE, *verdict.notes))
        return replace(alone, notes=(f"{DRAWN_RAISE}: {raised}", *alone.notes)) if alone else verdict
    if verdict.status is Status.INCONCLUSIVE:
        untold = next((finding.message for finding in verdict.findings if finding.status is Status.INCONCLUSIVE), "")
        return replace(alone, notes=(f"{DRAWN_UNTOLD}: {untold}", *alone.notes)) if alone else verdict
    if alone:
        words = f"{WRONG_ELSEWHERE}{f' ({verdict.diagnosis})' if verdict.diagnosis else ''}{WHAT_THEN}"
        return replace(_demoted(verdict), diagnosis="", evidence=None, notes=(words, *verdict.notes))
    return verdict


def _demoted(verdict: Verdict) -> Verdict:
    bad = (Status.FAIL, Status.ERROR)
    findings = tuple(replace(f, status=Status.INCONCLUSIVE) if f.status in bad else f for f in verdict.findings)
    return replace(verdict, status=Status.INCONCLUSIVE, findings=findings)


def _labelled(rule: Rule, verdict: Verdict) -> Verdict:
    sites = list(dict.fromkeys(site for signature in rule.signatures.values() for site in signature.sites))
    called = f"called {rule.calls} time{'s' * (rule.calls != 1)}, with {len(rule.signatures)} combination{'s' * (len(rule.signatures) != 1)} of shapes"
    where = f", at {', '.join(sites[:2])}" + (" and elsewhere" if len(sites) > 2 else "") if sites else ""
    return replace(verdict, location=rule.location, calls=rule.calls, notes=(called + where, *verdict.notes))


def _cases(rule: Rule, seed: int, notes: list[str], own: list[int]) -> Iterator[Case]:
    """The cases; what they leave out goes into `notes`, the indices of those that hold the program's own values into `own`."""
    usable = sorted((s for s in rule.signatures.values() if _has_float(s.args)), key=_elements)
    if not usable:
        return
    reasons = [refusal(rule, signature) for signature in usable]
    if any(reasons) and not all(reasons):  # a forward that calls the rule itself, for more results, as kernels do
        usable = [signature for signature, reason in zip(usable, reasons, strict=True) if not reason]
        notes.append(f"a call that nobody differentiates in the program, and nobody can, was left out: {next(filter(None, reasons))}")
    rng = generator(rule.name, seed, 0, "audit")
    others = list(_other_sizes(rule, usable[0], rng)) if rule.whole else []
    fitting = [s for s in usable if _elements(s) <= TOO_LARGE] or ([] if others else usable[:1])
    chosen = [*fitting[: SIGNATURES - 1], *fitting[SIGNATURES - 1 :][-1:]]
    if len(chosen) < len(usable):
        notes.append(f"{len(usable) - len(chosen)} of its {len(usable)} combinations of shapes were not verified")
    if not rule.whole:
        notes.append("its Python function was not called while the program was traced: verified at the program's shapes only")
    elif not others:
        notes.append("it accepts no other sizes, or they cannot be guessed: verified at the program's shapes only")
    if not all(signature.values for signature in chosen):
        notes.append("the program's values are not known: values were drawn")
    index = 0
    for signature in chosen:
        large = _elements(signature) > LARGE
        for draw in range(1 if large else 1 + DRAWS):
            case = _case(rule, _filled(signature, rng), seed, index, first=draw == 0)
            own += [index] if draw == 0 and signature.values else []
            yield replace(case, thorough=not large and draw < 2)
            index += 1
    for args in others:
        yield replace(_case(rule, args, seed, index, first=False), beyond=True, thorough=index % 2 == 0)
        index += 1
    for dtype in _other_dtypes(rule, usable[0]) if rule.whole and _elements(usable[0]) <= TOO_LARGE else ():
        yield replace(_case(rule, _filled(usable[0], rng), seed, index, first=False, dtype=dtype), beyond=True)
        index += 1


def _case(rule: Rule, args: tuple[Any, ...], seed: int, index: int, first: bool, dtype: str = "given") -> Case:
    names = argument_names(rule.function, len(args)) if rule.whole else tuple(f"input{i}" for i in range(len(args)))
    case = from_arrays(rule.name, args, names, {}, seed, 0 if first else index + 1, dtype)
    own = {each for each in case.dtypes if each not in (None, "float64")}
    label = "float64" if not own else own.pop() if len(own) == 1 else "mixed"
    return replace(case, index=index, dtype=label)


def _filled(signature: Signature, rng: np.random.Generator) -> tuple[Any, ...]:
    """The arguments with the program's values where they are known, and with integers that fit as indices where they are not."""
    leaves, tree = jax.tree.flatten(signature.args, is_leaf=lambda node: isinstance(node, Static))
    values = iter(signature.values or [None] * len(leaves))
    below = _smallest_size(arrays(signature.args))

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, Static):
            return leaf
        value = next(values)
        if value is None and jax.numpy.issubdtype(leaf.dtype, np.integer) and isinstance(leaf, jax.ShapeDtypeStruct):
            return rng.integers(0, below, leaf.shape).astype(leaf.dtype)
        return leaf if value is None else np.asarray(value)

    return jax.tree.unflatten(tree, [filled(leaf) for leaf in leaves])


def _smallest_size(arrays: Sequence[Any]) -> int:
    """Below it lies what may be an index into one of the arrays."""
    return max(1, min((size for array in arrays if jax.numpy.issubdtype(array.dtype, np.inexact) for size in array.shape), default=1))


def _has_float(args: tuple[Any, ...]) -> bool:
    return any(jax.numpy.issubdtype(leaf.dtype, np.inexact) for leaf in arrays(args))


def _elements(signature: Signature) -> int:
    return sum(math.prod(leaf.shape) for leaf in arrays(signature.args))


def _other_sizes(rule: Rule, signature: Signature, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """The same arguments at other sizes: equal sizes stay equal, 1 stays 1; each only if the function accepts it."""
    sizes = sorted({size for leaf in arrays(signature.args) for size in leaf.shape if size > 1})
    free = [size for size in sizes if _accepts(rule, _resized(signature, {size: size + 1}, rng))]
    if not free:
        return
    primes = (PRIMES * (len(free) // len(PRIMES) + 1))[: len(free)]
    kept = {size: size for size in sizes}
    trials = [
        kept | dict(zip(free, primes, strict=True)),
        kept | {size: min(size + 1, SLOW_SIZE) for size in free},
        kept | dict.fromkeys(free, 2) | {free[-1]: 2 * SLOW_SIZE + 1},
    ]
    found = 0
    for mapping in trials:
        args = _resized(signature, mapping, rng)
        if found < OTHER_SIZES and sum(math.prod(leaf.shape) for leaf in arrays(args)) <= LARGE and _accepts(rule, args):
            found += 1
            yield args


def _resized(signature: Signature, mapping: dict[int, int], rng: np.random.Generator) -> tuple[Any, ...]:
    """The arguments with other sizes; values are repeated or cut, and those that may be indices stay indices."""

    def shaped(value: Any) -> Any:
        if isinstance(value, Static):
            return value
        shape = tuple(mapping.get(size, size) for size in value.shape)
        return np.resize(value, shape) if isinstance(value, np.ndarray) else jax.ShapeDtypeStruct(shape, value.dtype)

    args = jax.tree.map(shaped, _filled(signature, rng), is_leaf=lambda node: isinstance(node, Static))
    below = _smallest_size(arrays(args))

    def inside(value: Any) -> Any:
        whole = isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size and value.min() >= 0
        return value % below if whole else value

    return jax.tree.map(inside, args, is_leaf=lambda node: isinstance(node, Static))


def _other_dtypes(rule: Rule, signature: Signature) -> list[str]:
    own = {str(leaf.dtype) for leaf in arrays(signature.args) if jax.numpy.issubdtype(leaf.dtype, np.inexact)}
    if any(dtype.startswith("complex") for dtype in own):
        return []
    return [dtype for dtype in USER_DTYPES if own != {dtype} and _accepts(rule, signature.args, dtype)]


def _accepts(rule: Rule, args: tuple[Any, ...], dtype: str | None = None) -> bool:
    """Whether the function can be traced with these arguments, and returns something to differentiate."""
    return any(jax.numpy.issubdtype(value.dtype, np.inexact) for value in outputs(rule, args, dtype))
