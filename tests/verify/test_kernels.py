"""Kernels that know no 64-bit types: judged in float32, by a reference or by differences of their own values; nobody is accused where float32 cannot tell."""

import jax
import jax.numpy as jnp
import pytest

import verify
from tests.power.attention_rules import QKV, attend, kernel, kernel_backward, kernel_forward, kernel_without_row_sums
from verify import Arg, Spec, Status
from verify.cases import draw
from verify.checks import ALL
from verify.judging import judge

pytestmark = pytest.mark.usefixtures("undiagnosed")


def made(backward):
    rule = jax.custom_vjp(lambda q, k, v: kernel(q, k, v)[0])
    rule.defvjp(kernel_forward, backward)
    return rule


def spec(backward, **more):
    return Spec(name="kernel", fn=made(backward), args=QKV, dtypes=("float32",), **more)


@pytest.mark.parametrize("reference", [attend, pytest.param(None, marks=pytest.mark.nightly)])
def test_right_kernel_passes_at_every_magnitude(reference):
    verdict = verify.run(spec(kernel_backward, reference=reference), cases=9)  # each style once
    assert verdict.status is Status.PASS, str(verdict)
    assert any(f.status is Status.SKIP and "too few digits are left" in f.message for f in verdict.findings)
    assert {f.dtype for f in verdict.findings if f.check == "finite-difference" and f.status is Status.PASS} == {"float32"}


@pytest.mark.parametrize("reference", [attend, pytest.param(None, marks=pytest.mark.nightly)])
def test_wrong_kernel_fails(reference):
    assert verify.run(spec(kernel_without_row_sums, reference=reference), cases=17).status is Status.FAIL


@pytest.mark.parametrize(("factor", "status"), [pytest.param(1.0, Status.PASS, marks=pytest.mark.nightly), (1.03, Status.FAIL)])
def test_without_a_reference_small_errors_are_seen_too(factor, status):
    wrong = spec(lambda residuals, ct: tuple(factor * each for each in kernel_backward(residuals, ct)))
    verdict = verify.run(wrong, cases=9, checks=["finite-difference"])
    assert verdict.status is status, str(verdict)


def test_what_is_not_finite_is_wrong_at_every_magnitude():
    def overflowing(residuals, ct):
        q_ct, *others = kernel_backward(residuals, ct)
        return q_ct + 0 * jnp.exp(jnp.abs(residuals[0])), *others

    huge = next(case for case in draw(spec(overflowing, reference=attend), 0, range(100)) if case.style == "huge")
    failing = {f.check for f in judge(spec(overflowing, reference=attend), huge, ALL).findings if f.status is Status.FAIL}
    assert "extremes" in failing and "gradient" not in failing


def test_what_works_in_no_dtype_is_an_error():
    def nowhere(x):
        raise TypeError("no such dtype")

    rule = jax.custom_vjp(nowhere)
    rule.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    verdict = verify.run(Spec(name="nowhere", fn=rule, args={"x": Arg(dims="n")}), cases=2)
    assert verdict.status is Status.ERROR and "the function itself raises TypeError" in str(verdict)
