"""Does the gradient agree with differences of the function's own values?

Independent of JAX's autodiff, of the reference's derivative and of any custom rule: only values of the function enter. The rule's gradient is projected on a
random direction through all arguments and compared with the extrapolated central difference. Where that cannot bound its own error (a kink nearby,
a value that is not finite) it abstains. Where it contradicts both the rule and the reference's autodiff, the oracles disagree and nobody is accused.
"""

from __future__ import annotations

from verify.checks.along import judge_slope, merged
from verify.observe import Observation
from verify.oracles.agreement import contradiction, differences_tell
from verify.oracles.autodiff import at_kink
from verify.oracles.finite_difference import slope
from verify.records import Finding, Status

CODE, NAME, TITLE = "V004", "finite-difference", "the gradient agrees with differences of the function's values"


def applies(observation: Observation) -> bool:
    return bool(observation.measured) and bool(observation.slopes) and differences_tell(observation)


def judge(observation: Observation) -> list[Finding]:
    if at_kink(observation):
        message = "the inputs lie on a kink, where differences to both sides disagree"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=observation.case.address)]
    if not any(x.size for x in observation.diff):
        return [Finding(check=NAME, status=Status.SKIP, message="the arrays have no elements", address=observation.case.address)]
    if disagreement := contradiction(observation):
        return [Finding(check=NAME, status=Status.INCONCLUSIVE, message=disagreement, address=observation.case.address)]
    abstains = Status.INCONCLUSIVE if observation.truth is None else Status.SKIP
    return merged(
        [
            judge_slope(NAME, observation, measured.direction, *slope(measured), "finite differences", abstains)
            for measured in observation.slopes
        ]
    )
