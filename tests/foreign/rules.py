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
BLOCKS = pallas_attention.BlockSizes(block_q=BLOCK, block_k=BLOCK, block_q_dkv=BLOCK, block_kv_dkv=BLOCK, block_q_dq=BLOCK, block_kv_dq=BLOCK)
SCALE = 0.5


def _attention(q: Any, k: Any, v: Any, causal: bool) -> Any:
    return pallas_attention.mha(q, k, v, None, SCALE, causal, BLOCKS, "triton", None, 2, None, True)


def _attention_formula(q: Any, k: Any, v: Any, causal: bool) -> Any:
    scores = SCALE * jnp.einsum("bqhd,bkhd->bhqk", q, k)
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


PALLAS_ATTENTION = Spec(
    name="pallas_attention",
    fn=_attention,
    reference=_attention_formula,
    args=dict.fromkeys("qkv", Arg(dims="b t h d")),
    sizes={"b": (1, 2), "t": (1, 2 * BLOCK), "h": (1, 2), "d": (1, 9)},
    options={"causal": (False, True)},
    domain=lambda sizes, options: sizes["t"] < BLOCK or sizes["t"] % BLOCK == 0,  # a short sequence is one block
    dtypes=FLOAT32,
)
