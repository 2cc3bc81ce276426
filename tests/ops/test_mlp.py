import jax
import jax.numpy as jnp
import numpy as np
import pytest

from manual_vjp import linear, mlp, relu

SHAPES = {"x": (6, 3), "w1": (3, 50), "b1": (50,), "w2": (50, 2), "b2": (2,)}


def arrays():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES.values()]


def test_keeps_one_array_of_activations():
    """What the backward pass holds on to, beyond the arguments, is h: 6 x 50 numbers, where the plain formula holds more."""

    def held(fn):
        args = arrays()
        leaves = jax.tree.leaves(jax.vjp(fn, *args)[1])
        return sorted(
            leaf.shape for leaf in leaves if leaf.size > 0 and not any(leaf is arg for arg in args) and leaf.shape not in SHAPES.values()
        )

    def plain(x, w1, b1, w2, b2):
        z = x @ w1 + b1
        return jnp.where(z <= 0, 0, z) @ w2 + b2

    assert held(mlp) == [(6, 50)]
    assert len(held(plain)) > 1


def test_equals_its_parts():
    x, w1, b1, w2, b2 = args = arrays()
    np.testing.assert_array_equal(mlp(*args), linear(relu(linear(x, w1, b1)), w2, b2))


def test_dead_units_pass_nothing_on():
    x, w1, b1, w2, b2 = arrays()
    loss = jax.grad(lambda x, w1, b1: jnp.sum(mlp(x, w1, b1, w2, b2)), argnums=(0, 1, 2))
    for ct in loss(x, w1, jnp.full_like(b1, -100.0)):
        np.testing.assert_array_equal(ct, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ()}, r"mlp: x has shape \(\), wanted \(\*batch, d_in\): at least one dimension"),
        ({"w1": (4, 50)}, r"mlp: w1 has shape \(4, 50\), wanted \(3, d_hidden\) because x has shape \(6, 3\)"),
        ({"b1": (1,)}, r"mlp: b1 has shape \(1,\), wanted \(50,\) because w1 has shape \(3, 50\)"),
        ({"w2": (2, 50)}, r"mlp: w2 has shape \(2, 50\), wanted \(50, d_out\) because w1 has shape \(3, 50\)"),
        ({"b2": ()}, r"mlp: b2 has shape \(\), wanted \(2,\) because w2 has shape \(50, 2\)"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        mlp(*map(jnp.ones, {**SHAPES, **change}.values()))


def test_integers_are_refused():
    x, w1, b1, w2, b2 = arrays()
    with pytest.raises(TypeError, match=r"mlp: b2 has dtype int32, wanted a floating-point dtype"):
        mlp(x, w1, b1, w2, b2.astype(jnp.int32))
