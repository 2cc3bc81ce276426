"""The pytest plugin, in a test suite of its own."""

import jax  # noqa: F401  loaded before pytester takes its snapshot of modules, or each inner run would load it again
import pytest

import verify.api
import verify.report.text  # noqa: F401

pytest_plugins = ["pytester"]

RULES = """
import jax
import jax.numpy as jnp
from verify import Arg, Spec

def rule(factor):
    sine = jax.custom_vjp(jnp.sin)
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: ((factor * ct * jnp.cos(x)).astype(x.dtype),))
    return sine

right, wrong = rule(1.0), rule(1.001)
RIGHT = Spec(name="right", fn=right, args={"x": Arg(dims="n")})
WRONG = Spec(name="wrong", fn=wrong, args={"x": Arg(dims="n")})
"""


@pytest.fixture
def suite(pytester):
    pytester.makepyfile(rules=RULES)
    pytester.syspathinsert()

    def run(body, *options):
        pytester.makepyfile(
            test_it="import jax.numpy as jnp\nimport pytest\nimport verify\nfrom rules import *\nX = jnp.array([0.25, 1.0, -2.0])\n" + body
        )
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    return run


def test_assert_vjp_passes_and_fails(suite):
    result = suite("def test_right(assert_vjp):\n    assert assert_vjp(right, X)\ndef test_wrong(assert_vjp):\n    assert_vjp(wrong, X)\n")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*VjpMismatch*FAIL*"])
    result.stdout.fnmatch_lines(["*cotangent of x*"])
    summary = next(line for line in result.outlines if line.startswith("FAILED"))
    assert "sin FAIL: The co" in summary  # what is wrong, not how much was compared
    assert "Like `check`, but raises" not in result.stdout.str()  # verify's own source


def test_verify_run_passes_and_fails(suite):
    result = suite(
        "def test_right(verify_run):\n    assert verify_run(RIGHT, cases=3, seed=4)\ndef test_wrong(verify_run):\n    verify_run(WRONG, cases=3)\n"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(['*verify.replay("wrong/0/*spec=*'])


def test_mismatch_carries_the_verdict_and_is_an_assertion(suite):
    body = (
        "def test_it(assert_vjp):\n    with pytest.raises(AssertionError) as error:\n        assert_vjp(wrong, X)\n"
        "    assert isinstance(error.value, verify.VjpMismatch) and not error.value.verdict and str(error.value.verdict.status) == 'FAIL'\n"
    )
    suite(body).assert_outcomes(passed=1)


def test_a_bad_spec_is_an_error_with_one_clear_sentence(suite):
    result = suite("def test_it(verify_run):\n    verify_run(lambda x: x)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*SpecError*'x' has no jaxtyping annotation*"])


@pytest.mark.parametrize("given", ["[RIGHT, WRONG]", "{'a': RIGHT, 'b': WRONG}", "(spec for spec in (RIGHT, WRONG))"])
def test_parametrize_names_the_specs(suite, given):
    result = suite(f"@verify.parametrize({given})\ndef test_it(spec):\n    assert spec is RIGHT\n", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_it?right? PASSED*", "*test_it?wrong? FAILED*"])


def test_no_spec_at_all_is_not_success_by_accident(suite):
    suite("@verify.parametrize([])\ndef test_it(spec):\n    raise RuntimeError\n").assert_outcomes(skipped=1)


def test_the_fixtures_are_listed(suite):
    result = suite("def test_it():\n    pass\n", "--fixtures")
    result.stdout.fnmatch_lines(["*assert_vjp*", "*verify_run*"])
