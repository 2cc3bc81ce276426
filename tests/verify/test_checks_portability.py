"""A derivative that lowers on fewer platforms than its primal is found; what the primal cannot do either is not held against it."""

import jax
import jax.numpy as jnp
import numpy as np

import verify
from verify import Arg, Spec
from verify.cases import draw
from verify.checks import select
from verify.judging import judge
from verify.records import Status


def findings(fn, **more):
    of = Spec(name="rule", fn=fn, args={"x": Arg(dims="n n")}, sizes={"n": (2, 4)}, **more)
    (case,) = draw(of, 0, range(2, 3))
    return judge(of, case, select(["portability"])).findings


def rule(primal, backward):
    function = jax.custom_vjp(primal)
    function.defvjp(lambda x: (primal(x), x), backward)
    return function


def on_cpu_only(ct):
    return ct + 0 * jax.scipy.linalg.schur(ct)[0]


def test_a_backward_for_one_platform():
    (found,) = findings(rule(lambda x: 2 * x, lambda x, ct: (on_cpu_only(2 * ct),)))
    assert found.status is Status.FAIL
    for word in ("lowers for cuda and rocm and tpu, the derivative does not", "NotImplementedError", "schur", "known_gaps"):
        assert word in found.message


def test_the_same_backward_with_a_choice():
    def backward(x, ct):
        return (jax.lax.platform_dependent(2 * ct, cpu=on_cpu_only, default=lambda ct: ct),)

    (found,) = findings(rule(lambda x: 2 * x, backward))
    assert found.status is Status.PASS and found.comparisons == 4


def test_a_primal_for_one_platform_is_a_choice_of_its_own():
    found = findings(rule(on_cpu_only, lambda x, ct: (on_cpu_only(ct),)), reference=lambda x: x * 1.0)
    assert {finding.status for finding in found} == {Status.PASS, Status.SKIP}
    assert any("the primal itself does not lower for cuda and rocm and tpu" in finding.message for finding in found)


def test_a_foreign_function_is_named():
    """It lowers everywhere; here it is on a branch for another platform, as nobody registered it."""

    def foreign(ct):
        return jax.ffi.ffi_call("somebody_elses", jax.ShapeDtypeStruct(ct.shape, ct.dtype))(ct)

    def backward(x, ct):
        return (jax.lax.platform_dependent(2 * ct, cpu=lambda ct: ct, default=foreign),)

    found = findings(rule(lambda x: 2 * x, backward))
    assert {finding.status for finding in found} == {Status.PASS, Status.SKIP}
    assert "foreign functions that the primal does not: somebody_elses" in found[0].message


def test_64_bit_types_are_off():
    seen = set()

    def backward(x, ct):
        seen.add(str(jnp.zeros(()).dtype))
        return (2 * ct,)

    findings(rule(lambda x: 2 * x, backward))
    assert "float32" in seen


def test_a_declared_gap_and_example_arrays():
    wrong = rule(lambda x: 2 * x, lambda x, ct: (on_cpu_only(2 * ct),))
    (found,) = findings(wrong, known_gaps={"portability": "CPU is all we have"})
    assert found.status is Status.SKIP
    assert verify.check(wrong, np.eye(2), checks=["portability"]).status is Status.FAIL
