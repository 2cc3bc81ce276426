"""The pieces of training around the layers: the textbook's formula, the library that people use, and our rules inside, all three agreeing.

In float64, where rounding is below TIGHT of the largest number: some hundred operations of 1.1e-16 each.
"""

import math
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.nn import initializers

from manual_vjp import attention, embedding, gelu, layer_norm, linear, mlp, relu, rms_norm, softmax_cross_entropy
from verify._compat import enable_x64, walk

TIGHT = 1e-13
ROWS, D_IN, HIDDEN, CLASSES = 12, 5, 7, 3


@pytest.fixture(autouse=True)
def float64():
    with enable_x64(True):
        yield


def close(got, want):
    for path, (g, w) in zip(range(99), zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True), strict=False):
        assert g.dtype == w.dtype and g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=0, atol=TIGHT * float(jnp.max(jnp.abs(w))), err_msg=f"leaf {path}")


def draw(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def a_model():
    names = {"w1": (D_IN, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, CLASSES), "b2": (CLASSES,)}
    return {name: draw(k, *shape) for k, (name, shape) in enumerate(names.items())}


def a_batch(seed=9):
    return draw(seed, ROWS, D_IN), jnp.asarray(np.random.default_rng(seed).integers(CLASSES, size=ROWS))


@jax.jit
def gradient_of(params, x, labels):
    return jax.grad(lambda p: softmax_cross_entropy(mlp(x, p["w1"], p["b1"], p["w2"], p["b2"]), labels))(params)


def norm(tree):
    """The textbook's: the root of the sum of all squares, over all arrays."""
    return math.sqrt(sum(float((np.asarray(a) ** 2).sum()) for a in jax.tree.leaves(tree)))


# Clipping by the global norm: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks" (2013), algorithm 1: g <- g min(1, c / ||g||)


@pytest.mark.parametrize("part", [0.25, 1 - 1e-6, 1 + 1e-6, 4.0])
def test_clipping_by_global_norm(part):
    gradient = gradient_of(a_model(), *a_batch())
    limit = part * norm(gradient)
    clip = optax.clip_by_global_norm(limit)
    clipped, _ = clip.update(gradient, clip.init(gradient))
    close(clipped, jax.tree.map(lambda g: g * min(1, limit / norm(gradient)), gradient))
    assert norm(clipped) == pytest.approx(min(limit, norm(gradient)), rel=TIGHT)


# Momentum: Polyak (1964); Sutskever et al. (2013): v <- mu v + g, w <- w - rate v


def test_momentum():
    rate, mu = 0.3, 0.9
    optimizer = optax.sgd(rate, momentum=mu)
    params = w = a_model()
    state, v = optimizer.init(params), jax.tree.map(jnp.zeros_like, w)
    for seed in range(5):
        updates, state = optimizer.update(gradient_of(params, *a_batch(seed)), state)
        params = optax.apply_updates(params, updates)
        v = jax.tree.map(lambda v, g: mu * v + g, v, gradient_of(w, *a_batch(seed)))
        w = jax.tree.map(lambda w, v: w - rate * v, w, v)
    close(params, w)
    plain = optax.apply_updates(a_model(), jax.tree.map(lambda g: -rate * g, gradient_of(a_model(), *a_batch(0))))
    assert norm(jax.tree.map(jnp.subtract, params, plain)) > 0.1 * norm(params)  # the steps went somewhere


# Accumulation: the gradient of a mean over a batch is the mean of the gradients of its equal parts


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_parts_are_the_large_batch(parts):
    params, (x, labels) = a_model(), a_batch()
    pieces = [gradient_of(params, *piece) for piece in zip(jnp.split(x, parts), jnp.split(labels, parts), strict=True)]
    large = gradient_of(params, x, labels)
    close(jax.tree.map(lambda *g: sum(g) / parts, *pieces), large)

    once = optax.chain(optax.clip_by_global_norm(0.5 * norm(large)), optax.sgd(0.3, momentum=0.9))  # the mean is clipped, not its parts
    want, _ = once.update(large, once.init(params))
    steps = optax.MultiSteps(once, every_k_schedule=parts, accumulator_dtype="float64")  # its default is float32
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *pieces)
    _, updates = jax.lax.scan(lambda state, piece: steps.update(piece, state, params)[::-1], steps.init(params), stacked)
    assert norm(jax.tree.map(lambda a: a[:-1], updates)) == 0
    close(jax.tree.map(lambda a: a[-1], updates), want)


# Checkpointing: the same operations once more, so the same gradient

KEEPING = ("attention", "layer_norm", "mlp", "rms_norm")  # rules with residuals of their own
RULES = (*KEEPING, "gelu", "linear")


