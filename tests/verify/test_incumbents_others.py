"""What chex and torch's gradcheck accept or accuse, beside `verify` on the same function. Run where they are installed (the extra `bench`)."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verify
from verify import Arg, Spec, Status

CHECKS = ["gradient", "linearity", "precision"]


def sine(backward: Any) -> Any:
    fn = jax.custom_vjp(jnp.sin)
    fn.defvjp(lambda x: (jnp.sin(x), x), backward)
    return fn


def verdict_on(backward: Any) -> verify.Verdict:
    return verify.run(Spec(name="sine", fn=sine(backward), args={"x": Arg(dims="n")}, dtypes=("float32",)), cases=8, checks=CHECKS)


def gradcheck_accepts(backward: Any, dtype: str = "float64", **options: Any) -> bool:
    torch = pytest.importorskip("torch")

    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        def backward(context: Any, ct: Any) -> Any:
            return backward(torch, *context.saved_tensors, ct)

    x = torch.from_numpy(np.random.default_rng(0).normal(size=16).astype(dtype)).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of float32
        return bool(torch.autograd.gradcheck(Sine.apply, (x,), raise_exception=False, **options))


def test_gradcheck_knows_a_right_and_a_wrong_rule() -> None:
    assert gradcheck_accepts(lambda torch, x, ct: torch.cos(x) * ct)
    assert not gradcheck_accepts(lambda torch, x, ct: 1.01 * torch.cos(x) * ct)


def test_gradcheck_accepts_an_error_of_half_a_thousandth() -> None:
    assert gradcheck_accepts(lambda torch, x, ct: 1.0005 * torch.cos(x) * ct)
    assert verdict_on(lambda x, ct: (1.0005 * jnp.cos(x) * ct,)).status is Status.FAIL


def test_gradcheck_accepts_what_is_not_linear_in_the_cotangent() -> None:
    """It asks with ones and zeros alone, which are their own squares."""
    assert gradcheck_accepts(lambda torch, x, ct: torch.cos(x) * ct * ct)
    assert verdict_on(lambda x, ct: (jnp.cos(x) * ct * ct,)).status is Status.FAIL


def test_gradcheck_accuses_a_right_rule_in_float32() -> None:
    assert not gradcheck_accepts(lambda torch, x, ct: torch.cos(x) * ct, "float32")
    assert verdict_on(lambda x, ct: (jnp.cos(x) * ct,)).status is Status.PASS


def test_chex_accepts_no_tangent_at_all() -> None:
    """It calls check_grads in both modes, so it takes custom_jvp rules alone, and multiplies its tolerance by the size once more."""
    chex = pytest.importorskip("chex")
    zero = jax.custom_jvp(jnp.sin)
    zero.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 0 * tangents[0]))
    x = jnp.asarray(np.random.default_rng(0).normal(size=1024), jnp.float32)
    chex.assert_numerical_grads(zero, (x,), order=1)
    with pytest.raises(AssertionError):  # a small array is seen by both
        chex.assert_numerical_grads(zero, (x[:8],), order=1)
    assert verify.check(zero, x, checks=["gradient"]).status is Status.FAIL
