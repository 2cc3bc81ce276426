import jax
import jax.numpy as jnp
import numpy as np
import pytest

from manual_vjp import attention
from manual_vjp._tile_places import block_sizes, places
from manual_vjp.ops.attention import reference
from verify._compat import enable_x64

SHAPES = {"query": (2, 3, 4, 5), "key": (2, 6, 2, 5), "value": (2, 6, 2, 5)}


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def pull(fn, *args):
    """The value of `fn` and the cotangents of `args`, for a random cotangent."""
    ct = draw(jax.eval_shape(fn, *args).shape, seed=9)[0]

    @jax.jit
    def run(args, ct):
        value, vjp = jax.vjp(fn, *args)
        return value, *vjp(ct.astype(value.dtype))

    return run(args, ct)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3, "is_causal": True}])
def test_agrees_with_jax_nn(batched, options):
    """Bias, mask, groups of heads and more keys than queries; jax.nn computes its softmax in float32, whence the tolerance."""
    q, k, v, bias = draw(*SHAPES.values(), (1, 4, 3, 6))
    mask = jnp.ones((1, 1, 3, 6), bool).at[..., 1].set(False)
    if not batched:
        q, k, v = q[0], k[0], v[0]
    ours = pull(lambda *a: attention(*a, mask, **options), q, k, v, bias)
    theirs = pull(lambda *a: jax.nn.dot_product_attention(*a, mask, **options), q, k, v, bias)
    for got, want in zip(ours, theirs, strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [None, (0, 0), (3, 1), (1, 20), (40, 0)])
