r"""Scaled dot-product attention with grouped heads, bias, mask and causality.

Source: Vaswani et al., "Attention is all you need" (2017), arXiv:1706.03762; grouped heads: Ainslie et al. (2023), arXiv:2305.13245;
    the backward from the logsumexp of each row: Dao et al., "FlashAttention" (2022), arXiv:2205.14135, appendix B.2.

Forward, for each batch and head, with rows t of Q (T, H) and rows s of K and V (S, H):
    L = scale Q K^T + bias     lse_t = log sum_s exp L_ts over the allowed s     P_ts = exp(L_ts - lse_t) if allowed, else 0     O = P V
Derivation.  dO = dP V + P dV     dP_ts = P_ts (dL_ts - sum_s' P_ts' dL_ts')     dL = scale (dQ K^T + Q dK^T) + dbias
    The middle map, diag(p) - p p^T on each row, is symmetric, so it is its own VJP.
Backward, with o_ct given:
    V_ct = P^T o_ct     P_ct = o_ct V^T     L_ct = P * (P_ct - rowsum(P * P_ct))     bias_ct = L_ct
    and rowsum(P * P_ct) = rowsum(o_ct * O), because both are the sum over s and h of P_ts V_sh (o_ct)_th: no sum over T x S is needed.
    Q_ct = scale L_ct K     K_ct = scale L_ct^T Q
    Query heads that share a key head add up in K_ct and V_ct; so do the copies of a bias that was broadcast, in bias_ct.
    P^T is computed as such, from K Q^T, so that no product needs a transposed (T, S) array: that is faster.
Validity: no kinks. A row t with nothing allowed (masked, all its biases -inf, or S = 0) has O = 0 and cotangents 0
    (`jax.nn.dot_product_attention` has the average of all rows of V there). 16-bit inputs compute in float32.
Residuals: query, key, value, bias and mask, which the caller holds; O before it is rounded to 16 bits (otherwise it is the output itself);
    and lse, one number for each batch, head and t. So O(T + S), where autodiff keeps arrays of T x S; P is computed again.
    Both passes hold a few T x S arrays while they run.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from manual_vjp._rule import dtypes, match, require_floating, static_number
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array | None, Array, Array]  # query, key, value, bias, mask, out, lse


def attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K H"],
    bias: Float[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
) -> Float[Array, "*B T N H"]:
    """`softmax(scale * query @ key^T + bias) @ value` for each head; names, order and layout of `jax.nn.dot_product_attention`.

    Args:
        query: `(B, T, N, H)` or `(T, N, H)`; any floating dtype, as are key, value and bias.
        key: `(B, S, K, H)` or `(S, K, H)`; N is a multiple of K, and query head n looks at key head `n // (N // K)`.
        value: an array of the shape of key.
        bias: added to the logits, `(B, N, T, S)` or fewer dimensions, any of which may be 1; or None.
        mask: boolean, of such a shape too; False takes an element out. Or None.
        scale: a Python number, not an array; None for `1 / sqrt(H)`.
        is_causal: element t looks at elements 0 to t only.

    Returns:
        An array of the shape of query, in the dtype that query, key and value promote to (bias does not take part in that).
        0 in rows with nothing to look at.

    Raises:
        ValueError: a shape does not fit.
        TypeError: query, key, value or bias is not floating point, mask is not boolean, or scale is traced.

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
    scale = 1 / math.sqrt(max(jnp.shape(query)[-1], 1)) if scale is None else static_number("attention", "scale", scale)
    return _compiled(query, key, value, bias, mask, scale, bool(is_causal))


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


@ft.partial(jax.jit, static_argnums=(5, 6))
def _compiled(query, key, value, bias, mask, scale, is_causal):
    four = [None if a is None else a.reshape((1,) * (4 - a.ndim) + a.shape) for a in (query, key, value, bias, mask)]
    return _attention(*four, scale, is_causal).reshape(query.shape)


@ft.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attention(query, key, value, bias, mask, scale, is_causal):
    return _forward(query, key, value, bias, mask, scale, is_causal)[0]


def _forward(query, key, value, bias, mask, scale: float, is_causal: bool) -> tuple[Array, Residuals]:
    result, compute = dtypes(query, key, value)
    q, k, v = _rows(query, key, value, dtype=compute)
    logits = scale * jnp.einsum("bkrh,bksh->bkrs", q, k)
    logits = _masked(logits, "bkgts", query, key, bias, mask, is_causal)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf))
    top = jnp.where(top == -jnp.inf, 0, top)  # nothing allowed in this row: -inf - -inf would be NaN
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    total = jnp.where(total == 0, 1, total)
    out = _unrows(jnp.einsum("bkrs,bksh->bkrh", weights, v) / total, query)
    return out.astype(result), (query, key, value, bias, mask, out, top + jnp.log(total))


