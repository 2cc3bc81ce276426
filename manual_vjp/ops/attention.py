r"""Scaled dot-product attention in blocks: grouped heads, bias, masks, causality, windows and lengths, and no array of T x S.

Source: Vaswani et al., "Attention is all you need" (2017), arXiv:1706.03762; grouped heads: Ainslie et al. (2023), arXiv:2305.13245;
    blocks, and the backward from the logsumexp of each row: Dao et al., "FlashAttention" (2022), arXiv:2205.14135, algorithms 1 and 4.

Forward, for each batch and head, with rows t of Q (T, H) and rows s of K and V (S, H):
    L = scale Q K^T + bias     lse_t = log sum_s exp L_ts over the allowed s     P_ts = exp(L_ts - lse_t) if allowed, else 0     O = P V
    in blocks of rows and columns: for each row the largest L so far, the sum of exponentials beside it and the part of O so far are all that is kept.
Derivation.  dO = dP V + P dV     dP_ts = P_ts (dL_ts - sum_s' P_ts' dL_ts')     dL = scale (dQ K^T + Q dK^T) + dbias
    The middle map, diag(p) - p p^T on each row, is symmetric, so it is its own VJP.
Backward, with o_ct given:
    V_ct = P^T o_ct     P_ct = o_ct V^T     L_ct = P * (P_ct - rowsum(P * P_ct))     bias_ct = L_ct
    and rowsum(P * P_ct) = rowsum(o_ct * O), because both are the sum over s and h of P_ts V_sh (o_ct)_th: no sum over T x S is needed.
    Q_ct = scale L_ct K     K_ct = scale L_ct^T Q
    in blocks, P computed again in each. Query heads that share a key head add up in K_ct and V_ct; so do the copies of a bias that was broadcast, in bias_ct.
    P^T is computed as such, from K Q^T, so that no product needs a transposed block: that is faster.
Validity: no kinks. A row t with nothing allowed (masked, all its biases -inf, or S = 0) has O = 0 and cotangents 0
    (`jax.nn.dot_product_attention` has the average of all rows of V there). 16-bit inputs compute in float32.
Residuals: query, key, value, bias, mask and lengths, which the caller holds; O before it is rounded to 16 bits (otherwise it is the output itself);
    and lse, one number for each batch, head and t. So O(T + S), where autodiff keeps arrays of T x S. Both passes hold a few blocks while they run.
Cost, forward, backward:  products 4 B N T S H, 10 B N T S H     elementary functions B N T S, B N T S
    less the blocks that causality, windows and lengths leave out. The backward computes Q K^T again.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from manual_vjp._rule import match, require_floating, static_number
from manual_vjp._tile_places import block_sizes
from manual_vjp._tiles import Tiles, at, put_at
from verify.spec import Arg, Spec

Arrays = tuple[Array, Array, Array, Array | None, Array | None, Array | None, Array | None]  # as the arguments of _attention
Residuals = tuple[Arrays, Array, Array]  # arguments, out, lse
Static = tuple[
    float, bool, tuple[int, int] | None, tuple[int, int], int
]  # scale, is_causal, window, block sizes, and what they were made for


def attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K H"],
    bias: Float[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    query_seq_lengths: Int[Array, "B"] | None = None,
    key_value_seq_lengths: Int[Array, "B"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    local_window_size: int | tuple[int, int] | None = None,
    block_size: int | None = None,
) -> Float[Array, "*B T N H"]:
    """`softmax(scale * query @ key^T + bias) @ value` for each head; names, order and layout of `jax.nn.dot_product_attention`.

    Args:
        query: `(B, T, N, H)` or `(T, N, H)`; any floating dtype, as are key, value and bias.
        key: `(B, S, K, H)` or `(S, K, H)`; N is a multiple of K, and query head n looks at key head `n // (N // K)`.
        value: an array of the shape of key.
        bias: added to the logits, `(B, N, T, S)` or fewer dimensions, any of which may be 1; or None.
        mask: boolean, of such a shape too; False takes an element out. Or None.
        query_seq_lengths: `(B,)` integers: the rows of query that exist; the others give 0. Or None for all.
        key_value_seq_lengths: `(B,)` integers: the rows of key and value that exist. Or None for all.
        scale: a Python number, not an array; None for `1 / sqrt(H)`.
        is_causal: element t looks at elements 0 to t only.
        local_window_size: element t looks at elements `t - left` to `t + right` only; a pair (left, right), or one number for both.
        block_size: how many rows and columns of the logits are in memory at a time (twice as many columns where all is allowed); None for what is fast. Blocks
            in which nothing is allowed, by causality or window, are never computed.

    Returns:
        An array of the shape of query, in the dtype that query, key and value promote to (bias does not take part in that).
        0 in rows with nothing to look at.

    Raises:
        ValueError: a shape does not fit, or a window or block size is negative.
        TypeError: query, key, value or bias is not floating point, mask is not boolean, lengths are not integers, or scale is traced.

    Example:
        >>> query = key = jnp.zeros((2, 1, 4))
        >>> value = jnp.array([1.0, 3.0]).reshape(2, 1, 1) * jnp.ones(4)
        >>> attention(query, key, value, is_causal=True)[:, 0, 0]
        Array([1., 2.], dtype=float32)
        >>> jax.grad(lambda value: attention(query, key, value).sum())(value)[:, 0, 0]
        Array([1., 1.], dtype=float32)
    """
    require_floating("attention", query=query, key=key, value=value, bias=bias)
    if mask is not None and not jnp.issubdtype(jnp.result_type(mask), jnp.bool):
        raise TypeError(f"attention: mask has dtype {jnp.result_type(mask)}, wanted bool; an additive mask is passed as bias")
    _check_shapes(*(None if a is None else jnp.shape(a) for a in (query, key, value, bias, mask)))
    _check_lengths(jnp.shape(query), query_seq_lengths=query_seq_lengths, key_value_seq_lengths=key_value_seq_lengths)
    scale = 1 / math.sqrt(max(jnp.shape(query)[-1], 1)) if scale is None else static_number("attention", "scale", scale)
    window = (local_window_size, local_window_size) if isinstance(local_window_size, int) else local_window_size
    if window is not None and (len(window) != 2 or min(window) < 0):
        raise ValueError(
            f"attention: local_window_size is {local_window_size}, wanted a number of at least 0, or two of them (left, right)"
        )
    if block_size is not None and block_size < 1:
        raise ValueError(f"attention: block_size is {block_size}, wanted at least 1, or None")
    window = None if window is None else (int(window[0]), int(window[1]))
    static = scale, bool(is_causal), window, *block_sizes(jnp.shape(query), jnp.shape(key), bool(is_causal), window, block_size)
    return _compiled(query, key, value, bias, mask, query_seq_lengths, key_value_seq_lengths, static)


def _check_shapes(query, key, value, bias, mask):
    if len(query) not in (3, 4):
        raise ValueError(f"attention: query has shape {query}, wanted (B, T, N, H) or (T, N, H)")
    *batch, t, n, h = query
    if len(key) != len(query) or key[:-3] != query[:-3] or key[-1] != h:
        raise ValueError(
            f"attention: key has shape {key}, wanted ({''.join(f'{b}, ' for b in batch)}S, K, {h}) because query has shape {query}"
        )
    if value != key:
        raise ValueError(f"attention: value has shape {value}, wanted {key}, the shape of key")
    s, k, _ = key[-3:]
    if n % k if k else n:
        raise ValueError(f"attention: query has {n} heads, wanted a multiple of {k} because key has shape {key}")
    full = (*(batch or [1]), n, t, s)
    for name, shape in (("bias", bias), ("mask", mask)):
        if shape is not None and (
            len(shape) > 4 or any(size not in (1, want) for size, want in zip(shape[::-1], full[::-1], strict=False))
        ):
            raise ValueError(f"attention: {name} has shape {shape}, wanted {full}, or 1 for any of these sizes, because of query and key")


def _check_lengths(query, **lengths):
    batch = query[0] if len(query) == 4 else 1
    for name, value in lengths.items():
        if value is None:
            continue
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise TypeError(f"attention: {name} has dtype {jnp.result_type(value)}, wanted integers")
        if jnp.shape(value) not in ((batch,), () if len(query) == 3 else (batch,)):
            raise ValueError(f"attention: {name} has shape {jnp.shape(value)}, wanted ({batch},) because query has shape {query}")


@ft.partial(jax.jit, static_argnums=7)
def _compiled(query, key, value, bias, mask, query_seq_lengths, key_value_seq_lengths, static: Static):
    batch = query.shape[0] if query.ndim == 4 else 1
    four = [None if a is None else a.reshape((1,) * (4 - a.ndim) + a.shape) for a in (query, key, value, bias, mask)]
    lengths = [None if a is None else a.reshape(batch) for a in (query_seq_lengths, key_value_seq_lengths)]
    return _attention(*four, *lengths, static).reshape(query.shape)


@ft.partial(jax.custom_vjp, nondiff_argnums=(7,))
def _attention(query, key, value, bias, mask, query_lengths, key_lengths, static: Static):
    return _forward(query, key, value, bias, mask, query_lengths, key_lengths, static)[0]


def _forward(query, key, value, bias, mask, query_lengths, key_lengths, static: Static) -> tuple[Array, Residuals]:
    tiles = Tiles.of(query, key, value, bias, mask, query_lengths, key_lengths, static)

    def unit(own, carry, query, key, value):
        """One tile after the other; a row whose largest logit rises is rescaled."""
        q, k, v = tiles.rows(query) * static[0], tiles.columns(key), tiles.columns(value)

        def step(carry, tile):
            (tops, totals, outs), i = carry, tile.i
            logits = tiles.masked(jnp.einsum("urh,ush->urs", at(q, i), tiles.take(k, tile)), own, tile)
            top = jnp.maximum(at(tops, i), jax.lax.stop_gradient(jnp.max(logits, axis=-1, initial=-jnp.inf)))
            safe = jnp.where(top == -jnp.inf, 0, top)  # nothing allowed so far: -inf - -inf would be NaN
            shrink = jnp.exp(at(tops, i) - safe)
            weights = jnp.exp(logits - safe[..., None])
            total = at(totals, i) * shrink + jnp.sum(weights, axis=-1)
            out = at(outs, i) * shrink[..., None] + jnp.einsum("urs,ush->urh", weights, tiles.take(v, tile))
            return put_at(tops, top, i), put_at(totals, total, i), put_at(outs, out, i)

        none = jnp.zeros(q.shape[:-1], q.dtype)
        tops, totals, outs = tiles.over_tiles(step, (none - jnp.inf, none, jnp.zeros_like(q)), q, k, v)
        totals = jnp.where(totals == 0, 1, totals)
        lse = jnp.where(tops == -jnp.inf, 0, tops) + jnp.log(totals)
        return carry, tiles.unrows(outs / totals[..., None], own), tiles.unrows(lse[..., None], own)

    _, out, lse = tiles.over_units(unit, None, query, key, value)
    return out.astype(tiles.result), ((query, key, value, bias, mask, query_lengths, key_lengths), out, lse)


def _backward(static: Static, residuals: Residuals, out_ct: Array):
    arrays, out, lse = residuals
    query, key, value, bias = arrays[:4]
    tiles = Tiles.of(*arrays, static)

    def unit(own, bias_ct, query, key, value, out_ct, out, lse):
        q, k, v, o_ct = tiles.rows(query) * static[0], tiles.columns(key), tiles.columns(value), tiles.rows(out_ct)
        dots, lse = jnp.sum(o_ct * tiles.rows(out), axis=-1), tiles.rows(lse)[..., 0]
        kt = jnp.swapaxes(k, -1, -2)

        def step(carry, tile):
            (qt_cts, k_cts, v_cts, bias_ct), i = carry, tile.i
            logits = tiles.masked(jnp.einsum("ush,urh->usr", tiles.take(k, tile), at(q, i)), own, tile, transposed=True)
            total = at(lse, i)[:, None]
            p = jnp.exp(jnp.minimum(logits, total) - total)  # logits are above it by rounding, or in padded rows, where exp would overflow
            p_ct = jnp.einsum("ush,urh->usr", tiles.take(v, tile), at(o_ct, i))
            l_ct = p * (p_ct - at(dots, i)[:, None])
            qt_ct = at(qt_cts, i) + jnp.einsum("uhs,usr->uhr", tiles.take(kt, tile, axis=2), l_ct)
            k_ct = tiles.take(k_cts, tile) + jnp.einsum("usr,urh->ush", l_ct, at(q, i))
            v_ct = tiles.take(v_cts, tile) + jnp.einsum("usr,urh->ush", p, at(o_ct, i))
            return (
                put_at(qt_cts, qt_ct, i),
                tiles.put(k_cts, k_ct, tile),
                tiles.put(v_cts, v_ct, tile),
                tiles.add_to_bias(bias_ct, l_ct, own, tile),
            )

        transposed = jnp.zeros((*q.shape[:-2], q.shape[-1], q.shape[-2]), q.dtype)
        start = transposed, jnp.zeros_like(k), jnp.zeros_like(v), bias_ct
        qt_cts, k_cts, v_cts, bias_ct = tiles.over_tiles(step, start, q, k, v, o_ct)
        q_cts = static[0] * jnp.swapaxes(qt_cts, -1, -2)
        return bias_ct, tiles.unrows(q_cts, own), tiles.uncolumns(k_cts, own), tiles.uncolumns(v_cts, own)

    bias_ct, *cts = tiles.over_units(unit, tiles.no_bias_ct(), query, key, value, out_ct, out, lse)
    own = (match(ct, primal) for ct, primal in zip(cts, (query, key, value), strict=True))
    return *own, None if bias is None else match(tiles.whole_bias_ct(bias_ct, bias), bias), None, None, None


_attention.defvjp(_forward, _backward)


def reference(
    query, key, value, bias=None, mask=None, query_seq_lengths=None, key_value_seq_lengths=None, *, scale=None, is_causal=False,
    local_window_size=None, block_size=None,
):  # fmt: skip
    """The textbook formula, head by head: key heads are repeated, and softmax is computed in at least float32."""
    del block_size
    t, n, h = query.shape[-3:]
    s, k = key.shape[-3:-1]
    result = jnp.result_type(query, key, value)
    key, value = (jnp.repeat(a, n // max(k, 1), axis=-2) for a in (key, value))
    logits = jnp.einsum("...tnh,...snh->...nts", query, key) * (1 / max(h, 1) ** 0.5 if scale is None else scale)
    logits = logits.astype(jnp.promote_types(logits.dtype, "float32"))
    logits = logits if bias is None else logits + bias
    allowed = jnp.tril(jnp.ones((t, s), bool)) if is_causal else jnp.ones((t, s), bool)
    if local_window_size is not None:
        left, right = (local_window_size, local_window_size) if isinstance(local_window_size, int) else local_window_size
        allowed &= jnp.triu(jnp.ones((t, s), bool), -left) & jnp.tril(jnp.ones((t, s), bool), right)
    if query_seq_lengths is not None:
        allowed = allowed & (jnp.arange(t)[:, None] < query_seq_lengths[..., None, None, None])
    if key_value_seq_lengths is not None:
        allowed = allowed & (jnp.arange(s) < key_value_seq_lengths[..., None, None, None])
    allowed = jnp.broadcast_to(allowed if mask is None else allowed & mask, logits.shape)
    highest = jnp.max(logits, axis=-1, keepdims=True, where=allowed, initial=jnp.finfo(logits.dtype).min)
    exponentials = jnp.where(allowed, jnp.exp(jnp.where(allowed, logits - jax.lax.stop_gradient(highest), 0)), 0)
    total = exponentials.sum(-1, keepdims=True)
    weights = exponentials / jnp.where(total > 0, total, 1)
    return jnp.einsum("...nts,...snh->...tnh", weights, value).astype(result)


def _some_lengths(size):
    """None of the rows, some or all."""
    return lambda rng, sizes, dtype: rng.integers(0, sizes[size] + 1, size=(sizes["B"],))


SPEC = Spec(
    name="attention",
    fn=attention,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={
        "query": Arg(dims="B T K*G H"),
        "key": Arg(dims="B S K H"),
        "value": Arg(dims="B S K H"),
        "bias": Arg(dims="#B #K*G #T #S", optional=True),
        "mask": Arg(dims="#B #K*G #T #S", dtype="bool", optional=True),
        "query_seq_lengths": Arg(dims="B", dtype="int32", optional=True, sample=_some_lengths("T")),
        "key_value_seq_lengths": Arg(dims="B", dtype="int32", optional=True, sample=_some_lengths("S")),
    },
    sizes={"B": (0, 4), "T": (0, 130), "S": (0, 130), "K": (1, 3), "G": (1, 4), "H": (1, 130)},
    options={"scale": (None, 0.5), "is_causal": (False, True), "local_window_size": (None, (7, 2), (70, 65)), "block_size": (None, 4)},
    source="arXiv:1706.03762, arXiv:2305.13245, arXiv:2205.14135",
)
