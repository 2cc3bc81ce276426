"""`verify.audit` on rules as released packages write them: structured values, assertions, closures made for one dtype, wrappers, numbers as arguments."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verify
from verify.auditing.collect import collect
from verify.records import Status

pytestmark = pytest.mark.usefixtures("undiagnosed")

GRADIENT = ["structure", "gradient", "finite-difference"]
X = jnp.array([0.3, -0.8, 1.7, 0.9])


@jax.custom_vjp
def spread(ordered):
    """Largest minus smallest of ordered values; the rule is right for no others."""
    return ordered.max() - ordered.min()


spread.defvjp(lambda x: (spread(x), x), lambda x, ct: (ct * jnp.zeros_like(x).at[-1].add(1).at[0].add(-1),))


def test_rule_that_is_right_where_it_is_called_is_not_accused_and_not_passed():
    (verdict,) = verify.audit(lambda x: spread(jnp.sort(x)), X, checks=GRADIENT)
    assert verdict.status is Status.INCONCLUSIVE
    assert "right at the program's own values; wrong at others" in str(verdict).replace("\n        ", " ")
    assert not any(finding.status is Status.FAIL for finding in verdict.findings)


def test_the_same_rule_is_accused_where_it_is_called_with_what_it_is_wrong_for():
    (verdict,) = verify.audit(spread, X, checks=GRADIENT)
    assert verdict.status is Status.FAIL
    (unknown,) = verify.audit(spread, jax.ShapeDtypeStruct((4,), "float32"), checks=GRADIENT)  # nothing is known of its arguments
    assert unknown.status is Status.FAIL


@jax.custom_jvp
def asserted(x, bad):
    return eqx.error_if(x, bad, "bad") * 2


asserted.defjvp(lambda primals, tangents: (primals[0] * 2, tangents[0] * 2))


def test_function_that_raises_when_it_runs_ends_no_audit():
    (verdict, *_) = verify.audit(lambda x: asserted(x, jnp.any(x > 100)).sum(), X, checks=GRADIENT, rules=["asserted"])
    assert verdict.status is Status.PASS
    (verdict, *_) = verify.audit(
        lambda x: asserted(x, jnp.any(x < 100)).sum(), jax.ShapeDtypeStruct((4,), "float32"), checks=GRADIENT, rules=["asserted"]
    )
    assert verdict.status in (Status.PASS, Status.INCONCLUSIVE)  # the boolean is drawn


@pytest.mark.parametrize("wrong", [False, True])
def test_rule_that_holds_a_function_made_for_one_dtype(wrong):
    def program(x):
        closed = jax.make_jaxpr(jnp.sin)(x)

        @jax.custom_jvp
        def sine(x):
            if x.dtype != closed.in_avals[0].dtype:
                raise ValueError("made for another dtype")
            return jnp.sin(x)

        sine.defjvp(lambda primals, tangents: (sine(*primals), (2.0 if wrong else 1.0) * jnp.cos(primals[0]) * tangents[0]))
        return sine(x).sum()

    (verdict,) = verify.audit(program, X, checks=GRADIENT)
    assert verdict.status is (Status.FAIL if wrong else Status.PASS), str(verdict)
    assert "when all of its numbers are float64" in " ".join(verdict.notes)


def test_rules_behind_one_wrapper_are_told_apart():
    def made(factor, claimed):
        @eqx.filter_custom_vjp
        def rule(x):
            return x * factor

        rule.def_fwd(lambda perturbed, x: (x * factor, None))
        rule.def_bwd(lambda residuals, ct, perturbed, x: ct * claimed)
        return rule

    @eqx.filter_custom_vjp
    def wrong(x):
        return 3 * x

    wrong.def_fwd(lambda perturbed, x: (3 * x, None))
    wrong.def_bwd(lambda residuals, ct, perturbed, x: 4 * ct)
    report = verify.audit(lambda x: (made(2.0, 2.0)(x) + wrong(x)).sum(), X, checks=GRADIENT, rules=["rule", "wrong"])
    assert {verdict.name.rpartition(".")[2]: verdict.status for verdict in report} == {"wrong": Status.FAIL, "rule": Status.PASS}


def test_numbers_among_the_arguments_keep_their_values_and_places():
    @jax.custom_jvp
    def scaled(factor, x):
        return factor * x

    scaled.defjvp(lambda primals, tangents: (primals[0] * primals[1], primals[0] * tangents[1] + tangents[0] * primals[1]))
    ((rule,), _) = collect(lambda x: scaled(0.5, x).sum(), (X,))
    (signature,) = rule.signatures.values()
    assert float(signature.values[0]) == 0.5
    np.testing.assert_array_equal(signature.values[1], X)
    assert verify.audit(lambda x: scaled(0.5, x).sum(), X, checks=GRADIENT)


def test_bounds_among_the_parameters_of_an_equation_do_not_end_the_search():
    """Packages keep whole jaxprs, with constants, in the parameters of their own primitives."""
    kept = jax.make_jaxpr(lambda x: x * np.arange(4.0, dtype="float32"))(X).jaxpr
    holder = jax.extend.core.Primitive("holder")
    holder.def_abstract_eval(lambda x, jaxpr: x)
    holder.def_impl(lambda x, jaxpr: x)
    assert not list(verify.audit(lambda x: holder.bind(x, jaxpr=kept), jax.ShapeDtypeStruct((4,), "float32")))


def test_float8_is_no_crash():
    @jax.custom_jvp
    def quantized(x):
        return x.astype(jnp.float8_e4m3fn)

    quantized.defjvp(lambda primals, tangents: (quantized(*primals), tangents[0].astype(jnp.float8_e4m3fn)))
    (verdict,) = verify.audit(lambda x: quantized(x).astype("float32").sum(), X, checks=GRADIENT)
    assert verdict.status is Status.INCONCLUSIVE
    assert "float8_e4m3fn" in str(verdict)


def test_rule_of_a_function_of_bits_is_judged_by_its_values():
    def mantissa(x):
        return jnp.frexp(x)[0].sum()

    found = list(verify.audit(mantissa, X, checks=GRADIENT, rules=["frexp"]))
    assert all(verdict.status is Status.PASS for verdict in found)  # JAX 0.12 has no rule for it any more

    @jax.custom_jvp
    def wrong(x):
        return (
            jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64), x.dtype) * 2
        )

    wrong.defjvp(lambda primals, tangents: (wrong(*primals), 3 * tangents[0]))
    (verdict,) = verify.audit(wrong, X, checks=GRADIENT)
    assert verdict.status is not Status.PASS


def test_a_key_of_the_trace_among_the_arguments_without_a_derivative():
    """It cannot be kept, so the rule is verified with another key."""

    @functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
    def noisy(x, key):
        return x * jax.random.uniform(key, x.shape, x.dtype)

    def tangent(factor, key, primals, tangents):
        return noisy(*primals, key), factor * noisy(*tangents, key)

    for factor, status in ((1, Status.PASS), (2, Status.FAIL)):
        noisy.defjvp(functools.partial(tangent, factor))
        (verdict,) = verify.audit(lambda x, seed: noisy(x, jax.random.key(seed)).sum(), X, 3, checks=GRADIENT)
        assert verdict.status is status
