"""Convolution and pooling against lax, flax, torch and im2col, over the options."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import manual_vjp as mv
import verify
from manual_vjp import _depthwise, _windows
from manual_vjp.catalog import SPECS
from manual_vjp.ops import conv as conv_module
from tests.ops.test_against_libraries import TIGHT, agree, normal
from verify._compat import enable_x64

LAYOUT = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}

# space, kernel, strides, padding, input_dilation, kernel_dilation, groups
CONVOLUTIONS = [
    ((8,), (3,), (1,), "SAME", (1,), (1,), 1),
    ((9,), (2,), (4,), ((0, 0),), (1,), (1,), 1),  # the stride leaves three places
    ((9,), (3,), (2,), ((5, 6),), (1,), (2,), 2),  # padding beyond the kernel
    ((9,), (3,), (2,), ((-2, -3),), (2,), (1,), 3),  # places are taken away
    ((2,), (5,), (1,), ((0, 0),), (1,), (1,), 1),  # the window does not fit: no output
    ((6,), (1,), (3,), ((-1, 4),), (3,), (1,), 6),
    ((7, 8), (3, 2), (1, 1), "SAME", (1, 1), (1, 1), 1),
    ((7, 8), (3, 3), (2, 2), "SAME", (1, 1), (1, 1), 6),  # depthwise
    ((7, 8), (3, 2), (3, 2), "VALID", (1, 1), (1, 1), 2),
    ((7, 8), (2, 3), (2, 3), ((4, 1), (-1, 5)), (2, 1), (1, 2), 3),
    ((7, 8), (2, 3), (1, 2), ((-3, 0), (6, -6)), (1, 3), (3, 1), 1),
    ((5, 4, 6), (2, 3, 1), (1, 2, 2), "SAME", (1, 1, 1), (1, 1, 1), 1),
    ((5, 4, 6), (3, 2, 2), (2, 1, 3), ((1, 0), (3, -1), (0, 2)), (1, 2, 1), (2, 1, 1), 2),
]
every_convolution = pytest.mark.parametrize(
    ("space", "kernel", "strides", "padding", "input_dilation", "kernel_dilation", "groups"), CONVOLUTIONS
)


@every_convolution
def test_conv_against_lax(space, kernel, strides, padding, input_dilation, kernel_dilation, groups):
    """Value and gradients, and the kernel's cotangent in the two ways it is computed in: what accelerators run is not chosen here."""
    windows = _windows.require_windows("conv", space, kernel, strides, padding, kernel_dilation, input_dilation)
    x, w, b = normal(3, *space, 6), normal(*kernel, 6 // groups, 12, seed=1), normal(12, seed=2)
    options = {"strides": strides, "padding": padding, "input_dilation": input_dilation, "kernel_dilation": kernel_dilation}

    def ours(x, w, b):
        return mv.conv(x, w, b, **options, feature_group_count=groups)

    def theirs(x, w, b):
        names = {"window_strides": strides, "padding": padding, "lhs_dilation": input_dilation, "rhs_dilation": kernel_dilation}
        return lax.conv_general_dilated(x, w, **names, dimension_numbers=LAYOUT[len(space)], feature_group_count=groups) + b

    def two_at_a_time(*args):
        each = 6 * int(np.prod([window.outputs * window.size for window in windows]))
        return conv_module._w_ct_as_products(*args, elements=2 * each)

    @jax.jit
    def both(x, w, b, ct):
        (y, pull), (want, want_pull) = jax.vjp(ours, x, w, b), jax.vjp(theirs, x, w, b)
        ways = [conv_module._w_ct_as_convolution, conv_module._w_ct_as_products, two_at_a_time] if ct.size else []
        more = [way(x, ct, windows, groups, x.dtype) for way in ways]
        return (y, pull(ct), more), (want, want_pull(ct), [want_pull(ct)[1]] * len(more))

    with enable_x64(True):
        args = [jnp.asarray(a) for a in (x, w, b)]
        ct = jnp.asarray(normal(*jax.eval_shape(theirs, *args).shape, seed=3))
        assert ct.shape[1:-1] == tuple(window.outputs for window in windows)
        for got, want in zip(*map(jax.tree.leaves, both(*args, ct)), strict=True):
            np.testing.assert_allclose(got, want, rtol=TIGHT, atol=TIGHT)


@pytest.mark.parametrize(
    "padding", [((-2, 1), (-3, 3)), ((6, -1), (1, 4)), ((-4, 4), (0, 0)), ((-9, 12), (2, 0)), ((0, 5), (5, 0))], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_places_that_negative_padding_leaves_out_are_not_read(padding, dtype):
    """XLA's convolution on CPU reads beyond the array there, in float32 (openxla/xla#48713); in the second and the last of these in the gradient."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 8, 7, 4)), rng.normal(size=(1, 2, 4, 4))
    ct = rng.normal(size=jax.eval_shape(lambda: mv.conv(x, w, padding=padding)).shape)

    def all_of_it(conv, *arrays):
        y, pullback = jax.vjp(lambda x, w: conv(x, w, padding=padding), *arrays[:2])
        return y, *pullback(arrays[2].astype(y.dtype))

    got = jax.jit(lambda *arrays: all_of_it(mv.conv, *arrays))(*(jnp.asarray(array, dtype) for array in (x, w, ct)))
    with enable_x64(True):
        want = jax.jit(lambda *arrays: all_of_it(conv_module.reference, *arrays))(*map(jnp.asarray, (x, w, ct)))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(a, float), b, rtol=0, atol=np.max(np.abs(b)) * (1e-5 if dtype == "float32" else 0.03))


def test_conv_in_blocks_of_examples_and_its_second_derivative():
    """Large enough for a loop of three blocks, each of one example."""
    x, w, ct = normal(3, 40, 40, 64), normal(3, 3, 64, 2, seed=1), normal(3, 40, 40, 2, seed=2)
    assert conv_module.BLOCK / 2 < 9 * 40 * 40 * 64

    def kernels_cotangent(conv):
        return jax.jit(lambda x, w: jax.vjp(lambda w: jnp.sin(conv(x, w)), w)[1](ct)[0])

    plain = jax.tree_util.Partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=LAYOUT[2])
    agree(kernels_cotangent(mv.conv), kernels_cotangent(plain), x, w, rtol=1e-10)  # sums of 4,800 terms


def test_each_channel_for_itself_in_blocks_of_examples():
    """A loop over three examples at a time, and two that are left; each channel makes two outputs."""
    x, w = normal(5, 20, 18, 32), normal(3, 3, 1, 64, seed=1)
    assert 2 * 20 * 18 * 64 < _depthwise.BLOCK < 4 * 20 * 18 * 64
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT[2], "feature_group_count": 32}
    ours = jax.tree_util.Partial(mv.conv, feature_group_count=None)
    agree(ours, jax.tree_util.Partial(lax.conv_general_dilated, **options), x, w, rtol=1e-10)


def im2col(x, kernel, strides, low, outputs, input_dilation, kernel_dilation):
    """The matrix X `(N * outputs, kernel * C)` of numbers, and where in x each column entry comes from (-1: nowhere); written with loops."""
    n, *space, c = x.shape
    number = np.arange(x.size).reshape(x.shape)
    source = np.full((n, *outputs, *kernel, c), -1)
    for p, k in itertools.product(itertools.product(*map(range, outputs)), itertools.product(*map(range, kernel))):
        place = [pi * s + ki * e - lo for pi, s, ki, e, lo in zip(p, strides, k, kernel_dilation, low, strict=True)]
        if all(at % d == 0 and 0 <= at // d < size for at, d, size in zip(place, input_dilation, space, strict=True)):
            element = tuple(at // d for at, d in zip(place, input_dilation, strict=True))
            source[(slice(None), *p, *k)] = number[(slice(None), *element)]
    source = source.reshape(-1, int(np.prod(kernel)) * c)
    return np.where(source >= 0, x.reshape(-1)[source], 0.0), source


@pytest.mark.parametrize("which", [2, 3, 9, 10, 12])
def test_conv_is_im2col_and_a_matrix_product(which):
    """Y = X W, W_ct = X^T Y_ct, X_ct = col2im(Y_ct W^T), in numpy, where the channels have one group."""
    space, kernel, strides, padding, input_dilation, kernel_dilation, _ = CONVOLUTIONS[which]
    x, w = normal(2, *space, 3), normal(*kernel, 3, 4, seed=1)
    options = {"strides": strides, "padding": padding, "input_dilation": input_dilation, "kernel_dilation": kernel_dilation}
    with enable_x64(True):
        y, pullback = jax.vjp(lambda x, w: mv.conv(x, w, **options), jnp.asarray(x), jnp.asarray(w))
        y_ct = normal(*y.shape, seed=2)
        x_ct, w_ct = pullback(jnp.asarray(y_ct))
    matrix, source = im2col(x, kernel, strides, [low for low, _ in padding], y.shape[1:-1], input_dilation, kernel_dilation)
    columns = w.reshape(-1, 4)
    copies = y_ct.reshape(-1, 4) @ columns.T
    want_x_ct = np.zeros(x.size)
    np.add.at(want_x_ct, source[source >= 0], copies[source >= 0])
    for got, want in ((y, matrix @ columns), (w_ct, matrix.T @ y_ct.reshape(-1, 4)), (x_ct, want_x_ct)):
        np.testing.assert_allclose(np.asarray(got).reshape(want.shape), want, rtol=TIGHT, atol=TIGHT)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=["none", "two"])
def test_conv_as_a_flax_layer(batch):
    x, kernel, bias = normal(*batch, 7, 8, 4), normal(3, 2, 2, 6, seed=1), normal(6, seed=2)
    layer = linen.Conv(6, (3, 2), strides=2, padding=1, kernel_dilation=2, feature_group_count=2, param_dtype="float64")
    agree(
        lambda x, w, b: mv.conv(x, w, b, strides=2, padding=1, kernel_dilation=2, feature_group_count=2),
        lambda x, w, b: layer.apply({"params": {"kernel": w, "bias": b}}, x),
        x, kernel, bias,
    )  # fmt: skip


def test_groups_may_be_read_from_the_shapes():
    x, w = normal(2, 5, 6), normal(3, 2, 9, seed=1)
    agree(lambda x, w: mv.conv(x, w, feature_group_count=None), lambda x, w: mv.conv(x, w, feature_group_count=3), x, w)


def test_vmap_of_conv_on_split_inputs():
    """`jax.vmap(jax.grad)` of lax.conv_general_dilated itself is wrong here (XLA to JAX 0.12 splits the convolution by groups that it becomes)."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    x, w, ct = normal(4, 1, 3, 3, 2), normal(2, 2, 2, 3, seed=1), normal(4, 1, 3, 3, 3, seed=2)

    @jax.jit
    def kernels_cotangent(x, w, ct):
        return jax.vjp(lambda w: jax.vmap(mv.conv, in_axes=(0, None))(x, w), w)[1](ct)[0]

    with enable_x64(True):
        want = kernels_cotangent(*map(jnp.asarray, (x, w, ct)))
        split = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in ((x, P("d")), (w, P()), (ct, P("d")))]
        np.testing.assert_allclose(kernels_cotangent(*split), want, rtol=TIGHT, atol=TIGHT)


POOLS = [
    ((9,), (3,), (2,), "VALID"),
    ((9,), (2,), (4,), ((1, 3),)),
    ((7, 8), (2, 2), (2, 2), "VALID"),
    ((7, 8), (3, 2), (1, 3), "SAME"),
    ((7, 8), (3, 3), (2, 2), ((2, 0), (0, 2))),
    ((14, 11), (9, 8), (2, 1), "SAME"),  # more than 64 elements: one axis after the other
    ((5, 4, 6), (2, 3, 2), (1, 2, 3), "SAME"),
]


@pytest.mark.parametrize(("space", "window", "strides", "padding"), POOLS)
def test_pooling_against_flax(space, window, strides, padding):
    """The gradient of maxima with ties, too: small whole numbers. All in one program, as compiling takes longest."""
    options = {"strides": strides, "padding": padding}
    x, ties = normal(2, *space, 3), np.random.default_rng(1).integers(0, 3, size=(2, *space, 3)).astype(float)

    def all_of(max_pool, avg_pool):
        def run(x, ties):
            averages = [avg_pool(x, window, **options, count_include_pad=count) for count in (True, False)]
            return jnp.stack([max_pool(x, window, **options), max_pool(ties, window, **options), *averages])

        return run

    agree(jax.jit(all_of(mv.max_pool, mv.avg_pool)), jax.jit(all_of(linen.max_pool, linen.avg_pool)), x, ties)


def test_pooling_of_nothing_and_of_padding_alone():
    x = jnp.arange(6.0).reshape(1, 2, 3)
    assert mv.max_pool(x, (3,)).shape == mv.avg_pool(x, (3,)).shape == (1, 0, 3)
    assert not jax.grad(lambda x: mv.max_pool(x, (3,)).sum() + mv.avg_pool(x, (3,)).sum())(x).any()
    options = {"padding": ((2, 0),), "strides": 2}
    np.testing.assert_array_equal(mv.max_pool(x, (2,), **options)[0, :, 0], [-np.inf, 3])
    np.testing.assert_array_equal(mv.avg_pool(x, (2,), **options, count_include_pad=False)[0, :, 0], [0, 1.5])
    gradient = jax.grad(lambda x: mv.max_pool(x, (2,), **options).sum() + mv.avg_pool(x, (2,), **options, count_include_pad=False).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, 0], [0.5, 1.5])