def a_block(x, p):
    h = layer_norm(linear(rms_norm(x), p["w"]))
    h = attention(*(h.reshape(*h.shape[:-1], 2, -1),) * 3, is_causal=True).reshape(h.shape)
    return x + mlp(gelu(h), p["w1"], p["b1"], p["w2"], p["b2"])


def block_arguments():
    sizes = {"w": (6, 6), "w1": (6, 8), "b1": (8,), "w2": (8, 6), "b2": (6,)}
    return draw(50, 2, 5, 6), {name: draw(60 + k, *shape) for k, (name, shape) in enumerate(sizes.items())}


def block_gradient(block):
    jax.clear_caches()  # programs of the layers as they were
    return jax.jit(jax.value_and_grad(lambda x, p: (jnp.tanh(block(block(x, p), p)) ** 2).sum(), argnums=(0, 1)))(*block_arguments())


@pytest.fixture(scope="module")
def without():
    with enable_x64(True):
        return block_gradient(a_block)


@pytest.mark.parametrize("policy", [pytest.param("nothing_saveable", marks=pytest.mark.nightly), "dots_saveable"])
def test_checkpointing_changes_no_gradient(policy, without):
    close(block_gradient(jax.checkpoint(a_block, policy=getattr(jax.checkpoint_policies, policy))), without)


def test_optimize_remat_changes_no_gradient(without):
    """JAX's option of a rule for checkpoints: where nothing asks for residuals, the primal runs instead of the forward. Our rules take it."""
    rules = [getattr(import_module(f"manual_vjp.ops.{name}"), f"_{name}") for name in RULES]
    try:
        for rule in rules:
            rule.defvjp(rule.fwd, rule.bwd, optimize_remat=True)
        jax.clear_caches()
        program = jax.make_jaxpr(lambda x, p: jax.vjp(a_block, x, p)[0])(*block_arguments())
        assert sum(equation.primitive.name == "remat_opt" for equation in walk(program)) == len(KEEPING)  # they took the option
        close(block_gradient(jax.checkpoint(a_block)), without)
    finally:
        for rule in rules:
            rule.defvjp(rule.fwd, rule.bwd)
        jax.clear_caches()


# Mixed precision: Micikevicius et al. (2018), arXiv:1710.03740: 16-bit arrays, sums and parameters of 32 bits

MANY = 1024  # ones; a sum that is kept in bfloat16 stops at 256, whose next number is 258


@pytest.mark.parametrize(
    ("layer", "arguments", "index"),
    [
        (lambda x, w: linear(x, w), ((1, MANY), (MANY, 1)), None),
        (lambda x, w: linear(x, w), ((MANY, 2), (2, 1)), 1),
        (lambda b: linear(jnp.ones((MANY, 2), "bfloat16"), jnp.ones((2, 1), "bfloat16"), b), ((1,),), 0),
        (lambda w1: mlp(jnp.ones((MANY, 2), "bfloat16"), w1, *(jnp.ones(s, "bfloat16") for s in (1, (1, 1), 1))), ((2, 1),), 0),
        (lambda bias: layer_norm(jnp.ones((MANY, 2), "bfloat16"), None, bias), ((2,),), 0),
        (lambda table: embedding(table, jnp.zeros(MANY, "int32")), ((1, 2),), 0),
    ],
    ids=["linear", "linear-w", "linear-b", "mlp-w1", "layer_norm-bias", "embedding"],
)
def test_sums_of_bfloat16_are_kept_in_float32(layer, arguments, index):
    ones = [jnp.ones(shape, "bfloat16") for shape in arguments]
    out = layer(*ones) if index is None else jax.grad(lambda *a: layer(*a).sum(dtype="float32"), argnums=index)(*ones)
    assert out.dtype == "bfloat16"
    assert np.all(np.asarray(out, np.float64) == MANY)


def test_bfloat16_itself_would_stop_at_256():
    assert float(jax.lax.fori_loop(0, MANY, lambda _, total: total + 1, jnp.bfloat16(0))) == 256


def test_small_steps_are_kept_in_float32_parameters():
    """Computed in bfloat16, but parameters and their gradient in float32: steps of 1e-3 from 1 count, which bfloat16 (spacing 2^-8) drops."""

    def train(dtype):
        params = {"w": jnp.ones((1, 1), dtype)}
        optimizer = optax.sgd(1e-3)
        state = optimizer.init(params)
        for _ in range(20):
            x = jnp.ones((1, 1), "bfloat16")
            gradient = jax.grad(lambda p: linear(x, p["w"].astype("bfloat16")).sum().astype("float32"))(params)  # noqa: B023
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            assert params["w"].dtype == gradient["w"].dtype == dtype
        return float(params["w"][0, 0])

    assert train("float32") == pytest.approx(1 - 20e-3, abs=20 * 2**-24)
    assert train("bfloat16") == 1


