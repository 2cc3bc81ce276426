"""Specs of rules that this project did not write: JAX's Pallas kernels, JAX's and optax's custom rules, and near wrong variants of them.

Each is `verify run tests.foreign.rules:NAME` from the root of the repository. No reference is given where the rule's own primal, differentiated
by JAX without the rule, is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import optax

from verify.spec import Arg, Spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # JAX moves these kernels elsewhere one day
    from jax.experimental.pallas.ops.gpu import attention as pallas_attention
    from jax.experimental.pallas.ops.gpu import layer_norm as pallas_layer_norm
    from jax.experimental.pallas.ops.gpu import rms_norm as pallas_rms_norm

EPS = 1e-5
FLOAT32 = ("float32",)  # the kernels compute in it whatever the arguments are


# Pallas kernels of JAX, interpreted: block sizes are padded to powers of two, so odd sizes test the masks.


def _layer_norm_formula(x: Any, weight: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPS) * weight + bias


def _rms_norm_formula(x: Any, weight: Any, bias: Any) -> Any:
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight + bias


def _norm(name: str, kernel: Callable[..., Any], formula: Callable[..., Any]) -> Spec:
    return Spec(
        name=name,
        fn=lambda x, weight, bias: kernel(x, weight, bias, None, 3, EPS, "triton", True),
        reference=formula,
        args={"x": Arg(dims="batch rows n"), "weight": Arg(dims="n"), "bias": Arg(dims="n")},
        sizes={"batch": (1, 3), "rows": (1, 20), "n": (1, 130)},  # x has rank 3; 16 rows and 128 columns are one block
        dtypes=FLOAT32,
    )


PALLAS_LAYER_NORM = _norm("pallas_layer_norm", pallas_layer_norm.layer_norm, _layer_norm_formula)
PALLAS_RMS_NORM = _norm("pallas_rms_norm", pallas_rms_norm.rms_norm, _rms_norm_formula)

BLOCK = 16
BLOCKS = pallas_attention.BlockSizes(
    block_q=BLOCK, block_k=BLOCK, block_q_dkv=BLOCK, block_kv_dkv=BLOCK, block_q_dq=BLOCK, block_kv_dq=BLOCK
)
SCALE = 0.5


def _attention(q: Any, k: Any, v: Any, causal: bool) -> Any:
    return pallas_attention.mha(q, k, v, None, SCALE, causal, BLOCKS, "triton", None, 2, None, True)


def _attention_formula(q: Any, k: Any, v: Any, causal: bool) -> Any:
    scores = SCALE * jnp.einsum("bqhd,bkhd->bhqk", q, k)
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def _attention_spec(name: str, causal: bool) -> Spec:
    return Spec(
        name=name,
        fn=_attention,
        reference=_attention_formula,
        args=dict.fromkeys("qkv", Arg(dims="b t h d", dtype="float32")),  # given float64 the kernel raises: its accumulators are float32
        sizes={"b": (1, 2), "t": (1, 2 * BLOCK), "h": (1, 2), "d": (1, 8)},
        options={"causal": (causal,)},
        # a short sequence is one block; a head padded to a power of two is loaded as float64 where 64-bit types are on
        domain=lambda sizes, options: (sizes["t"] < BLOCK or sizes["t"] % BLOCK == 0) and sizes["d"] in (1, 2, 4, 8),
    )


PALLAS_ATTENTION = _attention_spec("pallas_attention", causal=False)
PALLAS_CAUSAL_ATTENTION = _attention_spec("pallas_causal_attention", causal=True)


# Custom rules of JAX and optax, against autodiff of their own primals.

VECTOR = Arg(dims="n")
POSITIVE = Arg(dims="n", low=0.0, high=4.0)
LOGITS = Arg(dims="*batch classes")
PROBABILITIES = Arg(dims="*batch classes", low=0.0, high=1.0)


def _own(name: str, fn: Callable[..., Any], dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16"), **args: Arg) -> Spec:
    return Spec(name=name, fn=fn, args=args, dtypes=dtypes)


RELU = _own("relu", jax.nn.relu, x=Arg(dims="n", special=(0.0,)))
RELU6 = _own("relu6", jax.nn.relu6, x=Arg(dims="n", special=(0.0, 6.0)))
LOG1MEXP = _own("log1mexp", jax.nn.log1mexp, x=POSITIVE)
XLOGY = _own("xlogy", jsp.xlogy, x=VECTOR, y=POSITIVE)
XLOG1PY = _own("xlog1py", jsp.xlog1py, x=VECTOR, y=Arg(dims="n", low=-1.0, high=4.0))
LOGIT = _own("logit", jsp.logit, x=Arg(dims="n", low=0.0, high=1.0))
ENTR = _own("entr", jsp.entr, x=POSITIVE)
# p/q stays away from 1, where JAX 0.12 computes the value by a truncated series (wrong by 5e-9 of itself in float64) and the derivative exactly
KL_DIV = _own("kl_div", jsp.kl_div, p=Arg(dims="n", low=0.0, high=1.0), q=Arg(dims="n", low=2.0, high=4.0))
SOFTPLUS = _own("softplus", jax.nn.softplus, x=VECTOR)
LOGADDEXP = _own("logaddexp", jnp.logaddexp, x=VECTOR, y=VECTOR)
I0 = _own("i0", jnp.i0, x=VECTOR)
SINC = _own("sinc", jnp.sinc, x=VECTOR)
SILU = _own("silu", jax.nn.silu, x=VECTOR)
SELU = _own("selu", jax.nn.selu, x=VECTOR)
SOFTMAX = _own("softmax", jax.nn.softmax, x=LOGITS)
# optax keeps weighted_logsoftmax itself private; this public loss is minus its sum
SAFE_CROSS_ENTROPY = _own("safe_cross_entropy", optax.losses.safe_softmax_cross_entropy, logits=LOGITS, labels=PROBABILITIES)
# in float16 optax's own rule raises (its primal is float32, its tangent float16), so that is not claimed
PROJECTION_SIMPLEX = _own("projection_simplex", optax.projections.projection_simplex, dtypes=FLOAT32, x=VECTOR)


# Right functions behind a custom_vjp whose backward is their own autodiff: whatever is said against these is a false accusation.


def honest(fn: Callable[..., Any]) -> Any:
    """`fn` as a custom_vjp with the backward that JAX derives."""
    wrapped = jax.custom_vjp(lambda *args: fn(*args))  # fn itself would be given the defaults of its static arguments as arrays
    wrapped.defvjp(lambda *args: jax.vjp(fn, *args), lambda pullback, ct: pullback(ct))
    return wrapped


def _attend(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1])) @ v


PLAIN = {
    "reciprocal": (lambda x: 1 / x, {"x": POSITIVE}),
    "cube": (lambda x: x**3, {"x": VECTOR}),
    "log_softmax": (jax.nn.log_softmax, {"x": LOGITS}),
    "logsumexp": (jsp.logsumexp, {"x": VECTOR}),
    "gelu": (jax.nn.gelu, {"x": VECTOR}),
    "norm": (lambda x: jnp.sqrt(jnp.sum(x * x, -1) + EPS), {"x": LOGITS}),
    "bilinear": (lambda x, w, y: jnp.einsum("ni,ij,nj->n", x, w, y), {"x": Arg(dims="n i"), "w": Arg(dims="i j"), "y": Arg(dims="n j")}),
    "layer_norm": (_layer_norm_formula, {"x": Arg(dims="*batch n"), "weight": Arg(dims="n"), "bias": Arg(dims="n")}),
    "attend": (_attend, {"q": Arg(dims="s d"), "k": Arg(dims="t d"), "v": Arg(dims="t e")}),
    "maximum": (lambda x: jnp.max(x, -1), {"x": LOGITS}),
    "sorted": (jnp.sort, {"x": VECTOR}),
    "clip": (lambda x: jnp.clip(x, -1.0, 1.0), {"x": VECTOR}),
    "shifted": (lambda x, y: jnp.abs(x - y), {"x": VECTOR, "y": VECTOR}),
}
HONEST = {name: Spec(name=f"honest_{name}", fn=honest(fn), args=args) for name, (fn, args) in PLAIN.items()}


# Near wrong variants: the same with a backward that is a little off.


def spoiled(fn: Callable[..., Any], spoil: Callable[..., Any]) -> Any:
    """`fn` as a custom_vjp whose cotangent of the first argument goes through `spoil(cotangent, first argument)`."""

    def backward(saved: Any, ct: Any) -> Any:
        pullback, first = saved
        right, *others = pullback(ct)
        return (spoil(right, first).astype(first.dtype), *others)

    def forward(*args: Any) -> Any:
        out, pullback = jax.vjp(fn, *args)
        return out, (pullback, args[0])

    wrapped = jax.custom_vjp(lambda *args: fn(*args))
    wrapped.defvjp(forward, backward)
    return wrapped


def _with_zeros(rng: Any, sizes: Any, dtype: str) -> Any:
    values = rng.integers(-300, 301, size=sizes["n"]) / 100
    values[::3] = 0.0
    return values


def _wrong(name: str, fn: Callable[..., Any], spoil: Callable[..., Any], **args: Arg) -> Spec:
    return Spec(name=name, fn=spoiled(fn, spoil), args=args, dtypes=FLOAT32)


WRONG = {
    spec.name: spec
    for spec in (
        _wrong("sinc_at_0", jnp.sinc, lambda g, x: g + 0.1 * (x == 0), x=Arg(dims="n", sample=_with_zeros)),
        _wrong("silu_factor", jax.nn.silu, lambda g, x: g * (1 + 1e-8), x=VECTOR),
        _wrong("selu_sign", jax.nn.selu, lambda g, x: jnp.where(x < 0, -g, g), x=VECTOR),
        _wrong("softmax_size", jax.nn.softmax, lambda g, x: g * (1 + 1e-6 * (x.shape[-1] > 64)), x=LOGITS),
        _wrong("xlogy_first", jsp.xlogy, lambda g, x: g.at[0].mul(1 + 1e-7), x=VECTOR, y=POSITIVE),
        _wrong(
            "entropy_last",
            optax.losses.safe_softmax_cross_entropy,
            lambda g, x: g.at[..., -1].add(1e-6),
            logits=LOGITS,
            labels=PROBABILITIES,
        ),
        Spec(
            name="rms_norm_dx",
            fn=spoiled(PALLAS_RMS_NORM.fn, lambda g, x: g * 1.01),
            reference=_rms_norm_formula,
            args=PALLAS_RMS_NORM.args,
            sizes={"batch": (1, 1), "rows": (2, 2), "n": (5, 5)},
            dtypes=FLOAT32,
        ),
    )
}
WRONG_SILU = WRONG["silu_factor"]