def test_max_pool_of_nan_is_nan_and_keeps_a_byte_for_each_output():
    y = mv.max_pool(jnp.array([[1.0], [jnp.nan], [2.0], [3.0]]), (2,), strides=2)
    assert np.isnan(y[0, 0]) and y[1, 0] == 3
    x = jnp.zeros((2, 8, 8, 4))
    _, pullback = jax.vjp(lambda x: mv.max_pool(x, (2, 2), strides=2), x)
    assert [(leaf.dtype, leaf.shape) for leaf in jax.tree.leaves(pullback)] == [("uint8", (2, 4, 4, 4))]


def test_torch_agrees_where_it_is_installed():
    torch = pytest.importorskip("torch")
    x, w, b = normal(2, 7, 8, 4), normal(3, 2, 2, 6, seed=1), normal(6, seed=2)
    ties = np.random.default_rng(3).integers(0, 3, size=x.shape).astype(float)
    functional = torch.nn.functional

    def channels_first(a):
        return a.permute(0, 3, 1, 2)

    pairs = [
        (
            lambda x, w, b: mv.conv(x, w, b, strides=(2, 1), padding=1, kernel_dilation=2, feature_group_count=2),
            lambda x, w, b: functional.conv2d(channels_first(x), w.permute(3, 2, 0, 1), b, stride=(2, 1), padding=1, dilation=2, groups=2),
            (x, w, b),
        ),
        (
            lambda x: mv.max_pool(x, (3, 2), strides=2, padding=1),
            lambda x: functional.max_pool2d(channels_first(x), (3, 2), 2, 1),
            (ties,),
        ),
        (
            lambda x: mv.avg_pool(x, (3, 2), strides=2, padding=1, count_include_pad=False),
            lambda x: functional.avg_pool2d(channels_first(x), (3, 2), 2, 1, count_include_pad=False),
            (x,),
        ),
    ]
    for ours, theirs, args in pairs:
        tensors = [torch.tensor(a, requires_grad=True) for a in args]
        want = theirs(*tensors).permute(0, 2, 3, 1)
        ct = normal(*want.shape, seed=4)
        with enable_x64(True):
            got, pullback = jax.vjp(ours, *map(jnp.asarray, args))
            cts = pullback(jnp.asarray(ct))
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=TIGHT, atol=TIGHT)
        for g, w in zip(cts, torch.autograd.grad(want, tensors, torch.tensor(ct)), strict=True):
            np.testing.assert_allclose(g, w.numpy(), rtol=TIGHT, atol=TIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [pytest.param(1, marks=pytest.mark.nightly), pytest.param(3, marks=pytest.mark.nightly)])
