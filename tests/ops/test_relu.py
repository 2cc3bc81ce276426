import jax
import jax.numpy as jnp
import numpy as np
import pytest

from manual_vjp import relu
from manual_vjp.ops.relu import reference


def pullback(fn, x):
    value, vjp = jax.vjp(fn, x)
    return value, vjp(jnp.full_like(x, 3.0))[0]


def test_edge_values_like_jax_nn():
    x = jnp.array([-jnp.inf, -1.0, -0.0, 0.0, 1e-30, 1.0, jnp.inf])
    for got, want in zip(pullback(relu, x), pullback(jax.nn.relu, x), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(pullback(relu, x)[1], [0, 0, 0, 0, 3, 3, 3])


def test_nan_stays_and_passes_the_cotangent_like_the_reference():
    x = jnp.array([jnp.nan, 1.0])
    for fn in (relu, reference):
        value, x_ct = pullback(fn, x)
        np.testing.assert_array_equal(value, [jnp.nan, 1.0])
        np.testing.assert_array_equal(x_ct, [3.0, 3.0])


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"relu: x has dtype int32, wanted a floating-point dtype; convert it, e.g. x.astype"):
        relu(jnp.arange(3))
