r"""Batch normalisation, with statistics of the batch (training) or given ones (evaluation).

Source: Ioffe & Szegedy, "Batch normalization" (2015), arXiv:1502.03167.

Forward, for each channel, with mean = (1/N) sum over the batch, on all devices:
    m = mean(x)     v = mean((x - m)^2)     rstd = (v + eps)^(-1/2)     xh = rstd (x - m)     y = scale xh + bias
Derivation.  As for `layer_norm`, along the other axis:  dxh = rstd [dx - mean(dx) - xh mean(xh dx)], a symmetric map.
    With given statistics:  dxh = rstd [dx - dm] - xh rstd^2 dv / 2.
Backward, with y_ct given; sums run over the batch:
    bias_ct = sum(y_ct)     scale_ct = sum(y_ct xh)
    training:    x_ct = scale rstd [y_ct - bias_ct / N - xh scale_ct / N]
    evaluation:  x_ct = scale rstd y_ct     m_ct = -scale rstd bias_ct     v_ct = -scale rstd^2 scale_ct / 2
    With `axis_name`, the statistics are those of all devices; they are given to the rule for evaluation, and their own cotangents go on to x as
    x_ct += m_ct / N + v_ct 2 (x - m) / N, summed over all devices.
Validity: no kinks; every eps > 0 (eps = 0 where no channel is constant). The variance is taken in two passes, after the mean is removed.
    16-bit inputs compute in float32.
Residuals: x, which the caller holds, mean and rstd, two numbers a channel, and scale (autodiff keeps an array and more of x's size).
Cost, forward, backward:  products none, none     elementary functions C, none
    for C channels; a few passes over x, each of 2 to 4 operations an element.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rows import require_eps
from manual_vjp._rule import dtypes, match, require_axes, require_floating, require_shape, static_number
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array | None, tuple[Array, Array] | None]  # x, mean, rstd, scale, bias, given


def batch_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    mean: Float[Array, "..."] | None = None,
    var: Float[Array, "..."] | None = None,
    *,
    axis: int | tuple[int, ...] | None = None,
    eps: float = 1e-5,
    momentum: float = 0.9,
    train: bool = True,
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[Float[Array, "*shape"], Float[Array, "..."], Float[Array, "..."]]:
    """Normalise each channel of `x`, multiply by `scale` and add `bias`; and bring the running statistics up to date.

    Args:
        x: input, of any shape and floating dtype, as are the others. A channel is what is left when `axis` is summed over.
        scale, bias: of the shape of the channels, or None for 1 and 0.
        mean, var: running statistics, of that shape. In training they may be None; what is returned then is the batch's own.
        axis: the axes of the batch, which are summed over; all but the last if None. (0, 2, 3) for images with channels in front.
        eps: added to the variance.
        momentum: how much of the running statistics is kept: `momentum * mean + (1 - momentum) * batch's`. The variance is the mean square (divided by N).
        train: normalise by the batch's statistics; if False, by `mean` and `var`.
        axis_name: axes of an enclosing `jax.shard_map` or `jax.vmap` over which the batch is spread; statistics are then those of all of it.

    Returns:
        y, of the shape of x in the dtype that x, scale and bias promote to, and the new mean and var, in at least float32 (in evaluation what was given).

    Raises:
        ValueError: a shape or an axis does not fit, eps is negative, momentum is not from 0 to 1, or statistics are missing.
        TypeError: an argument is not floating point, or eps or momentum is traced.

    Example:
        >>> y, mean, var = batch_norm(jnp.array([[1.0], [3.0]]), mean=jnp.zeros(1), var=jnp.ones(1), momentum=0.5)
        >>> y.round(2).ravel(), mean, var
        (Array([-1.,  1.], dtype=float32), Array([1.], dtype=float32), Array([1.], dtype=float32))
    """
    require_floating("batch_norm", x=x, scale=scale, bias=bias, mean=mean, var=var)
    ndim = jnp.ndim(x)
    axes = require_axes("batch_norm", tuple(range(ndim - 1)) if axis is None else axis, ndim)
    channels = tuple(size for a, size in enumerate(jnp.shape(x)) if a not in axes)
    for name, value in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var)):
        require_shape("batch_norm", name, value, channels, f"because x has shape {jnp.shape(x)} and the batch's axes are {axes}")
    if (mean is None) != (var is None) or (mean is None and not train):
        raise ValueError(
            f"batch_norm: {'mean' if mean is None else 'var'} is None, wanted both running statistics{'' if train else ' because train=False'}"
        )
    momentum = static_number("batch_norm", "momentum", momentum)
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"batch_norm: momentum is {momentum}, wanted a number from 0 to 1: the part of the running statistics that is kept"
        )
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    return _compiled(x, scale, bias, mean, var, axes, require_eps("batch_norm", eps), momentum, bool(train), names)


@ft.partial(jax.jit, static_argnums=(5, 6, 7, 8, 9))
def _compiled(x, scale, bias, mean, var, axes, eps: float, momentum: float, train: bool, names: tuple[str, ...]):
    if not train:
        return _batch_norm(x, scale, bias, mean, var, axes, eps), mean, var
    batch = _statistics(x, axes, names)
    # On one device the rule computes the statistics again (XLA computes them once), and knows their derivative. Over several they are given to it, and JAX
    # differentiates the sums over devices: collectives in a backward pass cannot be batched.
    y = _batch_norm(x, scale, bias, *(batch if names else (None, None)), axes, eps)
    if mean is None:
        return y, *batch
    return y, *(momentum * old.astype(new.dtype) + (1 - momentum) * new for old, new in zip((mean, var), batch, strict=True))


@ft.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _batch_norm(x, scale, bias, mean, var, axes: tuple[int, ...], eps: float) -> Array:
    return _forward(x, scale, bias, mean, var, axes, eps)[0]


def _forward(x, scale, bias, mean, var, axes: tuple[int, ...], eps: float) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, scale, bias)
    given = None if mean is None else (mean, var)
    if mean is None:
        mean, var = _statistics(x, axes, ())
    mean, var = mean.astype(compute), var.astype(compute)
    rstd = jax.lax.rsqrt(var + eps)
    y = (x.astype(compute) - _spread(mean, x, axes)) * _spread(rstd, x, axes)
    y = y if scale is None else y * _spread(scale.astype(compute), x, axes)
    y = y if bias is None else y + _spread(bias.astype(compute), x, axes)
    return y.astype(result), (x, mean, rstd, scale, bias, given)


def _statistics(x: Array, axes: tuple[int, ...], names: tuple[str, ...]) -> tuple[Array, Array]:
    """Mean and variance of each channel, in at least float32, of the batch on all devices."""
    wide = x.astype(dtypes(x)[1])
    mean = _mean(wide, axes, names)
    return mean, _mean((wide - _spread(mean, x, axes)) ** 2, axes, names)


def _backward(axes: tuple[int, ...], eps: float, residuals: Residuals, y_ct: Array) -> tuple[Array | None, ...]:
    del eps  # it is in rstd
    x, mean, rstd, scale, bias, given = residuals
    compute = rstd.dtype
    y_ct = y_ct.astype(compute)
    xh = (x.astype(compute) - _spread(mean, x, axes)) * _spread(rstd, x, axes)
    sums = jnp.sum(y_ct, axis=axes), jnp.sum(y_ct * xh, axis=axes)
    weight = rstd if scale is None else rstd * scale.astype(compute)
    ct = y_ct
    stats_ct: tuple[Array | None, ...] = (None, None)
    if given is None:
        count = max(math.prod(x.shape[a] for a in axes), 1)
        first, second = (_spread(s / count, x, axes) for s in sums)
        ct = y_ct - first - xh * second
    else:
        own = -weight * sums[0], -weight * rstd * sums[1] / 2
        stats_ct = tuple(match(ct, statistic) for ct, statistic in zip(own, given, strict=True))
    x_ct = (_spread(weight, x, axes) * ct).astype(x.dtype)
    return x_ct, None if scale is None else match(sums[1], scale), None if bias is None else match(sums[0], bias), *stats_ct


_batch_norm.defvjp(_forward, _backward)


def _mean(a: Array, axes: tuple[int, ...], names: tuple[str, ...]) -> Array:
    mean = jnp.sum(a, axis=axes) / max(math.prod(a.shape[axis] for axis in axes), 1)
    return jax.lax.pmean(mean, names) if names else mean


def _spread(channel: Array, x: Array, axes: tuple[int, ...]) -> Array:
    """A number for each channel, so that it broadcasts over the batch in x."""
    return channel.reshape([1 if a in axes else size for a, size in enumerate(x.shape)])


def reference(x, scale=None, bias=None, mean=None, var=None, *, axis=None, eps=1e-5, momentum=0.9, train=True):
    """The textbook formula, on one device."""
    axes = require_axes("batch_norm", tuple(range(x.ndim - 1)) if axis is None else axis, x.ndim)
    m, v = (x.mean(axes), x.var(axes)) if train else (mean, var)
    y = (x - _spread(m, x, axes)) / jnp.sqrt(_spread(v, x, axes) + eps)
    y = y if scale is None else y * _spread(scale, x, axes)
    y = y if bias is None else y + _spread(bias, x, axes)
    if train and mean is not None:
        m, v = (momentum * old + (1 - momentum) * new for old, new in ((mean, m), (var, v)))
    return y, m, v


SPEC = Spec(
    name="batch_norm",
    fn=batch_norm,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16"),
    args={
        "x": Arg(dims="n m C"),
        "scale": Arg(dims="C", optional=True),
        "bias": Arg(dims="C", optional=True),
        "mean": Arg(dims="C"),
        "var": Arg(dims="C", low=0.0, high=4.0),
    },
    sizes={"n": (1, 40), "m": (1, 40), "C": (0, 70)},
    options={"eps": (1e-5, 1e-3), "train": (True, False)},
    source="arXiv:1502.03167",
)
