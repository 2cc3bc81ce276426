"""Does the bound of the finite-difference oracle bound? Against derivatives in closed form."""

import math

import numpy as np
import pytest

from verify.oracles.finite_difference import slope
from verify.slopes import Slope
from verify.tolerance import EPS, FIRST_STEP, STEP_RATIO, STEPS

RUNG = FIRST_STEP * STEP_RATIO ** -np.arange(STEPS)
SMOOTH = {
    "sin": (math.sin, math.cos),
    "exp": (math.exp, math.exp),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "fifth": (lambda x: x**5 - 2 * x, lambda x: 5 * x**4 - 2),
    "tanh": (math.tanh, lambda x: 1 / math.cosh(x) ** 2),
    "atan": (math.atan, lambda x: 1 / (1 + x * x)),
    "runge": (lambda x: 1 / (1 + 25 * x * x), lambda x: -50 * x / (1 + 25 * x * x) ** 2),
    "gauss": (lambda x: math.exp(-x * x), lambda x: -2 * x * math.exp(-x * x)),
    "fast": (lambda x: math.sin(30 * x), lambda x: 30 * math.cos(30 * x)),
    "faster": (lambda x: math.sin(200 * x), lambda x: 200 * math.cos(200 * x)),
    "flat": (lambda x: 3.0, lambda x: 0.0),
    "line": (lambda x: 7 * x - 1, lambda x: 7.0),
    "softplus": (lambda x: math.log1p(math.exp(20 * x)) / 20, lambda x: 1 / (1 + math.exp(-20 * x))),
    "offset": (lambda x: 1e6 + math.sin(x), math.cos),
    "inverse": (lambda x: 1 / (x + 4), lambda x: -1 / (x + 4) ** 2),
}
POINTS = np.linspace(-2.0, 2.0, 41)


def measured(function, x, move=1.0):
    centre = function(x)
    ahead, behind = (np.array([function(x + sign * step * move) - centre for step in RUNG]) for sign in (1, -1))
    return Slope(direction=[np.array(move)], steps=RUNG, ahead=ahead, behind=behind, rounding=EPS["float64"] * abs(centre))


@pytest.mark.parametrize("name", SMOOTH)
def test_the_bound_bounds(name):
    function, derivative = SMOOTH[name]
    for x in POINTS:
        value, error = slope(measured(function, x))
        assert abs(value - derivative(x)) <= error + 8 * EPS["float64"] * abs(derivative(x)), (
            f"{name} at {x}: off by {abs(value - derivative(x)):.2e}, bound {error:.2e}"
        )


@pytest.mark.parametrize("name", sorted(set(SMOOTH) - {"faster", "offset", "flat"}))
def test_the_bound_is_not_so_wide_that_it_says_nothing(name):
    function, derivative = SMOOTH[name]
    errors = [slope(measured(function, x))[1] / max(abs(derivative(x)), 0.1) for x in POINTS]
    assert np.median(errors) < 1e-7


def test_known_values():
    value, error = slope(measured(lambda x: x**2, 3.0))
    assert value == pytest.approx(6.0, abs=1e-9) and error < 1e-7
    assert slope(measured(lambda x: x**2, 3.0, move=-0.5))[0] == pytest.approx(-3.0, abs=1e-9)


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e3, 1e12, -1.0])
def test_scale_changes_nothing(factor):
    one, many = slope(measured(math.sin, 0.5)), slope(measured(lambda x: factor * math.sin(x), 0.5))
    assert many[0] == pytest.approx(factor * one[0], rel=1e-9)
    assert many[1] <= 20 * abs(factor) * one[1]