def test_other_numbers_of_dimensions_are_verified(rank):
    """The catalog's specs are of two dimensions."""
    space, kernel = "H W D"[: 2 * rank - 1], "K L M"[: 2 * rank - 1]
    sizes = {
        "B": (1, 2),
        "H": (3, 9),
        "W": (3, 6),
        "D": (3, 5),
        "C": (1, 3),
        "G": (1, 2),
        "O": (1, 3),
        "K": (1, 3),
        "L": (1, 2),
        "M": (1, 2),
    }
    x = {"x": verify.Arg(dims=f"B {space} G*C")}
    for spec, more, options in (
        (conv_module.SPEC, {"w": verify.Arg(dims=f"{kernel} C G*O"), "b": verify.Arg(dims="G*O")}, {"strides": (1, 2), "feature_group_count": (None,)}),
        (SPECS["max_pool"], {}, {"strides": (1, 2), "window_shape": ((2, 3, 2)[:rank],), "padding": ("SAME", "VALID")}),
        (SPECS["avg_pool"], {}, {"strides": (1, 2), "window_shape": ((2, 3, 2)[:rank],), "padding": ("SAME", "VALID")}),
    ):  # fmt: skip
        args = {**x, **more}
        named = {name for arg in args.values() for name in arg.dims.replace("*", " ").split()}
        own = dataclasses.replace(spec, args=args, options=options, sizes={name: bounds for name, bounds in sizes.items() if name in named})
        verdict = verify.run(own, cases=16)
        assert verdict, verdict


