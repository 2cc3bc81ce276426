"""Layers with structure (low rank, sparsity, lookup, projection, least squares, residual): what they must not compute, and libraries that compute the same."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import export
from jax.experimental import sparse
from jax.experimental.sparse import BCOO
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import manual_vjp as mv
from manual_vjp.ops import sparse_linear as sparse_module
from tests.ops.test_against_libraries import TIGHT, agree, normal
from verify._compat import enable_x64


def program(function, *args):
    """Every array shape in the lowered value and gradients of `function`, as text such as "12x34"."""

    def both(*args):
        out, pullback = jax.vjp(function, *args)
        return out, pullback(out)

    shapes = set(re.findall(r"tensor<((?:\d+x)+)[a-z]", jax.jit(both).lower(*args).as_text()))
    assert shapes
    return {shape.rstrip("x") for shape in shapes}


def pattern(d_in, d_out, nse, seed=0):
    """Places of a matrix, some of them twice."""
    rng = np.random.default_rng(seed)
    places = np.stack([rng.integers(0, d_in, nse), rng.integers(0, d_out, nse)], axis=1).astype(np.int32)
    places[-2:] = places[:2]
    return places


# low rank


@pytest.mark.parametrize("residuals", ["hidden", "minimal"])
def test_low_rank_is_the_dense_layer(residuals):
    agree(
        lambda x, u, v, b: mv.low_rank_linear(x, u, v, b, residuals=residuals),
        lambda x, u, v, b: x @ (u @ v.T) + b,
        normal(4, 2, 7), normal(7, 3, seed=1), normal(5, 3, seed=2), normal(5, seed=3),
    )  # fmt: skip


@pytest.mark.parametrize("residuals", ["hidden", "minimal"])
def test_low_rank_never_forms_the_weights(residuals):
    args = jnp.ones((5, 37)), jnp.ones((37, 2)), jnp.ones((41, 2))
    assert not {"37x41", "41x37"} & program(lambda *a: mv.low_rank_linear(*a, residuals=residuals), *args)
    assert "37x41" in program(lambda x, u, v: x @ (u @ v.T), *args)


def test_minimal_low_rank_keeps_its_arguments_only():
    args = jnp.ones((5, 7)), jnp.ones((7, 2)), jnp.ones((3, 2))

    def kept(**options):
        return {leaf.shape for leaf in jax.tree.leaves(jax.vjp(lambda *a: mv.low_rank_linear(*a, **options), *args)[1])}

    assert kept(residuals="minimal") == {a.shape for a in args}
    assert kept() == {*(a.shape for a in args), (5, 2)}


# sparse


# one block of entries; several, and one that is left over
@pytest.mark.parametrize(("nse", "with_bias"), [(9, False), (700, True)])
def test_sparse_against_jax(nse, with_bias, monkeypatch):
    monkeypatch.setattr(sparse_module, "CPU", 2**9)
    places = jnp.asarray(pattern(30, 40, nse))
    bias = normal(40, seed=2) if with_bias else None

    def ours(x, data, b):
        return mv.sparse_linear(x, BCOO((data, places), shape=(30, 40)), b)

    def theirs(x, data, b):
        y = x @ BCOO((data, places), shape=(30, 40))
        return y if b is None else y + b

    agree(ours, theirs, normal(6, 30), normal(nse, seed=1), bias)


def test_sparse_against_a_dense_matrix_under_vmap_and_twice():
    """Blocks and the choice by platform, under vmap over the data, and differentiated twice; a wrong term of second order is 1e-3 and more."""
    places = jnp.asarray(pattern(20, 30, 2500))

    def second(product):
        def loss(x, data):
            first = jax.grad(lambda x, data: jnp.sum(jnp.sin(product(x, data))), argnums=(0, 1))(x, data)
            return sum(jnp.sum(g**2) for g in first)

        return jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, 0)))

    with enable_x64(True):
        x, data = jnp.asarray(normal(30, 20)), jnp.asarray(normal(2, 2500, seed=1)) / 50
        ours = second(lambda x, data: mv.sparse_linear(x, BCOO((data, places), shape=(20, 30))))(x, data)
        theirs = second(lambda x, data: x @ jnp.zeros((20, 30)).at[places[:, 0], places[:, 1]].add(data))(x, data)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=TIGHT, atol=TIGHT * np.max(np.abs(want)))


def test_sparse_blocks_over_devices_and_for_other_platforms():
    """More entries than a block holds, so a loop chosen by platform: in `jax.shard_map` with x split, and exported."""
    places, ct = jnp.asarray(pattern(20, 30, 4000)), jnp.asarray(normal(80, 30, seed=2))
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))

    def grads(x, data, ct):
        return jax.grad(lambda x, data: jnp.sum(mv.sparse_linear(x, BCOO((data, places), shape=(20, 30))) * ct), argnums=(0, 1))(x, data)

    with enable_x64(True):
        args = jnp.asarray(normal(80, 20)), jnp.asarray(normal(4000, seed=1)), ct
        dense = jnp.zeros((20, 30)).at[places[:, 0], places[:, 1]].add(args[1])
        want = ct @ dense.T, (args[0].T @ ct)[places[:, 0], places[:, 1]]
        split = jax.shard_map(grads, mesh=mesh, in_specs=(P("d"), P(), P("d")), out_specs=(P("d"), P()))
        exported = export.export(jax.jit(grads), platforms=("cpu", "cuda", "rocm", "tpu"))(*args)
        for got in (jax.jit(split)(*args), exported.call(*args)):
            for g, w in zip(got, want, strict=True):
                np.testing.assert_allclose(g, w, rtol=TIGHT, atol=TIGHT * float(jnp.max(jnp.abs(w))))


def test_sparse_never_forms_the_matrix():
    places, x = jnp.asarray(pattern(370, 410, 900)), jnp.ones((5, 370))
    ours = program(lambda x, data: mv.sparse_linear(x, BCOO((data, places), shape=(370, 410))), x, jnp.ones(900))
    assert not {"370x410", "410x370", "151700"} & ours
    large = program(lambda x, data: mv.sparse_linear(x, BCOO((data, places), shape=(370, 410))), jnp.ones((100, 370)), jnp.ones(900))
    assert not {"370x410", "410x370", "151700"} & large
    assert "370x410" in program(lambda x, data: x @ BCOO((data, places), shape=(370, 410)).todense(), x, jnp.ones(900))


def test_sparse_entries_outside_count_for_nothing():
    """What BCOO fills up with, half outside, and negative numbers: no value and no gradient, whatever the data there is."""
    places = jnp.array([[0, 1], [3, 2], [3, 0], [0, 2], [-1, 0], [1, -1], [2, 0]])
    data = jnp.array([1.0, np.nan, np.inf, 5.0, 7.0, np.inf, 2.0])
    x = jnp.array([[1.0, 2.0, 3.0]])
    value, (x_ct, data_ct) = jax.value_and_grad(
        lambda x, data: mv.sparse_linear(x, BCOO((data, places), shape=(3, 2))).sum(), argnums=(0, 1)
    )(x, data)
    assert value == 7.0
    np.testing.assert_array_equal(x_ct, [[1.0, 0.0, 2.0]])
    np.testing.assert_array_equal(data_ct, [1.0, 0, 0, 0, 0, 0, 3.0])


def test_sparse_matrix_as_the_differentiated_argument():
    """`jax.experimental.sparse.grad`, and `jax.grad(allow_int=True)`, whose gradient by the indices is float0."""
    w = BCOO.fromdense(jnp.array([[0.0, 2.0], [3.0, 0.0]]), nse=3)  # one entry fills up
    x = jnp.array([[5.0, 7.0]])
    by_sparse = sparse.grad(lambda w: mv.sparse_linear(x, w).sum())(w)
    by_jax = jax.grad(lambda w: mv.sparse_linear(x, w).sum(), allow_int=True)(w)
    np.testing.assert_array_equal(by_sparse.data, [5.0, 7.0, 0.0])
    np.testing.assert_array_equal(by_jax.data, [5.0, 7.0, 0.0])
    assert by_jax.indices.dtype == jax.dtypes.float0


# embedding


def test_embedding_against_flax():
    indices = jnp.asarray(np.random.default_rng(0).integers(0, 5, size=(3, 40)))  # each row many times
    layer = linen.Embed(num_embeddings=5, features=7)
    agree(lambda table: mv.embedding(table, indices), lambda table: layer.apply({"params": {"embedding": table}}, indices), normal(5, 7))


def test_embedding_padding_is_zero():
    table, indices = jnp.asarray(normal(4, 3), "float32") + 10, jnp.array([[2, 1], [1, 3]])
    y, pullback = jax.vjp(lambda table: mv.embedding(table, indices, padding_index=1), table)
    np.testing.assert_array_equal(y, jnp.where((indices == 1)[..., None], 0, table[indices]))
    np.testing.assert_array_equal(pullback(jnp.ones_like(y))[0].sum(1), [0, 0, 3, 3])


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8"])
def test_embedding_indices_outside(dtype):
    """NaN as `jnp.take` gives, for negative ones too, and no gradient, where PyTorch and numpy raise."""
    indices = jnp.array([0, 100, 2] if dtype == "uint8" else [0, 100, -1], dtype)
    y, pullback = jax.vjp(lambda table: mv.embedding(table, indices), jnp.ones((2, 3)))
    np.testing.assert_array_equal(jnp.isnan(y).all(1), [False, True, True])
    np.testing.assert_array_equal(pullback(jnp.ones_like(y))[0], [[1, 1, 1], [0, 0, 0]])


def test_indices_of_8_bits_in_a_longer_table():
    """300 is no int8: what stands for "outside" must not wrap to row 44."""
    indices = jnp.array([-1, 44, 127], "int8")
    y, pullback = jax.vjp(lambda table: mv.embedding(table, indices, padding_index=200), jnp.ones((300, 1)))
    np.testing.assert_array_equal(y[:, 0], [np.nan, 1, 1])
    assert np.flatnonzero(pullback(jnp.ones_like(y))[0]).tolist() == [44, 127]
    places = jnp.array([[0, 127], [-1, 44]], "int8")
    y = mv.sparse_linear(jnp.ones(300), BCOO((jnp.array([2.0, 3.0]), places), shape=(300, 300)))
    assert np.flatnonzero(y).tolist() == [127]


def test_embedding_sums_16_bit_cotangents_in_float32():
    """1,024 cotangents of 1.0 for one row: bfloat16 alone would stop at 256."""
    table_ct = jax.grad(lambda table: mv.embedding(table, jnp.zeros(1024, "int32")).sum())(jnp.ones((2, 1), "bfloat16"))
    np.testing.assert_array_equal(np.asarray(table_ct, np.float32), [[1024.0], [0.0]])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_embedding_and_least_squares_against_torch():
    import torch

    table, indices, ct = normal(6, 3), np.array([1, 1, 5, 0]), normal(4, 3, seed=1)
    table[0] = 0  # torch's padding row
    theirs = torch.tensor(table, requires_grad=True)
    y = torch.nn.functional.embedding(torch.tensor(indices), theirs, padding_idx=0)
    y.backward(torch.tensor(ct))
    x, b = normal(7, 3, seed=2), normal(7, 2, seed=3)
    their_x, their_b = torch.tensor(x, requires_grad=True), torch.tensor(b, requires_grad=True)
    w = torch.linalg.lstsq(their_x, their_b, driver="gels").solution
    w.backward(torch.tensor(normal(3, 2, seed=4)))
    with enable_x64(True):
        ours, pullback = jax.vjp(lambda t: mv.embedding(t, jnp.asarray(indices), padding_index=0), jnp.asarray(table))
        np.testing.assert_array_equal(ours, y.detach().numpy())
        np.testing.assert_allclose(pullback(jnp.asarray(ct))[0], theirs.grad.numpy(), rtol=TIGHT)
        solution, pullback = jax.vjp(mv.least_squares, jnp.asarray(x), jnp.asarray(b))
        x_ct, b_ct = pullback(jnp.asarray(normal(3, 2, seed=4)))
        np.testing.assert_allclose(solution, w.detach().numpy(), rtol=TIGHT, atol=TIGHT)
        np.testing.assert_allclose(x_ct, their_x.grad.numpy(), rtol=TIGHT, atol=TIGHT)
        np.testing.assert_allclose(b_ct, their_b.grad.numpy(), rtol=TIGHT, atol=TIGHT)


# projection and least squares: the pseudo-inverse of JAX goes by the singular value decomposition


def test_projection_against_the_pseudo_inverse():
    agree(mv.project, lambda x, a: x @ (a @ jnp.linalg.pinv(a)).T, normal(2, 3, 9), normal(9, 4, seed=1), rtol=1e-10)


def test_projection_is_one():
    """P P = P, a is not moved, what is left over is orthogonal; a wide spread of columns (1e6) moves no digit, as q has unit columns."""
    with enable_x64(True):
        x, a = jnp.asarray(normal(5, 9)), jnp.asarray(normal(9, 4, seed=1) * 10.0 ** np.array([-3, 0, 3, 1]))
        y = mv.project(x, a)
        np.testing.assert_allclose(mv.project(y, a), y, rtol=0, atol=1e-13)
        np.testing.assert_allclose(mv.project(a.T, a), a.T, rtol=0, atol=1e-13 * 1e4)
        np.testing.assert_allclose((x - y) @ (a / jnp.linalg.norm(a, axis=0)), 0, rtol=0, atol=1e-13)


def test_projection_never_forms_p():
    assert "61x61" not in program(mv.project, jnp.ones((5, 61)), jnp.asarray(normal(61, 3), "float32"))


@pytest.mark.parametrize(("m", "n"), [(9, 4), (4, 9), (5, 5)], ids=["tall", "wide", "square"])
@pytest.mark.parametrize("columns", [(), (3,)], ids=["one", "several"])
def test_least_squares_against_numpy_and_the_pseudo_inverse(m, n, columns):
    x, y = normal(m, n, seed=3), normal(m, *columns, seed=4)
    with enable_x64(True):
        np.testing.assert_allclose(mv.least_squares(jnp.asarray(x), jnp.asarray(y)), np.linalg.lstsq(x, y)[0], rtol=1e-10, atol=1e-10)
    agree(mv.least_squares, lambda x, y: jnp.linalg.pinv(x) @ y, x, y, rtol=1e-9)  # pinv's derivative divides by differences of squares


@pytest.mark.parametrize(("m", "n"), [(9, 4), (4, 9)], ids=["tall", "wide"])
def test_ridge_is_least_squares_of_an_augmented_system(m, n):
    x, y = normal(m, n, seed=3), normal(m, 2, seed=4)
    augmented = np.concatenate([x, np.sqrt(0.3) * np.eye(n)]), np.concatenate([y, np.zeros((n, 2))])
    with enable_x64(True):
        ours = mv.least_squares(jnp.asarray(x), jnp.asarray(y), l2=0.3)
    np.testing.assert_allclose(ours, np.linalg.lstsq(*augmented)[0], rtol=1e-10, atol=1e-10)
    agree(
        lambda x, y: mv.least_squares(x, y, l2=0.3),
        lambda x, y: jnp.linalg.solve(x.T @ x + 0.3 * jnp.eye(n), x.T @ y),
        x, y, rtol=1e-10,
    )  # fmt: skip


def test_least_squares_where_normal_equations_lose_half_of_the_digits():
    """Condition number 1e6: from a QR factor 1e-16 * 1e6 is left of a small residual's solution, from the normal equations 1e-16 * 1e12."""
    u, _ = np.linalg.qr(normal(20, 5))
    v, _ = np.linalg.qr(normal(5, 5, seed=1))
    x = (u * np.logspace(0, -6, 5)) @ v.T
    want = normal(5, seed=2)
    with enable_x64(True):
        got = mv.least_squares(jnp.asarray(x), jnp.asarray(x @ want))
    got = np.asarray(got)
    assert np.max(np.abs(got - want)) < 1e-9 < np.max(np.abs(np.linalg.solve(x.T @ x, x.T @ (x @ want)) - want))


