"""What `layers.py` times: for each operation and shape the arguments, and who computes the same: ours, the plain formula, public peers.

A variant is a function of the arguments that JAX differentiates, or one of `Torch`, which runs its own forward and backward.
"""

from __future__ import annotations

import functools as ft
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.sparse import BCOO

import manual_vjp as mv
from manual_vjp.catalog import SPECS

HAS_TORCH = importlib.util.find_spec("torch") is not None


@dataclass(frozen=True)
class Torch:
    """A function of torch tensors; arguments that are floating point get gradients."""

    call: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. floors: what PERFORMANCE trials reached: "autodiff" or a peer -> how many times as fast; "temp" -> which part of autodiff's memory."""

    name: str
    shape: str
    args: tuple[np.ndarray, ...]
    variants: dict[str, Any]
    floors: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    diff: tuple[int, ...] | None = None
    tolerance: float = 2e-5


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rows() -> Iterator[Row]:
    """All rows, cheap ones first."""
    yield from _elementwise()
    yield from _linear()
    yield from _structured()
    yield from _norms()
    yield from _softmax()
    yield from _losses()
    yield from _dropout()
    yield from _pooling()
    yield from _convolution()
    yield from _attention()
    yield from _recurrent()


def _elementwise() -> Iterator[Row]:
    x = _normal(2048, 1024)
    peers = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}
    for name, peer in peers.items():
        fn = getattr(mv, name)
        yield Row(
            name=name,
            shape="2048x1024",
            args=(x,),
            variants={"ours": fn, "autodiff": SPECS[name].reference, "jax.nn": peer},
            floors={"autodiff": 0.97},
        )


def _linear() -> Iterator[Row]:
    for n, d_in, d_out in ((512, 1024, 1024), (2048, 1024, 1024)):
        args = _normal(n, d_in), _normal(d_in, d_out, seed=1) / np.float32(d_in**0.5), _normal(d_out, seed=2)
        variants = {
            "ours": mv.linear,
            "autodiff": SPECS["linear"].reference,
            **_torch(lambda t, x, w, b: t.nn.functional.linear(x, w.T, b)),
        }
        yield Row(
            name="linear",
            shape=f"{n}x{d_in}->{d_out}",
            args=args,
            variants=variants,
            floors={"autodiff": 0.97},
            flops=6.0 * n * d_in * d_out,
        )
    for n, d, h in ((512, 256, 1024), (2048, 512, 2048)):
        args = (
            _normal(n, d),
            _normal(d, h, seed=1) / np.float32(d**0.5),
            _normal(h, seed=2),
            _normal(h, d, seed=3) / np.float32(h**0.5),
            _normal(d, seed=4),
        )
        variants = {"ours": mv.mlp, "ours, minimal": lambda *a: mv.mlp(*a, residuals="minimal"), "autodiff": SPECS["mlp"].reference}
        yield Row(name="mlp", shape=f"{n}x{d}-{h}-{d}", args=args, variants=variants, floors={"autodiff": 0.97}, flops=12.0 * n * d * h)


def _structured() -> Iterator[Row]:
    for n, d, r in ((2048, 1024, 16), (2048, 1024, 128)):
        args = _normal(n, d), _normal(d, r, seed=1) / np.float32(d**0.5), _normal(d, r, seed=2), _normal(d, seed=3)
        variants = {
            "ours": mv.low_rank_linear,
            "ours, minimal": lambda *a: mv.low_rank_linear(*a, residuals="minimal"),
            "autodiff": SPECS["low_rank_linear"].reference,
            "dense": lambda x, u, v, b: x @ (u @ v.T) + b,
            **_torch(lambda t, x, u, v, b: x @ u @ v.T + b),
        }
        yield Row(name="low_rank_linear", shape=f"{n}x{d}-{r}-{d}", args=args, variants=variants, flops=12.0 * n * d * r)
    for n, v, d in ((4096, 32768, 256), (16384, 4096, 256)):
        indices = np.random.default_rng(1).integers(0, v, size=n).astype(np.int32)
        variants = {
            "ours": mv.embedding,
            "autodiff": lambda table, k: jnp.take(table, k, axis=0),
            "flax": lambda table, k: nn.Embed(*table.shape).apply({"params": {"embedding": table}}, k),
            **_torch(lambda t, table, k: t.nn.functional.embedding(k.long(), table)),
        }
        yield Row(name="embedding", shape=f"{n} of {v}x{d}", args=(_normal(v, d), indices), variants=variants, diff=(0,))
    for n, d, nse in ((64, 1024, 10486), (512, 1024, 10486), (512, 4096, 16777)):  # 1 % and 0.1 % of the entries
        yield _sparse_row(n, d, nse)


