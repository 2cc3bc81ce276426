"""One table of small calls for every operation, and the float64 truth that they are held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from manual_vjp.catalog import SPECS
from verify._compat import enable_x64

# Batches are of 4, one for each simulated device; sizes in one call differ, so that an exchanged axis shows. None is an argument left out.
Shape = tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the operation `name`: the shapes of its arguments, its options, and which arguments are split over devices."""

    name: str
    shapes: Mapping[str, Shape]
    options: Mapping[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("x",)

    @property
    def fn(self):
        return lambda *args: first(SPECS[self.name].fn(*args, **self.options))

    @property
    def reference(self):
        return lambda *args: first(SPECS[self.name].reference(*args, **self.options))

    def values(self, seed: int = 0) -> list[np.ndarray | None]:
        """float64 arrays rounded to 8 bits, so that every dtype holds the same values; a mask is boolean and has a row of all False."""
        rng = np.random.default_rng(seed)
        return [None if shape is None else _draw(rng, argument, shape) for argument, shape in self.shapes.items()]

    def cotangent(self, seed: int = 100) -> np.ndarray:
        out = jax.eval_shape(self.reference, *(None if a is None else jnp.asarray(a) for a in self.values()))
        return _draw(np.random.default_rng(seed), "ct", out.shape)

    def floating(self) -> list[int]:
        """Positions of the arguments that have a gradient."""
        return [i for i, value in enumerate(self.values()) if value is not None and np.issubdtype(value.dtype, np.floating)]

    def __str__(self) -> str:
        return "-".join(
            [self.name, *(f"{k}={v}" for k, v in self.options.items()), *(f"no_{k}" for k, v in self.shapes.items() if v is None)]
        )


def first(out: Any) -> Any:
    """The output that a gradient is wanted of: y, where statistics come with it."""
    return out[0] if isinstance(out, tuple) else out


def _draw(rng: np.random.Generator, argument: str, shape: tuple[int, ...]) -> np.ndarray:
    if argument == "key" and shape == (2,):  # of jax.random, not attention's
        return rng.integers(0, 2**32, size=shape, dtype=np.uint32)
    if argument in ("labels", "indices"):
        return rng.integers(0, 3, size=shape).astype(np.int32)
    if argument == "lengths":
        return rng.integers(0, 6, size=shape).astype(np.int32)  # sequences have 5 elements
    if argument == "where":
        return rng.random(shape) < 0.6
    if argument in ("weights", "var"):
        return np.round(rng.uniform(0.5, 2, size=shape) * 32) / 32
    if argument == "mask":
        mask = rng.random(shape) < 0.6
        if len(shape) > 1:
            mask[..., :1, :] = False  # a size of 0 has no row 0
        return mask
    return np.round(rng.normal(size=shape) * 32) / 32


def attention_call(bias: Shape, mask: Shape, **options: Any) -> Call:
    shapes = {"query": (4, 3, 6, 2), "key": (4, 5, 2, 2), "value": (4, 5, 2, 2), "bias": bias, "mask": mask}
    return Call(name="attention", shapes=shapes, options=options, split=("query", "key", "value"))


LINEAR = {"x": (4, 2, 3), "w": (3, 5), "b": (5,)}
CALLS = [
    Call(name="linear", shapes=LINEAR),
    Call(name="linear", shapes={**LINEAR, "b": None}),
    Call(name="relu", shapes={"x": (4, 3)}),
    Call(name="mlp", shapes={"x": (4, 3), "w1": (3, 7), "b1": (7,), "w2": (7, 2), "b2": (2,)}),
    Call(name="layer_norm", shapes={"x": (4, 2, 5), "scale": (5,), "bias": (5,)}, options={"eps": 1e-3}),
    Call(name="layer_norm", shapes={"x": (4, 5), "scale": None, "bias": None}),
    attention_call((1, 6, 1, 5), (1, 1, 3, 5), is_causal=True),
    attention_call(None, None, scale=0.5),
    attention_call((1, 1, 3, 5), None, is_causal=True, local_window_size=(1, 0), block_size=2),
    Call(name="gelu", shapes={"x": (4, 3)}),
    Call(name="gelu", shapes={"x": (4, 3)}, options={"approximate": False}),
    Call(name="silu", shapes={"x": (4, 3)}),
    Call(name="softmax", shapes={"x": (4, 3, 5), "where": (4, 1, 5)}, split=("x", "where")),
    Call(name="softmax", shapes={"x": (4, 3, 5), "where": None}, options={"axis": (1, 2)}),
    Call(name="log_softmax", shapes={"x": (4, 3, 5), "where": None}),
    Call(name="logsumexp", shapes={"x": (4, 3, 5), "where": None}),
    Call(name="rms_norm", shapes={"x": (4, 2, 5), "scale": (5,)}, options={"eps": 1e-3}),
    Call(name="rms_norm", shapes={"x": (4, 3, 5), "scale": (3, 5)}, options={"axis": (1, 2)}),
    Call(name="layer_norm", shapes={"x": (4, 3, 5), "scale": (3,), "bias": (3,)}, options={"axis": 1}),
    Call(name="batch_norm", shapes={"x": (4, 3, 5), "scale": (5,), "bias": (5,)}, split=()),
    Call(name="batch_norm", shapes={"x": (4, 3, 5), "scale": (5,), "bias": None, "mean": (5,), "var": (5,)}, options={"train": False}),
    Call(
        name="squared_error",
        shapes={"prediction": (4, 3), "target": (4, 3), "weights": (4, 3)},
        options={"reduction": "none"},
        split=("prediction", "target", "weights"),
    ),
    Call(
        name="huber",
        shapes={"prediction": (4, 3), "target": (4, 3), "weights": None},
        options={"reduction": "none", "delta": 0.5},
        split=("prediction", "target"),
    ),
    Call(
        name="softmax_cross_entropy",
        shapes={"logits": (4, 2, 5), "labels": (4, 2), "weights": (4, 2)},
        options={"reduction": "none", "label_smoothing": 0.1, "ignore_index": 1},
        split=("logits", "labels", "weights"),
    ),
    Call(name="softmax_cross_entropy", shapes={"logits": (4, 5), "labels": (4,), "weights": (4,)}, split=()),
    Call(
        name="linear_cross_entropy",
        shapes={"x": (4, 2, 3), "w": (3, 7), "labels": (4, 2), "b": (7,), "weights": None},
        options={"reduction": "none", "label_smoothing": 0.1, "block_size": 3},
        split=("x", "labels"),
    ),
    Call(name="mlp", shapes={"x": (4, 3), "w1": (3, 7), "b1": (7,), "w2": (7, 2), "b2": (2,)}, options={"residuals": "minimal"}),
    Call(name="conv", shapes={"x": (4, 5, 6, 3), "w": (3, 2, 3, 2), "b": (2,)}, options={"strides": (2, 1)}),
    Call(
        name="conv",
        shapes={"x": (4, 7, 4), "w": (3, 2, 6), "b": None},
        options={"kernel_dilation": 2, "padding": 1, "feature_group_count": 2},
    ),
    Call(name="max_pool", shapes={"x": (4, 5, 6, 3)}, options={"window_shape": (3, 2), "strides": 2, "padding": "SAME"}),
    Call(
        name="avg_pool",
        shapes={"x": (4, 5, 6, 3)},
        options={"window_shape": (3, 2), "strides": (1, 2), "padding": "SAME", "count_include_pad": False},
    ),
    Call(name="dropout", shapes={"x": (4, 5), "key": (2,)}, options={"rate": 0.25}, split=()),
    Call(name="low_rank_linear", shapes={"x": (4, 2, 6), "u": (6, 2), "v": (5, 2), "b": (5,)}),
    Call(name="low_rank_linear", shapes={"x": (4, 6), "u": (6, 2), "v": (5, 2), "b": None}, options={"residuals": "minimal"}),
    Call(name="sparse_linear", shapes={"x": (4, 2, 3), "data": (7,), "indices": (7, 2), "b": (5,)}),
    Call(name="embedding", shapes={"table": (5, 3), "indices": (4, 2)}, options={"padding_index": 1}, split=("indices",)),
    Call(name="project", shapes={"x": (4, 2, 6), "a": (6, 3)}),
    Call(name="least_squares", shapes={"x": (7, 3), "y": (7, 2)}, split=()),
    Call(name="least_squares", shapes={"x": (3, 7), "y": (3, 2)}, split=()),
    Call(name="least_squares", shapes={"x": (3, 5), "y": (3,)}, options={"l2": 0.5}, split=()),
    Call(name="residual", shapes={"x": (4, 2, 3), "w": (3, 3), "scale": (3,)}),
    Call(name="rnn", shapes={"x": (4, 5, 3), "w_x": (3, 2), "w_h": (2, 2), "b": (2,), "h0": None, "lengths": (4,)}, split=("x", "lengths")),
    Call(
        name="rnn",
        shapes={"x": (4, 4, 3), "w_x": (3, 2), "w_h": (2, 2), "b": None, "h0": (4, 2), "lengths": None},
        options={"activation": "relu", "reverse": True, "checkpoint": True, "block_size": 2},
        split=("x", "h0"),
    ),
    Call(name="gru", shapes={"x": (4, 5, 3), "w_x": (3, 6), "w_h": (2, 6), "b": None, "b_h": (6,), "h0": None, "lengths": None}),
    Call(
        name="lstm",
        shapes={"x": (4, 5, 3), "w_x": (3, 8), "w_h": (2, 8), "b": None, "h0": None, "c0": (4, 2), "lengths": None},
        split=("x", "c0"),
    ),
]
# In 16 bits: mlp and low_rank_linear round h, softmax the y that it keeps, residual takes f's output as it is rounded.
ROUNDS_BETWEEN = {"mlp", "low_rank_linear", "softmax", "residual"}


def cast(args, dtype):
    """Arrays of `dtype`; booleans, integers and None stay."""
    return [None if a is None else jnp.asarray(a, dtype if np.issubdtype(a.dtype, np.floating) else a.dtype) for a in args]


def vjp_of(fn, positions):
    """`(args, ct) -> value, cotangents` of the arguments at `positions`, compiled."""

    @jax.jit
    def run(args, ct):
        def of_floats(*floats):
            full = list(args)
            for position, value in zip(positions, floats, strict=True):
                full[position] = value
            return fn(*full)

        value, vjp = jax.vjp(of_floats, *(args[p] for p in positions))
        return value, vjp(ct.astype(value.dtype))

    return run


_known: dict[str, Any] = {}


def truth(call: Call):
    """Value and cotangents in float64, by autodiff of the reference; compiled once for each call."""
    key = repr(call)
    if key not in _known:
        with enable_x64(True):
            args, ct = cast(call.values(), "float64"), jnp.asarray(call.cotangent())
            _known[key] = jax.tree.map(np.asarray, vjp_of(call.reference, call.floating())(args, ct))
    return _known[key]


def assert_close(got, want, rtol: float, what: str = "") -> None:
    """Elementwise, against `rtol` of the largest element wanted; an empty tree, a shape that differs and NaN all fail."""
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want) > 0, what
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape, what
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert (np.abs(g - w) <= rtol * np.max(np.abs(w), initial=0)).all(), f"{what}: got {g}, wanted {w}"