X, W = jnp.ones((2, 5, 6, 4)), jnp.ones((3, 2, 4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mv.conv(X, W.astype(int)), "conv: w has dtype int32, wanted a floating-point dtype"),
        (lambda: mv.conv(X, jnp.ones((4, 3))), r"conv: w has shape \(4, 3\), wanted \(\*kernel, C, O\) with one to three"),
        (lambda: mv.conv(jnp.ones((6, 4)), W), r"conv: x has shape \(6, 4\), wanted \(\*batch, \*space, C\) with 2 spatial"),
        (lambda: mv.conv(X, jnp.ones((0, 2, 4, 3))), "wanted a kernel of at least one element"),
        (lambda: mv.conv(X, W, feature_group_count=2), r"wanted 4 channels of x to be those of w times feature_group_count \(2\)"),
        (lambda: mv.conv(X, jnp.ones((3, 2, 2, 3)), feature_group_count=2), "3 outputs to be a multiple of it"),
        (lambda: mv.conv(X, W, jnp.ones(4)), r"conv: b has shape \(4,\), wanted \(3,\)"),
        (lambda: mv.conv(X, W, strides=0), "conv: strides is 0, wanted a whole number of at least 1, or 2 of them"),
        (lambda: mv.conv(X, W, kernel_dilation=(1, 2, 1)), r"conv: kernel_dilation is \(1, 2, 1\), wanted"),
        (lambda: mv.conv(X, W, input_dilation=1.5), "conv: input_dilation is 1.5, wanted"),
        (lambda: mv.conv(X, W, padding="CIRCULAR"), 'conv: padding is \'CIRCULAR\', wanted "SAME", "VALID", a whole number, or 2'),
        (lambda: mv.conv(X, W, padding=((1, 1),)), r"conv: padding is \(\(1, 1\),\), wanted"),
        (lambda: mv.conv(X, W, padding=((1, 1), (1, 1, 1))), "conv: padding is .* wanted"),
        (lambda: mv.max_pool(X.astype(int), (2, 2)), "max_pool: x has dtype int32, wanted a floating-point dtype"),
        (lambda: mv.max_pool(X, 2), "max_pool: window_shape is 2, wanted a tuple of one to three whole numbers"),
        (lambda: mv.avg_pool(X, (2, 0)), r"avg_pool: window_shape is \(2, 0\), wanted a tuple"),
        (lambda: mv.avg_pool(jnp.ones((3, 4)), (2, 2)), r"avg_pool: x has shape \(3, 4\), wanted \(\*batch, \*space, C\) with 2"),
    ],
)  # fmt: skip
def test_messages(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