def _sparse_row(n: int, d: int, nse: int) -> Row:
    places = np.random.default_rng(1).integers(0, d, size=(nse, 2)).astype(np.int32)
    variants = {
        "ours": lambda x, data, places: mv.sparse_linear(x, BCOO((data, places), shape=(d, d))),
        "autodiff": lambda x, data, places: jnp.zeros((d, len(x))).at[places[:, 1]].add(x.T[places[:, 0]] * data[:, None]).T,
        "jax.sparse": lambda x, data, places: x @ BCOO((data, places), shape=(d, d)),
        "dense": lambda x, data, places: x @ jnp.zeros((d, d)).at[places[:, 0], places[:, 1]].add(data),
        **_torch(lambda t, x, data, places: t.sparse.mm(t.sparse_coo_tensor(places.flip(1).T, data, (d, d)), x.T).T),
    }
    args = _normal(n, d), _normal(nse, seed=2), places
    return Row(name="sparse_linear", shape=f"{n}x{d}->{d}, {nse} entries", args=args, variants=variants, diff=(0, 1))


def _norms() -> Iterator[Row]:
    for n, d, floor in ((2048, 768, 1.7), (8192, 1024, 2.2), (8191, 1024, 1.9)):
        args = _normal(n, d), 1 + _normal(d, seed=1), _normal(d, seed=2)
        flax = lambda x, scale, bias: nn.LayerNorm(epsilon=1e-5).apply({"params": {"scale": scale, "bias": bias}}, x)  # noqa: E731
        torch = _torch(lambda t, x, scale, bias: t.nn.functional.layer_norm(x, x.shape[-1:], scale, bias))
        variants = {"ours": mv.layer_norm, "autodiff": SPECS["layer_norm"].reference, "flax": flax, **torch}
        yield Row(
            name="layer_norm",
            shape=f"{n}x{d}",
            args=args,
            variants=variants,
            floors={"autodiff": floor, "flax": 1.5, "torch": 0.9, "temp": 1 / 50},
            tolerance=1e-4,
        )
    for n, d in ((2048, 768), (8192, 1024)):
        flax = lambda x, scale: nn.RMSNorm().apply({"params": {"scale": scale}}, x)  # noqa: E731
        variants = {"ours": mv.rms_norm, "autodiff": SPECS["rms_norm"].reference, "flax": flax}
        yield Row(name="rms_norm", shape=f"{n}x{d}", args=(_normal(n, d), 1 + _normal(d, seed=1)), variants=variants, tolerance=1e-4)
    for n, d, floor in ((25088, 64, 2.2), (8192, 1024, 2.2), (100352, 64, 2.7)):
        args = _normal(n, d), 1 + _normal(d, seed=1), _normal(d, seed=2)
        torch = _torch(lambda t, x, scale, bias: t.nn.functional.batch_norm(x, None, None, scale, bias, training=True))
        variants = {
            "ours": lambda x, scale, bias: mv.batch_norm(x, scale, bias)[0],
            "autodiff": lambda x, scale, bias: SPECS["batch_norm"].reference(x, scale, bias)[0],
            "flax": _flax_batch_norm,
            **torch,
        }
        yield Row(
            name="batch_norm",
            shape=f"{n}x{d}",
            args=args,
            variants=variants,
            floors={"autodiff": floor, "flax": 1.1, "torch": 1.0, "temp": 1e-3},
            tolerance=1e-4,
        )


def _flax_batch_norm(x: Any, scale: Any, bias: Any) -> Any:
    zeros = jnp.zeros(x.shape[-1])
    state = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": zeros, "var": zeros}}
    return nn.BatchNorm(use_running_average=False).apply(state, x, mutable=["batch_stats"])[0]


