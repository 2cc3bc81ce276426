"""Values and gradients equal those of implementations that nobody here wrote, for every option that they share; and layers of libraries use ours."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import manual_vjp as mv
from tests.ops._helpers import vjp_of
from verify._compat import enable_x64

TIGHT = 1e-11  # float64, other orders of summation; a wrong formula differs by 1e-8 and more


def agree(ours, theirs, *args, positions=None, rtol=TIGHT):
    """Value and gradients in float64, under random cotangents; integer and boolean arguments have none."""
    with enable_x64(True):
        args = [None if a is None else jnp.asarray(a) for a in args]
        positions = [k for k, a in enumerate(args) if a is not None and jnp.issubdtype(a.dtype, jnp.floating)]
        ct = jnp.asarray(np.random.default_rng(5).normal(size=jax.eval_shape(ours, *args).shape))
        results = [jax.tree.leaves(vjp_of(fn, positions)(args, ct)) for fn in (ours, theirs)]
        for got, want in zip(*results, strict=True):
            assert got.shape == want.shape
            got, want = np.asarray(got), np.asarray(want)
            finite = np.isfinite(want)
            np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
            np.testing.assert_allclose(
                np.where(finite, got, 0), np.where(finite, want, 0), rtol=rtol, atol=rtol * np.max(np.abs(want[finite]), initial=1e-30)
            )


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def mask(*shape, seed=3):
    some = np.random.default_rng(seed).random(shape) < 0.6
    some[..., 0] = True  # where nothing is allowed, libraries differ
    return some


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mv.relu, jax.nn.relu),
        (mv.silu, jax.nn.silu),
        (mv.gelu, jax.nn.gelu),
        (lambda x: mv.gelu(x, approximate=False), lambda x: jax.nn.gelu(x, approximate=False)),
    ],
    ids=["relu", "silu", "gelu", "gelu-exact"],
)
def test_activations(ours, theirs):
    agree(ours, theirs, 3 * normal(4, 50))


@pytest.mark.parametrize("axis", [-1, 0, (0, 1)])
@pytest.mark.parametrize("where", [None, mask(6, 5)], ids=["all", "where"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_family(name, where, axis):
    if where is not None and axis == 0:
        where = where.copy()
        where[0] = True
    agree(lambda x: getattr(mv, name)(x, where, axis=axis), lambda x: getattr(jax.nn, name)(x, axis=axis, where=where), 5 * normal(6, 5))


def test_logsumexp_keeps_dims_as_jax_does():
    agree(lambda x: mv.logsumexp(x, keepdims=True), lambda x: jax.nn.logsumexp(x, axis=-1, keepdims=True), normal(6, 5))


@pytest.mark.parametrize("axis", [-1, (-2, -1), 1])
def test_layer_norm_and_rms_norm(axis):
    x = 2 + normal(4, 3, 6)
    shape = tuple(x.shape[a] for a in sorted(np.atleast_1d(axis) % 3))
    scale, bias = normal(*shape, seed=1), normal(*shape, seed=2)

    def flax(layer, x, **weights):
        return layer.apply({"params": weights}, x)

    def norm(x, scale, bias):
        return flax(
            linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, reduction_axes=axis, feature_axes=axis), x, scale=scale, bias=bias
        )

    agree(lambda x, s, b: mv.layer_norm(x, s, b, axis=axis), norm, x, scale, bias)
    rms = linen.RMSNorm(epsilon=1e-6, reduction_axes=axis, feature_axes=axis)
    agree(lambda x, s: mv.rms_norm(x, s, axis=axis), lambda x, s: flax(rms, x, scale=s), x, scale)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm(train):
    x, scale, bias, mean, var = 1 + normal(5, 4, 3), normal(3, seed=1), normal(3, seed=2), normal(3, seed=3), 0.5 + normal(3, seed=4) ** 2
    layer = linen.BatchNorm(use_running_average=not train, momentum=0.8, epsilon=1e-5, use_fast_variance=False)

    def flax(part):
        def run(x, scale, bias, mean, var):
            y, new = layer.apply(
                {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}, x, mutable=["batch_stats"]
            )
            return (y, new["batch_stats"]["mean"], new["batch_stats"]["var"])[part]

        return run

    for part in range(3):
        agree(lambda *a, part=part: mv.batch_norm(*a, momentum=0.8, train=train)[part], flax(part), x, scale, bias, mean, var)


def test_batch_norm_over_other_axes_is_a_transposed_one():
    x, scale = normal(5, 3, 4), normal(3, seed=1)
    agree(
        lambda x, s: mv.batch_norm(x, s, axis=(0, 2))[0],
        lambda x, s: jnp.moveaxis(mv.batch_norm(jnp.moveaxis(x, 1, -1), s)[0], -1, 1),
        x, scale,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["vmap", "shard_map"])
def test_batch_norm_over_devices_is_that_of_the_whole_batch(how):
    x, scale, ct = normal(4, 6, 3), normal(3, seed=1), normal(4, 6, 3, seed=2)

    def whole(x, scale, ct):
        return jax.vjp(lambda x, s: mv.batch_norm(x, s)[0], x, scale)[1](ct)

    def local(x, scale, ct):
        return jax.vjp(lambda x, s: mv.batch_norm(x, s, axis_name="d")[0], x, scale)[1](ct)

    with enable_x64(True):
        args = [jnp.asarray(a) for a in (x, scale, ct)]
        want = whole(*args)
        if how == "vmap":  # one scale for all: its cotangent is the sum
            batch = jax.vmap(lambda x, s: mv.batch_norm(x, s, axis_name="d")[0], in_axes=(0, None), axis_name="d")
            got = jax.vjp(batch, *args[:2])[1](args[2])
        else:
            mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
            got = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P("d"), P(), P("d")), out_specs=(P("d"), P())))(*args)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=TIGHT, atol=TIGHT)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [None, 2])
def test_cross_entropy(smoothing, ignored):
    logits, labels, weights = 3 * normal(6, 5), np.array([0, 1, 2, 3, 4, 2], np.int32), 0.5 + np.arange(6.0)
    x, w, b = normal(6, 4), normal(4, 5, seed=1), normal(5, seed=2)

    def peer(logits, weights):
        target = optax.smooth_labels(jax.nn.one_hot(labels, 5, dtype="float64"), smoothing)
        count = weights if ignored is None else weights * (labels != ignored)
        return (optax.softmax_cross_entropy(logits, target) * count).sum() / count.sum()

    options = {"label_smoothing": smoothing, "ignore_index": ignored}
    agree(lambda z, c: mv.softmax_cross_entropy(z, labels, c, **options), peer, logits, weights)
    agree(
        lambda x, w, b, c: mv.linear_cross_entropy(x, w, labels, b, c, block_size=2, **options),
        lambda x, w, b, c: peer(x @ w + b, c),
        x, w, b, weights,
    )  # fmt: skip


def test_labels_that_are_none_give_nan_and_do_not_count_from_the_end():
    logits, x, w = normal(3, 4), normal(3, 2), normal(2, 4, seed=1)
    for label in (-1, 4):
        labels = jnp.array([0, label, 1])
        for losses in (mv.softmax_cross_entropy(logits, labels, reduction="none"), mv.linear_cross_entropy(x, w, labels, reduction="none")):
            assert np.isnan(losses[1]) and np.isfinite(losses[0]) and np.isfinite(losses[2])


def test_errors_of_regression():
    a, b = normal(6, 5), normal(6, 5, seed=1)
    for reduction in ("mean", "sum", "none"):
        reduce = {"mean": jnp.mean, "sum": jnp.sum, "none": lambda x: x}[reduction]
        agree(lambda a, b, r=reduction: mv.squared_error(a, b, reduction=r), lambda a, b, f=reduce: f(optax.squared_error(a, b)), a, b)
        agree(
            lambda a, b, r=reduction: mv.huber(a, b, delta=0.7, reduction=r),
            lambda a, b, f=reduce: f(optax.huber_loss(a, b, delta=0.7)),
            a,
            b,
        )


ATTENTION = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "window": {"local_window_size": (3, 1)},
    "lengths": {"query_seq_lengths": np.array([7, 9], np.int32), "key_value_seq_lengths": np.array([5, 11], np.int32)},
}


@pytest.mark.parametrize("block_size", [pytest.param(None, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize(
    ("n", "k", "with_bias"),
    [pytest.param(2, 2, False, id="plain", marks=pytest.mark.nightly), pytest.param(4, 2, True, id="grouped-bias-mask")],
)
@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name, n, k, with_bias, block_size):
    if name == "window" and jax.__version_info__ < (0, 8):
        pytest.skip("jax.nn.dot_product_attention of JAX 0.7 ignores local_window_size on CPU")
    query, key, value = normal(2, 9, n, 3), normal(2, 11, k, 3, seed=1), normal(2, 11, k, 3, seed=2)
    bias = normal(1, n, 9, 11, seed=4) if with_bias else None
    some = mask(2, 1, 9, 11) if with_bias and name != "window" else None
    options = ATTENTION[name]

    def kept(out):  # rows of query that do not exist are 0 here, and the average of value there
        return (
            out
            if name != "lengths"
            else jnp.where(jnp.arange(9)[None, :, None, None] < options["query_seq_lengths"][:, None, None, None], out, 0)
        )

    def ours(q, k, v, b=None):
        return kept(mv.attention(q, k, v, b, some, block_size=block_size, **options))

    def theirs(q, k, v, b=None):
        return kept(jax.nn.dot_product_attention(q, k, v, b, some, **options))

    agree(ours, theirs, query, key, value, *([] if bias is None else [bias]), rtol=1e-6)  # jax.nn computes softmax in float32 at most


def test_flax_nnx_layers_take_the_losses_and_the_attention():
    layer = nnx.MultiHeadAttention(2, 8, decode=False, attention_fn=mv.flax_attention, rngs=nnx.Rngs(0))
    plain = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    x, labels = jnp.asarray(normal(2, 5, 8), "float32"), jnp.array([[0, 1, 2, 3, 4]] * 2)

    def loss(model, cross_entropy):
        return cross_entropy(mv.gelu(mv.layer_norm(model(x))), labels)

    got = nnx.grad(lambda m: loss(m, mv.softmax_cross_entropy))(layer)
    want = nnx.grad(lambda m: loss(m, lambda z, k: optax.softmax_cross_entropy_with_integer_labels(z, k).mean()))(plain)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)


def test_equinox_modules_use_the_layers():
    class Block(eqx.Module):
        scale: jax.Array
        w: jax.Array

        def __call__(self, x, norm, activation):
            return activation(norm(x, self.scale) @ self.w)

    model = Block(jnp.asarray(normal(8), "float32"), jnp.asarray(normal(8, 8, seed=1), "float32"))
    x = jnp.asarray(normal(5, 8, seed=2), "float32")

    def plain_norm(x, scale):
        return jax.vmap(eqx.tree_at(lambda n: n.weight, eqx.nn.RMSNorm(8, eps=1e-6, use_bias=False), scale))(x)

    got = eqx.filter_jit(eqx.filter_grad(lambda m: mv.squared_error(m(x, mv.rms_norm, mv.silu), x)))(model)
    want = eqx.filter_grad(lambda m: jnp.mean((m(x, plain_norm, jax.nn.silu) - x) ** 2))(model)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)


def test_torch_agrees_where_it_is_installed():
    torch = pytest.importorskip("torch")
    logits, labels = 3 * normal(6, 5), np.array([0, 1, 2, 3, 4, 2])
    tensor = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels), label_smoothing=0.1, ignore_index=2)
    with enable_x64(True):
        value, gradient = jax.value_and_grad(lambda z: mv.softmax_cross_entropy(z, labels, label_smoothing=0.1, ignore_index=2))(
            jnp.asarray(logits)
        )
    np.testing.assert_allclose(value, loss.detach().numpy(), rtol=TIGHT)
    np.testing.assert_allclose(gradient, torch.autograd.grad(loss, tensor)[0].numpy(), rtol=1e-10, atol=1e-12)
