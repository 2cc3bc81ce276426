"""A dtype that nobody named and that JAX does not know is left out, and said; one that the author named, or that only the rule does not know, is an error."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.power.entry import rule
from verify import Arg, Spec, Status, run

pytestmark = pytest.mark.usefixtures("undiagnosed")
MATRIX = {"a": Arg(dims="n n", sample=lambda rng, sizes, dtype: rng.normal(size=(sizes["n"], sizes["n"])) + 3 * np.eye(sizes["n"]))}
SIZES = {"n": (1, 4)}


def transposed_inverse(a):
    return jnp.linalg.inv(a).swapaxes(-1, -2)


def inverse_backward(a, ct):
    return (-transposed_inverse(a) @ ct @ transposed_inverse(a),)


def log_determinant(a):
    """In float32 at least: it knows every dtype."""
    return jnp.linalg.slogdet(a.astype(jnp.promote_types(a.dtype, "float32")))[1]


INVERSE = rule(jnp.linalg.inv, lambda a: (jnp.linalg.inv(a), a), inverse_backward)


def said(verdict, dtype):
    return [finding for finding in verdict.findings if finding.dtype == dtype and finding.check == "precision"]


def test_a_dtype_that_the_function_does_not_know_is_left_out_and_said():
    verdict = run(Spec(name="inverse", fn=INVERSE, args=MATRIX, sizes=SIZES), cases=24, checks=["gradient", "precision"])
    assert verdict.status is Status.PASS, str(verdict)
    (left_out,) = said(verdict, "bfloat16")
    assert left_out.status is Status.SKIP
    assert "in bfloat16 the function itself raises NotImplementedError" in left_out.message and "dtypes=" in left_out.message
    assert [finding.status for finding in said(verdict, "float32")] == [Status.PASS]


def test_so_is_one_that_the_reference_does_not_know():
    wide = rule(
        log_determinant, lambda a: (log_determinant(a), a), lambda a, ct: ((ct * transposed_inverse(a.astype(ct.dtype))).astype(a.dtype),)
    )
    spec = Spec(name="wide", fn=wide, reference=lambda a: -jnp.linalg.slogdet(jnp.linalg.inv(a))[1], args=MATRIX, sizes=SIZES)
    (left_out,) = said(run(spec, cases=12, checks=["gradient", "precision"]), "bfloat16")
    assert left_out.status is Status.SKIP and "in bfloat16 the reference raises" in left_out.message


def test_a_wrong_rule_is_caught_in_the_others():
    wrong = rule(jnp.linalg.inv, lambda a: (jnp.linalg.inv(a), a), lambda a, ct: (-inverse_backward(a, ct)[0],))
    assert run(Spec(name="wrong", fn=wrong, args=MATRIX, sizes=SIZES), cases=12).status is Status.FAIL


@pytest.mark.parametrize("dtypes", [("bfloat16",), ("float32", "bfloat16", "float16")])
def test_a_dtype_that_was_named_is_an_error(dtypes):
    verdict = run(Spec(name="inverse", fn=INVERSE, args=MATRIX, sizes=SIZES, dtypes=dtypes), cases=24, checks=["gradient"])
    assert verdict.status is Status.ERROR
    assert "JAX cannot compile the function in bfloat16" in str(verdict)


def test_a_dtype_that_only_the_rule_does_not_know_is_an_error():
    narrow = rule(log_determinant, lambda a: (log_determinant(a), a), lambda a, ct: ((ct * transposed_inverse(a)).astype(a.dtype),))
    verdict = run(Spec(name="narrow", fn=narrow, args=MATRIX, sizes=SIZES), cases=24, checks=["gradient"])
    assert verdict.status is Status.ERROR and "bfloat16" in str(verdict)


def test_an_error_in_every_dtype_is_told_once():
    verdict = run(Spec(name="strange", fn=lambda a: jnp.reshape(a, (-3, 5)), reference=lambda a: a, args=MATRIX, sizes=SIZES), cases=12)
    assert verdict.status is Status.ERROR and not said(verdict, "bfloat16")
