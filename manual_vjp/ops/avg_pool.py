r"""Average pooling in one, two or three dimensions.

Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), subsampling layers.

Forward, written for one spatial dimension, for each output p, with K elements in the window, stride s and l places of padding in front, which hold 0:
    y[p] = (1 / N[p]) sum_k x[p s + k - l]
    with N[p] = K, or without the padding (count_include_pad=False) N[p] = the number of those k that are elements of x.
Derivation.  y is linear in x, with the coefficient 1 / N[p] at (p, i) if i = p s + k - l for some k of the window, else 0; x_ct is y_ct times its transpose.
Backward, with y_ct given, summed over those k for which p = (i + l - k) / s is an output:
    x_ct[i] = sum_k y_ct[p] / N[p]
Validity: everywhere; linear, so no kinks. Where a window holds padding alone, y = 0, also where N would be 0 (flax has NaN there). 16-bit inputs
    compute in float32.
Residuals: none.
Cost, forward, backward:  products none, none     elementary functions none, none
    one addition for each element of each window.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, require_floating
from manual_vjp._windows import Numbers, Padding, Window, flattened, padded, plain_patches, require_pool, steps, taps, untap
from verify.spec import Arg, Spec

Windows = tuple[Window, ...]


def avg_pool(
    x: Float[Array, "*batch_and_space C"],
    window_shape: Numbers,
    *,
    strides: Numbers = 1,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> Float[Array, "*batch_and_space C"]:
    """The average of each window, for each channel; names, order and layout of `flax.linen.avg_pool`.

    Args:
        x: input, `(*batch, *space, C)` with one to three spatial dimensions; any floating dtype.
        window_shape: the size of the window, a tuple with a number for each spatial dimension.
        strides: from one window to the next; a number for each spatial dimension, or one for all.
        padding: "SAME" (one output for each stride), "VALID" (none), or pairs (before, after), one for each spatial dimension; a number stands for
            a pair of it, and for all dimensions. Negative numbers take elements away.
        count_include_pad: divide by the size of the window; if False, by the number of its elements that are not padding.

    Returns:
        `(*batch, *outputs, C)`, in the dtype of x.

    Raises:
        ValueError: a shape or an option does not fit.
        TypeError: x is not floating point.

    Example:
        >>> x = jnp.array([[1.0], [3.0], [2.0]])
        >>> avg_pool(x, (2,), strides=2, padding="SAME")[:, 0]
        Array([2., 1.], dtype=float32)
        >>> avg_pool(x, (2,), strides=2, padding="SAME", count_include_pad=False)[:, 0]
        Array([2., 2.], dtype=float32)
    """
    require_floating("avg_pool", x=x)
    return _compiled(x, require_pool("avg_pool", jnp.shape(x), window_shape, strides, padding), bool(count_include_pad))


@ft.partial(jax.jit, static_argnums=(1, 2))
def _compiled(x: Array, windows: Windows, count_include_pad: bool) -> Array:
    return flattened(lambda x: _avg_pool(x, windows, count_include_pad), x, len(windows))


@ft.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _avg_pool(x: Array, windows: Windows, count_include_pad: bool) -> Array:
    return _forward(x, windows, count_include_pad)[0]


def _forward(x: Array, windows: Windows, count_include_pad: bool) -> tuple[Array, None]:
    result, compute = dtypes(x)
    total = x.astype(compute)
    for step in steps(windows):
        first, *others = taps(padded(total, step), step)
        total = sum(others, first)
    return (total / _counts(windows, count_include_pad, compute)).astype(result), None


def _backward(windows: Windows, count_include_pad: bool, residuals: None, y_ct: Array) -> tuple[Array]:
    result, compute = dtypes(y_ct)
    ct = y_ct.astype(compute) / _counts(windows, count_include_pad, compute)
    for step in reversed(steps(windows)):
        ct = untap(lambda number, ct: ct, (ct,), step)
    return (ct.astype(result),)


def _counts(windows: Windows, count_include_pad: bool, dtype: jnp.dtype) -> Array:
    """The number that each sum is divided by, `(*outputs, 1)` or a scalar."""
    counts = np.array(math.prod(w.size for w in windows) if count_include_pad else 1)
    if not count_include_pad:
        for axis, w in enumerate(windows):
            places = np.arange(w.outputs)[:, None] * w.stride + np.arange(w.size) - w.low
            held = ((places >= 0) & (places < w.length)).sum(1)
            counts = counts * held.reshape(-1, *(1,) * (len(windows) - axis))
    return jnp.asarray(np.maximum(counts, 1), dtype)


_avg_pool.defvjp(_forward, _backward)


def reference(x, window_shape, *, strides=1, padding="VALID", count_include_pad=True):
    """The textbook formula: the sum of each patch, divided by the number of its elements."""
    rank = len(window_shape)
    own = tuple(range(-rank, 0))
    x_own = x.reshape(math.prod(x.shape[: -rank - 1]), *x.shape[-rank - 1 :])
    total = plain_patches(x_own, window_shape, strides, padding).sum(own)
    held = plain_patches(jnp.ones((1, *x_own.shape[1:-1], 1), x.dtype), window_shape, strides, padding).sum(own)
    y = total / (math.prod(window_shape) if count_include_pad else jnp.maximum(held, 1))
    return y.reshape(*x.shape[: -rank - 1], *y.shape[1:])


SPEC = Spec(
    name="avg_pool",
    fn=avg_pool,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16"),
    args={"x": Arg(dims="B H W C")},
    sizes={"B": (0, 5), "H": (3, 20), "W": (3, 20), "C": (0, 20)},
    options={
        "window_shape": ((2, 2), (3, 2), (1, 3)),
        "strides": (1, 2, (1, 3)),
        "padding": ("SAME", "VALID", ((1, 0), (0, 1))),
        "count_include_pad": (True, False),
    },
    source="LeCun et al. (1998)",
)