def test_least_squares_with_columns_over_devices():
    """x on all devices, the columns of y split: x_ct is the sum over them."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    with enable_x64(True):
        x, y, ct = (jnp.asarray(a) for a in (normal(6, 3), normal(6, 8, seed=1), normal(3, 8, seed=2)))
        grads = jax.grad(lambda x, y, ct: jnp.sum(mv.least_squares(x, y) * ct), argnums=(0, 1))
        split = jax.shard_map(grads, mesh=mesh, in_specs=(P(), P(None, "d"), P(None, "d")), out_specs=(P(), P(None, "d")))
        for got, want in zip(jax.jit(split)(x, y, ct), grads(x, y, ct), strict=True):
            np.testing.assert_allclose(got, want, rtol=TIGHT, atol=TIGHT)


# residual connection


def mlp_block(x, params, linear=jnp.matmul):
    return linear(jnp.sin(linear(x, params["w"][0])), params["w"][1])


def test_residual_of_a_pytree_and_of_a_closure():
    """The function holds rules of its own."""

    def ours(x, a, b, c, scale):
        return mv.residual(lambda x, params: c * mlp_block(x, params, mv.linear), x, {"w": (a, b)}, scale)

    def theirs(x, a, b, c, scale):
        return x + scale * c * mlp_block(x, {"w": (a, b)})

    args = normal(4, 3), normal(3, 7, seed=1), normal(7, 3, seed=2), normal(3, seed=3)
    for scale in (normal(3, seed=4), normal(4, 1, seed=5), normal(seed=6)):  # LayerScale, stochastic depth, ReZero
        agree(ours, theirs, *args, scale)


def test_residual_with_what_has_no_gradient_under_scan():
    """Integers, booleans and keys among the parameters and in the closure, in a scan over layers that is compiled and differentiated."""
    weights, x = jnp.asarray(normal(3, 4, 4), "float32"), jnp.asarray(normal(2, 4), "float32")
    keys = jax.random.split(jax.random.key(0), 3)

    def loss(connect, weights, x, offset):
        def layer(x, parts):
            def f(x, parts):
                w, key, on = parts
                noise = jax.random.bernoulli(key, 0.5, x.shape) & on
                return jnp.where(noise, jnp.tanh(x @ w), 0) + jnp.arange(4.0)[offset]

            return connect(f, x, parts), None

        return jnp.sum(jax.lax.scan(layer, x, (weights, keys, jnp.array([True, True, False])))[0] ** 2)

    grads = [
        jax.jit(jax.grad(lambda w, x, connect=connect: loss(connect, w, x, jnp.array(2)), argnums=(0, 1)))(weights, x)
        for connect in (mv.residual, lambda f, x, p: x + f(x, p))
    ]
    for got, want in zip(*grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)  # float32, three layers


def test_a_stack_of_residual_blocks_holds_one_block_at_a_time():
    """XLA's temporary memory of the gradient of 12 blocks with 8 inner arrays each, all of which autodiff keeps; ours keeps each block's x."""

    def inner(x, w):
        for _ in range(8):
            x = jnp.sin(x @ w)
        return x

    def temporary(connect):
        def loss(x, ws):
            return jnp.sum(jax.lax.scan(lambda x, w: (connect(inner, x, w), None), x, ws)[0] ** 2)

        program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(jnp.ones((512, 32)), jnp.ones((12, 32, 32)))
        return program.compile().memory_analysis().temp_size_in_bytes

    assert temporary(mv.residual) < temporary(lambda f, x, w: x + f(x, w)) / 3


def test_residual_of_a_varying_function_of_an_unvarying_x():
    """Under `jax.shard_map`: x the same on all devices, a parameter and a closure that differ, in any combination."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    with enable_x64(True):
        x, w, c = (jnp.asarray(normal(*shape, seed=len(shape))) for shape in ((3,), (4, 3, 3), (4, 3)))
        for w_spec, c_spec in ((P("d"), P("d")), (P("d"), P()), (P(), P("d"))):

            def loss(connect, x, w, c, per_device):
                y = sum(connect(lambda x, w, c=c_k: c * jnp.tanh(x @ w), x, w_k) for w_k, c_k in zip(*per_device(w, c), strict=True))
                return jnp.sum(jnp.sin(y))

            def local(w, c):
                return [w[0]], [c[0]]

            def everywhere(w, c, w_spec=w_spec, c_spec=c_spec):
                return w[:1] if w_spec == P() else w, c[:1] if c_spec == P() else c

            def split(x, w, c):
                return jax.lax.psum(loss(mv.residual, x, w, c, local), "d")

            def plain(x, w, c):
                ws, cs = (jnp.broadcast_to(a, (4, *a.shape[1:])) for a in everywhere(w, c))
                return sum(loss(lambda f, x, w: x + f(x, w), x, ws[k : k + 1], cs[k : k + 1], lambda w, c: (w, c)) for k in range(4))

            program = jax.jit(jax.grad(jax.shard_map(split, mesh=mesh, in_specs=(P(), w_spec, c_spec), out_specs=P()), argnums=(0, 1, 2)))
            for got, want in zip(program(x, w, c), jax.grad(plain, argnums=(0, 1, 2))(x, w, c), strict=True):
                np.testing.assert_allclose(got, want, rtol=TIGHT, atol=TIGHT)


