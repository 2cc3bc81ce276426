"""Every check, run alone, catches a wrong rule and lets the right one beside it pass. (`tests/power` has many more of both.)"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.power.corpus import CORPUS
from tests.power.matrix_rules import bisected_root, root_in_closed_form
from verify import Arg, Spec, Status, checks, run
from verify.api import check as check_arrays
from verify.cases import draw
from verify.judging import judge
from verify.runner import run_spec
from verify.spec import SpecError

VECTOR = {"x": Arg(dims="n")}
TWO = {"x": Arg(dims="n"), "y": Arg(dims="n")}
CACHE = {}


def rule(primal, forward, backward, **more):
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward, **more)
    return function


def jvp(primal, derivative):
    function = jax.custom_jvp(primal)
    function.defjvp(derivative)
    return function


def one(primal, slope):
    """A rule for a function of one array, elementwise."""
    return rule(primal, lambda x: (primal(x), x), lambda x, ct: (ct * slope(x),))


def product(backward):
    return rule(lambda x, y: x * y, lambda x, y: (x * y, (x, y)), backward)


def halving(x):
    """A primal without a reverse mode: the number of steps depends on the values."""
    return jax.lax.while_loop(lambda s: s[1] > 1.0, lambda s: (s[0] * 0.5, s[1] * 0.5), (x * x, 40.0 + 0 * x.sum()))[0]


def maximum(share):
    """`share(x)` says how the gradient is dealt out among tied entries."""
    return rule(lambda x: jnp.max(x), lambda x: (jnp.max(x), x), lambda x, ct: (ct * share(x),))


def tied(x):
    return (x == x.max()).astype(x.dtype)


def both(x, y):
    return jnp.sin(x) * y, x + y


def both_with(reduce):
    def backward(residuals, cts):
        (x, y), (a, b) = residuals, cts
        return reduce(a, b) * jnp.cos(x) * y + b, a * jnp.sin(x) + b

    return rule(both, lambda x, y: (both(x, y), (x, y)), backward)


def stash(keep):
    """The residual of the last call is kept on the host, or handed on as a residual."""

    def put(x):
        CACHE["x"] = np.asarray(x)
        return np.float32(0)

    def forward(x):
        token = jax.pure_callback(put, jax.ShapeDtypeStruct((), "float32"), x)
        return x**3, (x, token)

    def backward(residuals, ct):
        x, token = residuals
        kept = x if keep else jax.pure_callback(lambda token: CACHE["x"], jax.ShapeDtypeStruct(x.shape, x.dtype), token)
        return (3 * ct * kept**2,)

    return rule(lambda x: x**3, forward, backward)


def switched(scale):
    """A rule that counts how often its forward rule is traced, and is wrong from the second trace of a program on."""
    calls = {}

    def forward(x):
        key = x.shape
        calls[key] = calls.get(key, 0) + 1
        return x**2, (x, scale if calls[key] % 2 == 0 else 1.0)

    return rule(lambda x: x**2, forward, lambda r, ct: (2 * ct * r[0] * r[1],))


def symbolic(wrong):
    def forward(x, y):
        factor = 2.0 if wrong and not y.perturbed else 1.0
        return x.value * y.value, (x.value, y.value, factor)

    return rule(lambda x, y: x * y, forward, lambda r, ct: (ct * r[1] * r[2], ct * r[0]), symbolic_zeros=True)


def same_array(wrong):
    def forward(x, y):
        return x * y, (x, None if wrong and x is y else y)

    return rule(lambda x, y: x * y, forward, lambda r, ct: (ct * (0 * r[0] if r[1] is None else r[1]), ct * r[0]))


def scanned(wrong):
    """A wider cotangent than the argument's passes everywhere but where cotangents are added up in a loop."""
    return rule(
        lambda x, y: x * y, lambda x, y: (x * y, (x, y)), lambda r, ct: (ct * r[1], (ct * r[0]).astype("float32") if wrong else ct * r[0])
    )


