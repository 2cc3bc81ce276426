"""The order in which explanations are tried, and the sentences they make together."""

from __future__ import annotations

import functools
import re
import traceback
import warnings
from collections.abc import Callable, Sequence

import jax
import numpy as np

from verify.cases import Case, elements, with_sizes
from verify.diagnosis import patterns
from verify.diagnosis.as_if import Try, tries
from verify.diagnosis.at_values import at_values
from verify.diagnosis.elsewhere import elsewhere
from verify.diagnosis.entries import entries
from verify.diagnosis.evidence import Evidence, Explained, gather
from verify.diagnosis.paths import paths
from verify.diagnosis.products import strange_product, wrong_product
from verify.diagnosis.trigger import trigger
from verify.observe import Observation, observe
from verify.records import Finding
from verify.spec import Spec, SpecError
from verify.tolerance import EPS

GRADIENT_CHECKS = ("gradient", "finite-difference", "adjoint", "taylor", "complex-step")
OTHERS = 2  # failing cases that must agree with the first
BEYOND_BLOCKS = 11  # a size above 8, and no multiple of a block
RIGHT = 4  # passing cases that are looked at
Pattern = Callable[[Evidence, int], str | None]
FACTS: tuple[Pattern, ...] = (patterns.ignores_cotangent,)  # true of a case, whatever the others say
PLACE: tuple[Pattern, ...] = (patterns.where,)  # it names the case
NONLINEAR: tuple[Pattern, ...] = (patterns.not_linear,)
WHAT: tuple[Pattern, ...] = (
    patterns.zero,
    patterns.permuted,
    patterns.conjugate,
    patterns.transposed,
    patterns.identity,
    wrong_product,
    patterns.reduced,
    patterns.backwards,
    patterns.shifted,
    patterns.elsewhere,
    patterns.asymmetric,
    entries,
)
SHAPE: tuple[Pattern, ...] = (strange_product, patterns.right_sum, patterns.nearly, patterns.rows, patterns.constant_error)


def diagnose(spec: Spec, check: str, finding: Finding | None, failing: Sequence[Case], cases: Sequence[tuple[Case, bool]]) -> str:
    """Sentences that name the mistake, or "" where none is recognised. `failing` are cases that fail the check, the most telling first; `finding` is
    what the check says of the smallest one; `cases` are all that ran, and whether they failed.

    A fault in a diagnosis is a warning: the verdict stands without it.
    """
    try:
        with np.errstate(all="ignore"):
            if check in GRADIENT_CHECKS:
                passing = [case for case, failed in cases if not failed]
                sentences = Gradient(spec, failing, passing).sentences()
                if any(patterns.ZERO in sentence for sentence in sentences) and (larger := _larger(spec, failing)):
                    sentences = Gradient(spec, [larger], passing).sentences() or sentences
            elif check == "primal":
                sentences = _forward(observe(spec, failing[0]))
            else:
                sentences = elsewhere(finding) if finding else []
        when = trigger(cases)
        return ". ".join(sentence[0].upper() + sentence[1:] for sentence in [*sentences, *([when] if when else [])])
    except Exception:
        warnings.warn(
            f"the diagnosis failed, the verdict stands; please report this:\n{traceback.format_exc()}", RuntimeWarning, stacklevel=2
        )
        return ""