def _backward(scale: float, is_causal: bool, residuals: Residuals, out_ct: Array):
    query, key, value, bias, mask, out, lse = residuals
    q, k, v = _rows(query, key, value, dtype=lse.dtype)
    o_ct, o = (_rows(a, key, dtype=lse.dtype)[0] for a in (out_ct, out))
    logits = scale * jnp.einsum("bksh,bkrh->bksr", k, q)
    p = jnp.exp(_masked(logits, "bksgt", query, key, bias, mask, is_causal) - jnp.swapaxes(lse, 2, 3))
    p_ct = jnp.einsum("bksh,bkrh->bksr", v, o_ct)
    l_ct = p * (p_ct - jnp.sum(o_ct * o, axis=-1)[:, :, None])
    v_ct = jnp.einsum("bksr,bkrh->bksh", p, o_ct)
    k_ct = scale * jnp.einsum("bksr,bkrh->bksh", l_ct, q)
    q_ct = scale * jnp.einsum("bkhs,bksr->bkhr", jnp.swapaxes(k, 2, 3), l_ct)
    cts = (_unrows(jnp.swapaxes(q_ct, 2, 3), query), jnp.swapaxes(k_ct, 1, 2), jnp.swapaxes(v_ct, 1, 2))
    b_ct = None if bias is None else match(jnp.swapaxes(l_ct, 2, 3).reshape(*(query.shape[i] for i in (0, 2, 1)), key.shape[1]), bias)
    return *(match(ct, primal) for ct, primal in zip(cts, (query, key, value), strict=True)), b_ct, None


_attention.defvjp(_forward, _backward)


def _rows(query, *keys, dtype) -> list[Array]:
    """`query` as (b, k, r, h), where the rows of all query heads that share a key head follow one another; keys as (b, k, s, h)."""
    b, t, n, h = query.shape
    k = keys[0].shape[2]
    q = jnp.swapaxes(query, 1, 2).reshape(b, k, n // max(k, 1) * t, h)
    return [a.astype(dtype) for a in (q, *(jnp.swapaxes(key, 1, 2) for key in keys))]


def _unrows(rows: Array, query: Array) -> Array:
    """(b, k, r, h) as (b, t, n, h)."""
    b, t, n, h = query.shape
    return jnp.swapaxes(rows.reshape(b, n, t, h), 1, 2)


def _masked(logits: Array, order: str, query: Array, key: Array, bias, mask, is_causal: bool) -> Array:
    """Logits of shape (b, k, r, s), or (b, k, s, r) for `order` "bksgt", with the bias added, and -inf where not allowed."""
    b, t, n, _ = query.shape
    s, k = key.shape[1:3]
    axes = ["bkgts".index(axis) for axis in order]
    full = [(b, k, n // max(k, 1), t, s)[axis] for axis in axes]
    spread = logits.reshape(full)
    if bias is not None:
        spread += _split_heads(bias, k).astype(logits.dtype).transpose(axes)
    if mask is not None:
        spread = jnp.where(_split_heads(mask, k).transpose(axes), spread, -jnp.inf)
    if is_causal:
        past = jnp.arange(t)[:, None] >= jnp.arange(s)
        spread = jnp.where(past[None, None, None].transpose(axes), spread, -jnp.inf)
    return spread.reshape(logits.shape)


def _split_heads(a: Array, k: int) -> Array:
    """(b, n, t, s) as (b, k, g, t, s), and (b, 1, t, s) as (b, 1, 1, t, s)."""
    k = min(k, a.shape[1])
    return a.reshape(a.shape[0], k, a.shape[1] // max(k, 1), *a.shape[2:])


def reference(query, key, value, bias=None, mask=None, *, scale=None, is_causal=False):
    """The textbook formula, head by head: key heads are repeated, and softmax is computed in at least float32."""
    t, n, h = query.shape[-3:]
    s, k = key.shape[-3:-1]
    result = jnp.result_type(query, key, value)
    key, value = (jnp.repeat(a, n // max(k, 1), axis=-2) for a in (key, value))
    logits = jnp.einsum("...tnh,...snh->...nts", query, key) * (1 / max(h, 1) ** 0.5 if scale is None else scale)
    logits = logits.astype(jnp.promote_types(logits.dtype, "float32"))
    logits = logits if bias is None else logits + bias
    allowed = jnp.tril(jnp.ones((t, s), bool)) if is_causal else jnp.ones((t, s), bool)
    allowed = jnp.broadcast_to(allowed if mask is None else allowed & mask, logits.shape)
    highest = jnp.max(logits, axis=-1, keepdims=True, where=allowed, initial=jnp.finfo(logits.dtype).min)
    exponentials = jnp.where(allowed, jnp.exp(jnp.where(allowed, logits - jax.lax.stop_gradient(highest), 0)), 0)
    total = exponentials.sum(-1, keepdims=True)
    weights = exponentials / jnp.where(total > 0, total, 1)
    return jnp.einsum("...nts,...snh->...tnh", weights, value).astype(result)


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
    },
    sizes={"B": (0, 4), "T": (0, 130), "S": (0, 130), "K": (1, 3), "G": (1, 4), "H": (1, 70)},
    options={"scale": (None, 0.5), "is_causal": (False, True)},
    source="arXiv:1706.03762, arXiv:2305.13245, arXiv:2205.14135",
)
