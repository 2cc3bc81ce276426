"""The order of the Taylor remainder: f(x + h v) - f(x - h v) - 2 h <g, v> = O(h^3) for a right gradient g, O(h) for a wrong one.

Farrell, Ham, Funke & Rognes (SIAM J. Sci. Comput. 35, 2013) verify adjoints so, with one-sided differences and orders 2 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verify.oracles.agreement import project
from verify.oracles.finite_difference import slope as slope_error
from verify.slopes import Slope
from verify.tolerance import CANNOT_TELL, SLOPE_NOISE_ULPS, STEP_RATIO, TAYLOR_ABOVE_NOISE, TAYLOR_LINEAR


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was read off the steps.

    linear: the remainder shrinks like h over the three shortest steps: the gradient is wrong. order: over the shortest steps whose remainders stand out
    of rounding; remainder: at the shortest step. detectable: the smallest relative error of the slope that would have shown.
    """

    linear: bool
    order: float
    remainder: float
    step: float
    detectable: float | None


def orders(measured: Slope, gradient: Sequence[np.ndarray], own: float) -> Order | None:
    """The order of the remainder along the slope's direction, or None where it cannot be told; `own` is what rounding may do to the gradient's slope."""
    slope, size = project(gradient, measured.direction)
    steps = measured.steps
    noise = SLOPE_NOISE_ULPS * (measured.rounding + np.finfo(float).eps * size * steps) + own * steps
    with np.errstate(all="ignore"):
        remainders = np.abs(measured.ahead - measured.behind - 2 * steps * slope)
        if not np.isfinite(remainders[-1]) or not np.isfinite(noise[-1]):
            return None
        visible = remainders > TAYLOR_ABOVE_NOISE * noise
        between = np.log(remainders[:-1] / remainders[1:]) / np.log(STEP_RATIO)
        detectable = (
            float(np.min(np.where(np.isfinite(remainders), TAYLOR_ABOVE_NOISE * noise / (2 * steps), np.inf)) / size) if size else None
        )
    low, high = TAYLOR_LINEAR
    if visible[-1]:
        if not visible[-3:].all():
            return None
        linear = bool(low < between[-1] < high and low < between[-2] < high)
        steady = slope_error(measured)[1] <= CANNOT_TELL * size  # a kink nearby makes a remainder of order 1, too
        if not (linear and steady) and between[-1] <= high:
            return None
        return Order(
            linear=linear and steady,
            order=float(between[-1]),
            remainder=float(remainders[-1]),
            step=float(steps[-1]),
            detectable=detectable,
        )
    usable = np.flatnonzero(visible[:-1] & visible[1:])
    order = float(between[usable[-1]]) if usable.size else 3.0
    return Order(linear=False, order=order, remainder=float(remainders[-1]), step=float(steps[-1]), detectable=detectable)