# bad input


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mv.low_rank_linear(jnp.ones(3), jnp.ones((2, 1)), jnp.ones((2, 1))), ValueError, r"u has shape \(2, 1\), wanted \(3, r\)"),
        (lambda: mv.low_rank_linear(jnp.ones(3), jnp.ones((3, 1)), jnp.ones((2, 2))), ValueError, r"v has shape \(2, 2\), wanted \(d_out, 1\)"),
        (lambda: mv.low_rank_linear(jnp.ones(3), jnp.ones((3, 1)), jnp.ones((2, 1)), residuals="x"), ValueError, "'hidden' or 'minimal'"),
        (lambda: mv.low_rank_linear(jnp.ones(()), jnp.ones((3, 1)), jnp.ones((2, 1))), ValueError, "at least one dimension"),
        (lambda: mv.sparse_linear(jnp.ones(3), jnp.ones((3, 2))), TypeError, r"w is .*, wanted a jax.experimental.sparse.BCOO"),
        (lambda: mv.sparse_linear(jnp.ones(3), BCOO.fromdense(jnp.ones((2, 2)))), ValueError, r"w has shape \(2, 2\), wanted \(3, d_out\)"),
        (lambda: mv.sparse_linear(jnp.ones(3), BCOO.fromdense(jnp.ones((3, 2)), n_dense=1)), ValueError, "1 dense dimensions, wanted none"),
        (lambda: mv.sparse_linear(jnp.ones(3), BCOO.fromdense(jnp.ones((3, 2), "int32"))), TypeError, "w.data has dtype int32"),
        (lambda: mv.sparse_linear(jnp.ones(()), BCOO.fromdense(jnp.ones((3, 2)))), ValueError, "at least one dimension"),
        (lambda: mv.embedding(jnp.ones(3), jnp.array([1])), ValueError, r"table has shape \(3,\), wanted \(V, D\)"),
        (lambda: mv.embedding(jnp.ones((0, 2)), jnp.array([1])), ValueError, "with V of at least 1"),
        (lambda: mv.embedding(jnp.ones((3, 2)), jnp.array([1.0])), TypeError, "indices has dtype float32, wanted integers"),
        (lambda: mv.embedding(jnp.ones((3, 2)), jnp.array([1]), padding_index=3), ValueError, "padding_index is 3, wanted a row"),
        (lambda: mv.project(jnp.ones(2), jnp.ones((2, 3))), ValueError, r"a has shape \(2, 3\), wanted \(m, n\) with n <= m"),
        (lambda: mv.project(jnp.ones(2), jnp.ones((3, 2))), ValueError, r"a has shape \(3, 2\), wanted \(2, n\)"),
        (lambda: mv.project(jnp.ones(()), jnp.ones((3, 2))), ValueError, "at least one dimension"),
        (lambda: mv.least_squares(jnp.ones((3, 2)), jnp.ones(2)), ValueError, r"y has shape \(2,\), wanted \(3,\) or \(3, k\)"),
        (lambda: mv.least_squares(jnp.ones((3, 2)), jnp.ones(3), l2=-1.0), ValueError, "l2 is -1.0, wanted a number of at least 0"),
        (lambda: mv.residual(lambda x, p: x[:1], jnp.ones(3)), ValueError, r"the shape of x, \(3,\)"),
        (lambda: mv.residual(lambda x, p: (x, x), jnp.ones(3)), ValueError, "wanted one array"),
        (lambda: mv.residual(lambda x, p: x > 0, jnp.ones(3)), TypeError, r"f\(x, params\) has dtype bool"),
        (lambda: mv.residual(lambda x, p: x, jnp.ones(3), None, jnp.ones((2, 3))), ValueError, r"scale has shape \(2, 3\)"),
        (lambda: mv.residual(lambda x, p: x, jnp.ones(3), None, jnp.ones(2)), ValueError, r"scale has shape \(2,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