KINKS = {
    "abs": (abs, -1, 1),
    "relu": (lambda x: max(x, 0.0), 0, 1),
    "leaky": (lambda x: x if x > 0 else 0.01 * x, 0.01, 1),
    "sin of abs": (lambda x: math.sin(abs(x)), -1, 1),
    "corner on a curve": (lambda x: math.exp(x) + 0.1 * abs(x), 0.9, 1.1),
    "small corner": (lambda x: math.sin(x) + 1e-4 * abs(x), 1 - 1e-4, 1 + 1e-4),
}


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_at_the_point_gives_no_false_confidence(name):
    """Both one-sided derivatives must lie within the bound: neither rule is wrong there."""
    function, low, high = KINKS[name]
    value, error = slope(measured(function, 0.0))
    assert value - error <= low and high <= value + error, f"{value} +- {error}"


@pytest.mark.parametrize("distance", [1e-12, 1e-8, 1e-5, 1e-3, 1e-2, 0.1])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_kink_near_the_point(side, distance):
    """The derivative at the point is that of its own side, and has to lie within the bound, unless that is too wide to judge anybody by."""
    value, error = slope(measured(lambda x: abs(x), side * distance))
    assert abs(value - side) <= error or error > 0.1, f"|x| at {side * distance}: {value} +- {error}"


@pytest.mark.parametrize("distance", [*np.geomspace(1e-6, 3e-2, 40)])
@pytest.mark.parametrize("far", [False, True])
def test_a_corner_on_a_curve_near_the_point(distance, far):
    """All steps but the shortest may cross it, and agree with each other as on a smooth function."""

    def function(x):
        return -735 * math.sin(x) / math.cos(distance) + 42 * abs(x) + (150 * abs(x - distance - 0.02) if far else 0.0)

    value, error = slope(measured(function, -distance))
    right = -735 - 42 - (150 if far else 0)
    assert abs(value - right) <= error, f"{value} +- {error}, where {right} is right"


@pytest.mark.parametrize("distance", [1e-6, 1e-4, 1e-3, 0.01])
def test_a_jump_near_the_point(distance):
    value, error = slope(measured(lambda x: math.floor(x) + 0.5 * x, distance))
    assert abs(value - 0.5) <= error, f"{value} +- {error}"


def test_a_cusp_has_no_derivative():
    value, error = slope(measured(lambda x: math.sqrt(abs(x)), 0.0))
    assert error > 1 or not np.isfinite(error), f"{value} +- {error}"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_bounded(bad):
    with np.errstate(all="ignore"):
        value, error = slope(measured(lambda x: bad, 1.0))
    assert np.isinf(error) and not np.isnan(value)


def test_a_domain_that_ends_nearby_is_met_by_the_short_steps():
    def log(x):
        return math.log(x) if x > 0 else math.nan

    with np.errstate(all="ignore"):
        value, error = slope(measured(log, 0.01))
    assert abs(value - 100) <= error < 1.0


def test_noise_widens_the_bound():
    rng = np.random.default_rng(0)
    exact = measured(math.sin, 0.7)
    for _ in range(50):
        noise = 1e-9
        ahead, behind = (values + rng.uniform(-noise, noise, STEPS) for values in (exact.ahead, exact.behind))
        value, error = slope(Slope(direction=exact.direction, steps=RUNG, ahead=ahead, behind=behind, rounding=noise))
        assert abs(value - math.cos(0.7)) <= error


@pytest.mark.parametrize("seed", [6, 31, 33])
def test_a_second_derivative_that_jumps_at_the_point(seed):
    """Central differences have a term in the step then; some of many such functions have entries of the tableau that agree by chance."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        weights, places = rng.normal(size=6), np.concatenate([[0.0], rng.uniform(-0.1, 0.1, size=5)])

        def function(x, weights=weights, places=places):
            return 30 * math.sin(x + 1) + float(np.sum(weights * np.maximum(x - places, 0) ** 2))

        value, error = slope(measured(function, 0.0))
        right = 30 * math.cos(1) + float(np.sum(2 * weights * np.maximum(-places, 0)))
        assert abs(value - right) <= error, f"{value} +- {error}, where {right} is right"
