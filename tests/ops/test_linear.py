import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from manual_vjp import linear
from manual_vjp.ops.linear import SPEC


def test_worked_example():
    x, w, b = (jnp.array(SPEC.example[name], jnp.float32) for name in ("x", "w", "b"))
    np.testing.assert_array_equal(linear(x, w, b), [[2.5, -1], [-0.5, 1], [1.5, 2]])
    dx, dw, db = jax.grad(lambda *args: jnp.sum(linear(*args)), argnums=(0, 1, 2))(x, w, b)
    np.testing.assert_array_equal(dx, [[3, 2]] * 3)
    np.testing.assert_array_equal(dw, [[2, 2], [2, 2]])
    np.testing.assert_array_equal(db, [3, 3])


def test_16_bit_sums_are_taken_in_float32():
    """4096 ones and a bias of 1: bfloat16 cannot count past 256, and 4097 rounds to 4096 once, at the end."""
    x, w = jnp.ones((4096, 1), jnp.bfloat16), jnp.ones((1, 1), jnp.bfloat16)
    w_ct, b_ct = jax.grad(lambda w, b: jnp.sum(linear(x, w, b)).astype(jnp.float32), argnums=(0, 1))(w, jnp.ones(1, jnp.bfloat16))
    assert float(w_ct[0, 0]) == float(b_ct[0]) == 4096
    assert float(linear(x.T, x, jnp.ones(1, jnp.bfloat16))[0, 0]) == 4096


def test_columns_of_w_split_over_devices():
    """Model parallel: x is replicated and every device uses it, so x_ct is the sum over devices."""
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
    rng = np.random.default_rng(0)
    x, w, b, ct = (jnp.asarray(rng.integers(-4, 5, shape), jnp.float32) for shape in ((2, 3), (3, 8), (8,), (2, 8)))

    def loss(x, w, b, ct):
        return jnp.sum(linear(x, w, b) * ct)

    specs = (P(), P(None, "model"), P("model"))
    grads = jax.shard_map(jax.grad(loss, (0, 1, 2)), mesh=mesh, in_specs=(*specs, P(None, "model")), out_specs=specs)(x, w, b, ct)
    for got, want in zip(grads, (ct @ w.T, x.T @ ct, ct.sum(0)), strict=True):  # small integers: exact
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((), (1, 1)), r"linear: x has shape \(\), wanted \(\*batch, d_in\): at least one dimension"),
        (((2, 5), (3, 4)), r"linear: w has shape \(3, 4\), wanted \(5, d_out\) because x has shape \(2, 5\)"),
        (((2, 5), (5,)), r"linear: w has shape \(5,\), wanted \(5, d_out\) because x has shape \(2, 5\)"),
        (((2, 5), (5, 4), (1,)), r"linear: b has shape \(1,\), wanted \(4,\) because w has shape \(5, 4\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        linear(*map(jnp.ones, shapes))


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"linear: w has dtype int32, wanted a floating-point dtype; convert it, e.g. w.astype"):
        linear(jnp.ones((2, 2)), jnp.ones((2, 2), jnp.int32))
