"""A device that multiplies float32 numbers as bfloat16 ones, as a TPU does by default: its rounding is no mistake of the rule, a wrong rule is.

No accelerator is here, so it is simulated: programs that would run on the default device get their float32 inputs rounded to bfloat16.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verify
from verify import Arg, Spec, Status, engine

ON_THE_HOST = engine.full


def rounding(function, *args, x64=False):
    program = ON_THE_HOST(function, *args, x64=x64)

    def round_factor(leaf):
        return leaf.astype(jnp.bfloat16).astype(leaf.dtype) if getattr(leaf, "dtype", None) == np.float32 else leaf

    return replace(program, run=lambda *values: program.run(*jax.tree.map(round_factor, values)))


def product(backward):
    rule = jax.custom_vjp(lambda x, w: x @ w)
    rule.defvjp(lambda x, w: (x @ w, (x, w)), backward)
    return Spec(name="product", fn=rule, args={"x": Arg(dims="n d"), "w": Arg(dims="d k")}, sizes={"n": (2, 9), "d": (2, 9), "k": (2, 9)},
                reference=lambda x, w: x @ w, dtypes=("float32",))  # fmt: skip


def right(residuals, ct):
    x, w = residuals
    return ct @ w.T, x.T @ ct


def wrong_in_float32(residuals, ct):
    x, w = residuals
    return ct @ w.T, (x.T @ ct) * (1 if x.dtype == jnp.float64 else 1.25)


def judged(backward, monkeypatch, accelerated):
    monkeypatch.setattr(engine, "full", rounding)
    monkeypatch.setattr(engine, "accelerated", lambda: accelerated)
    return verify.run(product(backward), cases=12, checks=["gradient", "precision", "primal"])


def test_the_devices_rounding_is_in_the_unit(monkeypatch):
    assert judged(right, monkeypatch, accelerated=True).status is Status.PASS


def test_with_the_hosts_rounding_as_unit_it_would_be_accused(monkeypatch):
    assert judged(right, monkeypatch, accelerated=False).status is Status.FAIL


def test_a_mistake_beyond_the_devices_rounding_is_seen(monkeypatch):
    verdict = judged(wrong_in_float32, monkeypatch, accelerated=True)
    assert verdict.status is Status.FAIL
    assert {finding.dtype for finding in verdict.findings if finding.status is Status.FAIL} == {"float32"}


@pytest.mark.parametrize("named", [None, "cpu"])
def test_this_machine_is_its_own_host(named):
    with jax.default_device(named and jax.devices(named)[0]):
        assert engine.accelerated() is (jax.devices()[0].platform != "cpu" and named is None)
