"""A program run operation by operation, in the precision of users."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verify.apart import by_operation

HALF = jnp.bfloat16


def counted(x):
    """Terms one by one: bfloat16 knows 256 and 258, and nothing between."""
    return jax.lax.scan(lambda total, term: (total + term, total), jnp.zeros((), x.dtype), x)


def doubled(x):
    return jax.lax.while_loop(lambda c: c < 100, lambda c: c * 2, x)


@pytest.mark.parametrize(
    ("function", "x", "want"),
    [
        (lambda x: counted(x)[0], np.ones(300, HALF), 256),
        (lambda x: counted(x)[1][-1], np.ones(3, HALF), 2),
        (doubled, np.asarray(3, HALF), 192),
        (lambda x: jax.lax.cond(x > 2, jnp.square, jnp.negative, x), np.asarray(3, HALF), 9),
        (
            lambda x: jax.jit(jax.checkpoint(lambda x: x * x - x))(x),
            np.asarray(1 + 2**-7, HALF),
            2**-7,
        ),  # 1 + 2^-6 + 2^-14 is rounded first
        (lambda x: x + jax.random.bernoulli(jax.random.key(0), 1.0, x.shape), np.ones(2, HALF), 2),
    ],
)
def test_each_operation_is_rounded_by_itself(function, x, want):
    got = by_operation(SimpleNamespace(dtypes=("bfloat16",)), function, x)
    assert got.dtype == HALF
    np.testing.assert_array_equal(np.asarray(got, float), want)


def test_without_float64_it_has_none():
    assert by_operation(SimpleNamespace(dtypes=("float32",)), lambda x: x * 2, np.float32(1)).dtype == np.float32
    assert by_operation(SimpleNamespace(dtypes=("float64", "float32")), lambda x: x * 2, np.float64(1)).dtype == np.float64
