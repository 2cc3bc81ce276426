"""Wrong numbers inside shard_map are caught; a refusal by JAX, or a broken child process, accuses nobody."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verify
from verify import Arg, Spec, devices
from verify.cases import draw
from verify.checks import select
from verify.judging import judge
from verify.records import Status


def varying(array):
    aval = jax.typeof(array)
    return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying


def naive(ct, argument):
    return ct


def matched(ct, argument):
    axes = tuple(varying(ct) - varying(argument))
    return jax.lax.psum(ct, axes) if axes else ct


def mean(ct, argument):
    axes = tuple(varying(ct) - varying(argument))
    return jax.lax.pmean(ct, axes) if axes else ct


def always(ct, argument):
    axes = tuple(jax.sharding.get_abstract_mesh().manual_axes)
    return jax.lax.psum(ct, axes) if axes else ct


def named(ct, argument):
    return jax.lax.psum(ct, "data") if jax.sharding.get_abstract_mesh().manual_axes else ct


def spec(of_x, of_w, **more):
    @jax.custom_vjp
    def dense(x, w):
        return jnp.tanh(x @ w)

    def forward(x, w):
        y = jnp.tanh(x @ w)
        return y, (x, w, y)

    def backward(residuals, y_ct):
        x, w, y = residuals
        ct = y_ct * (1 - y**2)
        return of_x(ct @ w.T, x), of_w(x.T @ ct, w)

    dense.defvjp(forward, backward)
    return Spec(name="dense", fn=dense, args={"x": Arg(dims="n d"), "w": Arg(dims="d k")}, sizes=dict.fromkeys("ndk", (3, 3)), **more)


def findings(of, index=1):
    (case,) = draw(of, 0, range(index, index + 1))
    return judge(of, case, select(["sharding"])).findings


def statuses(found):
    return {finding.status for finding in found}


@pytest.mark.parametrize("index", [1, 9])
def test_a_rule_that_adds_up_what_differs_is_right(index):
    found = findings(spec(matched, matched), index)
    assert statuses(found) == {Status.PASS}, found
    assert sum(finding.comparisons for finding in found) == (3 if index == 1 else 2) * (9 + 4 * 9)  # without and with check_vma; under jit


@pytest.mark.parametrize("index", [1, 9])
def test_a_plain_rule_is_right_where_jax_adds_up(index):
    found = findings(spec(naive, naive), index)
    assert statuses(found) == {Status.PASS, Status.SKIP}, found
    (skip,) = (finding for finding in found if finding.status is Status.SKIP)
    assert "refuses the rule" in skip.message and "psum" in skip.message and "check_vma=False its cotangents are right" in skip.message


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((matched, mean), ("shard_map on 4", "w is wrong", "divided by 4", "pmean")),
        ((naive, always), ("check_vma=False", "w is wrong", "4 times the right one", "JAX adds up as well")),
        ((always, naive), ("check_vma=False", "x is wrong", "sum over the devices", "no psum")),
        ((naive, named), ("raises NameError", "data", "the reference does not")),
    ],
    ids=["a mean", "added up twice", "added up although each has its own", "an axis of its own"],
)
def test_wrong_numbers_and_the_reason(rules, words):
    failures = [finding for finding in findings(spec(*rules)) if finding.status is Status.FAIL]
    assert failures
    for word in words:
        assert word in failures[0].message


def test_no_other_check_sees_it():
    assert verify.run(spec(matched, mean), cases=1)


def test_on_example_arrays():
    verdict = verify.check(spec(naive, always).fn, np.ones((2, 3)), np.full((3, 2), 0.5), checks=["sharding"])
    assert verdict.status is Status.FAIL and "4 times the right one" in str(verdict).replace("\n        ", " ")


def test_large_arrays_are_left_alone():
    verdict = verify.check(jax.jit(spec(naive, naive).fn), np.ones((2**9, 2**9)), np.ones((2**9, 2)), checks=["sharding", "purity"])
    assert not verdict.findings


def test_integers_and_keys_are_the_same_on_all_devices():
    @jax.custom_vjp
    def pick(x, index, key):
        return x[index] * jax.random.uniform(key)

    def forward(x, index, key):
        return pick(x, index, key), (x, index, key)

    def backward(residuals, ct):
        x, index, key = residuals
        return matched(jnp.zeros_like(x).at[index].add(ct * jax.random.uniform(key)), x), None, None

    pick.defvjp(forward, backward)
    args = {"x": Arg(dims="n d"), "index": Arg(dims="m", dtype="int32", high=2), "key": Arg(dtype="key")}
    for index in (1, 9):
        found = findings(Spec(name="pick", fn=pick, args=args, sizes={"n": (2, 9)}, dtypes=()), index)
        assert statuses(found) == {Status.PASS}, found


def test_a_primal_that_cannot_be_sharded_is_not_accused():
    def primal(x):
        if jax.sharding.get_abstract_mesh().manual_axes:
            raise RuntimeError("not here")
        return x**2

    function = jax.custom_vjp(primal)
    function.defvjp(lambda x: (primal(x), x), lambda x, ct: (2 * x * ct,))
    found = findings(Spec(name="square", fn=function, args={"x": Arg(dims="n")}))
    assert Status.FAIL not in statuses(found)
    assert "the primal itself cannot be run inside jax.shard_map: RuntimeError" in found[0].message


MODULE = devices.Module(stablehlo=b"", kept=(0,), split=(True,), shapes=(((4,), np.float64),), options=None)


def child(code, limit=30.0):
    return devices.Child((sys.executable, "-c", code), limit)


def ask(of):
    with pytest.raises(devices.UnavailableError) as caught:
        of.ask(MODULE, [np.zeros(4)])
    return str(caught.value)


@pytest.mark.parametrize("rule", [matched, mean], ids=["right", "wrong"])
def test_in_another_process(rule, monkeypatch):
    """This test process has four devices; most users' have one."""
    abstract = jax.sharding.AbstractMesh((4,), (devices.AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    monkeypatch.setattr(devices, "mesh", lambda: abstract)
    found = findings(spec(matched, rule))
    assert statuses(found) == {Status.PASS} if rule is matched else Status.FAIL in statuses(found), found


def test_a_dead_child_says_why_and_is_replaced_once():
    mortal = child("import sys; print('out of luck', file=sys.stderr); sys.exit(3)")
    assert "died (exit status 3: out of luck)" in ask(mortal)
    assert "died (exit status 3: out of luck)" in ask(mortal)
    assert "started 2 times already" in ask(mortal)


def test_a_hung_child_is_ended():
    sleeper = child("import time; time.sleep(600)", limit=0.2)
    assert "gave no answer within 0.2 s" in ask(sleeper)


def test_what_the_child_cannot_run_is_an_answer():
    patient = devices.Child()
    assert "cannot run it" in ask(patient)
    assert "cannot run it" in ask(patient)  # by the same process
    patient.stop()


def test_a_child_that_cannot_be_started():
    assert "cannot be started" in ask(devices.Child(("/nonexistent/python",)))
