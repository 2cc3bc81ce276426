import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from manual_vjp import layer_norm
from verify._compat import enable_x64


def test_agrees_with_flax():
    rng = np.random.default_rng(0)
    with enable_x64(True):
        x, scale, bias, ct = (jnp.asarray(rng.normal(size=s)) for s in ((2, 3, 5), 5, 5, (2, 3, 5)))
        module = nn.LayerNorm(epsilon=1e-3, use_fast_variance=False, param_dtype=jnp.float64)

        def theirs(x, scale, bias):
            return module.apply({"params": {"scale": scale, "bias": bias}}, x)

        got = jax.vjp(lambda *a: layer_norm(*a, eps=1e-3), x, scale, bias)
        want = jax.vjp(theirs, x, scale, bias)
        for g, w in zip((got[0], *got[1](ct)), (want[0], *want[1](ct)), strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-11, atol=1e-13)


def test_rows_far_from_zero_keep_their_digits():
    """1000 standard deviations off: E[x^2] - E[x]^2 would leave 1 digit of float32; every number here is exact in float32."""
    x = 1000 + jnp.array([-1.0, 1.0, -1.0, 1.0])
    np.testing.assert_allclose(layer_norm(x, eps=0.0), [-1, 1, -1, 1], rtol=1e-6)


def test_cotangent_is_orthogonal_to_what_it_removes():
    """y does not change when x is shifted, nor (eps = 0) when it is scaled; so x_ct is orthogonal to 1 and to x."""
    rng = np.random.default_rng(1)
    with enable_x64(True):
        x, ct = (jnp.asarray(rng.normal(size=(3, 7))) for _ in range(2))
        x_ct = jax.vjp(lambda x: layer_norm(x, eps=0.0), x)[1](ct)[0]
        assert float(jnp.max(jnp.abs(x_ct))) > 0.1
        np.testing.assert_allclose(jnp.sum(x_ct, -1), 0, atol=1e-14)
        np.testing.assert_allclose(jnp.sum(x_ct * x, -1), 0, atol=1e-14)


def test_holds_two_numbers_a_row():
    x, scale, bias = jnp.ones((6, 50)), jnp.ones(50), jnp.ones(50)
    leaves = jax.tree.leaves(jax.vjp(layer_norm, x, scale, bias)[1])
    own = [leaf.shape for leaf in leaves if leaf.shape not in ((50,), ()) and leaf is not x]
    assert own == [(6, 1), (6, 1)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([()], r"layer_norm: x has shape \(\), wanted at least one dimension"),
        ([(2, 3), (2,)], r"layer_norm: scale has shape \(2,\), wanted \(3,\) because x has shape \(2, 3\)"),
        ([(2, 3), (3,), (1, 3)], r"layer_norm: bias has shape \(1, 3\), wanted \(3,\) because x has shape \(2, 3\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        layer_norm(*map(jnp.ones, shapes))


@pytest.mark.parametrize("eps", [-1e-5, float("nan")])
def test_eps_below_zero(eps):
    with pytest.raises(ValueError, match=r"layer_norm: eps is (-1e-05|nan), wanted a number of at least 0, such as 1e-5"):
        layer_norm(jnp.ones(3), eps=eps)


def test_eps_must_be_a_constant():
    with pytest.raises(TypeError, match=r"layer_norm: eps is a traced array, wanted a Python number; pass it as a constant"):
        jax.jit(lambda eps: layer_norm(jnp.ones(3), eps=eps))(1e-5)
    assert layer_norm(jnp.ones(3), eps=jnp.float32(1e-5)).shape == (3,)


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"layer_norm: x has dtype int32, wanted a floating-point dtype"):
        layer_norm(jnp.arange(3))
