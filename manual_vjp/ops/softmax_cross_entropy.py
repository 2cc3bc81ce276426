r"""Cross-entropy of softmax with integer labels.

Source: Bridle (1990); label smoothing: Szegedy et al., "Rethinking the Inception architecture" (2016), arXiv:1512.00567.

Forward, for each row x of V logits with label k, and s the label smoothing:
    lse = log(sum(exp(x)))     q = (1 - s) [v = k] + s / V     loss = lse - sum(q x) = lse - (1 - s) x_k - s mean(x)
Derivation.  dlse = sum(p dx) with p = exp(x - lse), and q is constant, so  dloss = sum((p - q) dx).
Backward, with ct given for each row:
    x_ct = ct (p - q)
    Weights, ignored rows and the reduction come after it and are differentiated by JAX.
Validity: everywhere; the largest exponential is 1. 16-bit inputs compute in float32.
Residuals: logits and labels, which the caller holds, and max(x) and sum(exp(x - max(x))), two numbers a row (autodiff keeps an array of the logits' size).
Cost, forward, backward:  products none, none     elementary functions R V, R V
    for R rows: the exponentials are computed again in the backward.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from manual_vjp._exponentials import scaled_exponentials, top_and_total
from manual_vjp._losses import pick, plain_cross_entropy, reduced, require_labels, require_reduction, require_smoothing
from manual_vjp._rule import require_floating, require_shape
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array]  # logits, labels, top, total


def softmax_cross_entropy(
    logits: Float[Array, "*batch V"],
    labels: Int[Array, "*batch"],
    weights: Float[Array, "*batch"] | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`-log(softmax(logits)[label])` for each row, and the mean or the sum of it.

    Args:
        logits: `(*batch, V)`, of any floating dtype.
        labels: `(*batch)`, integers from 0 to V - 1. The loss of a row with another label is NaN.
        weights: a factor for each row; or None.
        label_smoothing: this part of the target is spread over all V classes; a Python number from 0 to 1.
        ignore_index: rows with this label count for nothing.
        reduction: "mean" (the sum divided by the sum of the weights of rows that count, or by 1 if that is 0), "sum" or "none".

    Returns:
        A scalar, or with "none" an array `(*batch)`; in the dtype of logits.

    Raises:
        ValueError: a shape or the reduction does not fit, or label_smoothing is not from 0 to 1.
        TypeError: logits or weights are not floating point, labels are not integers, or label_smoothing is traced.

    Example:
        >>> logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
        >>> jnp.exp(-softmax_cross_entropy(logits, jnp.array([1, 0]), reduction="none"))
        Array([0.75, 0.5 ], dtype=float32)
        >>> jax.grad(softmax_cross_entropy)(logits, jnp.array([1, -1]), ignore_index=-1)
        Array([[ 0.25, -0.25],
               [ 0.  ,  0.  ]], dtype=float32)
    """
    require_floating("softmax_cross_entropy", logits=logits, weights=weights)
    if jnp.ndim(logits) == 0 or jnp.shape(logits)[-1] == 0:
        raise ValueError(f"softmax_cross_entropy: logits has shape {jnp.shape(logits)}, wanted (*batch, V) with V of at least 1")
    rows = jnp.shape(logits)[:-1]
    require_labels("softmax_cross_entropy", labels, rows, f"because logits has shape {jnp.shape(logits)}")
    require_shape("softmax_cross_entropy", "weights", weights, rows, "the shape of labels")
    require_reduction("softmax_cross_entropy", reduction)
    smoothing = require_smoothing("softmax_cross_entropy", label_smoothing)
    return _compiled(logits, labels, weights, smoothing, ignore_index, reduction)


@ft.partial(jax.jit, static_argnums=(3, 4, 5))
def _compiled(logits, labels, weights, smoothing: float, ignore_index: int | None, reduction: str):
    counted = None if ignore_index is None else labels != ignore_index
    losses = _cross_entropy(logits, labels if counted is None else jnp.where(counted, labels, 0), smoothing)
    return reduced(losses, weights, counted, reduction).astype(logits.dtype)


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
    return _forward(logits, labels, smoothing)[0]


def _forward(logits: Array, labels: Array, smoothing: float) -> tuple[Array, Residuals]:
    top, total = top_and_total(logits, None, (logits.ndim - 1,))
    loss = (top + jnp.log(total))[..., 0] - (1 - smoothing) * pick(logits, labels).astype(top.dtype)
    if smoothing:
        loss -= smoothing * jnp.mean(logits, axis=-1, dtype=top.dtype)
    return loss, (logits, labels, top, total)


def _backward(smoothing: float, residuals: Residuals, ct: Array) -> tuple[Array, None]:
    logits, labels, top, total = residuals
    x_ct = scaled_exponentials(logits, None, top, total, ct[..., None])
    if smoothing:
        x_ct -= smoothing / logits.shape[-1] * ct[..., None]
    rows = x_ct.reshape(
        labels.size, logits.shape[-1]
    )  # one element of each row is taken from: faster than to compare all classes with the label
    rows = rows.at[jnp.arange(labels.size), labels.reshape(-1)].add(
        -(1 - smoothing) * ct.reshape(-1), mode="drop", wrap_negative_indices=False
    )
    return rows.reshape(logits.shape).astype(logits.dtype), None


_cross_entropy.defvjp(_forward, _backward)


def reference(logits, labels, weights=None, *, label_smoothing=0.0, ignore_index=None, reduction="mean"):
    """The textbook formula, with a one-hot target."""
    return plain_cross_entropy(logits, labels, weights, label_smoothing, ignore_index, reduction)


def _some_labels(rng, sizes, dtype):
    """Labels of the V classes, repeated ones among them."""
    return rng.integers(0, sizes["V"], size=(sizes["n"], sizes["m"]))


SPEC = Spec(
    name="softmax_cross_entropy",
    fn=softmax_cross_entropy,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16"),
    args={
        "logits": Arg(dims="n m V"),
        "labels": Arg(dims="n m", dtype="int32", sample=_some_labels),
        "weights": Arg(dims="n m", optional=True, low=0.0, high=2.0),
    },
    sizes={"n": (0, 20), "m": (1, 20), "V": (1, 130)},
    options={"label_smoothing": (0.0, 0.1), "ignore_index": (None, 0), "reduction": ("mean", "sum", "none")},
    source="Bridle (1990); arXiv:1512.00567",
)
