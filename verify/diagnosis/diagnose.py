"""The order in which explanations are tried, and the sentences they make together."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from verify.cases import Case, with_sizes
from verify.checks.second_order import POINTS, looked_at
from verify.diagnosis import fault
from verify.diagnosis.elsewhere import elsewhere
from verify.diagnosis.evidence import gather
from verify.diagnosis.factors import constant_ratio
from verify.diagnosis.gradient import Gradient
from verify.diagnosis.patterns import ZERO
from verify.diagnosis.trigger import of_values, trigger
from verify.observation import Observation
from verify.observe import observe
from verify.records import Finding
from verify.spec import Spec, SpecError
from verify.tolerance import EPS

BEYOND_BLOCKS = 11  # a size above 8, and no multiple of a block
WHERE = re.compile("wrong (exactly|only) where")  # elements
GRADIENT_CHECKS = ("gradient", "finite-difference", "adjoint", "taylor", "complex-step")


def diagnose(spec: Spec, check: str, finding: Finding | None, failing: Sequence[Case], cases: Sequence[tuple[Case, bool]]) -> str:
    """Sentences that name the mistake, or "" where none is recognised. `failing` are cases that fail the check, the most telling first; `finding` is
    what the check says of the smallest one; `cases` are all that ran, and whether they failed.

    A fault in a diagnosis is a warning: the verdict stands without it.
    """
    try:
        with np.errstate(all="ignore"):
            if check in GRADIENT_CHECKS:
                sentences = _gradient(spec, failing, [case for case, failed in cases if not failed])
            elif check == "primal":
                sentences = _forward(observe(spec, failing[0]))
            else:
                ordinary = any(not failed and looked_at(case) and case.style not in POINTS for case, failed in cases)
                at_points = ordinary and all(case.style in POINTS for case in failing)
                sentences = elsewhere(finding, at_points) if finding else []
        when = trigger(cases)
        if when and of_values(when) and any(WHERE.search(sentence) for sentence in sentences):
            when = None  # which elements says more than which cases
        return ". ".join(sentence[0].upper() + sentence[1:] for sentence in [*sentences, *([when] if when else [])])
    except Exception:
        fault.warn()
        return ""


def _gradient(spec: Spec, failing: Sequence[Case], passing: Sequence[Case]) -> list[str]:
    if (first := gather(spec, failing[0])) is None:
        return []
    sentences = Gradient(spec, first, failing, passing).sentences()
    if any(ZERO in sentence for sentence in sentences) and (larger := _larger(spec, failing[0])):
        more = gather(spec, larger)
        if more is not None and any(more.wrong(leaf) for leaf in range(len(more.names))):
            return Gradient(spec, more, [larger], passing).sentences() or sentences
    return sentences


def _larger(spec: Spec, case: Case) -> Case | None:
    """A larger case of the same spec: what is 0 in small ones may be a block that did not fit."""
    sizes = {
        name: min(spec.sizes.get(name, (1, BEYOND_BLOCKS))[1], BEYOND_BLOCKS) for name, size in case.sizes.items() if isinstance(size, int)
    }
    try:
        return with_sizes(spec, case, {**case.sizes, **sizes})
    except SpecError:  # outside of the function's domain
        return None


def _forward(observation: Observation) -> list[str]:
    """What the forward rule returns instead of the primal."""
    runs = observation.measured[0].runs["base"]
    for forward, primal in zip(runs["out"], runs["primal"], strict=True):
        factor = constant_ratio(forward, primal)
        if factor is not None and abs(factor - 1) > EPS[observation.measured[0].dtype]:
            return [f"the forward rule returns {factor:.6g} times what the primal returns"]
    return []
