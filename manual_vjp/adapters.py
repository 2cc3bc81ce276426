"""The operations in the shape that other libraries expect."""

import math

import jax.numpy as jnp
from jax import Array

from manual_vjp.ops.attention import attention


def flax_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype=None,
    precision=None,
    module=None,
    is_causal: bool = False,
) -> Array:
    """`attention` as the `attention_fn` of `flax.linen.MultiHeadDotProductAttention` and `flax.nnx.MultiHeadAttention`.

    Args:
        query, key, value: `(*batch, T, N, H)` and `(*batch, S, K, H)` with any number of batch dimensions.
        bias, mask: broadcastable to `(*batch, N, T, S)`; a mask need not be boolean, as in flax.
        dtype: what query, key and value are converted to, unless None.
        is_causal: element t looks at elements 0 to t only.
        deterministic, dropout_rate: must not ask for dropout, which needs the attention weights that are never kept.
        module: must be None: flax passes itself here to store the attention weights (`sow_weights=True`).
        precision: must be None.
        broadcast_dropout, dropout_rng: ignored.

    Returns:
        `(*batch, T, N, H)`.

    Raises:
        NotImplementedError: for dropout, sow_weights or precision; the message says what to do instead.

    Example:
        >>> from flax import nnx
        >>> layer = nnx.MultiHeadAttention(2, 8, decode=False, attention_fn=flax_attention, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    del broadcast_dropout, dropout_rng
    if dropout_rate > 0 and not deterministic:
        raise NotImplementedError(
            f"flax_attention: dropout is active (dropout_rate={dropout_rate}, deterministic=False), wanted none; pass dropout_rate=0 or "
            "deterministic=True, and drop elements of the layer's output instead"
        )
    if module is not None:
        raise NotImplementedError("flax_attention: sow_weights=True, wanted False; the attention weights are never kept")
    if precision is not None:
        raise NotImplementedError(f"flax_attention: precision={precision!r}, wanted None; use `with jax.default_matmul_precision(...):`")
    if dtype is not None:
        query, key, value = (a.astype(dtype) for a in (query, key, value))
    batch, (t, n, h) = query.shape[:-3], query.shape[-3:]
    logits = (*batch, n, t, key.shape[-3])
    query, key, value = (a.reshape(math.prod(batch), *a.shape[-3:]) for a in (query, key, value))
    bias, mask = (None if a is None else _one_batch(jnp.asarray(a), logits) for a in (bias, mask))
    mask = None if mask is None else mask.astype(bool)
    return attention(query, key, value, bias, mask, is_causal=is_causal).reshape(*batch, t, n, h)


def _one_batch(a: Array, logits: tuple[int, ...]) -> Array:
    """`a`, broadcastable to `logits` (*batch, N, T, S), with a single batch dimension; kept at size 1 where `a` does not vary over it."""
    a = a.reshape((1,) * (len(logits) - a.ndim) + a.shape)
    if math.prod(a.shape[:-3]) == 1:
        return a.reshape(1, *a.shape[-3:])
    return jnp.broadcast_to(a, (*logits[:-3], *a.shape[-3:])).reshape(math.prod(logits[:-3]), *a.shape[-3:])
