"""Every numeric constant that decides a verdict, each with its reason. No other module holds one.

A gradient computed in a dtype with spacing `eps` differs from the exact one by rounding, and how much depends on the function: a sum that
cancels amplifies it. So no constant is applied to the value alone. The amplification is measured: the oracle is evaluated again on inputs moved
by an ulp or two, which leaves the derivative alone (up to its conditioning) and draws every rounding error anew. The spread is the noise.

float64, per element:   bound = RELATIVE_64 |want|  +  NOISE_FACTOR noise  +  FLOOR_ULPS eps scale
    A wrong formula is wrong by 1e-8 and more, rounding by 1e-14: RELATIVE_64 lies between, and is what makes an error detectable.
    `scale` = max|cotangent| max|output| / rms(argument) has the units of the gradient (more for large arguments, up to SATURATION; at least HIDDEN max|cotangent|, at extreme
    arguments all of it). It matters only where the exact gradient is 0 by cancellation and another order of operations leaves a rounding residue.
lower precision:        bound = LOW_FACTOR noise  +  LOW_ULPS eps |want|  +  LOW_FLOOR_ULPS eps scale  +  TINY_ULPS tiny
    `noise` is the error that JAX's autodiff of the reference makes in the same dtype on the same inputs, measured against the float64 truth,
    or, if larger, what moving the inputs by an ulp of that dtype does to the truth: a stable algorithm may be off by that much. (The
    worst of several samples over the whole array, since a single sample can be right by luck.)
No bound grows with the size of an array; a sum's noise grows by itself, as it is measured.
"""

from __future__ import annotations

import numpy as np

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
HUGE = {"float64": 1.7e308, "float32": 3.4e38, "bfloat16": 3.3e38, "float16": 65504.0}
TINY = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-24}
SMALLEST_NORMAL = {"float32": 2.0**-126, "bfloat16": 2.0**-126}  # below it XLA:CPU reads and writes 0

RELATIVE_64 = 2.0**-33  # 1.2e-10: 2^19 ulp, far above rounding of a stable formula, a tenth of the 1e-9 that must be seen
SMOOTH_SECOND = 2.0**-20  # differences of a gradient accuse only where they are so exact: many kinks at once nearly cancel, and no more
RELATIVE_64_SECOND = 2.0**-29  # second derivatives divide by one more small number
NOISE_FACTOR = 16.0  # the rule may round differently than the reference: sixteen times the largest of JITTERS samples
FLOOR_ULPS = 2.0**9
FLOOR_ULPS_SECOND = 2.0**13  # a second derivative passes through products of two arguments, such as logits: larger than any argument
JITTERS = 4
JITTER_ULPS = 2.0
SHORT_STEP = 2.0**-26  # relative: the square of it, and of sixteen times it, is below what is called an error
SHORT_STEP_EXTREME = 2.0**-14  # likewise, where values of any magnitude stand side by side
NEARLY_0 = 1e-10  # values below it are moved by ulps of their own: they stay on their side of 0

# A rule may be this much noisier than autodiff in its own dtype, where autodiff is at its noisiest. In float32 as in float64: the rule of log_ndtr that JAX itself ships is seven
# times as noisy. 16 bits have no room for that.
LOW_FACTOR = {"float32": 16.0, "bfloat16": 4.0, "float16": 4.0}
LOW_ILL = 0.25  # in low precision: an element whose noise is this part of the array's largest is ill-determined by itself
LOW_ULPS = 4.0
# A zero that is the difference of two terms, each the product of two rounded factors.
LOW_FLOOR_ULPS = {"float32": 16.0, "bfloat16": 4.0, "float16": 4.0}
UNMEASURED = 8.0  # in low precision, of a kernel or without a reference: how much more than a few ulps rounding may be that nobody measured
STEEPEST = 16.0  # in low precision: an element so many times smaller than its array may have a gradient so many times larger
TINY_ULPS = 4.0
SHARED = 8  # elements from which on a factor that they share is no accident of rounding
SHARED_ULPS = 16.0  # in 16 bits: by how much a common factor may be off
SHARED_REST = 4.0  # and it must stand out of what it leaves over by this much
# float32: a rule that recomputes exp(score - output) is off by eps times the larger of them, which is allowed for up to this size, or at extreme inputs the other.
RECOMPUTED = 2.0**6
RECOMPUTED_EXTREME = 2.0**12
RECOMPUTED_64 = 2.0**22  # likewise in float64 at huge inputs, which are below it: 4e-9 of the array's largest
UNDERFLOW_64 = 2.0**-980  # float64: what sums of underflowing terms may lose, far below any gradient of interest

SAME_PATH = 1e-9  # relative: gradients that agree to it are cut at the same path; it decides words of a diagnosis, no verdict
CANNOT_TELL = 1e-3  # an oracle whose own error exceeds this part of the gradient's size abstains

SINGULAR_DRIFT = 0.1  # autodiff is wrong at a point if it is off the one-sided limits by ten times what they still change near it
SIDE_STEPS = (
    2.0**-37,
    2.0**-40,
)  # how near the one-sided gradients are taken: no difference is formed, so nothing is lost, and no smooth floor (1e-6) is stepped over
FAR_SIDE = 2.0**-14  # a derivative that is the limit of both sides is so there, too, up to its smoothness
KINK_HALVES = 8  # ways of moving one half of the inputs and then the other, to see which kinks are an element's own
SHARED_KINK = 8.0  # a kink of several elements: what some directions enclose, so many times over, holds every subgradient (a sum over n kinks, n up to 300)
KINK_JUMP = 1e-3  # a gradient that jumps by this part of itself between the two sides of a point has a kink there
# and by this part of the array's scale: less is rounding. In float64 an element may be a hundred-millionth of its array's largest, and is still compared.
KINK_FLOOR = {"float64": 1e-11, "float32": 1e-6, "bfloat16": 1e-6, "float16": 1e-6}

