"""Whatever a rule returns for integers is right, as JAX throws it away; a rule that batched integers break is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verify import Arg, Spec
from verify.cases import draw
from verify.checks import nondifferentiable, select
from verify.judging import judge
from verify.records import Status

ARGS = {"x": Arg(dims="n d"), "index": Arg(dims="m", dtype="int32", high=3), "mask": Arg(dims="d", dtype="bool"), "key": Arg(dtype="key")}


def primal(x, index, mask, key):
    return jnp.where(mask, x[index], 0) * jax.random.uniform(key)


def scatter(residuals, ct):
    x, index, mask, key = residuals
    return jnp.zeros_like(x).at[index].add(jnp.where(mask, ct, 0) * jax.random.uniform(key))


def findings(backward, args=None, fn=None, index=1):
    function = jax.custom_vjp(fn or primal)
    function.defvjp(lambda *given: (function.fun(*given), given), backward)
    of = Spec(name="pick", fn=function, args=args or ARGS, sizes={"n": (3, 5), "m": (1, 4)})
    (case,) = draw(of, 0, range(index, index + 1))
    return judge(of, case, select(["nondifferentiable"])).findings


NOTHING = {
    "None": lambda leaf: None,
    "float0 zeros": lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0),
    "zeros of its own dtype": jnp.zeros_like,
    "floats": lambda leaf: jnp.zeros(leaf.shape),
}


@pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)
def test_what_a_rule_returns_for_integers_masks_and_keys(nothing):
    def backward(residuals, ct):
        return (scatter(residuals, ct), *(nothing(leaf) for leaf in residuals[1:]))

    found = findings(backward)
    assert {finding.status for finding in found} == {Status.PASS}, found
    assert len(found) == 2


def counts(vmap_method, axis):
    """A backward that asks NumPy, on the host, for how often each row was taken."""

    def host(index, zeros):
        index, zeros = np.asarray(index), np.array(zeros)
        if axis is None:  # as if there never were a leading axis
            zeros[..., :] = np.bincount(index.reshape(-1), minlength=zeros.shape[-1])
            return zeros
        for place in np.ndindex(index.shape[:-1]):
            zeros[place] = np.bincount(index[place], minlength=zeros.shape[-1])
        return zeros

    def backward(residuals, ct):
        x, index = residuals
        zeros = jnp.zeros(x.shape[0], x.dtype)
        times = jax.pure_callback(host, jax.ShapeDtypeStruct(zeros.shape, zeros.dtype), index, zeros, vmap_method=vmap_method)
        return times * ct, None

    return backward


TAKEN = {"x": Arg(dims="n"), "index": Arg(dims="m", dtype="int32", high=3)}


def test_a_callback_that_adds_up_over_the_batch():
    def total(x, index):
        return x[index].sum()

    found = findings(counts("broadcast_all", None), TAKEN, total)
    assert [finding.status for finding in found][-1] is Status.FAIL
    assert "arguments batched by jax.vmap, the cotangent of x is wrong" in found[-1].message
    assert {finding.status for finding in findings(counts("broadcast_all", -1), TAKEN, total)} == {Status.PASS}


def test_a_callback_that_cannot_be_batched():
    def total(x, index):
        return x[index].sum()

    found = findings(counts(None, -1), TAKEN, total)
    assert found[-1].status is Status.FAIL and "the rule raises" in found[-1].message and "the reference does not" in found[-1].message


def test_a_cotangent_that_is_no_float0_would_be_seen(monkeypatch):
    """No JAX so far hands one out, so one is made up."""
    real = jax.vjp

    def vjp(function, *args):
        out, pullback = real(function, *args)
        return out, lambda cts: (pullback(cts)[0], [jnp.zeros(2)])

    monkeypatch.setattr(jax, "vjp", vjp)
    types = []
    one = jnp.ones(2)
    nondifferentiable._every(lambda diff, rest: [diff[0] * rest[0]], types)([one], [jnp.arange(2)], [one])
    assert types == ["float32"]


def test_only_where_there_is_such_an_argument():
    function = jax.custom_vjp(lambda x: x**2)
    function.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))
    of = Spec(name="square", fn=function, args={"x": Arg(dims="n")})
    assert not judge(of, next(draw(of, 0, range(1, 2))), select(["nondifferentiable"])).findings
