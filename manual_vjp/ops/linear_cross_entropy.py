r"""Linear layer and cross-entropy of softmax in one, without the logits.

Source: Wijmans et al., "Cut your losses in large-vocabulary language models" (2024), arXiv:2411.09009; Hsu et al., "Liger kernel" (2024), arXiv:2410.10989.

Forward, for each row x in R^D with label k; V classes, weights w (D, V), bias b, s the label smoothing:
    z = x w + b     lse = log(sum(exp(z)))     loss = lse - (1 - s) z_k - s mean(z)
    in blocks of classes: the largest z so far, the sum of exponentials beside it, z_k and sum(z) are all that is kept.
Derivation.  As `softmax_cross_entropy` followed by `linear`:  dloss = sum((p - q) dz), p = exp(z - lse), q the smoothed target;  dz = dx w + x dw + db.
Backward, with ct given for each row:
    z_ct = ct (p - q)     x_ct = z_ct w^T     w_ct = sum_rows x^T z_ct     b_ct = sum_rows z_ct
    in blocks of classes, z computed again in each: a column of w_ct is finished by its block, x_ct is the sum over the blocks.
    Weights, ignored rows and the reduction come after it and are differentiated by JAX.
Validity: everywhere; the largest exponential is 1. 16-bit inputs compute in float32.
Residuals: x, w and labels, which the caller holds, b for its dtype and devices, and lse, one number a row (autodiff keeps an array of rows x V).
    Both passes hold a rows x block array at a time, and do 4 products of rows x D x V where autodiff does 3.
Cost, forward, backward:  products 2 N D V, 6 N D V     elementary functions N V, N V
    for N rows; a third of the backward computes z again.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from manual_vjp._blocks import over_blocks, put, take
from manual_vjp._losses import is_class, one_hot_part, plain_cross_entropy, reduced, require_labels, require_reduction, require_smoothing
from manual_vjp._rule import dtypes, match, require_floating, require_shape
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array]  # x, w, labels, b, lse
ELEMENTS, LEAST, STEP = (
    2**20,
    512,
    128,
)  # a block of logits: 4 MiB in float32, and at least so many classes; a multiple of what products like


def linear_cross_entropy(
    x: Float[Array, "*batch D"],
    w: Float[Array, "D V"],
    labels: Int[Array, "*batch"],
    b: Float[Array, "V"] | None = None,
    weights: Float[Array, "*batch"] | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
    block_size: int | None = None,
) -> Float[Array, "..."]:
    """`softmax_cross_entropy(x @ w + b, labels, weights)`; the logits are never in memory, only a block of classes at a time.

    Args:
        x: `(*batch, D)`, of any floating dtype, as are w, b and weights.
        w: `(D, V)`, a column for each class.
        labels: `(*batch)`, integers from 0 to V - 1. The loss of a row with another label is NaN.
        b: `(V,)`, or None for none.
        weights: a factor for each row; or None.
        label_smoothing: this part of the target is spread over all V classes; a Python number from 0 to 1.
        ignore_index: rows with this label count for nothing.
        reduction: "mean" (the sum divided by the sum of the weights of rows that count, or by 1 if that is 0), "sum" or "none".
        block_size: how many classes are in memory at a time; None for about a million logits.

    Returns:
        A scalar, or with "none" an array `(*batch)`; in the dtype that x, w and b promote to.

    Raises:
        ValueError: a shape or the reduction does not fit, label_smoothing is not from 0 to 1, or block_size is below 1.
        TypeError: an argument is not floating point, labels are not integers, or label_smoothing is traced.

    Example:
        >>> x, w = jnp.array([[1.0, 0.0]]), jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
        >>> jnp.exp(-linear_cross_entropy(x, w, jnp.array([1])))
        Array(0.75, dtype=float32)
    """
    op = "linear_cross_entropy"
    require_floating(op, x=x, w=w, b=b, weights=weights)
    if jnp.ndim(x) == 0:
        raise ValueError(f"{op}: x has shape (), wanted (*batch, D): at least one dimension")
    require_shape(op, "w", w, (jnp.shape(x)[-1], "V"), f"because x has shape {jnp.shape(x)}")
    if jnp.shape(w)[-1] == 0:
        raise ValueError(f"{op}: w has shape {jnp.shape(w)}, wanted (D, V) with V of at least 1")
    rows = jnp.shape(x)[:-1]
    require_labels(op, labels, rows, f"because x has shape {jnp.shape(x)}")
    require_shape(op, "b", b, (jnp.shape(w)[-1],), f"because w has shape {jnp.shape(w)}")
    require_shape(op, "weights", weights, rows, "the shape of labels")
    require_reduction(op, reduction)
    if block_size is not None and block_size < 1:
        raise ValueError(f"{op}: block_size is {block_size}, wanted at least 1, or None")
    return _compiled(x, w, labels, b, weights, require_smoothing(op, label_smoothing), ignore_index, reduction, block_size)


@ft.partial(jax.jit, static_argnums=(5, 6, 7, 8))
def _compiled(x, w, labels, b, weights, smoothing: float, ignore_index: int | None, reduction: str, block_size: int | None):
    counted = None if ignore_index is None else labels != ignore_index
    labels = labels if counted is None else jnp.where(counted, labels, 0)
    block = block_size or max(ELEMENTS // max(labels.size, 1) // STEP * STEP, LEAST)
    losses = _linear_cross_entropy(x.reshape(-1, x.shape[-1]), w, labels.reshape(-1), b, smoothing, min(block, w.shape[1]))
    return reduced(losses.reshape(labels.shape), weights, counted, reduction).astype(dtypes(x, w, b)[0])


@ft.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _linear_cross_entropy(x: Array, w: Array, labels: Array, b: Array | None, smoothing: float, block: int) -> Array:
    return _forward(x, w, labels, b, smoothing, block)[0]


def _forward(x: Array, w: Array, labels: Array, b: Array | None, smoothing: float, block: int) -> tuple[Array, Residuals]:
    compute = dtypes(x, w, b)[1]
    classes = w.shape[1]

    def step(carry, start, size):
        top, total, aim = carry
        z = _logits(x, w, b, start, size)
        higher = jnp.maximum(top, jax.lax.stop_gradient(jnp.max(z, axis=-1)))
        total = total * jnp.exp(top - higher) + jnp.sum(jnp.exp(z - higher[:, None]), axis=-1)
        here = start + jax.lax.broadcasted_iota(labels.dtype, z.shape, 1)
        aim += jnp.sum(jnp.where(here == labels[:, None], (1 - smoothing) * z, 0), axis=-1)
        return higher, total, aim + (smoothing / classes * jnp.sum(z, axis=-1) if smoothing else 0)

    none = jnp.zeros(labels.shape, compute)
    top, total, aim = over_blocks(step, (none - jnp.inf, none, none), classes, block, _arrays(x, w, labels, b))
    lse = top + jnp.log(total)
    return jnp.where(is_class(labels, classes), lse - aim, jnp.nan), (x, w, labels, b, lse)


def _backward(smoothing: float, block: int, residuals: Residuals, ct: Array) -> tuple[Array, Array, None, Array | None]:
    x, w, labels, b, lse = residuals
    compute = dtypes(x, w, b)[1]

    def step(carry, start, size):
        x_ct, w_ct, b_ct = carry
        p = jnp.exp(_logits(x, w, b, start, size) - lse[:, None])
        z_ct = ct[:, None] * (p - one_hot_part(labels, w.shape[1], start, size, smoothing, compute))
        x_ct += jnp.matmul(z_ct, take(w, start, size, axis=1).astype(compute).T)
        w_ct = put(w_ct, jnp.matmul(x.astype(compute).T, z_ct).astype(w_ct.dtype), start, axis=1)
        return x_ct, w_ct, None if b_ct is None else put(b_ct, jnp.sum(z_ct, axis=0), start)

    carry = jnp.zeros(x.shape, compute), jnp.zeros(w.shape, compute), None if b is None else jnp.zeros(b.shape, compute)
    x_ct, w_ct, b_ct = over_blocks(step, carry, w.shape[1], block, (*_arrays(x, w, labels, b), ct))
    return match(x_ct, x), match(w_ct, w), None, None if b_ct is None or b is None else match(b_ct, b)


_linear_cross_entropy.defvjp(_forward, _backward)


def _logits(x: Array, w: Array, b: Array | None, start, size: int) -> Array:
    result, compute = dtypes(x, w, b)
    z = jnp.matmul(x.astype(result), take(w, start, size, axis=1).astype(result), preferred_element_type=compute)
    return z if b is None else z + take(b, start, size).astype(compute)


def _arrays(x: Array, w: Array, labels: Array, b: Array | None) -> tuple[Array, ...]:
    return (x, w, labels) if b is None else (x, w, labels, b)


def reference(x, w, labels, b=None, weights=None, *, label_smoothing=0.0, ignore_index=None, reduction="mean", block_size=None):
    """The textbook formula: all logits, and a one-hot target."""
    del block_size
    logits = x @ w if b is None else x @ w + b
    return plain_cross_entropy(logits, labels, weights, label_smoothing, ignore_index, reduction)


def _some_labels(rng, sizes, dtype):
    """Labels of the V classes, repeated ones among them."""
    return rng.integers(0, sizes["V"], size=(sizes["n"],))


SPEC = Spec(
    name="linear_cross_entropy",
    fn=linear_cross_entropy,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16"),
    args={
        "x": Arg(dims="n D"),
        "w": Arg(dims="D V"),
        "labels": Arg(dims="n", dtype="int32", sample=_some_labels),
        "b": Arg(dims="V", optional=True),
        "weights": Arg(dims="n", optional=True, low=0.0, high=2.0),
    },
    sizes={"n": (0, 40), "D": (1, 40), "V": (1, 130)},
    options={"label_smoothing": (0.0, 0.1), "ignore_index": (None, 0), "reduction": ("mean", "none"), "block_size": (None, 8)},
    source="arXiv:2411.09009, arXiv:2410.10989",
)
