import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from manual_vjp import flax_attention


def x_and_mask():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
    return x, nn.make_causal_mask(jnp.ones((2, 5)))  # (2, 1, 5, 5), float32


def assert_same(ours, theirs):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs) > 4
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)  # float32; flax's own attention is the oracle


def test_linen_layer():
    x, mask = x_and_mask()

    def run(**options):
        layer = nn.MultiHeadDotProductAttention(num_heads=2, dropout_rate=0.5, deterministic=True, **options)
        params = jax.jit(layer.init)(jax.random.key(0), x)
        return jax.jit(jax.value_and_grad(lambda params: jnp.sum(layer.apply(params, x, mask=mask) ** 2)))(params)

    assert_same(run(attention_fn=flax_attention), run())


@pytest.mark.parametrize("is_causal", [False, True])
def test_nnx_layer(is_causal):
    x, mask = x_and_mask()
    if is_causal and "is_causal" not in inspect.signature(nnx.MultiHeadAttention.__call__).parameters:
        pytest.skip("this flax has no is_causal in nnx.MultiHeadAttention")
    call = {"is_causal": True} if is_causal else {"mask": mask}

    def run(**options):
        layer = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=nnx.Rngs(0), **options)
        return nnx.jit(nnx.value_and_grad(lambda layer: jnp.sum(layer(x, **call) ** 2)))(layer)

    assert_same(run(attention_fn=flax_attention), run())


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_any_number_of_batch_dimensions(batch):
    rng = np.random.default_rng(1)
    q, k, v = (jnp.asarray(rng.normal(size=(*batch, n, 2, 4)), jnp.float32) for n in (3, 5, 5))
    bias = jnp.asarray(rng.normal(size=(*batch[:1], *[1] * len(batch[1:]), 2, 1, 5)), jnp.float32)
    mask = jnp.asarray(rng.random((*batch, 1, 3, 5)) < 0.7).at[..., 0].set(True)
    want = nn.dot_product_attention(q, k, v, bias=bias, mask=mask)
    np.testing.assert_allclose(flax_attention(q, k, v, bias=bias, mask=mask), want, rtol=2e-5, atol=2e-5)


def test_dtype_is_what_is_computed_in():
    q = jnp.ones((1, 2, 1, 4))
    assert flax_attention(q, q, q, dtype=jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dropout_rate": 0.1},
            r"flax_attention: dropout is active \(dropout_rate=0.1, deterministic=False\), wanted none; pass dropout_rate=0",
        ),
        ({"module": object()}, r"flax_attention: sow_weights=True, wanted False; the attention weights are never kept"),
        ({"precision": "highest"}, r"flax_attention: precision='highest', wanted None; use `with jax.default_matmul_precision"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message):
    q = jnp.ones((1, 2, 1, 4))
    with pytest.raises(NotImplementedError, match=message):
        flax_attention(q, q, q, **options)
