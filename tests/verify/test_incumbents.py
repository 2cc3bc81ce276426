"""Where `jax.test_util.check_grads` is wrong and `verify` is right, on the same rule and the same arrays, float32 as users have them.

check_grads projects on one fixed random direction, sums, and allows an error that grows with the sum: a large array hides a wrong rule, and rounding
of a right one is accused. Each test asserts both sides, so a better check_grads would show here. The inputs are NumPy's, from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import verify
from tests.foreign.rules import honest
from verify.records import Status

pytestmark = pytest.mark.usefixtures("undiagnosed")


def arrays(seed: int, *shapes: int | tuple[int, ...], dtype: Any = jnp.float32) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def check_grads_accepts(fn: Callable[..., Any], args: list[jax.Array], mode: str = "rev") -> bool:
    try:
        check_grads(fn, args, order=1, modes=[mode])
    except AssertionError:
        return False
    return True


def failing(verdict: verify.Verdict) -> set[str]:
    return {finding.check for finding in verdict.findings if finding.status is Status.FAIL}


# Wrong rules that check_grads accepts.


def sine_with_tangent_times(factor: float) -> Any:
    fn = jax.custom_jvp(jnp.sin)
    fn.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), factor * jnp.cos(primals[0]) * tangents[0]))
    return fn


@pytest.mark.parametrize(("factor", "size"), [(0.5, 256), (0.0, 400), (-1.0, 1024)], ids=["halved", "zero", "negated"])
def test_wrong_tangent(factor: float, size: int) -> None:
    args = arrays(0, size)
    assert check_grads_accepts(sine_with_tangent_times(factor), args, "fwd")
    verdict = verify.check(sine_with_tangent_times(factor), *args, checks=["gradient"])
    assert verdict.status is Status.FAIL, str(verdict)


@pytest.mark.parametrize("factor", [0.5, 0.0, -1.0])
def test_wrong_tangent_of_a_small_array_is_seen_by_both(factor: float) -> None:
    """So it is the size that blinds check_grads."""
    assert not check_grads_accepts(sine_with_tangent_times(factor), arrays(0, 8), "fwd")
    verdict = verify.check(sine_with_tangent_times(factor), *arrays(0, 8), checks=["gradient"])
    assert verdict.status is Status.FAIL, str(verdict)


def test_forward_rule_with_three_times_the_value() -> None:
    fn = jax.custom_vjp(jnp.sin)
    fn.defvjp(lambda x: (3 * jnp.sin(x), x), lambda x, ct: (jnp.cos(x) * ct,))
    args = arrays(0, 1024)
    assert check_grads_accepts(fn, args)
    verdict = verify.check(fn, *args)
    assert verdict.status is Status.FAIL, str(verdict)
    assert failing(verdict) == {"primal"}


def test_one_element_of_65536_off_by_a_tenth() -> None:
    fn = jax.custom_vjp(jnp.sin)
    fn.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: ((jnp.cos(x) * ct).at[7].mul(1.1),))
    args = arrays(0, 65_536)
    assert check_grads_accepts(fn, args)
    verdict = verify.check(fn, *args, checks=["gradient"])
    assert verdict.status is Status.FAIL, str(verdict)
    wrong = next(finding for finding in verdict.findings if finding.check == "gradient" and finding.status is Status.FAIL)
    assert wrong.index == (7,) and wrong.wrong == 1


def test_function_that_is_nan_everywhere() -> None:
    fn = jax.custom_vjp(lambda x: x * jnp.nan)
    fn.defvjp(lambda x: (x * jnp.nan, None), lambda _, ct: (ct * jnp.nan,))
    args = arrays(0, 16)
    assert check_grads_accepts(fn, args)
    verdict = verify.check(fn, *args)
    assert verdict.status is Status.INCONCLUSIVE, str(verdict)
    assert "nothing could be compared" in str(verdict)


def test_bfloat16_cotangent_of_a_float32_argument() -> None:
    fn = jax.custom_vjp(jnp.sin)
    fn.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: ((jnp.cos(x) * ct).astype(jnp.bfloat16),))
    args = arrays(0, 16)
    assert check_grads_accepts(fn, args)
    verdict = verify.check(fn, *args)
    assert verdict.status is Status.FAIL, str(verdict)
    assert "structure" in failing(verdict)
    assert "the cotangent of x is bfloat16 where x is float" in str(verdict).replace("\n", " ").replace("        ", "")


# Right rules that check_grads accuses: the backward is JAX's own pullback. The seeds are the first three of 60 that it accuses; the others in
# between it accepts. Counted with JAX 0.10.2 on a CPU: layer norm 4 of 60, matmul 22, attention 8.


def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def attention(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1])) @ v


ACCUSED = {
    "layer_norm": (layer_norm, ((8, 64), (64,), (64,)), (19, 20, 39)),
    "matmul": (jnp.matmul, ((32, 128), (128, 64)), (1, 2, 9)),
    "attention": (attention, ((32, 16), (32, 16), (32, 16)), (5, 10, 15)),
}


@pytest.mark.parametrize("name", ["layer_norm", "matmul", pytest.param("attention", marks=pytest.mark.nightly)])
def test_right_float32_rule_is_accused(name: str) -> None:
    function, shapes, seeds = ACCUSED[name]
    rule = honest(function)
    accused = [seed for seed in seeds if not check_grads_accepts(jax.jit(rule), arrays(seed, *shapes))]
    assert accused, "check_grads accepts all of them: the comparison says nothing any more"
    verdict = verify.check(rule, *arrays(accused[0], *shapes), reference=function)
    assert verdict.status is Status.PASS, str(verdict)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_right_sine_in_16_bits_is_accused(dtype: Any) -> None:
    args = arrays(0, 16, dtype=dtype)
    assert not check_grads_accepts(honest(jnp.sin), args)
    verdict = verify.check(honest(jnp.sin), *args, reference=jnp.sin)
    assert verdict.status is Status.PASS, str(verdict)
    assert {str(args[0].dtype), "float64"} == {finding.dtype for finding in verdict.findings if finding.check in ("gradient", "precision")}