# Initialisation: Glorot & Bengio (2010), variance 2 / (fan_in + fan_out); He et al. (2015), arXiv:1502.01852, 2 / fan_in for ReLU

WIDTH, DEPTH = 256, 16


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize(("family", "variance"), [("glorot", lambda i, o: 2 / (i + o)), ("he", lambda i, o: 2 / i)])
def test_variance_of_the_weights(family, variance, kind):
    fan_in, fan_out = 512, 128
    w = np.asarray(getattr(initializers, f"{family}_{kind}")()(jax.random.key(0), (fan_in, fan_out), "float64"))
    assert w.var() == pytest.approx(
        variance(fan_in, fan_out), rel=5 * math.sqrt(2 / w.size)
    )  # five deviations of the variance of so many normal numbers
    assert abs(w.mean()) < 5 * math.sqrt(variance(fan_in, fan_out) / w.size)


def through_depth(init, activation):
    """The mean square of the last layer beside that of the first, and of the cotangents the other way, for DEPTH layers of linear and activation."""
    keys = jax.random.split(jax.random.key(1), DEPTH)
    weights = jax.vmap(lambda key: init(key, (WIDTH, WIDTH), "float64"))(keys)

    @jax.jit
    def run(x, y_ct):
        y, pullback = jax.vjp(lambda x: jax.lax.scan(lambda h, w: (activation(linear(h, w)), None), x, weights)[0], x)
        return jnp.mean(y**2) / jnp.mean(x**2), jnp.mean(pullback(y_ct)[0] ** 2) / jnp.mean(y_ct**2)

    return [float(ratio) for ratio in run(draw(2, WIDTH, WIDTH), draw(3, WIDTH, WIDTH))]


@pytest.mark.parametrize(
    ("init", "activation", "spread"),
    [(initializers.glorot_normal(), lambda x: x, 2), (initializers.glorot_uniform(), lambda x: x, 2), (initializers.he_normal(), relu, 5)],
    ids=["xavier-normal", "xavier-uniform", "he"],
)
def test_initialisation_keeps_the_variance_through_depth(init, activation, spread):
    """A layer multiplies a row's mean square by 1, with variance 2 / width for normal weights, and 5 / width behind ReLU: four deviations of DEPTH layers."""
    for ratio in through_depth(init, activation):
        assert abs(math.log(ratio)) < 4 * math.sqrt(spread * DEPTH / WIDTH)


def test_a_variance_for_no_activation_vanishes_behind_relu():
    """Xavier's weights lose half of the mean square at each ReLU: the test above can fail."""
    for ratio in through_depth(initializers.glorot_normal(), relu):
        assert abs(math.log(ratio) + DEPTH * math.log(2)) < 4 * math.sqrt(5 * DEPTH / WIDTH)


# Vanishing and exploding gradients: Bengio, Simard & Frasconi (1994): through L layers whose matrices have all singular values s, a cotangent's norm is s^L times itself


@pytest.mark.parametrize(("s", "word"), [(0.5, "vanishing"), (1.0, "kept"), (1.5, "exploding")])
def test_a_monitor_of_norms_sees_vanishing_and_exploding_gradients(s, word):
    width, depth = 8, 20
    keys = jax.random.split(jax.random.key(4), depth)
    weights = jax.vmap(lambda key: initializers.orthogonal(scale=s)(key, (width, width), "float64"))(keys)
    x = draw(5, 1, width)

    def output(weights, x):
        return jax.lax.scan(lambda h, w: (linear(h, w), None), x, weights)[0]

    y, pullback = jax.vjp(output, weights, x)
    weights_ct, x_ct = pullback(jnp.ones_like(y))
    monitor = jax.jit(jax.vmap(optax.tree.norm))  # one number a layer
    # the weights' cotangent in layer l is h_l^T ct_(l+1), of norm s^l ||x|| times s^(L-1-l) ||y_ct||
    np.testing.assert_allclose(monitor(weights_ct), s ** (depth - 1) * norm(x) * math.sqrt(width), rtol=1e-12)
    assert float(optax.tree.norm(weights_ct)) == pytest.approx(norm(weights_ct), rel=TIGHT)
    factor = float(optax.tree.norm(x_ct)) / math.sqrt(width)
    assert factor == pytest.approx(s**depth, rel=1e-12)
    assert word == ("vanishing" if factor < 1e-3 else "exploding" if factor > 1e3 else "kept")
