"""Dropout: the mask, the key, and what remains of them in the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import manual_vjp as mv
from verify._compat import enable_x64

KEY = jax.random.key(3)
X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 30)), "float32")


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(3)], ids=["typed", "raw"])
def test_value_and_gradient_are_those_of_flax(key, rate):
    """The same elements are dropped; both round once in float32, and divide by the same number."""
    layer = linen.Dropout(rate, broadcast_dims=(1,))

    def both(dropout):
        return jax.value_and_grad(lambda x: jnp.vdot(dropout(x), X[::-1]))(X)

    got = both(lambda x: mv.dropout(x, key, rate=rate, broadcast_dims=(1,)))
    want = both(lambda x: layer.apply({}, x, deterministic=False, rng=key))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)  # a sum of 1,200 terms
    np.testing.assert_allclose(got[1], want[1], rtol=2.0**-22)


def test_the_mask_hangs_on_key_and_shape_alone():
    kept = mv.dropout(jnp.ones_like(X), KEY, rate=0.3) != 0
    assert abs(float(kept.mean()) - 0.7) < 0.05  # 1,200 draws: four standard deviations
    for dtype in ("bfloat16", "float16", "float64"):
        with enable_x64(dtype == "float64"):
            np.testing.assert_array_equal(mv.dropout(jnp.ones(X.shape, dtype), KEY, rate=0.3) != 0, kept)


def test_what_is_dropped_is_zero_whatever_it_was():
    y = mv.dropout(jnp.full((100,), jnp.nan), KEY, rate=0.5)
    assert 0 < int((y == 0).sum()) < 100 and int(jnp.isnan(y).sum()) == 100 - int((y == 0).sum())


def test_nothing_is_drawn_where_nothing_is_dropped():
    for y in (mv.dropout(X, rate=0.0), mv.dropout(X, rate=0.5, deterministic=True)):
        np.testing.assert_array_equal(y, X)
    assert not mv.dropout(X, KEY, rate=1.0).any()
    assert not jax.grad(lambda x: mv.dropout(x, KEY, rate=1.0).sum())(X).any()


def test_only_the_key_is_kept():
    _, pullback = jax.vjp(lambda x: mv.dropout(x, KEY, rate=0.5), X)
    assert [leaf.shape for leaf in jax.tree.leaves(pullback)] == [KEY.shape]


def test_vmap_with_one_key_and_with_many():
    rows = jnp.ones((3, 50))
    same = jax.vmap(lambda x: mv.dropout(x, KEY, rate=0.5))(rows)
    np.testing.assert_array_equal(same, jnp.stack([mv.dropout(row, KEY, rate=0.5) for row in rows]))
    keys = jax.random.split(KEY, 3)
    own = jax.vmap(lambda x, key: mv.dropout(x, key, rate=0.5))(rows, keys)
    assert (own[0] != own[1]).any()
    gradient = jax.grad(lambda rows: jax.vmap(lambda x, key: mv.dropout(x, key, rate=0.5))(rows, keys).sum())(rows)
    np.testing.assert_array_equal(gradient, own)


def test_each_device_draws_its_own_mask_with_a_key_of_its_own():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))

    def local(x, key):
        own = jax.random.fold_in(key, jax.lax.axis_index("d"))
        return jax.vjp(lambda x: mv.dropout(x, own, rate=0.5), x)[1](x)[0]

    got = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d")))(jnp.ones((4, 50)), KEY)
    want = [mv.dropout(jnp.ones((1, 50)), jax.random.fold_in(KEY, d), rate=0.5) for d in range(4)]
    np.testing.assert_array_equal(got, jnp.concatenate(want))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mv.dropout(X.astype(int), KEY, rate=0.5), "dropout: x has dtype int32, wanted a floating-point dtype"),
        (lambda: mv.dropout(X, KEY, rate=1.5), "dropout: rate is 1.5, wanted a number from 0 to 1"),
        (lambda: mv.dropout(X, KEY, rate=float("nan")), "dropout: rate is nan, wanted a number from 0 to 1"),
        (lambda: jax.jit(lambda r: mv.dropout(X, KEY, rate=r))(0.5), "dropout: rate is a traced array"),
        (lambda: mv.dropout(X, rate=0.5), "dropout: key is None, wanted a PRNG key"),
        (lambda: mv.dropout(X, jax.random.split(KEY), rate=0.5), r"dropout: key has dtype key<fry> and shape \(2,\), wanted one PRNG key"),
        (lambda: mv.dropout(X, 3, rate=0.5), r"dropout: key has dtype None and shape \(\), wanted one PRNG key"),
        (lambda: mv.dropout(X, KEY, rate=0.5, broadcast_dims=(2,)), "dropout: axis is"),
    ],
)
def test_messages(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
