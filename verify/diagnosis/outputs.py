"""Of functions with several outputs: through which of them is the gradient wrong? A VJP is linear, so it is the sum of what each output's cotangent gives alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verify.diagnosis.evidence import Evidence, of
from verify.observation import Observation, sides_of
from verify.slopes import direction_through


def wrong_outputs(e: Evidence) -> list[int]:
    """The outputs whose upstream cotangents alone give a wrong gradient, if there are others that give a right one; else none."""
    outputs = len(e.cotangents)
    if outputs < 2 or e.observation.exact_program is None or e.observation.measured[0].dtype != "float64":
        return []
    parts = [of(through(e.observation, k)) for k in range(outputs)]
    wrong = [k for k, part in enumerate(parts) if any(part.wrong_elements(leaf).any() for leaf in range(len(part.got)))]
    return wrong if len(wrong) < outputs else []


def through(observation: Observation, output: int) -> Observation:
    """The same case with upstream cotangents that are 0 but for one output's."""
    program, diff, rest = observation.exact_program, observation.diff, observation.rest
    assert program is not None
    cts = {name: [ct if k == output else np.zeros_like(ct) for k, ct in enumerate(some)] for name, some in observation.cts.items()}
    runs = {name: program(diff, rest, ct) for name, ct in cts.items()}
    sides = sides_of(program, direction_through(observation.case, diff), diff, rest, cts["base"])
    measured = replace(observation.measured[0], runs=runs)
    return replace(observation, cts=cts, measured=(measured,), truth=runs, sides=sides, found={})