def _plain_softmax(x: Any) -> Any:
    exponentials = jnp.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _softmax() -> Iterator[Row]:
    for n, d in ((4096, 512), (8192, 1024), (8191, 1023)):
        torch = _torch(lambda t, x: t.softmax(x, -1))
        variants = {"ours": mv.softmax, "autodiff": _plain_softmax, "jax.nn": jax.nn.softmax, **torch}
        yield Row(
            name="softmax",
            shape=f"{n}x{d}",
            args=(_normal(n, d),),
            variants=variants,
            floors={"autodiff": 2.5, "jax.nn": 1.6, "temp": 1e-3},
        )
    x = _normal(8192, 1024)
    yield Row(
        name="log_softmax", shape="8192x1024", args=(x,),
        variants={"ours": mv.log_softmax, "autodiff": SPECS["log_softmax"].reference, "jax.nn": jax.nn.log_softmax, **_torch(lambda t, x: t.log_softmax(x, -1))},
    )  # fmt: skip
    variants = {"ours": mv.logsumexp, "autodiff": SPECS["logsumexp"].reference, "jax.nn": lambda x: jax.nn.logsumexp(x, axis=-1)}
    yield Row(name="logsumexp", shape="8192x1024", args=(x,), variants=variants)


def _losses() -> Iterator[Row]:
    a, b = _normal(4096, 1024), _normal(4096, 1024, seed=1)
    for name, peer in (("squared_error", optax.squared_error), ("huber", optax.huber_loss)):
        variants = {"ours": getattr(mv, name), "autodiff": SPECS[name].reference, "optax": lambda a, b, peer=peer: peer(a, b).mean()}
        yield Row(name=name, shape="4096x1024", args=(a, b), variants=variants)
    for n, v in ((512, 32768), (2048, 32768), (256, 131072)):
        labels = np.random.default_rng(1).integers(0, v, size=n).astype(np.int32)
        peer = lambda x, k: optax.softmax_cross_entropy_with_integer_labels(x, k).mean()  # noqa: E731
        torch = _torch(lambda t, x, k: t.nn.functional.cross_entropy(x, k.long()))
        variants = {"ours": mv.softmax_cross_entropy, "autodiff": _plain_cross_entropy, "optax": peer, **torch}
        floors = {"autodiff": 2.2, "optax": 1.0, "torch": 2.0, "temp": 1e-3} if v == 32768 and n == 2048 else {}
        yield Row(name="softmax_cross_entropy", shape=f"{n}x{v}", args=(_normal(n, v), labels), variants=variants, floors=floors, diff=(0,))
    for n, d, v, speed, memory in ((1024, 256, 32768, 1.05, 1 / 30), (1024, 256, 131072, 1.2, 1 / 100), (1000, 256, 32003, 1.0, 1 / 30)):
        labels = np.random.default_rng(1).integers(0, v, size=n).astype(np.int32)
        args = _normal(n, d), _normal(d, v, seed=1) / np.float32(d**0.5), labels
        variants = {
            "ours": mv.linear_cross_entropy,
            "autodiff": lambda x, w, k: _plain_cross_entropy(x @ w, k),
            "optax": lambda x, w, k: optax.softmax_cross_entropy_with_integer_labels(x @ w, k).mean(),
            **_torch(lambda t, x, w, k: t.nn.functional.cross_entropy(x @ w, k.long())),
        }
        floors = {"autodiff": speed, "temp": memory}
        yield Row(
            name="linear_cross_entropy",
            shape=f"{n}x{d}x{v}",
            args=args,
            variants=variants,
            floors=floors,
            diff=(0, 1),
            flops=6.0 * n * d * v,
        )


def _plain_cross_entropy(logits: Any, labels: Any) -> Any:
    shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    log_p = shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))
    return -jnp.take_along_axis(log_p, labels[:, None], axis=-1).mean()


def _dropout() -> Iterator[Row]:
    key = np.asarray(jax.random.PRNGKey(0))
    variants = {
        "ours": lambda x, key: mv.dropout(x, key, rate=0.1),
        "autodiff": lambda x, key: SPECS["dropout"].reference(x, key, rate=0.1),
        "flax": lambda x, key: nn.Dropout(0.1, deterministic=False).apply({}, x, rng=key),
    }
    yield Row(name="dropout", shape="2048x1024", args=(_normal(2048, 1024), key), variants=variants, diff=(0,))


