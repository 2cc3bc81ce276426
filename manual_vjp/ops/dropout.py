r"""Dropout, with the mask drawn again in the backward pass.

Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 15, 2014); scaled in training ("inverted").

Forward, for each element, with m = 1 with probability 1 - rate, else 0, drawn from the key:
    y = m x / (1 - rate)
Derivation.  m does not depend on x, so dy = m dx / (1 - rate): a diagonal, hence symmetric, map. It is the same for the same key.
Backward, with y_ct given, and m drawn again from the key:
    x_ct = m y_ct / (1 - rate)
Validity: everywhere; linear in x. rate = 0 is y = x; rate = 1 is y = 0, x_ct = 0. What is dropped is 0, NaN and infinities too.
    16-bit inputs compute in float32. The mask depends on key and shape alone, not on dtype or on `jax_enable_x64`.
Residuals: the key (autodiff keeps the mask).
Cost, forward, backward:  products none, none     elementary functions none, none
    a random number for each element, drawn again in the backward.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key, UInt32

from manual_vjp._rule import dtypes, require_axes, require_floating, static_number
from verify.spec import Arg, Spec


def dropout(
    x: Float[Array, "*shape"],
    key: Key[Array, ""] | UInt32[Array, "n"] | None = None,
    *,
    rate: float,
    deterministic: bool = False,
    broadcast_dims: tuple[int, ...] = (),
) -> Float[Array, "*shape"]:
    """Sets each element to 0 with probability `rate`, and divides the others by `1 - rate`; the elements that `flax.linen.Dropout` takes.

    Under `jax.vmap` with one key for all examples (in_axes None), all have the same mask, as with `jax.random`; pass a key for each instead
    (`jax.random.split`). So too for the parts of an array under `jax.shard_map` (there: `jax.random.fold_in(key, jax.lax.axis_index(...))`).

    Args:
        x: array of any shape and floating dtype.
        key: a PRNG key, of `jax.random.key` or `jax.random.PRNGKey`. Not needed if nothing is drawn, and may be None then.
        rate: probability to be dropped, a Python number from 0 to 1.
        deterministic: return x as it is (evaluation).
        broadcast_dims: axes along which the mask is the same.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        ValueError: rate is not from 0 to 1, an axis is not there, or key is None where one is needed.
        TypeError: x is not floating point, key is no single key, or rate is traced.

    Example:
        >>> x, key = jnp.ones(6), jax.random.key(0)
        >>> y = dropout(x, key, rate=0.5)
        >>> bool(jnp.all((y == 0) | (y == 2)))
        True
        >>> bool(jnp.all(jax.grad(lambda x: dropout(x, key, rate=0.5).sum())(x) == y))
        True
    """
    require_floating("dropout", x=x)
    rate = static_number("dropout", "rate", rate)
    if not 0 <= rate <= 1:
        raise ValueError(f"dropout: rate is {rate}, wanted a number from 0 to 1")
    if deterministic or rate == 0:
        return jnp.asarray(x)
    _require_key(key)
    shared = require_axes("dropout", broadcast_dims, jnp.ndim(x))
    return _compiled(x, key, rate, shared)


def _require_key(key: Array | None) -> None:
    if key is None:
        raise ValueError("dropout: key is None, wanted a PRNG key, such as jax.random.key(0); or deterministic=True")
    shape, dtype = jnp.shape(key), getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not ((typed and shape == ()) or (dtype == jnp.uint32 and len(shape) == 1)):
        raise TypeError(f"dropout: key has dtype {dtype} and shape {shape}, wanted one PRNG key, such as jax.random.key(0)")


@ft.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dropout(x: Array, key: Array, rate: float, shared: tuple[int, ...]) -> Array:
    return _forward(x, key, rate, shared)[0]


def _forward(x: Array, key: Array, rate: float, shared: tuple[int, ...]) -> tuple[Array, Array]:
    return _masked(x, key, rate, shared), key


def _backward(rate: float, shared: tuple[int, ...], key: Array, y_ct: Array) -> tuple[Array, None]:
    return _masked(y_ct, key, rate, shared), None


def _masked(a: Array, key: Array, rate: float, shared: tuple[int, ...]) -> Array:
    result, compute = dtypes(a)
    shape = tuple(1 if axis in shared else size for axis, size in enumerate(a.shape))
    below = math.ceil(np.float32(1 - rate).item() * 2**23)  # as jax.random.bernoulli with a float32, which has 23 bits, without floats
    kept = jax.random.bits(key, shape, "uint32") >> 9 < below
    return jnp.where(kept, a.astype(compute) / (1 - rate or 1), 0).astype(result)


_dropout.defvjp(_forward, _backward)
_compiled = jax.jit(_dropout, static_argnums=(2, 3))


def reference(x, key, *, rate, broadcast_dims=()):
    """The textbook formula."""
    shape = [1 if axis in broadcast_dims else size for axis, size in enumerate(x.shape)]
    uniform = (jax.random.bits(key, shape, "uint32") >> 9).astype(float) / 2**23
    m = uniform < np.float32(1 - rate).item()
    return jnp.where(m, x / (1 - rate), 0) if rate < 1 else jnp.zeros_like(x)


SPEC = Spec(
    name="dropout",
    fn=dropout,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16"),
    args={"x": Arg(dims="n m"), "key": Arg(dtype="key")},
    sizes={"n": (0, 40), "m": (0, 40)},
    options={"rate": (0.3, 0.5, 0.9, 1.0), "broadcast_dims": ((), (0,))},
    source="Srivastava et al. (JMLR 15, 2014)",
)
