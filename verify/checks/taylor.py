"""Does the error of the linear prediction vanish as fast as a right gradient makes it?

f(x + h v) - f(x - h v) - 2 h <g, v> shrinks like h^3 if g is the gradient of a smooth f, and like h if it is not. The order is read off the values at five
steps, each an eighth of the one before; no step size is trusted and no tolerance enters, which settles disputes about finite differences. It sees errors
of about a millionth and more. Where rounding or a kink spoils the order, it abstains.
"""

from __future__ import annotations

import numpy as np

from verify.checks.along import own_error
from verify.observation import Observation
from verify.oracles.agreement import contradiction, differences_tell, project
from verify.oracles.autodiff import at_kink
from verify.oracles.taylor import orders
from verify.records import Finding, Status

CODE, NAME, TITLE = "V012", "taylor", "the remainder of the linear prediction has the order of a right gradient"


def applies(observation: Observation) -> bool:
    return (
        bool(observation.measured)
        and bool(observation.slopes)
        and differences_tell(observation)
        and observation.limit == "float64"
        and not contradiction(observation)
    )


def judge(observation: Observation) -> list[Finding]:
    address, measured = observation.case.address, observation.measured[0]
    if at_kink(observation):
        return [Finding(check=NAME, status=Status.SKIP, message="the inputs lie on a kink, where there is no order", address=address)]
    v, gradient = observation.slopes[0].direction, measured.runs["base"]["rule"]
    seen = orders(observation.slopes[0], gradient, own_error(observation, measured, v, project(gradient, v)[1]))
    if seen is None or not np.isfinite(seen.remainder):
        message = "rounding or a kink nearby hides the order of the remainder"
        return [Finding(check=NAME, status=Status.SKIP, message=message, address=address, dtype=measured.dtype)]
    if not seen.linear:
        return [Finding(check=NAME, status=Status.PASS, comparisons=1, detectable=seen.detectable, address=address, dtype=measured.dtype)]
    message = (
        f"the gradient does not follow the function's values: the remainder of the linear prediction shrinks like h^{seen.order:.2f} (h^3 if the "
        f"gradient is right, h if it is wrong); at h = {seen.step:.2g} it is {seen.remainder:.3g}"
    )
    return [
        Finding(
            check=NAME,
            status=Status.FAIL,
            message=message,
            got=seen.order,
            want=3.0,
            wrong=1,
            comparisons=1,
            address=address,
            dtype=measured.dtype,
        )
    ]
