r"""Max pooling in one, two or three dimensions.

Source: Zhou & Chellappa, "Computation of optical flow using a neural network" (ICNN 1988); with overlapping windows: Krizhevsky et al. (NeurIPS 2012).

Forward, written for one spatial dimension, for each output p, with stride s and l places of padding in front, which hold -inf:
    k*[p] = the first k with the largest x[p s + k - l]     y[p] = x[p s + k*[p] - l]
Derivation.  Where one element is the largest, it stays the largest nearby, so k* is constant and dy[p] = dx[p s + k*[p] - l]: y is a selection of x.
    Its transpose gives each y_ct to the element that was selected; an element selected by several windows gets the sum.
Backward, with y_ct given, summed over those k for which p = (i + l - k) / s is an output:
    x_ct[i] = sum_k y_ct[p] where k*[p] = k, else 0
Validity: two elements that share the maximum are a kink. The first in the window, the last axis fastest, is taken, and gets all: a member of the
    subdifferential, and what JAX's own derivative of `lax.reduce_window`, flax and torch take (`jnp.max` divides it between them instead). Where a window
    holds padding alone, or nothing above -inf, y is -inf and its cotangent may be lost. NaN in a window makes y NaN.
Residuals: k*, one byte for each output (for windows of up to 256 elements), and neither x nor y; autodiff of `lax.reduce_window` keeps x. Windows of more
    than 64 elements are taken along one axis after the other (the maximum of the rows' maxima), which keeps one byte for each output of each step.
Cost, forward, backward:  products none, none     elementary functions none, none
    one comparison for each element of each window.
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
Residuals = list[Array]  # k* of each step


def max_pool(
    x: Float[Array, "*batch_and_space C"], window_shape: Numbers, *, strides: Numbers = 1, padding: Padding = "VALID"
) -> Float[Array, "*batch_and_space C"]:
    """The largest element of each window, for each channel; names, order and layout of `flax.linen.max_pool`.

    Args:
        x: input, `(*batch, *space, C)` with one to three spatial dimensions; any floating dtype.
        window_shape: the size of the window, a tuple with a number for each spatial dimension.
        strides: from one window to the next; a number for each spatial dimension, or one for all.
        padding: "SAME" (one output for each stride), "VALID" (none), or pairs (before, after), one for each spatial dimension; a number stands for
            a pair of it, and for all dimensions. Negative numbers take elements away.

    Returns:
        `(*batch, *outputs, C)`, in the dtype of x.

    Raises:
        ValueError: a shape or an option does not fit.
        TypeError: x is not floating point.

    Example:
        >>> x = jnp.array([[1.0], [3.0], [2.0], [0.0]])
        >>> max_pool(x, (2,), strides=2)[:, 0]
        Array([3., 2.], dtype=float32)
        >>> jax.grad(lambda x: max_pool(x, (2,), strides=2).sum())(x)[:, 0]
        Array([0., 1., 1., 0.], dtype=float32)
    """
    require_floating("max_pool", x=x)
    return _compiled(x, require_pool("max_pool", jnp.shape(x), window_shape, strides, padding))


@ft.partial(jax.jit, static_argnums=1)
def _compiled(x: Array, windows: Windows) -> Array:
    return flattened(lambda x: _max_pool(x, windows), x, len(windows))


@ft.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, windows: Windows) -> Array:
    return _forward(x, windows)[0]


def _forward(x: Array, windows: Windows) -> tuple[Array, Residuals]:
    chosen = []
    for step in steps(windows):
        first, *others = taps(padded(x, step, -jnp.inf), step)
        index = np.min_scalar_type(len(others))
        y, k = first, jnp.zeros(first.shape, index)
        for number, tap in enumerate(others, 1):
            larger = (tap > y) | jnp.isnan(tap)
            y, k = jnp.where(larger, tap, y), jnp.where(larger, jnp.asarray(number, index), k)
        x = y
        chosen.append(k)
    return x, chosen


def _backward(windows: Windows, chosen: Residuals, y_ct: Array) -> tuple[Array]:
    result, compute = dtypes(y_ct)
    ct = y_ct.astype(compute)
    for step, k in zip(reversed(steps(windows)), reversed(chosen), strict=True):
        ct = untap(lambda number, ct, k: jnp.where(k == number, ct, 0), (ct, k), step)
    return (ct.astype(result),)


_max_pool.defvjp(_forward, _backward)


def reference(x, window_shape, *, strides=1, padding="VALID"):
    """The textbook formula: the first of the largest elements of each patch."""
    rank = len(window_shape)
    patches = plain_patches(
        x.reshape(math.prod(x.shape[: -rank - 1]), *x.shape[-rank - 1 :]), window_shape, strides, padding, fill=-jnp.inf
    )
    patches = patches.reshape(*patches.shape[:-rank], math.prod(window_shape))
    y = jnp.take_along_axis(patches, jnp.argmax(patches, -1, keepdims=True), -1)[..., 0]
    return y.reshape(*x.shape[: -rank - 1], *y.shape[1:])


SPEC = Spec(
    name="max_pool",
    fn=max_pool,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16"),
    args={"x": Arg(dims="B H W C")},
    sizes={"B": (0, 5), "H": (3, 20), "W": (3, 20), "C": (0, 20)},
    options={"window_shape": ((2, 2), (3, 2), (1, 3)), "strides": (1, 2, (1, 3)), "padding": ("SAME", "VALID", ((1, 0), (0, 1)))},
    source="Zhou & Chellappa (ICNN 1988)",
)