# Cotangents are multiples of 2^-CT_BITS up to 3: combinations of two are exact in the dtype, and a cotangent that is rounded to a coarser one shows.
CT_BITS = {"float64": 40, "float32": 10, "bfloat16": 3, "float16": 3}
# A cotangent times 2^CT_SCALE and divided by it: a power of two changes no rounding, so a linear backward follows exactly.
CT_SCALE = {"float64": 40, "float32": 20, "bfloat16": 20, "float16": 4}

HIDDEN = 0.25  # float64: of the cotangent, the gradient that something inside of a function may have although the function's own is 0
SATURATION = 1e3  # float64: how much larger than cotangent * output / argument a gradient's rounding may be where large arguments saturate
GROSS = 0.9  # an error of so much of a value is no rounding
ONE_VALUE = 1e-4  # two values that differ by more of themselves, and by 1e-3 of it of the largest, are those of two functions
NEAR_HUGE = 2.0**-4  # a derivative this far below the dtype's largest number must come out finite

# Finite differences: central, steps FIRST_STEP * STEP_RATIO**-k relative to the argument. The first is limited by truncation, the last by
# rounding (eps/h = 3e-11); kinks are crossed by long steps only, so the tableau finds the range where the function is smooth.
FIRST_STEP = 2.0**-5
STEP_RATIO = 8.0
STEPS = 5
LONG_RATIO = 4.0  # where a formula cancels near the inputs: longer steps, down to 5e-4
LONG_STEPS = 4
DOUBTED = 16  # so many doubtful elements are differenced by such steps; where there are more, nobody knows
NEAR_0 = 2.0**-10  # elements below it may lie where a formula cancels around 0
SLOPE_FACTOR = 4.0  # the extrapolation's own error estimate is an estimate: allow four times it
SLOPE_NOISE_ULPS = 8.0
TAYLOR_ABOVE_NOISE = 64.0  # a remainder must stand out of rounding by this factor before its order means anything
TAYLOR_LINEAR = (0.8, 1.2)  # orders that speak of a wrong gradient, between three steps in a row
COMPLEX_STEP = 2.0**-70  # relative to the direction: its square is below 2^-52 of anything
COORDINATES = 64  # without an autodiff oracle, so many single elements are differenced

# "Smallest detectable error" speaks of elements of at least this part of their array's largest: below it, rounding of the large ones hides them.
CONSIDERED = {"float64": 1e-3, "float32": 1e-3, "float16": 2.0**-5, "bfloat16": 2.0**-2}


def noise_bound(want: np.ndarray, noise: np.ndarray, scale: float | np.ndarray, dtype: str = "float64", second: bool = False) -> np.ndarray:
    """How far a right rule may lie from `want`, per element; `noise` and `scale` as in the module's docstring."""
    size = np.abs(want)
    if dtype == "float64":
        relative = RELATIVE_64_SECOND if second else RELATIVE_64
        floor = FLOOR_ULPS_SECOND if second else FLOOR_ULPS
        return relative * size + NOISE_FACTOR * noise + floor * EPS[dtype] * scale + UNDERFLOW_64
    return LOW_FACTOR[dtype] * noise + LOW_ULPS * EPS[dtype] * size + LOW_FLOOR_ULPS[dtype] * EPS[dtype] * scale + TINY_ULPS * TINY[dtype]


def abstain(want: np.ndarray, error: np.ndarray, dtype: str, scale: float | np.ndarray) -> np.ndarray:
    """`error`, infinite where it is so large that the oracle cannot tell right from wrong, where there is no finite value, or none in the dtype."""
    size = np.abs(want)
    largest = float(np.max(size[np.isfinite(size)], initial=0.0))
    useless = ~np.isfinite(want) | ~np.isfinite(error) | (size + error > HUGE[dtype])
    if dtype == "float64":
        useless |= error > np.maximum(CANNOT_TELL * np.maximum(largest, scale), 2 * UNDERFLOW_64)
    return np.where(useless, np.inf, error)


def smoothed(samples: np.ndarray, want: np.ndarray, ill: float = CANNOT_TELL) -> np.ndarray:
    """Noise per element from samples (first axis) of its error: the largest one, and at least the array's level.

    A sample can be right by luck, so an element counts as noisy as the noisiest of its array; elements that are ill-determined by themselves
    (a tie that the rounding breaks: noise above `ill` of the largest value) do not count for the others.
    """
    worst = np.max(np.abs(samples), axis=0)
    size = np.abs(want)
    limit = ill * float(np.max(size[np.isfinite(size)], initial=0.0)) if np.isfinite(ill) else np.inf
    level = float(np.max(worst[np.isfinite(worst) & (worst <= limit)], initial=0.0))
    return np.maximum(worst, level)


def detectable(want: np.ndarray, bound: np.ndarray, dtype: str) -> float | None:
    """The smallest relative error seen in any element that matters: the worst ratio of bound to value."""
    size = np.abs(want)
    if not size.size or not np.isfinite(size).any():
        return None
    largest = np.max(size[np.isfinite(size)])
    matters = np.isfinite(size) & np.isfinite(bound) & (size >= CONSIDERED.get(dtype, CONSIDERED["bfloat16"]) * largest) & (size > 0)
    return float(np.max(bound[matters] / size[matters])) if matters.any() else None