class Gradient:
    """A wrong gradient: the numbers of the most telling failing case, and of a few more, with which an explanation must agree."""

    def __init__(self, spec: Spec, failing: Sequence[Case], passing: Sequence[Case]) -> None:
        self.spec, self.failing, self.passing = spec, failing, passing
        self.first = gather(spec, failing[0])
        clear = [case for case in failing[1:] if _clarity(case) <= _clarity(failing[0])]
        others = clear[:1] + sorted(clear[1:], key=elements)[-1:]  # a telling one, and the largest
        self.more = [e for case in others[:OTHERS] if (e := gather(spec, case)) is not None]

    def sentences(self) -> list[str]:
        e = self.first
        if e is None:
            return []
        found: list[str] = []
        whole: list[str] | None = None
        for leaf in (leaf for leaf in range(len(e.names)) if e.wrong(leaf)):
            sentence = (
                self._where_values(leaf)
                or self._factor(leaf)
                or self._not_finite(leaf)
                or self._pattern(leaf, FACTS, agreed=False)
                or self._pattern(leaf, WHAT)
            )
            if sentence is None:
                whole = self._as_if() or ([] if self._pattern(leaf, NONLINEAR, agreed=False) else self._paths()) if whole is None else whole
                if whole:
                    return whole
                sentence = (
                    self._pattern(leaf, NONLINEAR, agreed=False)
                    or self._as_if_of(leaf)
                    or self._pattern(leaf, SHAPE)
                    or self._pattern(leaf, PLACE, agreed=False)
                )
            if sentence:
                found.append(f"the cotangent of {e.names[leaf]}: {sentence}")
        return found[:3] or [f"the cotangent of {name}: {text}" for leaf, name in enumerate(e.names) if (text := patterns.nearly(e, leaf))]

    def _telling(self, leaf: int) -> list[Evidence]:
        """The other cases in which this cotangent is wrong, too."""
        return [e for e in self.more if e.wrong(leaf)]

    def _pattern(self, leaf: int, tried: Sequence[Pattern], agreed: bool = True) -> str | None:
        assert self.first is not None
        for pattern in tried:
            sentence = pattern(self.first, leaf)
            if sentence and (not agreed or all(_alike(pattern(e, leaf), sentence) for e in self._telling(leaf))):
                return sentence
        return None

    def _not_finite(self, leaf: int) -> str | None:
        assert self.first is not None
        sentence = patterns.not_finite(self.first, leaf)
        beyond = max(map(_largest, self.passing), default=np.inf)
        if sentence and min(map(_largest, self.failing)) > beyond:
            return f"{sentence}: something overflows or vanishes on the way, as only inputs beyond {beyond:.3g} fail"
        return sentence

    def _where_values(self, leaf: int) -> str | None:
        """Where this cotangent is wrong, of failing and passing cases together."""
        assert self.first is not None
        return at_values([self.first, *self.more, *self._right], leaf)

    @functools.cached_property
    def _right(self) -> list[Evidence]:
        ordinary = [case for case in self.passing if not case.stress]
        return [e for case in ordinary[-RIGHT:] if (e := gather(self.spec, case)) is not None]

    @functools.cached_property
    def _tries(self) -> list[tuple[Evidence, list[Try]]]:
        assert self.first is not None
        wrong = [e for e in self.more if any(e.wrong(leaf) for leaf in range(len(e.names)))]
        return [(e, tries(e)) for e in (self.first, *wrong)]

    def _as_if(self) -> list[str]:
        """The inputs for which the rule would be right, in all cases."""
        return _first_agreed([{key: text for key, text, gradient in tried if e.equals_rule(gradient)} for e, tried in self._tries])

    def _as_if_of(self, leaf: int) -> str | None:
        """The same of one argument's cotangent."""
        where_wrong = [(e, tried) for e, tried in self._tries if e.wrong(leaf)]
        agreed = _first_agreed([
            {key: text for key, text, gradient in tried if e.same(np.asarray(gradient[leaf]), e.got[leaf], e.slack[leaf])} for e, tried in where_wrong
        ])  # fmt: skip
        return next(iter(agreed), "").replace("the gradient is", "it is") or None

    def _paths(self) -> list[str]:
        """What the rule drops or counts too often, in all cases."""
        assert self.first is not None
        found: Explained = paths(self.first)
        for e in self.more:
            if found and any(e.wrong(leaf) for leaf in range(len(e.names))):
                others = paths(e, found)
                found = {key: text for key, text in found.items() if key in others}
        return list(found.values())[:1]

    def _factor(self, leaf: int) -> str | None:
        """A constant factor, read in the sizes of all failing cases at once: sqrt(H) and 2 are the same at H = 4 only."""
        assert self.first is not None
        readings = patterns.factors(self.first, leaf)
        for e in self._telling(leaf) if readings else ():
            shared = patterns.factors(e, leaf)
            readings = {name: ratio for name, ratio in readings.items() if name in shared}
        return patterns.factor_sentence(readings)


def _larger(spec: Spec, failing: Sequence[Case]) -> Case | None:
    """A larger case of the same spec: what is 0 in small ones may be a block that did not fit."""
    sizes = {
        name: min(spec.sizes.get(name, (1, BEYOND_BLOCKS))[1], BEYOND_BLOCKS)
        for name, size in failing[0].sizes.items()
        if isinstance(size, int)
    }
    try:
        larger = with_sizes(spec, failing[0], {**failing[0].sizes, **sizes})
        e = gather(spec, larger)
    except SpecError:  # outside of the function's domain
        return None
    return larger if e is not None and any(e.wrong(leaf) for leaf in range(len(e.names))) else None


def _largest(case: Case) -> float:
    """The largest magnitude among the inputs."""
    return max((float(np.max(np.abs(x), initial=0.0)) for x in jax.tree.leaves(case.args) if isinstance(x, np.ndarray)), default=0.0)


def _first_agreed(explained: Sequence[Explained]) -> list[str]:
    """The first sentence of the first case whose mistake explains the others, too."""
    first, *others = explained
    return [text for key, text in first.items() if all(key in other for other in others)][:1]


def _alike(sentence: str | None, other: str) -> bool:
    """Whether two sentences name the same mistake: they may differ in numbers, and in intermediates by letter."""
    return sentence is not None and _kind(sentence) == _kind(other)


def _kind(sentence: str) -> str:
    return re.sub(r" ?[\d.]+", "", sentence.split(" where ", maxsplit=1)[0].split(" (", maxsplit=1)[0])


def _clarity(case: Case) -> tuple[bool, bool, int]:
    """Less is clearer: extreme inputs, single elements and sizes of 1 hide patterns."""
    ones = sum(size == 1 for dims in case.sizes.values() for size in (dims if isinstance(dims, tuple) else (dims,)))
    return case.stress, elements(case) <= 1, ones


def _forward(observation: Observation) -> list[str]:
    """What the forward rule returns instead of the primal."""
    runs = observation.measured[0].runs["base"]
    for forward, primal in zip(runs["out"], runs["primal"], strict=True):
        factor = patterns.constant_ratio(forward, primal)
        if factor is not None and abs(factor - 1) > EPS[observation.measured[0].dtype]:
            return [f"the forward rule returns {factor:.6g} times what the primal returns"]
    return []
