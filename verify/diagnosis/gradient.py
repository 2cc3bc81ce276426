"""A wrong gradient in words: which explanations are tried, in which order, and in how many cases they must hold."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from verify.cases import Case, elements
from verify.diagnosis import fault, patterns, places
from verify.diagnosis.as_if import Try, tries
from verify.diagnosis.at_values import at_values, in_common, only_at, value_there
from verify.diagnosis.entries import entries
from verify.diagnosis.evidence import Evidence, Explained, gather, of
from verify.diagnosis.factors import factor_sentence, factors, varying
from verify.diagnosis.mending import mends
from verify.diagnosis.outputs import through, wrong_outputs
from verify.diagnosis.paths import paths
from verify.diagnosis.products import strange_product, wrong_product
from verify.spec import Spec

LOOK = "look for what their values share"
OTHERS = 2  # failing cases that must agree with the first
RIGHT = 4  # passing cases that are looked at
SHOWS = 9  # elements from which on a place without a pattern contradicts one that was seen elsewhere
Pattern = Callable[[Evidence, int], str | None]
FACTS: tuple[Pattern, ...] = (patterns.ignores_cotangent,)  # true of a case, whatever the others say
EXACT: tuple[Pattern, ...] = (patterns.conjugate,)  # the whole cotangent is another one: that says more than where its numbers differ
NONLINEAR: tuple[Pattern, ...] = (patterns.not_linear,)
WHAT: tuple[Pattern, ...] = (
    patterns.zero,
    patterns.permuted,
    patterns.lumped,
    patterns.transposed,
    patterns.identity,
    wrong_product,
    patterns.reduced,
    patterns.spread,
    patterns.backwards,
    patterns.shifted,
    patterns.asymmetric,
    places.late,
    entries,
)
SHAPE: tuple[Pattern, ...] = (
    patterns.elsewhere,
    strange_product,
    patterns.right_sum,
    patterns.nearly,
    patterns.rows,
    patterns.constant_error,
)


class Gradient:
    """A wrong gradient: the numbers of the most telling failing case, and of a few more, with which an explanation must agree.

    output: the one through which it is looked at, as if the upstream cotangents of the others were 0.
    """

    def __init__(self, spec: Spec, first: Evidence, failing: Sequence[Case], passing: Sequence[Case], output: int | None = None) -> None:
        self.spec, self.first, self.failing, self.passing, self.output = spec, first, failing, passing, output
        clear = [case for case in failing[1:] if _clarity(case) <= _clarity(failing[0])]
        others = clear[:1] + sorted(clear[1:], key=elements)[-1:]  # a telling one, and the largest
        self.more = [e for case in others[:OTHERS] if (e := self._gathered(case)) is not None]

    def sentences(self) -> list[str]:
        """What is wrong with each argument's cotangent, or with all of them at once; where no cause is found, what can be seen."""
        e = self.first
        wrong = [leaf for leaf in range(len(e.names)) if e.wrong(leaf)]
        change = self._mends()
        seen = self._causes(wrong) or self._of_leaves(
            {leaf: self._seen(leaf) for leaf in wrong} or {leaf: patterns.nearly(e, leaf) for leaf in range(len(e.names))}
        )
        return [*(sentence for sentence in seen if not (change and LOOK in sentence)), *change]

    def _causes(self, wrong: Sequence[int]) -> list[str]:
        named: dict[int, str | None] = {leaf: self._by_itself(leaf) for leaf in wrong}
        if not all(named.values()) and self._whole:
            return self._whole
        named = {leaf: named[leaf] or self._of_one(leaf) for leaf in wrong}
        return self._of_leaves(named) or self._of_one_output()

    def _of_leaves(self, named: Mapping[int, str | None]) -> list[str]:
        return [f"the cotangent of {self.first.names[leaf]}: {sentence}" for leaf, sentence in named.items() if sentence][:3]

    def _of_one_output(self) -> list[str]:
        """Where the gradient is wrong through one output alone, what is wrong with that part of it."""
        wrong = [wrong_outputs(e) for e in (self.first, *self.more)] if self.output is None else []
        if not wrong or len(wrong[0]) != 1 or any(wrong[0] != others for others in wrong if others):
            return []
        (output,) = wrong[0]
        part = Gradient(self.spec, of(through(self.first.observation, output)), self.failing, self.passing, output)
        return [f"what the upstream cotangent of output {output} gives is wrong, and what the others give is right", *part.sentences()]

    def _by_itself(self, leaf: int) -> str | None:
        """What names the mistake with this cotangent alone in view."""
        certain = self._pattern(leaf, EXACT) or self._where_values(leaf) or self._factor(leaf) or self._not_finite(leaf)
        return certain or self._pattern(leaf, FACTS, agreed=False) or self._pattern(leaf, WHAT)

    @functools.cached_property
    def _whole(self) -> list[str]:
        """What explains the cotangents of all arguments at once. What is not linear is no sum of paths."""
        linear = all(patterns.not_linear(self.first, leaf) is None for leaf in range(len(self.first.names)))
        return self._as_if() or (self._paths() if linear else [])

    def _of_one(self, leaf: int) -> str | None:
        return self._pattern(leaf, NONLINEAR, agreed=False) or self._as_if_of(leaf) or self._varying_factor(leaf)

    def _seen(self, leaf: int) -> str | None:
        """What the numbers look like."""
        if seen := only_at([self.first, *self.more, *self._right], leaf) or self._pattern(leaf, SHAPE):
            return seen
        telling = sorted([self.first, *self._telling(leaf)], key=lambda e: -e.want[leaf].size)
        told = [places.where(e, leaf) for e in telling if e is telling[0] or e.want[leaf].size >= SHOWS]
        place = told[0]  # of the largest array: in one of two rows, "only the first" and "all but the last" are the same
        if place and all(_alike(other, place) or str(other).startswith(places.SINGLE) for other in told[1:]):
            return place + value_there(telling, leaf, [e.wrong_elements(leaf) for e in telling])
        if shared := in_common([self.first, *self.more, *self._right], leaf):
            return shared
        return f"{place}, and others in other cases: {LOOK}" if place else None

    def _telling(self, leaf: int) -> list[Evidence]:
        """The other cases in which this cotangent is wrong, too."""
        return [e for e in self.more if e.wrong(leaf)]

    def _pattern(self, leaf: int, tried: Sequence[Pattern], agreed: bool = True) -> str | None:
        for pattern in tried:
            sentence = pattern(self.first, leaf)
            if sentence and (not agreed or all(_alike(pattern(e, leaf), sentence) for e in self._telling(leaf))):
                return sentence
        return None

    def _not_finite(self, leaf: int) -> str | None:
        sentence = patterns.not_finite(self.first, leaf)
        beyond = max(map(_largest, self.passing), default=np.inf)
        if sentence and min(map(_largest, self.failing)) > beyond:
            return f"{sentence}: something overflows or vanishes on the way, as only inputs beyond {beyond:.3g} fail"
        return sentence

    def _where_values(self, leaf: int) -> str | None:
        """Where this cotangent is wrong, of failing and passing cases together; or of those alone that have the same options, which may move a border."""
        if told := at_values([self.first, *self.more, *self._right], leaf):
            return told
        told = at_values(self._of_same_options, leaf) if self._of_same_options else None
        return told and f"{told} (with {', '.join(f'{name}={value!r}' for name, value in self.first.observation.case.options.items())})"

    @functools.cached_property
    def _right(self) -> list[Evidence]:
        ordinary = [case for case in self.passing if not case.stress]
        given = self.first.observation.case.options  # with others, what is wrong here may be right
        ordinary = [case for case in ordinary if case.options == given] or ordinary
        return [e for case in ordinary[-RIGHT:] if (e := self._gathered(case)) is not None]

    @functools.cached_property
    def _of_same_options(self) -> list[Evidence]:
        """Cases with the first one's options, the largest failing ones among them; none where all in view have these."""
        first = self.first.observation.case
        if all(e.observation.case.options == first.options for e in (*self.more, *self._right)):
            return []
        alike = [case for case in self.failing if case.options == first.options and case.address != first.address]
        gathered = (self._gathered(case) for case in sorted(alike, key=elements)[-OTHERS:])
        return [self.first, *(e for e in (*gathered, *self._right) if e is not None and e.observation.case.options == first.options)]

    def _gathered(self, case: Case) -> Evidence | None:
        """Of a case with the same arguments: in others one is None, and a cotangent's number is another's."""
        e = gather(self.spec, case)
        if e is None or e.names != self.first.names:
            return None
        return e if self.output is None else of(through(e.observation, self.output))

    @functools.cached_property
    def _tries(self) -> list[tuple[Evidence, list[Try]]]:
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
        found: Explained = paths(self.first)
        for e in self.more:
            if found and any(e.wrong(leaf) for leaf in range(len(e.names))):
                others = paths(e, found)
                found = {key: text for key, text in found.items() if key in others}
        return list(found.values())[:1]

    def _mends(self) -> list[str]:
        """One change of the rule's own source that would make it right, in all cases."""
        if self.output is not None:
            return []
        wrong = [e for e in self.more if any(e.wrong(leaf) for leaf in range(len(e.names)))]
        try:
            return mends([self.first, *wrong], self._right[:1])
        except Exception:  # it runs the user's program in ways that nobody foresaw
            fault.warn()
            return []

    def _varying_factor(self, leaf: int) -> str | None:
        shared = [varying(e, leaf) for e in (self.first, *self._telling(leaf))]
        return factor_sentence({name: 1.0 for name in shared[0] if all(name in others for others in shared)})

    def _factor(self, leaf: int) -> str | None:
        """A constant factor, read in the sizes of all failing cases at once: sqrt(H) and 2 are the same at H = 4 only."""
        readings = factors(self.first, leaf)
        for e in self._telling(leaf) if readings else ():
            shared = factors(e, leaf)
            readings = {name: ratio for name, ratio in readings.items() if name in shared}
        if len(readings) > 1 and not self._telling(
            leaf
        ):  # sizes that are seen once may stand for any number: even a small case tells them apart
            sizes = self.first.observation.case.sizes
            gathered = (self._gathered(case) for case in self.failing if case.sizes != sizes)
            other = next((e for e in gathered if e is not None), None)
            if other is not None and (shared := factors(other, leaf)):
                readings = {name: ratio for name, ratio in readings.items() if name in shared} or readings
        return factor_sentence(readings)


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
