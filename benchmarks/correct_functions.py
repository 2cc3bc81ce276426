"""Functions whose derivative is right by construction: each behind a `custom_vjp` whose backward is the pullback that JAX derives.

Whatever `verify` says against one of these is a false alarm. A spec declares what its user would have to: the domain, kinks, the range of an index,
the dtypes that the function supports. Each can be run alone, and replayed, from the root of the repository:

    verify run benchmarks.correct_functions:softmax
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
import optax

from verify.spec import Arg, Spec

MODULE = "benchmarks.correct_functions"
LOW = ("float32", "bfloat16", "float16")
FLOAT32 = ("float32",)  # LAPACK has no 16-bit routines


def with_its_own_pullback(fn: Callable[..., Any]) -> Any:
    """`fn` as a custom_vjp with the backward that JAX derives."""
    wrapped = jax.custom_vjp(lambda *args: fn(*args))  # noqa: PLW0108 - fn itself would be given the defaults of its static arguments as arrays
    wrapped.defvjp(lambda *args: jax.vjp(fn, *args), lambda pullback, ct: pullback(ct))
    return wrapped


def _spec(
    name: str,
    fn: Callable[..., Any],
    *,
    dtypes: tuple[str, ...] = LOW,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    kinks: Mapping[str, tuple[float, ...]] | None = None,
    domain: Callable[..., bool] | None = None,
    **args: Arg,
) -> Spec:
    return Spec(
        name=f"{MODULE}:{name}", fn=with_its_own_pullback(fn), reference=fn, args=args, dtypes=dtypes, sizes=sizes or {}, kinks=kinks or {}, domain=domain
    )  # fmt: skip


def _index(dims: str, below: str) -> Arg:
    """Indices into a dimension."""
    return Arg(dims=dims, dtype="int32", sample=lambda rng, sizes, dtype: rng.integers(0, sizes[below], [sizes[d] for d in dims.split()]))


def _distribution(dims: str) -> Arg:
    """Probabilities that sum to 1 along the last dimension, none of them 0."""

    def sample(rng: np.random.Generator, sizes: Mapping[str, Any], dtype: str) -> np.ndarray:
        weights = rng.integers(1, 1000, size=[sizes[d] for d in dims.split()]).astype(float)
        return weights / weights.sum(-1, keepdims=True)

    return Arg(dims=dims, sample=sample)


def _dominant(rng: np.random.Generator, sizes: Mapping[str, Any], dtype: str) -> np.ndarray:
    """A well conditioned square matrix: the diagonal outweighs its row."""
    n = sizes["n"]
    return rng.integers(-1000, 1001, size=(n, n)) / 1000 / n + 2 * np.eye(n)


def _positive_definite(rng: np.random.Generator, sizes: Mapping[str, Any], dtype: str) -> np.ndarray:
    half = _dominant(rng, sizes, dtype)
    return half @ half.T


def _increasing(rng: np.random.Generator, sizes: Mapping[str, Any], dtype: str) -> np.ndarray:
    """Abscissas one apart, moved by up to a quarter: increasing in every dtype."""
    return np.arange(sizes["k"]) + rng.integers(-250, 251, size=sizes["k"]) / 1000


VECTOR = Arg(dims="n")
ROWS = Arg(dims="*batch n")
MATRIX = Arg(dims="n m")
POSITIVE = Arg(dims="n", low=0.0625, high=4.0)
UNIT = Arg(dims="n", low=0.0, high=1.0)
BATCH = {"batch": (1, 40), "n": (1, 130)}
SQUARE = {"n": (1, 12)}
MANY = {"n": (2, 130)}  # a spread, a direction: not of one element


def _one_hot_cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.sum(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype) * jax.nn.log_softmax(logits), -1)


def _smoothed_cross_entropy(logits: Any, labels: Any) -> Any:
    targets = optax.losses.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), 0.1)
    return optax.losses.softmax_cross_entropy(logits, targets)


def _recurrence(x: Any, h: Any, w: Any) -> Any:
    def step(state: Any, row: Any) -> tuple[Any, Any]:
        state = jnp.tanh(state @ w + row)
        return state, state

    return jax.lax.scan(step, h, x)[1]


def _linear_recurrence(x: Any, a: Any) -> Any:
    return jax.lax.associative_scan(lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1]), (a, x))[1]


def _conv(strides: tuple[int, int], padding: str) -> Callable[..., Any]:
    return lambda x, w: jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _pool(x: Any, start: float, reduce: Callable[..., Any]) -> Any:
    return jax.lax.reduce_window(x, np.asarray(start, x.dtype), reduce, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _ctc(logits: Any, labels: Any) -> Any:
    return optax.losses.ctc_loss(logits, jnp.zeros(logits.shape[:2], logits.dtype), labels, jnp.zeros(labels.shape, logits.dtype))


IMAGE = {"x": Arg(dims="b h w c"), "w": Arg(dims="r s c d")}
IMAGE_SIZES = {"b": (1, 2), "h": (3, 9), "w": (3, 9), "r": (1, 3), "s": (1, 3), "c": (1, 3), "d": (1, 3)}
PIXELS = {"b": (1, 2), "h": (2, 9), "w": (2, 9), "c": (1, 3)}
RELU_KINK, HARD_KINKS = {"x": (0.0,)}, {"x": (-1.0, 1.0)}

_NN = (
    _spec("softmax", jax.nn.softmax, x=ROWS),
    _spec("log_softmax", jax.nn.log_softmax, x=ROWS),
    _spec("logsumexp", lambda x: jax.nn.logsumexp(x, -1), x=ROWS),
    _spec("standardize", jax.nn.standardize, sizes=MANY, x=ROWS),
    _spec("gelu_exact", lambda x: jax.nn.gelu(x, approximate=False), x=VECTOR),
    _spec("gelu_tanh", jax.nn.gelu, x=VECTOR),
    _spec("silu", jax.nn.silu, x=VECTOR),
    _spec("mish", jax.nn.mish, x=VECTOR),
    _spec("softplus", jax.nn.softplus, x=VECTOR),
    _spec("soft_sign", jax.nn.soft_sign, x=VECTOR),
    _spec("squareplus", jax.nn.squareplus, x=VECTOR),
    _spec("sigmoid", jax.nn.sigmoid, x=VECTOR),
    _spec("log_sigmoid", jax.nn.log_sigmoid, x=VECTOR),
    _spec("nn_relu", jax.nn.relu, kinks=RELU_KINK, x=VECTOR),
    _spec("relu6", jax.nn.relu6, kinks={"x": (0.0, 6.0)}, x=VECTOR),
    _spec("leaky_relu", jax.nn.leaky_relu, kinks=RELU_KINK, x=VECTOR),
    _spec("elu", jax.nn.elu, kinks=RELU_KINK, x=VECTOR),  # at 0 its second derivative jumps, as celu's does
    _spec("celu", jax.nn.celu, kinks=RELU_KINK, x=VECTOR),
    _spec("selu", jax.nn.selu, kinks=RELU_KINK, x=VECTOR),
    _spec("hard_tanh", jax.nn.hard_tanh, kinks=HARD_KINKS, x=VECTOR),
    _spec("hard_silu", jax.nn.hard_silu, kinks={"x": (-3.0, 3.0)}, x=VECTOR),
    _spec("glu", jax.nn.glu, x=Arg(dims="m n*2")),
    _spec("one_hot_cross_entropy", _one_hot_cross_entropy, logits=Arg(dims="m n"), labels=_index("m", "n")),
    _spec("smoothed_cross_entropy", _smoothed_cross_entropy, logits=Arg(dims="m n"), labels=_index("m", "n")),
    _spec(
        "dot_product_attention",
        jax.nn.dot_product_attention,
        dtypes=("float32", "bfloat16"),  # JAX has no float16 one on a CPU
        sizes={"b": (1, 2), "t": (1, 9), "s": (1, 33), "h": (1, 3), "d": (1, 17)},
        q=Arg(dims="b t h d"), k=Arg(dims="b s h d"), v=Arg(dims="b s h d"),
    ),
)  # fmt: skip
_NUMPY = (
    _spec("matmul", jnp.matmul, x=MATRIX, y=Arg(dims="m k")),
    _spec("einsum", lambda x, w, y: jnp.einsum("ni,ij,nj->n", x, w, y), x=Arg(dims="n i"), w=Arg(dims="i j"), y=Arg(dims="n j")),
    _spec("var", lambda x: jnp.var(x, -1), x=ROWS),
    _spec("std", lambda x: jnp.std(x, -1), sizes=MANY, x=Arg(dims="*batch n", low=0.0625, high=4.0)),
    _spec("prod", lambda x: jnp.prod(x, -1), sizes={"n": (1, 12)}, x=ROWS),
    _spec("max", lambda x: jnp.max(x, -1), x=ROWS),
    _spec("sort", jnp.sort, x=ROWS),
    _spec("cumsum", lambda x: jnp.cumsum(x, -1), x=ROWS),
    _spec("cumprod", lambda x: jnp.cumprod(x, -1), sizes={"n": (1, 12)}, x=ROWS),
    _spec("where", lambda c, x, y: jnp.where(c, jnp.sin(x), x * y), c=Arg(dims="n", dtype="bool"), x=VECTOR, y=VECTOR),
    _spec("take", lambda x, i: jnp.take(x, i, axis=0, mode="clip"), x=MATRIX, i=_index("k", "n")),
    _spec("norm", lambda x: jnp.linalg.norm(x, axis=-1), x=Arg(dims="*batch n", low=0.0625, high=4.0)),
    _spec("solve", jnp.linalg.solve, dtypes=FLOAT32, sizes=SQUARE, a=Arg(dims="n n", sample=_dominant), b=Arg(dims="n k")),
    _spec("inv", jnp.linalg.inv, dtypes=FLOAT32, sizes=SQUARE, a=Arg(dims="n n", sample=_dominant)),
    _spec("det", jnp.linalg.det, dtypes=FLOAT32, sizes=SQUARE, a=Arg(dims="n n", sample=_dominant)),
    _spec("slogdet", lambda a: jnp.linalg.slogdet(a)[1], dtypes=FLOAT32, sizes=SQUARE, a=Arg(dims="n n", sample=_dominant)),
    _spec("cholesky", jnp.linalg.cholesky, dtypes=FLOAT32, sizes=SQUARE, a=Arg(dims="n n", sample=_positive_definite)),
    _spec(
        "interp",
        jnp.interp,
        dtypes=("float32", "float16"),
        sizes={"k": (2, 20)},
        x=Arg(dims="n", low=0.5, high=1.0),
        xp=Arg(dims="k", sample=_increasing),
        fp=Arg(dims="k"),
    ),
    _spec("sinc", jnp.sinc, x=VECTOR),
    _spec("logaddexp", jnp.logaddexp, x=VECTOR, y=VECTOR),
    _spec("hypot", jnp.hypot, x=POSITIVE, y=POSITIVE),
    _spec("arctan2", jnp.arctan2, y=VECTOR, x=POSITIVE),
    _spec("power", jnp.power, x=POSITIVE, y=VECTOR),
    _spec("median", lambda x: jnp.median(x, -1), x=ROWS),
    _spec("percentile", lambda x: jnp.percentile(x, 30.0, axis=-1), x=ROWS),
    _spec("convolve", jnp.convolve, x=VECTOR, k=Arg(dims="m")),
)
_LAX = (
    _spec("conv_same", _conv((1, 1), "SAME"), sizes=IMAGE_SIZES, **IMAGE),
    _spec("conv_strided", _conv((2, 2), "VALID"), sizes=IMAGE_SIZES, **IMAGE),
    _spec("max_pool", lambda x: _pool(x, -jnp.inf, jax.lax.max), sizes=PIXELS, x=Arg(dims="b h w c")),
    _spec("average_pool", lambda x: _pool(x, 0.0, jax.lax.add) / 4, sizes=PIXELS, x=Arg(dims="b h w c")),
    _spec("top_k", lambda x: jax.lax.top_k(x, 2)[0], sizes=MANY, x=ROWS),
    _spec("cumlogsumexp", jax.lax.cumlogsumexp, x=VECTOR),
    _spec("recurrence", _recurrence, sizes={"t": (1, 12), "n": (1, 9)}, x=Arg(dims="t n"), h=VECTOR, w=Arg(dims="n n", low=-1.0, high=1.0)),
    _spec(
        "linear_recurrence", _linear_recurrence, sizes={"t": (1, 40), "n": (1, 9)}, x=Arg(dims="t n"), a=Arg(dims="t n", low=0.0, high=1.0)
    ),
)
_SPECIAL = (
    _spec("erf", jsp.erf, x=VECTOR),
    _spec("erfinv", jsp.erfinv, x=Arg(dims="n", low=-0.875, high=0.875)),
    _spec("gammaln", jsp.gammaln, x=POSITIVE),
    _spec("digamma", jsp.digamma, dtypes=FLOAT32, x=POSITIVE),
    _spec("xlogy", jsp.xlogy, x=VECTOR, y=POSITIVE),
    _spec("entr", jsp.entr, x=POSITIVE),
    _spec("logit", jsp.logit, x=UNIT),
    _spec("expit", jsp.expit, x=VECTOR),
    _spec("i0e", jsp.i0e, x=VECTOR, kinks={"x": (0.0,)}),
    # JAX's value is a truncated series below -20 (in float32 -10), off by 1e-11, its derivative another; up to 8 it is the logarithm of nearly 1
    _spec("log_ndtr", jsp.log_ndtr, dtypes=FLOAT32, x=Arg(dims="n", low=-9.0, high=4.0)),
)
_LOSSES = (
    _spec("softmax_cross_entropy", optax.losses.softmax_cross_entropy, logits=MATRIX, labels=_distribution("n m")),
    _spec("integer_cross_entropy", optax.losses.softmax_cross_entropy_with_integer_labels, logits=Arg(dims="m n"), labels=_index("m", "n")),
    _spec("binary_cross_entropy", optax.losses.sigmoid_binary_cross_entropy, logits=VECTOR, labels=UNIT),
    _spec("focal_loss", optax.losses.sigmoid_focal_loss, logits=VECTOR, labels=Arg(dims="n", low=0.0625, high=0.9375)),  # JAX drops terms of weight 0
    _spec("huber_loss", optax.losses.huber_loss, predictions=VECTOR, targets=VECTOR),
    _spec("l2_loss", optax.losses.l2_loss, predictions=VECTOR, targets=VECTOR),
    _spec("cosine_similarity", optax.losses.cosine_similarity, sizes=MANY, predictions=Arg(dims="m n", low=0.0625), targets=Arg(dims="m n", low=0.0625)),
    _spec("log_cosh", optax.losses.log_cosh, predictions=VECTOR, targets=VECTOR),
    _spec("hinge_loss", optax.losses.hinge_loss, predictions=VECTOR, targets=VECTOR),
    _spec("kl_divergence", optax.losses.kl_divergence, log_predictions=Arg(dims="m n", low=-4.0, high=0.0), targets=_distribution("m n")),
    _spec("ctc_loss", _ctc, sizes={"b": (1, 2), "t": (1, 11), "n": (1, 5), "k": (2, 6)}, domain=lambda sizes, options: sizes["t"] > 2 * sizes["n"],
          logits=Arg(dims="b t k"), labels=Arg(dims="b n", dtype="int32", sample=lambda rng, sizes, dtype: rng.integers(1, sizes["k"], (sizes["b"], sizes["n"])))),
    _spec("safe_norm", lambda x: optax.safe_norm(x, 1e-3), x=VECTOR),
)  # fmt: skip

SPECS: dict[str, Spec] = {spec.name.removeprefix(f"{MODULE}:"): spec for group in (_NN, _NUMPY, _LAX, _SPECIAL, _LOSSES) for spec in group}


def __getattr__(name: str) -> Spec:
    """`benchmarks.correct_functions:NAME` on the command line."""
    try:
        return SPECS[name]
    except KeyError:
        raise AttributeError(f"module {MODULE!r} has no attribute {name!r}") from None
