import jax.numpy as jnp
import numpy as np
import pytest

import manual_vjp
from manual_vjp._rule import dtypes, match, require_shape
from manual_vjp.catalog import SPECS


@pytest.mark.parametrize(
    ("given", "result", "compute"),
    [
        (["bfloat16"], "bfloat16", "float32"),
        (["float16", "bfloat16"], "float32", "float32"),
        (["float16", None, "float32"], "float32", "float32"),
    ],
)
def test_dtypes(given, result, compute):
    assert dtypes(*(None if d is None else jnp.ones(1, d) for d in given)) == (jnp.dtype(result), jnp.dtype(compute))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (3, 1), (2, 1, 4), (2, 3, 4), (0,)])
def test_match_undoes_broadcasting(shape):
    """<ct, broadcast(x)> = <match(ct, x), x> for every x: what makes it the transpose of broadcasting."""
    full = (2, 3, 0) if shape == (0,) else (2, 3, 4)
    ct, x = jnp.arange(np.prod(full), dtype=jnp.float32).reshape(full), jnp.ones(shape, jnp.bfloat16) * 3
    got = match(ct, x)
    assert got.shape == x.shape and got.dtype == x.dtype
    np.testing.assert_allclose(jnp.sum(got * x), jnp.sum(ct * x), rtol=4e-3)


def test_require_shape_writes_one_dimension_as_a_tuple():
    with pytest.raises(ValueError, match=r"op: b has shape \(2, 3\), wanted \(5,\) because"):
        require_shape("op", "b", jnp.ones((2, 3)), (5,), "because")


def test_public_names():
    names = {name for name in dir(manual_vjp) if name.isidentifier() and not name.startswith("_")} - {
        "PackageNotFoundError",
        "version",
        "adapters",
        "ops",
        "catalog",
    }
    assert names == {"flax_attention", *SPECS}
    assert isinstance(manual_vjp.__version__, str)