def _pooling() -> Iterator[Row]:
    for n, size, c, window, stride in ((8, 56, 64, 2, 2), (8, 112, 64, 3, 2), (8, 28, 64, 3, 1)):
        options = {"window_shape": (window, window), "strides": (stride, stride)}
        for name in ("max_pool", "avg_pool"):
            variants = {
                "ours": ft.partial(getattr(mv, name), **options),
                "autodiff": ft.partial(getattr(nn, name), **options),  # of lax.reduce_window
                **_torch(
                    lambda t, x, name=name, window=window, stride=stride: getattr(t.nn.functional, f"{name}2d")(
                        x.permute(0, 3, 1, 2), window, stride
                    ).permute(0, 2, 3, 1)
                ),
            }
            words = f"{n}x{size}x{size}x{c} {window}x{window}/{stride}"
            yield Row(name=name, shape=words, args=(_normal(n, size, size, c),), variants=variants, floors={"autodiff": 1.0})


def _convolution() -> Iterator[Row]:
    for n, size, c, out, k, groups, floor in (
        (8, 32, 16, 32, 3, 1, 1.0),
        (32, 28, 64, 64, 3, 1, 1.0),
        (8, 56, 64, 128, 3, 1, 1.2),
        (64, 16, 128, 128, 3, 1, 1.0),
        (8, 64, 3, 32, 5, 1, 1.0),
        (8, 56, 64, 64, 1, 1, 1.2),
        (8, 28, 64, 64, 3, 64, 1.2),
        (8, 28, 64, 64, 3, 4, 1.2),
    ):
        args = (
            _normal(n, size, size, c),
            _normal(k, k, c // groups, out, seed=1) / np.float32(k * (c // groups) ** 0.5),
            _normal(out, seed=2),
        )

        def plain(x: Any, w: Any, b: Any, groups: int = groups) -> Any:
            layout = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=groups) + b

        def torch(t: Any, x: Any, w: Any, b: Any, k: int = k, groups: int = groups) -> Any:
            own = x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1)
            return t.nn.functional.conv2d(*own, b, padding=k // 2, groups=groups).permute(0, 2, 3, 1)

        variants = {
            "ours": lambda x, w, b, groups=groups: mv.conv(x, w, b, feature_group_count=groups),
            "autodiff": plain,  # of lax.conv_general_dilated
            **_torch(torch),
        }
        words = f"{n}x{size}x{size} {c}->{out} {k}x{k}{f' groups {groups}' if groups > 1 else ''}"
        flops = 6.0 * n * size**2 * k**2 * (c // groups) * out
        yield Row(name="conv", shape=words, args=args, variants=variants, floors={"autodiff": floor}, flops=flops, tolerance=1e-4)


def _attention() -> Iterator[Row]:
    floors = {
        (2048, False): {"autodiff": 2.2, "jax.nn": 3.0, "torch": 0.9, "temp": 1 / 25},
        (2048, True): {"autodiff": 2.5, "jax.nn": 4.0, "torch": 0.9, "temp": 1 / 25},
        (8192, True): {"torch": 1.0},
        (16384, True): {"torch": 1.0},
    }
    for n, causal in (
        (128, False),
        (512, False),
        (512, True),
        (1024, True),
        (1100, True),
        (1104, True),
        (2048, False),
        (2048, True),
        (4096, True),
        (8192, True),
        (16384, True),
    ):
        yield _attention_row(1, n, 8, 8, 64, causal, floors.get((n, causal), {}), plain=n <= 4096)
    yield _attention_row(1, 1024, 8, 2, 64, True, {"autodiff": 3.3, "torch": 1.1, "temp": 1 / 9})
    yield _attention_row(4, 1024, 8, 8, 64, True, {})
    yield _attention_row(1, 2048, 8, 8, 64, True, {}, window=256)


def _attention_row(
    b: int, n: int, h: int, k: int, d: int, causal: bool, floors: dict[str, float], plain: bool = True, window: int | None = None
) -> Row:
    args = _normal(b, n, h, d), _normal(b, n, k, d, seed=1), _normal(b, n, k, d, seed=2)
    options: dict[str, Any] = {"is_causal": causal}
    sides = {} if window is None else {"local_window_size": (window, 0)}
    variants: dict[str, Any] = {"ours": lambda q, k, v: mv.attention(q, k, v, **options, **sides)}
    if plain:
        variants["autodiff"] = lambda q, k, v: SPECS["attention"].reference(q, k, v, **options, **sides)
        variants["jax.nn"] = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, **options, **sides)
    if window is None:

        def torch(t: Any, q: Any, k: Any, v: Any) -> Any:
            heads = (a.transpose(1, 2) for a in (q, k, v))
            return t.nn.functional.scaled_dot_product_attention(*heads, is_causal=causal, enable_gqa=h != args[1].shape[2]).transpose(1, 2)

        variants |= _torch(torch)
    words = f"B={b} n={n} heads={h}/{k} D={d}{' causal' if causal else ''}{f' window {window}' if window else ''}"
    area = 0.5 if causal else 1.0
    return Row(
        name="attention", shape=words, args=args, variants=variants, floors=floors, flops=14.0 * b * n * n * h * d * area, tolerance=1e-4
    )


def _recurrent() -> Iterator[Row]:
    floors = {
        ("rnn", 1024): {"autodiff": 1.5, "torch": 1.3, "temp": 1 / 15},
        ("rnn", 256): {"autodiff": 1.2, "temp": 1 / 7},
        ("gru", 1024): {"temp": 1 / 15},
        ("lstm", 1024): {"autodiff": 1.2, "temp": 1 / 15},
    }
    for name, gates, t, b, d, h in (
        ("rnn", 1, 128, 16, 64, 128),
        ("rnn", 1, 256, 32, 256, 256),
        ("rnn", 1, 1024, 32, 128, 256),
        ("gru", 3, 1024, 32, 128, 256),
        ("lstm", 4, 1024, 32, 128, 256),
    ):
        args = (
            _normal(b, t, d),
            _normal(d, gates * h, seed=1) / np.float32(d**0.5),
            _normal(h, gates * h, seed=2) / np.float32(h**0.5),
            _normal(gates * h, seed=3),
        )
        fn = getattr(mv, name)
        variants = {
            "ours": lambda *a, fn=fn: fn(*a)[0],
            "ours, checkpoint": lambda *a, fn=fn: fn(*a, checkpoint=True)[0],
            "autodiff": lambda *a, name=name: SPECS[name].reference(*a)[0],
            "remat": lambda *a, name=name: _remat(name, *a),
            **_torch_recurrent(name, gates, b, d, h),
        }
        yield Row(
            name=name,
            shape=f"T={t} B={b} D={d} H={h}",
            args=args,
            variants=variants,
            floors=floors.get((name, t), {}),
            flops=6.0 * gates * t * b * h * (d + h),
            tolerance=1e-4,
        )


def _remat(name: str, x: Any, w_x: Any, w_h: Any, b: Any) -> Any:
    """autodiff of the plain formula, with jax.checkpoint around each 32 steps."""
    parts = jnp.moveaxis(x.reshape(x.shape[0], -1, 32, x.shape[2]), 1, 0)
    plain = SPECS[name].reference

    @jax.checkpoint
    def part(state: Any, x: Any) -> Any:
        hs, state = plain(x, w_x, w_h, b, *((None,) if name == "gru" else ()), *(state if name == "lstm" else (state,)))
        return state, hs

    zero = jnp.zeros((x.shape[0], w_h.shape[0]), x.dtype)
    _, hs = jax.lax.scan(part, (zero, zero) if name == "lstm" else zero, parts)
    return jnp.moveaxis(hs, 0, 1).reshape(x.shape[0], -1, w_h.shape[0])


def _torch_recurrent(name: str, gates: int, b: int, d: int, h: int) -> dict[str, Torch]:
    def call(t: Any, x: Any, w_x: Any, w_h: Any, bias: Any) -> Any:
        kernel = {"rnn": t._VF.rnn_tanh, "gru": t._VF.gru, "lstm": t._VF.lstm}[name]
        zero = t.zeros(1, b, h)
        weights = (w_x.T.contiguous(), w_h.T.contiguous(), bias, t.zeros(gates * h))
        return kernel(x, (zero, zero) if name == "lstm" else zero, weights, True, 1, 0.0, True, False, True)[0]

    return _torch(call)


def _torch(function: Callable[..., Any]) -> dict[str, Any]:
    if not HAS_TORCH:
        return {}

    def call(*tensors: Any) -> Any:
        import torch

        return function(torch, *tensors)

    return {"torch": Torch(call)}
