"""The smallest relative error of a whole cotangent that the verification catches, in each dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from verify.judging import judge
from verify.merging import JUDGES
from verify.power.ends import relative
from verify.power.mutant import Edit, mutated
from verify.power.plan import Plan
from verify.power.screen import Prepared
from verify.values import largest

TRIED = 2  # cases for each cotangent: more of them would catch smaller errors still
USUAL = "unit"  # the style in which users' dtypes hold values as activations are; at extreme ones little but infinities can be judged there
NOTABLE = 1e-3  # of the case's largest cotangent: below, a check may rightly look away (the bias of a softmax over one element)
RUNGS = {"float64": tuple(10.0**-k for k in range(1, 15))}
COARSE_RUNGS = tuple(2.0**-k for k in range(1, 21))


def smallest_caught(plan: Plan) -> dict[str, float | None]:
    """dtype -> the size, the worst over the arguments that cases have in this dtype; None if there are none, or one is not caught at any size."""
    result: dict[str, float | None] = {}
    paths = list(dict.fromkeys(path for prepared in plan.cases for path in prepared.paths))
    for dtype in ("float64", *(dtype for dtype in plan.spec.dtypes if dtype != "mixed")):
        with_cases = [(path, cases) for path in paths if (cases := _cases(plan, path, dtype))]
        worst = max((_smallest(plan, path, dtype, cases) for path, cases in with_cases), default=math.inf)
        result[dtype] = worst if math.isfinite(worst) else None
    return result


def _cases(plan: Plan, path: str, dtype: str) -> list[Prepared]:
    """The cheapest in float64; in users' dtypes, those of usual values with the most elements, as rounding hides less in many, and extreme ones last."""
    found = [prepared for prepared in plan.cases if prepared.case.dtype == dtype and _notable(prepared, path)]
    if dtype != "float64":
        usual = [prepared for prepared in found[::-1] if prepared.case.style == USUAL]
        found = [*usual, *sorted((p for p in found if p.case.style != USUAL), key=lambda p: p.case.stress)]
    return found[:TRIED]


def _smallest(plan: Plan, path: str, dtype: str, cases: Sequence[Prepared]) -> float:
    """In float64 of all cases; in users' dtypes of the first that catches any."""

    selected = tuple(check for check in plan.selected if check.NAME in JUDGES)  # it is as wrong under every transformation as without

    def last(some: Sequence[Prepared]) -> float:
        def caught(size: float) -> bool:
            spec = mutated(plan.spec, Edit("cotangent", path, relative(size, dtype)))
            return any(judge(spec, prepared.case, selected).failed for prepared in some)

        return _last(RUNGS.get(dtype, COARSE_RUNGS), caught)

    if dtype == "float64":
        return last(cases)
    return next((size for one in cases if math.isfinite(size := last([one]))), math.inf)


def _notable(prepared: Prepared, path: str) -> bool:
    """It is there, and more than the rounding of the others."""
    return path in prepared.paths and largest(prepared.want[prepared.paths.index(path)]) > NOTABLE * max(map(largest, prepared.want))


def _last(rungs: Sequence[float], caught: Callable[[float], bool]) -> float:
    """The smallest size that is caught, infinity if none is; by bisection, as what is caught at one size is caught at larger ones."""
    low, high = -1, len(rungs)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if caught(rungs[middle]) else (low, middle)
    return rungs[low] if low >= 0 else math.inf