@pytest.mark.parametrize(("t", "s", "bt", "bs"), [(9, 9, 2, 2), (7, 12, 3, 4), (12, 5, 5, 2), (1, 6, 1, 4), (8, 8, 8, 8)])
def test_tiles_are_those_in_which_something_is_allowed(t, s, bt, bs, window, is_causal):
    """Each once; inner ones are those in which all is."""
    row, column = np.arange(t)[:, None], np.arange(s)
    allowed = np.ones((t, s), bool) if window is None else (column >= row - window[0]) & (column <= row + window[1])
    allowed &= (column <= row) | (not is_causal)
    seen = []
    for (wide, edge), where in places(t, s, bt, bs, is_causal, window).items():
        for i, j in where:
            seen += [(i, j + k) for k in range(wide)]
            part = allowed[i * bt : (i + 1) * bt, j * bs : (j + wide) * bs]
            assert edge or (part.all() and part.shape[1] == wide * bs)
    wanted = {(i, j) for i in range(-(-t // bt)) for j in range(-(-s // bs)) if allowed[i * bt : (i + 1) * bt, j * bs : (j + 1) * bs].any()}
    assert len(seen) == len(set(seen)) and set(seen) == wanted


@pytest.mark.parametrize("window", [(20, 0), (30, 10)])
def test_blocks_that_are_chosen_for_a_window_change_nothing(window):
    shapes = (1500, 2, 3), (1490, 1, 3), (1490, 1, 3)
    blocks, _ = block_sizes(shapes[0], shapes[1], False, window, None)
    assert max(blocks) < 200
    with enable_x64(True):
        args = draw(*shapes)
        chosen, one = (pull(lambda *a, b=block: attention(*a, local_window_size=window, block_size=b), *args) for block in (None, 512))
        for got, want in zip(chosen, one, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("by", ["mask", "bias"])
def test_rows_with_nothing_allowed_are_zero(by):
    """Value and cotangents are 0 in such a row (here row 1 of 3), and all derivatives, second ones too, are as if it were absent."""
    with enable_x64(True):
        args = draw(*SHAPES.values(), (2, 4, 3, 6))
        blocked = jnp.zeros((2, 1, 3, 6), bool).at[:, :, 1].set(True).at[0, 0, 2, :4].set(True)
        weights = draw((2, 2, 4, 5), seed=3)[0]

        def ours(q, k, v, bias, blocked):
            return attention(q, k, v, bias, ~blocked) if by == "mask" else attention(q, k, v, jnp.where(blocked, -jnp.inf, bias))

        def without_row(q, k, v, bias, blocked):
            return reference(q[:, ::2], k, v, bias[:, :, ::2], ~blocked[:, :, ::2])

        @jax.jit
        def first(args, blocked):
            return ours(*args, blocked), jax.grad(lambda args: jnp.sum(3 * ours(*args, blocked)))(args)

        out, (q_ct, _, _, bias_ct) = first(args, blocked)
        for nothing in (out[:, 1], q_ct[:, 1], bias_ct[:, :, 1]):
            np.testing.assert_array_equal(nothing, 0)

        def second(fn, args, blocked, weights):
            def loss(args):
                return jnp.sum(fn(*args, blocked) ** 2 * weights)

            return jax.grad(lambda args: sum(jnp.sum(g**2) for g in jax.grad(loss)(args)))(args)

        got = jax.jit(lambda *a: second(lambda *b: ours(*b)[:, ::2], *a))(args, blocked, weights)
        want = jax.jit(lambda *a: second(without_row, *a))(args, blocked, weights)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-12)


def test_large_logits_do_not_overflow():
    q, k, v = draw((1, 2, 1, 4), (1, 3, 1, 4), (1, 3, 1, 4))
    value, *cts = pull(lambda *a: attention(*a, scale=1e4), q, k, v)
    best = np.argmax(np.einsum("tnh,snh->nts", q[0], k[0])[0], axis=-1)
    np.testing.assert_allclose(value[0, :, 0], np.asarray(v)[0, best, 0], rtol=1e-6)
    assert all(np.isfinite(ct).all() for ct in cts)


@pytest.mark.parametrize("size", [100.0, -100.0])
def test_a_large_bias_in_rows_that_are_padded(size):
    query, key, value = draw((1, 7, 1, 2), (1, 9, 1, 2), (1, 9, 1, 2))  # 7 rows in two blocks of 4
    bias = jnp.full((1, 1, 1, 9), size, "float32")  # one row for all: those that are padded have it, too
    got = pull(lambda *a: attention(*a, bias, block_size=4), query, key, value)
    want = pull(lambda *a: reference(*a, bias), query, key, value)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_query_heads_look_at_the_key_head_of_their_group():
    """Head n looks at key head n // G: 4 query heads, 2 key heads, each of which holds its own number."""
    value = jnp.broadcast_to(jnp.array([10.0, 20.0])[None, None, :, None], SHAPES["value"])
    out = attention(jnp.zeros(SHAPES["query"]), jnp.zeros(SHAPES["key"]), value)
    np.testing.assert_allclose(out[0, 0, :, 0], [10, 10, 20, 20], rtol=1e-6)


def test_dtype_follows_query_key_and_value_not_bias():
    q, k, v, bias = draw(*SHAPES.values(), (1, 1, 3, 6))
    out, vjp = jax.vjp(attention, *(a.astype(jnp.bfloat16) for a in (q, k, v)), bias)
    assert out.dtype == jnp.bfloat16
    assert [ct.dtype for ct in vjp(out)] == [jnp.bfloat16] * 3 + [jnp.float32]


def test_holds_one_number_a_row_beyond_inputs_and_output():
    q, k, v = (jnp.ones((2, 40, 4, 5)) for _ in range(3))
    leaves = jax.tree.leaves(jax.vjp(attention, q, k, v)[1])
    assert sum(leaf.size for leaf in leaves) == 3 * q.size + q.size + 2 * 4 * 40  # query, key, value; the output; lse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": (3, 5)}, r"attention: query has shape \(3, 5\), wanted \(B, T, N, H\) or \(T, N, H\)"),
        ({"key": (6, 2, 5)}, r"attention: key has shape \(6, 2, 5\), wanted \(2, S, K, 5\) because query has shape \(2, 3, 4, 5\)"),
        ({"key": (2, 6, 2, 4)}, r"attention: key has shape \(2, 6, 2, 4\), wanted \(2, S, K, 5\) because query has"),
        ({"value": (2, 6, 4, 5)}, r"attention: value has shape \(2, 6, 4, 5\), wanted \(2, 6, 2, 5\), the shape of key"),
        ({"key": (2, 6, 3, 5), "value": (2, 6, 3, 5)}, r"attention: query has 4 heads, wanted a multiple of 3 because key has shape"),
        ({"bias": (2, 4, 3, 5)}, r"attention: bias has shape \(2, 4, 3, 5\), wanted \(2, 4, 3, 6\), or 1 for any of these sizes"),
        ({"bias": (1, 1, 1, 3, 6)}, r"attention: bias has shape \(1, 1, 1, 3, 6\), wanted \(2, 4, 3, 6\)"),
        ({"mask": (2, 2, 3, 6)}, r"attention: mask has shape \(2, 2, 3, 6\), wanted \(2, 4, 3, 6\), or 1 for any"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    arrays = {name: jnp.ones(shape, bool if name == "mask" else jnp.float32) for name, shape in {**SHAPES, **change}.items()}
    with pytest.raises(ValueError, match=message):
        attention(**arrays)


def test_other_arguments_that_do_not_fit():
    q, k, v = draw(*SHAPES.values())
    with pytest.raises(TypeError, match=r"attention: mask has dtype float32, wanted bool; an additive mask is passed as bias"):
        attention(q, k, v, mask=jnp.ones((1, 1, 3, 6)))
    with pytest.raises(TypeError, match=r"attention: bias has dtype bool, wanted a floating-point dtype"):
        attention(q, k, v, jnp.ones((1, 1, 3, 6), bool))
    with pytest.raises(TypeError, match=r"attention: scale is a traced array, wanted a Python number"):
        jax.jit(lambda scale: attention(q, k, v, scale=scale))(0.5)
