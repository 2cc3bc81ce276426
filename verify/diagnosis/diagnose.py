"""The order in which explanations are tried, and the sentences they make together."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from verify.cases import Case
from verify.diagnosis import patterns
from verify.diagnosis.dropped_path import dropped_path
from verify.diagnosis.elsewhere import elsewhere
from verify.diagnosis.evidence import Evidence, gather
from verify.diagnosis.products import wrong_product
from verify.diagnosis.trigger import trigger
from verify.observe import Observation, observe
from verify.records import Finding
from verify.spec import Spec
from verify.tolerance import EPS

GRADIENT_CHECKS = ("gradient", "finite-difference", "adjoint", "taylor", "complex-step")
WHAT: tuple[Callable[[Evidence, int], str | None], ...] = (
    patterns.not_finite,
    patterns.zero,
    patterns.ignores_cotangent,
    patterns.permuted,
    patterns.conjugate,
    patterns.not_linear,
    patterns.transposed,
    wrong_product,
    patterns.reduced,
)
SHAPE: tuple[Callable[[Evidence, int], str | None], ...] = (patterns.at_values, patterns.where, patterns.constant_error)


def diagnose(spec: Spec, check: str, finding: Finding | None, failing: Sequence[Case], cases: Sequence[tuple[Case, bool]]) -> str:
    """Sentences that name the mistake, or "" where none is recognised. `failing` are cases that fail the check, the most telling first; `finding` is
    what the check says of the smallest one; `cases` are all that ran, and whether they failed.

    A fault in a diagnosis is a warning: the verdict stands without it.
    """
    try:
        with np.errstate(all="ignore"):
            if check in GRADIENT_CHECKS:
                sentences = _gradient(spec, observe(spec, failing[0]), failing[1:3])
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


def _gradient(spec: Spec, observation: Observation, others: Sequence[Case]) -> list[str]:
    evidence = gather(observation)
    if evidence is None:
        return []
    wrong = [leaf for leaf in range(len(evidence.names)) if evidence.wrong(leaf)]
    path: list[str] = []
    found: list[str] = []
    for leaf in wrong:
        sentence = _factor(spec, evidence, leaf, others) or next((text for what in WHAT if (text := what(evidence, leaf))), None)
        if sentence is None and not path:
            path = [text] if (text := dropped_path(evidence)) and _holds_elsewhere(spec, text, others) else []
        sentence = sentence or next((text for what in SHAPE if (text := what(evidence, leaf))), None)
        if sentence:
            found.append(f"the cotangent of {evidence.names[leaf]}: {sentence}")
    return path or found[:3]


def _holds_elsewhere(spec: Spec, sentence: str, others: Sequence[Case]) -> bool:
    """Whether another failing case gives the same path: at d = 2, "twice" and "times d" are the same."""
    found = (dropped_path(evidence) for case in others[:1] if (evidence := gather(observe(spec, case))) is not None)
    return all(other is not None and other.split(" (and")[0] == sentence.split(" (and", maxsplit=1)[0] for other in found)


def _forward(observation: Observation) -> list[str]:
    """What the forward rule returns instead of the primal."""
    runs = observation.measured[0].runs["base"]
    for forward, primal in zip(runs["out"], runs["primal"], strict=True):
        factor = patterns.constant_ratio(forward, primal)
        if factor is not None and abs(factor - 1) > EPS[observation.measured[0].dtype]:
            return [f"the forward rule returns {factor:.6g} times what the primal returns"]
    return []


def _factor(spec: Spec, evidence: Evidence, leaf: int, others: Sequence[Case]) -> str | None:
    """A constant factor, read in the sizes of all failing cases at once: sqrt(H) and 2 are the same at H = 4 only."""
    readings = patterns.factors(evidence, leaf)
    for case in others:
        if not readings:
            break
        more = gather(observe(spec, case))
        if more is not None:
            shared = patterns.factors(more, leaf)
            readings = {name: ratio for name, ratio in readings.items() if name in shared}
    return patterns.factor_sentence(readings)