def log_sum_exp(x):
    top = jax.lax.stop_gradient(x.max())
    return jnp.log(jnp.exp(x - top).sum()) + top


def accumulated(dtype):
    def backward(residuals, ct):
        x, w = residuals
        wide = dtype or x.dtype
        return ct * w, jnp.sum((ct * x).astype(wide)).astype(w.dtype)

    return rule(lambda x, w: x * w, lambda x, w: (x * w, (x, w)), backward)


def kept(count):
    """Saves `count` arrays of the argument's size."""
    return rule(jnp.sin, lambda x: (jnp.sin(x), [jnp.cos(x) + k for k in range(count)]), lambda r, ct: (ct * r[0],))


verdicts_alone = pytest.mark.usefixtures("undiagnosed")

ALONE = {
    "structure": (one(jnp.sin, lambda x: jnp.cos(x).astype("float64") if x.dtype == "float64" else jnp.cos(x).astype("float32")), one(jnp.sin, jnp.cos), VECTOR, {}),
    "primal": (rule(jnp.sin, lambda x: (3 * jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),)), one(jnp.sin, jnp.cos), VECTOR, {}),
    "gradient": (one(jnp.sin, lambda x: jnp.cos(x) * (1 + 1e-9)), one(jnp.sin, jnp.cos), VECTOR, {}),
    "finite-difference": (one(jnp.sin, lambda x: jnp.cos(x) * (1 + 1e-7)), one(jnp.sin, jnp.cos), VECTOR, {}),
    "adjoint": (one(halving, lambda x: x * 2.0**-4), one(halving, lambda x: x * 2.0**-5), {"x": Arg(dims="n")}, {}),
    "taylor": (one(jnp.sin, lambda x: jnp.cos(x) * 1.01), one(jnp.sin, jnp.cos), VECTOR, {}),
    "complex-step": (one(jnp.sin, lambda x: jnp.cos(x) * (1 + 1e-9)), one(jnp.sin, jnp.cos), VECTOR, {}),
    "tangent": (
        jvp(lambda x, y: x * y, lambda p, t: (p[0] * p[1], t[0] * p[1])), jvp(lambda x, y: x * y, lambda p, t: (p[0] * p[1], t[0] * p[1] + p[0] * t[1])), TWO, {}
    ),
    "linearity": (
        rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.clip(ct, -1e6, 1e6) * jnp.cos(x),)), one(jnp.sin, jnp.cos), VECTOR, {}
    ),
    "zero-cotangent": (
        rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x) + 1e-300,)), one(jnp.sin, jnp.cos), VECTOR, {}
    ),
    "repeatability": (
        rule(
            jnp.sin, lambda x: (jnp.sin(x), x),
            lambda x, ct: (ct * jnp.cos(x) * (1 + jax.pure_callback(lambda: np.float32(np.random.default_rng().uniform()), jax.ShapeDtypeStruct((), "float32"))),),
        ),
        one(jnp.sin, jnp.cos), VECTOR, {},
    ),
    "precision": (accumulated("bfloat16"), accumulated(None), {"x": Arg(dims="n"), "w": Arg()}, {"sizes": {"n": (100, 300)}}),
    "extremes": (one(log_sum_exp, lambda x: jnp.exp(x) / jnp.exp(x).sum()), one(log_sum_exp, jax.nn.softmax), VECTOR, {}),
    "kinks": (maximum(tied), maximum(lambda x: tied(x) / tied(x).sum()), VECTOR, {}),
    "second-order": (one(lambda x: x**3, lambda x: 3 * jax.lax.stop_gradient(x) ** 2), one(lambda x: x**3, lambda x: 3 * x**2), VECTOR, {}),
    "arguments": (symbolic(True), symbolic(False), TWO, {}),
    "sharing": (same_array(True), same_array(False), TWO, {}),
    "reuse": (stash(False), stash(True), VECTOR, {}),
    "jit": (switched(2.0), switched(1.0), VECTOR, {}),
    "scan": (scanned(True), scanned(False), {"x": Arg(dims="n"), "y": Arg(dims="n")}, {}),
    "remat": (switched(2.0), switched(1.0), VECTOR, {}),
    "residuals": (kept(3), kept(1), VECTOR, {"residuals": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_a_check_alone_catches_what_it_is_for(name):
    wrong, right, args, more = ALONE[name]
    caught, needed = found(Spec(name=f"{name}-wrong", fn=wrong, args=args, **more), name, 45)
    spared, _ = found(Spec(name=f"{name}-right", fn=right, args=args, **more), name, max(needed, 15))
    assert Status.FAIL in caught, f"{name} does not see the mistake"
    assert not spared & {Status.FAIL, Status.ERROR, Status.INCONCLUSIVE} and Status.PASS in spared


BY_DERIVATIVES = [
    "primal",
    "gradient",
    "finite-difference",
    "adjoint",
    "taylor",
    "complex-step",
    "kinks",
    "second-order",
]  # no transformation


def found(spec, name, most):
    """What one check alone says up to its first failure, and after how many cases."""
    selected, seen = checks.select([name]), set()
    for count, case in enumerate(draw(spec, 0, range(most)), 1):
        seen |= {finding.status for finding in judge(spec, case, selected).findings}
        if Status.FAIL in seen:
            return seen, count
    return seen, most


def test_every_check_has_a_code_a_title_and_a_page():
    codes = [check.CODE for check in checks.ALL]
    assert len(set(codes)) == len(codes) and len({check.NAME for check in checks.ALL}) == len(codes)
    for check in checks.ALL:
        assert check.TITLE and len(check.__doc__.split()) > 25, check.NAME


def test_every_check_is_tested_alone_here_or_in_a_file_of_its_own():
    elsewhere = {"sharding", "portability", "purity", "nondifferentiable"}
    in_the_corpus = {"vmap"}
    assert {check.NAME for check in checks.ALL} == set(ALONE) | elsewhere | in_the_corpus
    assert all((Path(__file__).parent / f"test_checks_{name}.py").exists() for name in elsewhere)
    assert in_the_corpus <= {name for entry in CORPUS for name in entry.checks}


def test_the_convention_at_a_kink_is_reported():
    def relu(x):
        return jnp.where(x > 0, x, 0)

    spec = Spec(name="relu", fn=one(relu, lambda x: jnp.where(x > 0, 1.0, jnp.where(x == 0, 0.5, 0.0))), args=VECTOR, kinks={"x": (0.0,)})
    verdict = run(spec, cases=40)
    assert verdict.status is Status.PASS
    said = [
        finding.message for finding in verdict.findings if finding.check == "kinks" and finding.status is Status.PASS and finding.message
    ]
    assert said and "convention: at the kink x = 0 the rule gives" in said[0]
    assert "convention" in str(verdict)


@verdicts_alone
def test_a_value_outside_the_subdifferential_fails():
    def relu(x):
        return jnp.where(x > 0, x, 0)

    spec = Spec(name="relu", fn=one(relu, lambda x: jnp.where(x > 0, 1.0, jnp.where(x == 0, -1.0, 0.0))), args=VECTOR)
    verdict = run(spec, checks=BY_DERIVATIVES)
    assert verdict.status is Status.FAIL
    assert any("not between the one-sided derivatives" in finding.message for finding in verdict.findings)


@pytest.mark.parametrize(("profile", "cases"), [("quick", 28), ("default", 104)])
def test_profiles(profile, cases):
    assert run(Spec(name="sine", fn=one(jnp.sin, jnp.cos), args=VECTOR), profile=profile, checks=["structure"]).cases == cases


def test_an_unknown_profile_is_named():
    with pytest.raises(SpecError, match=r"'quik'.*quick"):
        run(Spec(name="sine", fn=one(jnp.sin, jnp.cos), args=VECTOR), profile="quik")


def test_only_one_output_used_and_one_argument_differentiated():
    wrong, right = both_with(lambda a, b: jnp.where(jnp.all(b == 0), 2 * a, a)), both_with(lambda a, b: a)
    caught, needed = found(Spec(name="both-wrong", fn=wrong, args=TWO), "arguments", 45)
    spared, _ = found(Spec(name="both-right", fn=right, args=TWO), "arguments", max(needed, 15))
    assert Status.FAIL in caught and spared <= {Status.PASS, Status.SKIP}


def test_an_empty_output_does_not_hide_how_the_others_are_scaled():
    fn = rule(lambda x, h: (2 * x, 3 * h), lambda x, h: ((2 * x, 3 * h), None), lambda _, cts: (2 * cts[0], 3 * cts[1]))
    spec = Spec(name="empty-output", fn=fn, args={"x": Arg(dims="t n"), "h": Arg(dims="n")}, sizes={"t": (0, 0), "n": (1, 3)})
    assert {finding.status for finding in run(spec, cases=2, checks=["linearity"]).findings} == {Status.PASS}


def right_for_ascending_values():
    def backward(x, ct):
        return (jnp.where(jnp.all(x[1:] >= x[:-1]), 1.0, 2.0) * jnp.cos(x) * ct,)

    return rule(jnp.sin, lambda x: (jnp.sin(x), x), backward)


def test_examples_of_a_transformation_are_drawn_by_sample_too():
    def ascending(rng, sizes, dtype):
        return np.sort(rng.integers(1, 1000, size=sizes["n"])) / 100

    args = {"x": Arg(dims="n", sample=ascending)}
    spec = Spec(name="ascending", fn=right_for_ascending_values(), args=args, sizes={"n": (3, 9)}, dtypes=())
    verdict = run(spec, cases=24, checks=["gradient", "vmap", "scan", "reuse", "sharding"])
    assert verdict.status is Status.PASS, str(verdict)
    anyhow = dataclasses.replace(spec, name="anyhow", args={"x": Arg(dims="n")})
    assert run(anyhow, cases=24, checks=["gradient"]).status is Status.FAIL


def test_a_use_is_not_blamed_for_the_values_of_its_examples():
    """Of arrays that are given as they are, the others hold the values in another order; the rule is wrong in a plain call with them."""
    verdict = check_arrays(right_for_ascending_values(), jnp.array([0.1, 0.4, 0.9, 1.3]), checks=["vmap"])
    assert verdict.status is Status.FAIL
    assert "wrong in a plain call, too" in verdict.diagnosis


def test_examples_stay_where_function_and_reference_are_the_same():
    """With another `low` beside the same `high`, the distance has another sign than the function takes for granted."""
    drawn = {}

    def low(rng, sizes, dtype):
        drawn["low"] = rng.integers(0, 1000, size=sizes["n"]) / 100
        return drawn["low"]

    def high(rng, sizes, dtype):
        return drawn["low"] + rng.integers(1, 100, size=sizes["n"]) / 100

    distance = rule(lambda low, high: high - low, lambda low, high: (high - low, None), lambda _, ct: (-ct, ct))
    args = {"low": Arg(dims="n", sample=low), "high": Arg(dims="n", sample=high)}
    spec = Spec(name="distance", fn=distance, reference=lambda low, high: jnp.abs(high - low), args=args, sizes={"n": (3, 9)}, dtypes=())
    verdict = run(spec, cases=40, checks=["gradient", "vmap", "scan"])
    assert verdict.status is Status.PASS, str(verdict)


def root(a, b):
    """x^3 + a x = b by bisection, whose derivative by JAX is 0."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = middle**3 + a * middle < b
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    return sum(jax.lax.fori_loop(0, 64, halve, (jnp.full_like(b, -4), jnp.full_like(b, 4)))) / 2


def of_root(factor):
    """(3 x^2 + a) dx = db - x da."""

    def backward(residuals, ct):
        a, x = residuals
        b_ct = ct / (factor * x * x + a)
        return -x * b_ct, b_ct

    return backward


@verdicts_alone
def test_where_autodiff_of_the_primal_is_no_derivative_of_its_values():
    """In cases in which differences cannot tell, and in those in which they can, too, where a rule is right by neither."""
    args = {"a": Arg(dims="n", low=0.5, high=3.0), "b": Arg(dims="n", low=-4.0, high=4.0)}

    def verdict(factor):
        fn = rule(root, lambda a, b: (root(a, b), (a, root(a, b))), of_root(factor))
        spec = Spec(name="root", fn=fn, args=args, sizes={"n": (1, 6)}, dtypes=())
        return run(spec, cases=60, checks=BY_DERIVATIVES)

    right, wrong = verdict(3), verdict(1)
    assert right.status is Status.PASS, str(right)
    assert {finding.check for finding in right.findings if finding.status is Status.SKIP} >= {"gradient", "finite-difference"}
    assert wrong.status is Status.FAIL
    assert {finding.check for finding in wrong.findings if finding.status is Status.FAIL} == {"finite-difference"}


def test_a_rule_that_is_defined_anew_is_judged_anew():
    """As in a notebook: the function is the same object, and its traces in the same thread are not those of the rule that it had before."""

    def here(spec, cases, selected):
        return (judge(spec, case, selected) for case in cases)

    square = jax.custom_vjp(lambda x: x * x)
    spec = Spec(name="square", fn=square, args=VECTOR, dtypes=())
    for factor, status in ((2, Status.PASS), (3, Status.FAIL), (2, Status.PASS)):
        square.defvjp(lambda x: (x * x, x), lambda x, ct, factor=factor: (factor * x * ct,))
        assert run_spec(spec, 4, checks=["gradient"], judges=here).status is status


@verdicts_alone
def test_the_complex_step_accuses_nobody_where_it_contradicts_the_values():
    """A bisection narrows a bracket by comparisons: its values follow the root, and its complex step follows the ends of the first bracket."""

    def verdict(factor):
        def backward(residuals, ct):
            a, x = residuals
            by_y = ct / (1 + factor * a * x**2)
            return -by_y * x**3, by_y

        fn = rule(bisected_root, lambda a, y: (bisected_root(a, y), (a, bisected_root(a, y))), backward)
        args = {"a": Arg(dims="n", low=0.1, high=2.0), "y": Arg(dims="n")}
        checks = ["gradient", "finite-difference", "complex-step"]
        return run(Spec(name="cubic_root", fn=fn, reference=root_in_closed_form, args=args, dtypes=()), cases=12, checks=checks)

    right, wrong = verdict(3), verdict(2)
    assert right.status is Status.PASS, str(right)
    assert any("another way than the function's values" in finding.message for finding in right.findings if finding.check == "complex-step")
    assert {finding.check for finding in wrong.findings if finding.status is Status.FAIL} >= {"gradient", "finite-difference"}


@verdicts_alone
def test_a_rule_that_is_right_by_autodiff_alone_is_not_judged():
    def primal(x):
        return x * jax.lax.stop_gradient(x)

    def verdict(factor):
        fn = rule(primal, lambda x: (primal(x), x), lambda x, ct: (factor * ct * x,))
        return run(Spec(name="half", fn=fn, args=VECTOR), cases=20, checks=BY_DERIVATIVES)

    assert [verdict(factor).status for factor in (1, 2, 3)] == [Status.INCONCLUSIVE, Status.PASS, Status.FAIL]


@verdicts_alone
def test_a_second_derivative_behind_many_kinks_that_no_first_derivative_shows():
    """All zeros: the gradient by x is 0 on both sides of each relu's kink, as w is 0, and the mixed second derivative is a sum with each term there or not."""

    def layer(x, w):
        return jnp.maximum(x, 0.0) @ w

    def of(factor):
        return rule(
            layer, lambda x, w: (layer(x, w), (x, w)), lambda r, ct: ((ct @ r[1].T) * (r[0] > 0), factor(jnp.maximum(r[0], 0.0).T) @ ct)
        )

    x, w = jnp.zeros((40, 2)), jnp.zeros((2, 3))
    x = x.at[:, 1].set(jnp.linspace(0.5, 2.0, 40))
    right, wrong = of(lambda h: h), of(lambda h: h + 1e-3 * (h - jax.lax.stop_gradient(h)))
    assert check_arrays(right, x, w, checks=["second-order", "gradient"]).status is Status.PASS
    assert check_arrays(wrong, x, w, checks=["second-order", "gradient"]).status is Status.FAIL


@verdicts_alone
def test_autodiff_that_is_wrong_where_a_gradient_is_small_beside_the_others():
    """JAX's derivative of logaddexp(x, 0) by its formula is 0 at x = 0; the limit of both sides says 1/2, here times 1e-7."""

    def primal(x, w):
        return jnp.logaddexp(x, 0.0) * w

    def of(slope):
        return rule(primal, lambda x, w: (primal(x, w), (x, w)), lambda r, ct: (ct * slope(r[0]) * r[1], ct * jnp.logaddexp(r[0], 0.0)))

    x, w = jnp.array([0.0, 1.0, 2.0]), jnp.array([1e-7, 1.0, -2.0])
    assert check_arrays(of(jax.nn.sigmoid), x, w, checks=BY_DERIVATIVES).status is Status.PASS
    assert check_arrays(of(lambda x: jnp.where(x == 0, 0.7, jax.nn.sigmoid(x))), x, w, checks=BY_DERIVATIVES).status is Status.FAIL


@verdicts_alone
def test_an_argument_that_is_minus_infinity_leaves_the_others_judged():
    """As the `initial` of a maximum or of a softmax. Moved by an ulp it stays what it is, and so the noise of the others is known."""

    def total(x, initial):
        top = jnp.maximum(x.max(), initial)
        return top + jnp.log(jnp.exp(x - top).sum())

    def of(factor):
        return rule(total, lambda x, initial: (total(x, initial), x), lambda x, ct: (factor * ct * jax.nn.softmax(x), jnp.zeros(())))

    x, initial = jnp.array([0.5, -1.25, 2.0]), jnp.array(-jnp.inf)
    assert (right := check_arrays(of(1.0), x, initial, checks=BY_DERIVATIVES)).status is Status.PASS, str(right)
    assert all(finding.comparisons for finding in right.findings if finding.check == "gradient")
    assert check_arrays(of(1.0 + 1e-8), x, initial, checks=BY_DERIVATIVES).status is Status.FAIL


@verdicts_alone
def test_without_jit_too_a_point_that_stands_alone_has_more_than_one_right_gradient():
    """The sign of a QR factor of one column is another one where the column is along the axis than everywhere beside it, and with it that of its gradient."""

    def direction(b):
        return jnp.linalg.qr(b + jnp.eye(*b.shape, dtype=b.dtype))[0]

    def of(factor):
        def backward(b, ct):
            q, r = jnp.linalg.qr(b + jnp.eye(*b.shape, dtype=b.dtype))
            m = -ct.T @ q
            return (factor(ct) * jax.scipy.linalg.solve_triangular(r, (ct + q @ (jnp.tril(m) + jnp.tril(m, -1).T)).T).T,)

        return rule(direction, lambda b: (direction(b), b), backward)

    right, wrong = of(lambda ct: 1.0), of(lambda ct: 1.0 if isinstance(ct, jax.core.Tracer) else 2.0)
    assert (verdict := check_arrays(right, jnp.zeros((2, 1)), checks=[*BY_DERIVATIVES, "jit"])).status is Status.PASS, str(verdict)
    assert check_arrays(wrong, jnp.array([[0.0], [0.5]]), checks=["jit"]).status is Status.FAIL
