"""Does the same call give the same bits twice?

State kept outside of the arrays (a counter, a cache, an unseeded random number, a buffer written in place) makes the second gradient another one.
"""

from __future__ import annotations

import numpy as np

from verify.checks.compare import subscript
from verify.observation import Observation
from verify.records import Finding, Status
from verify.values import wide

CODE, NAME, TITLE = "V007", "repeatability", "the same call gives the same bits twice"


def applies(observation: Observation) -> bool:
    return bool(observation.measured)


def judge(observation: Observation) -> list[Finding]:
    address, failures, compared = observation.case.address, [], 0
    for measured in observation.measured:
        first, second = measured.runs["base"], measured.runs["repeat"]
        for key, what in (("rule", "the cotangent of"), ("out", "output")):
            names = observation.call.names if key == "rule" else [str(k) for k in range(len(first[key]))]
            for name, a, b in zip(names, first[key], second[key], strict=True):
                a, b = wide(a), wide(b)
                compared += a.size
                differs = ~((a == b) | (np.isnan(a) & np.isnan(b)))
                if differs.any():
                    index = tuple(int(i) for i in np.argwhere(differs)[0])
                    message = f"{what} {name} is {a[index]:.17g} in one call and {b[index]:.17g} in the next, at {subscript(index) or 'the scalar'}"
                    failures.append(
                        Finding(check=NAME, status=Status.FAIL, message=message, argument=name, index=index, got=float(b[index]), want=float(a[index]),
                                bound=0.0, wrong=int(differs.sum()), comparisons=a.size, dtype=measured.dtype, address=address)
                    )  # fmt: skip
    return failures or [Finding(check=NAME, status=Status.PASS, comparisons=compared, address=address)]
