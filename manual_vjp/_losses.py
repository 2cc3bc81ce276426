"""What losses share: weights, rows that do not count, and the reduction to one number. Arrays of one number a row: JAX differentiates this part."""

import jax
import jax.numpy as jnp
from jax import Array

from manual_vjp._rule import dtypes, require_shape, static_number

REDUCTIONS = ("mean", "sum", "none")


def require_reduction(op: str, reduction: str) -> None:
    """Raises ValueError for a name that is no reduction."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{op}: reduction is {reduction!r}, wanted one of {', '.join(map(repr, REDUCTIONS))}")


def reduced(losses: Array, weights: Array | None, counted: Array | None, reduction: str) -> Array:
    """Weighted losses, their sum, or the sum divided by the sum of the weights (by 1 if that is 0). `counted` is False for rows that do not exist."""
    weight = None if weights is None else weights.astype(losses.dtype)
    if counted is not None:
        losses = jnp.where(counted, losses, 0)
        weight = jnp.where(counted, jnp.ones_like(losses) if weight is None else weight, 0)
    weighted = losses if weight is None else losses * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return jnp.sum(weighted)
    total = losses.size if weight is None else jnp.sum(weight)
    return jnp.sum(weighted) / jnp.where(total == 0, 1, total)


def plain_reduced(losses: Array, weights: Array | None, reduction: str) -> Array:
    """The textbook formula of the same, which the references share; written apart, as it is what `reduced` is compared with."""
    weighted = losses if weights is None else weights * losses
    if reduction == "none":
        return weighted.astype(losses.dtype)
    total = losses.size if weights is None else weights.sum()
    value = weighted.sum() / (1 if reduction == "sum" else jnp.where(total == 0, 1, total))
    return value.astype(losses.dtype)


def plain_cross_entropy(logits, labels, weights, label_smoothing: float, ignore_index: int | None, reduction: str) -> Array:
    """The textbook formula of both cross-entropies, with a one-hot target."""
    result, classes = logits.dtype, logits.shape[-1]
    target = (1 - label_smoothing) * (labels[..., None] == jnp.arange(classes)) + label_smoothing / classes
    shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    loss = -(target * (shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True)))).sum(-1)
    weight = jnp.ones(loss.shape, loss.dtype) if weights is None else weights
    weight = weight if ignore_index is None else jnp.where(labels == ignore_index, 0, weight)
    return plain_reduced(loss, weight, reduction).astype(result)


def difference(prediction: Array, target: Array) -> Array:
    """`prediction - target`, in at least float32."""
    compute = dtypes(prediction, target)[1]
    return prediction.astype(compute) - target.astype(compute)


def require_labels(op: str, labels: Array, rows: tuple[int, ...], why: str) -> None:
    """Raises unless `labels` are integers, one for each row."""
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f"{op}: labels has dtype {jnp.result_type(labels)}, wanted integers: the number of each row's class")
    require_shape(op, "labels", labels, rows, why)


def require_smoothing(op: str, smoothing: float) -> float:
    """`smoothing` as a Python number from 0 to 1."""
    smoothing = static_number(op, "label_smoothing", smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{op}: label_smoothing is {smoothing}, wanted a number from 0 to 1")
    return smoothing


def is_class(labels: Array, classes: int) -> Array:
    """Which labels name one of the classes."""
    return (labels >= 0) & (labels < classes)


def pick(logits: Array, labels: Array) -> Array:
    """The logit of each row's label; NaN for labels that are none (a negative one would count from the end)."""
    classes = logits.shape[-1]
    inside = is_class(labels, classes)
    picked = jnp.take_along_axis(logits, jnp.where(inside, labels, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(inside, picked, jnp.nan)


def one_hot_part(labels: Array, classes: int, start: Array | int, size: int, smoothing: float, dtype: jnp.dtype) -> Array:
    """The smoothed target of each row, for the `size` classes from `start` on: (1 - smoothing) [class = label] + smoothing / classes."""
    here = start + jax.lax.broadcasted_iota(labels.dtype, (*labels.shape, size), labels.ndim)
    return jnp.where(here == labels[..., None], 1 - smoothing + smoothing / classes, smoothing / classes).astype(dtype)
