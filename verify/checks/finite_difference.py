"""Does the gradient agree with differences of the function's own values?

Independent of JAX's autodiff, of the reference's derivative and of any custom rule: only values of the function enter. The rule's gradient is projected on a
random direction through all arguments and compared with the extrapolated central difference. Where that cannot bound its own error (a kink nearby,
a value that is not finite) it abstains. Where it contradicts both the rule and the reference's autodiff, the oracles disagree and nobody is accused; where
it contradicts autodiff of the primal only (which reads bits, say, or stops a gradient), and each single element agrees with the rule, the rule is right;
and one that is far from both is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verify.checks.along import judge_slope, merged
from verify.observation import Observation
from verify.oracles.agreement import DISAGREE, contradiction, differences_tell
from verify.oracles.autodiff import at_kink
from verify.oracles.finite_difference import slope
from verify.records import Finding, Status
from verify.slopes import Slope, slopes_along
from verify.values import largest, wide

CODE, NAME, TITLE = "V004", "finite-difference", "the gradient agrees with differences of the function's values"
FAR = 1e-2  # relative: a rule that is so far from differences and from autodiff, which contradict one another, is right by neither


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and bool(observation.slopes) and differences_tell(observation)


def judge(observation: Observation) -> list[Finding]:
    if at_kink(observation):
        message = "the inputs lie on a kink, where differences to both sides disagree"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=observation.case.address)]
    if not any(x.size for x in observation.diff):
        return [Finding(check=NAME, status=Status.SKIP, message="the arrays have no elements", address=observation.case.address)]
    if disagreement := contradiction(observation):
        return [_third_witness(observation, disagreement)]
    abstains = Status.INCONCLUSIVE if observation.truth is None else Status.SKIP
    return merged(_judged(observation, observation.slopes, abstains))


def _judged(observation: Observation, slopes: Sequence[Slope], abstains: Status) -> list[Finding]:
    return [judge_slope(NAME, observation, s.direction, *slope(s), "finite differences", abstains) for s in slopes]


def _third_witness(observation: Observation, disagreement: str) -> Finding:
    """Autodiff of the reference contradicts the function's values: a rule that follows these, in every element that is looked at, is right (frexp of bits)."""
    program = observation.exact_program
    if program is not None and observation.measured[0].dtype == "float64" and not observation.call.has_reference:
        cts = observation.cts["base"]
        slopes = slopes_along(program, observation.case, observation.diff, observation.rest, cts, "primal", "float64", every=True)
        found = _judged(observation, slopes, Status.INCONCLUSIVE)
        if all(finding.status is Status.PASS for finding in found):
            return replace(
                merged(found)[0], message=f"the rule follows the function's values; JAX's autodiff of the primal does not ({disagreement})"
            )
        accused = next((finding for finding in found if finding.status is Status.FAIL and _far_off(finding)), None)
        if accused is not None and _far_from_autodiff(observation):
            return replace(accused, message=f"{accused.message}; {DISAGREE}, as JAX's autodiff of the primal is neither")
    return Finding(check=NAME, status=Status.INCONCLUSIVE, message=disagreement, address=observation.case.address)


def _far_off(finding: Finding) -> bool:
    return (
        finding.got is not None
        and finding.want is not None
        and abs(finding.got - finding.want) > FAR * max(abs(finding.want), abs(finding.got))
    )


def _far_from_autodiff(observation: Observation) -> bool:
    assert observation.truth is not None
    pairs = zip(observation.measured[0].runs["base"]["rule"], observation.truth["base"]["reference"], strict=True)
    return any(bool(np.any(np.abs(wide(got) - want) > FAR * largest(want if np.any(want) else got))) for got, want in pairs)
