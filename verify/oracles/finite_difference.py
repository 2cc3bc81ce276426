"""Central differences, extrapolated to step 0, with an error estimate; no derivative code of anybody is trusted.

With d(h) = (f(x + h v) - f(x - h v)) / 2h = f'(x) v + c2 h^2 + c4 h^4 + ..., Neville's tableau over steps h, h/r, h/r^2, ... removes one even
power per column (Ridders 1982, doi:10.1016/S0141-1195(82)80057-0). The entry whose neighbours differ least is taken; that difference, and the
rounding of f divided by the step, bound its error. A kink at x itself leaves central differences smooth in h, so one-sided differences are
compared too: their gap, extrapolated to h = 0 from the two shortest steps, is the jump of the derivative, and half of it is added to the error. A kink nearer to x than
all steps of the entry but not than the shortest step looks the same in that entry: there a gap that does not shrink with the step is one. Where the second derivative
jumps at x, d(h) has a term in h: two extrapolated entries may agree by chance, and what shorter steps say against them bounds the error, too.
"""

from __future__ import annotations

import numpy as np

from verify.slopes import Slope
from verify.tolerance import SLOPE_FACTOR, SLOPE_NOISE_ULPS


def slope(measured: Slope) -> tuple[float, float]:
    """The derivative along the direction, and a bound on its error (infinite where the function is not finite around x)."""
    steps = measured.steps
    central = (measured.ahead - measured.behind) / (2 * steps)
    rounding = SLOPE_NOISE_ULPS * measured.rounding / steps
    best, error, taken = 0.0, float("inf"), len(steps) - 1
    previous: list[float] = []
    for k in range(len(steps)):
        row = [float(central[k])]
        for j in range(1, k + 1):
            ratio = (steps[k - j] / steps[k]) ** 2
            row.append(row[j - 1] + (row[j - 1] - previous[j - 1]) / (ratio - 1))
            spread = max(abs(row[j] - row[j - 1]), abs(row[j] - previous[j - 1])) + float(rounding[k])
            if np.isfinite(row[j]) and spread < error:
                best, error, taken = row[j], spread, k
        previous = row
    shorter = range(taken + 1, len(steps))
    against = [abs(best - central[k]) - abs(central[k] - central[k - 1]) * steps[k] / steps[k - 1] - rounding[k] for k in shorter]
    error = max(error, *against, 0.0)
    jump = max(_jump(measured, len(steps) - 1), _jump(measured, taken, shrinking=False))
    return best, SLOPE_FACTOR * (error + jump) if np.isfinite(error) else float("inf")


def _jump(measured: Slope, k: int, shrinking: bool = True) -> float:
    """Half the gap between the one-sided derivatives at x, as step k and the one before show it: 0 up to O(h^2) and rounding where the function is smooth.

    Without `shrinking`, 0 also where the gap at the shorter step is below half of that at the longer one, as those of smooth functions are.
    """
    (far, near), (gap_far, gap_near) = (
        measured.steps[k - 1 : k + 1],
        (measured.ahead + measured.behind)[k - 1 : k + 1] / measured.steps[k - 1 : k + 1],
    )
    if not shrinking and abs(gap_near) < abs(gap_far) / 2:
        return 0.0
    ratio = far / near
    at_zero = (ratio * gap_near - gap_far) / (ratio - 1)
    noise = 8 * SLOPE_NOISE_ULPS * measured.rounding / near
    return max(abs(float(at_zero)) - noise, 0.0) / 2 if np.isfinite(at_zero) else float("inf")
