r"""Convolution in one, two or three dimensions, with strides, padding, dilation and groups.

Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning" (2016), arXiv:1603.07285; im2col: Chellapilla et al., "High performance
    convolutional neural networks for document processing" (2006).

Forward, written for one spatial dimension, for each example n, output p and channel o; x is 0 on places that hold no element:
    y[n, p, o] = sum_k sum_c x[n, at place p s + k e - l, c] w[k, c, o] + b[o]
    with stride s, kernel dilation e, and l places of padding in front. Element i of x lies on place i d, d the input dilation.
    Along several dimensions, p, k, s, e, l, i and d are tuples. With G groups, the channels c and o of one group meet only one another.
Derivation.  Lay out x as a matrix X (im2col) with a row for each (n, p) and a column for each (k, c), holding x[n, at place p s + k e - l, c]. Then Y = X W + b
    is a linear layer, so  W_ct = X^T Y_ct,  X_ct = Y_ct W^T,  b_ct = the sum of the rows of Y_ct;  and x_ct gathers from X_ct what was copied from x
    (col2im): element i of x was copied to each (p, k) with p s + k e - l = i d. Written out, without the matrix X:
        w_ct[k, c, o] = sum_n sum_p x[n, at place p s + k e - l, c] y_ct[n, p, o]
        x_ct[n, i, c] = sum_k sum_o y_ct[n, p, o] w[k, c, o]  over those k for which p = (i d + l - k e) / s is an output
    Both are convolutions again. In the first, y_ct is the kernel, dilated by s, and k is the output, with stride e; n is the channel that is summed, and c
    takes the place of the examples. In the second, y_ct is the input, dilated by s; with k' = K - 1 - k, place p s = i d + k' e - ((K - 1) e - l), so
    i is the output, with stride d, the kernel is w, flipped, with c and o exchanged, and (K - 1) e - l places of padding come in front.
    The padding behind follows from the number of outputs wanted, K and I, since those must take up all places. From the first element to the last there are
    E = (K - 1) e + 1 places of w, D = (I - 1) d + 1 of x and R = (P - 1) s + 1 of y:
        w_ct: l + D + behind = (K - 1) e + R      so  behind = E - 1 + R - D - l      negative where places of x are unused
        x_ct: E - 1 - l + R + behind = D + E - 1  so  behind = D + l - R              negative where padding of x was beyond what is used
Backward, with y_ct given:
    w_ct = x * y_ct     x_ct = y_ct * flipped w^T     b_ct = sum_n sum_p y_ct,   each * a convolution with the strides, dilations and padding above
    On CPU, w_ct is X^T Y_ct instead, with the rows of X of a few examples at a time: up to 4 times as fast as the convolution, 40 with groups (0.8 times
    with few channels). Where each channel is a group, all three are sums of shifted arrays there: 5 to 40 times as fast.
Validity: everywhere; linear in each argument, so no kinks. Padding may exceed the kernel, or be negative. 16-bit products are summed in float32
    and rounded once. Where w_ct is the convolution (not on CPU), `jax.vmap` over x alone with inputs that `jax.jit` splits over devices would meet a defect
    of XLA's partitioner, which gets `jax.vmap(jax.grad(...))` of `lax.conv_general_dilated` wrong too (seen on simulated devices, JAX 0.10 and 0.12).
    An ordinary batch dimension, split over devices, is right.
Residuals: x and w, which the caller holds anyway, so no memory of their own; b (O numbers) only for its dtype and devices. Of X, the rows of a few
    examples at a time are in memory, on CPU, and nothing elsewhere.
Cost, forward, backward:  products 2 N P K C O, 4 N P K C O     elementary functions none, none
    for N examples, P places of the output, K of the kernel, C channels of one group and O outputs of all.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from manual_vjp import _depthwise
from manual_vjp._blocks import over_blocks, take
from manual_vjp._rule import dtypes, match, require_floating, require_shape, varied
from manual_vjp._windows import MANY, Numbers, Padding, Window, cropped, flattened, padded, plain_patches, require_windows, span, taps
from verify.spec import Arg, Spec

BLOCK = 2**20  # elements of X that are in a core's cache together with what is made of them
NARROW = 160  # columns of X in one product of the kernel's cotangent: more are faster as a product over groups, of which XLA turns one side round
Residuals = tuple[Array, Array, Array | None]  # x, w, b
Static = tuple[tuple[Window, ...], int]  # a window for each spatial dimension, groups


def conv(
    x: Float[Array, "*batch_and_space C"],
    w: Float[Array, "*kernel C_per_group O"],
    b: Float[Array, "O"] | None = None,
    *,
    strides: Numbers = 1,
    padding: Padding = "SAME",
    input_dilation: Numbers = 1,
    kernel_dilation: Numbers = 1,
    feature_group_count: int | None = 1,
) -> Float[Array, "*batch_and_space O"]:
    """Convolution (cross-correlation: the kernel is not flipped), channels last; names, order and layout of `flax.linen.Conv`.

    Args:
        x: input, `(*batch, *space, C)` with one to three spatial dimensions, as many as w has; any floating dtype, as are the others.
        w: kernel, `(*kernel, C / groups, O)`.
        b: bias, `(O,)`, or None for none.
        strides: a number for each spatial dimension, or one for all; the dilations, too.
        padding: "SAME" (one output for each stride), "VALID" (none), or pairs (before, after), one for each spatial dimension; a number stands for
            a pair of it, and for all dimensions. Negative numbers take elements away.
        input_dilation: elements of x are so many places apart, with zeros in between; padding is counted in places.
        kernel_dilation: elements of w are so many places apart.
        feature_group_count: into how many groups the channels of x and the outputs are divided; None for what the shapes say, C divided by the channels of w.

    Returns:
        `(*batch, *outputs, O)`, in the dtype that x, w and b promote to.

    Raises:
        ValueError: a shape or an option does not fit.
        TypeError: an argument is not floating point.

    Example:
        >>> x, w = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([[[1.0]], [[10.0]]])
        >>> conv(x, w, padding="VALID")[:, 0]
        Array([21., 42.], dtype=float32)
        >>> jax.grad(lambda x: conv(x, w, padding="VALID").sum())(x)[:, 0]
        Array([ 1., 11., 10.], dtype=float32)
    """
    require_floating("conv", x=x, w=w, b=b)
    rank = jnp.ndim(w) - 2
    if rank not in (1, 2, 3):
        raise ValueError(f"conv: w has shape {jnp.shape(w)}, wanted (*kernel, C, O) with one to three dimensions of the kernel")
    if jnp.ndim(x) < rank + 1:
        raise ValueError(
            f"conv: x has shape {jnp.shape(x)}, wanted (*batch, *space, C) with {rank} spatial dimensions because w has shape {jnp.shape(w)}"
        )
    *kernel, per_group, out = jnp.shape(w)
    *space, channels = jnp.shape(x)[-rank - 1 :]
    if min(kernel) < 1:
        raise ValueError(f"conv: w has shape {jnp.shape(w)}, wanted a kernel of at least one element")
    groups = (channels // per_group if per_group else 1) if feature_group_count is None else feature_group_count
    if groups < 1 or groups * per_group != channels or out % groups:
        raise ValueError(
            f"conv: w has shape {jnp.shape(w)} and x has shape {jnp.shape(x)}, wanted {channels} channels of x to be those of w times "
            f"feature_group_count ({feature_group_count}), and {out} outputs to be a multiple of it"
        )
    require_shape("conv", "b", b, (out,), f"because w has shape {jnp.shape(w)}")
    windows = require_windows("conv", space, kernel, strides, padding, kernel_dilation, input_dilation)
    return _compiled(x, w, b, (windows, groups))


@ft.partial(jax.jit, static_argnums=3)
def _compiled(x: Array, w: Array, b: Array | None, static: Static) -> Array:
    return flattened(lambda x: _conv(x, w, b, static), x, len(static[0]))


@ft.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _conv(x: Array, w: Array, b: Array | None, static: Static) -> Array:
    return _forward(x, w, b, static)[0]


def _forward(x: Array, w: Array, b: Array | None, static: Static) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, w, b)
    windows, groups = static
    convolution = ft.partial(_convolution, windows=windows, groups=groups, compute=compute)
    if _alone(w, static):
        of_channels = ft.partial(_depthwise.spread, windows=windows, compute=compute)
        y = lax.platform_dependent(x.astype(result), w.astype(result), cpu=of_channels, default=convolution)
    else:
        y = convolution(x.astype(result), w.astype(result))
    y = y if b is None else y + b.astype(compute)
    return y.astype(result), (x, w, b)


def _backward(static: Static, residuals: Residuals, y_ct: Array) -> tuple[Array, Array, Array | None]:
    x, w, b = residuals
    result, compute = dtypes(x, w, b)
    if y_ct.size == 0:  # a kernel without elements would be no convolution
        x_ct, w_ct = (varied(jnp.zeros(a.shape, compute), x, w, y_ct) for a in (x, w))
    else:
        x_ct = _x_ct(w.astype(result), y_ct, static, compute)
        w_ct = _w_ct(x.astype(result), y_ct, w, static, compute)
    b_ct = None if b is None else match(y_ct.astype(compute), b)
    return match(x_ct, x), match(w_ct, w), b_ct


def _convolution(x: Array, w: Array, windows: tuple[Window, ...], groups: int, compute: jnp.dtype) -> Array:
    space = "DHW"[-len(windows) :]
    x, windows = cropped(x, windows)
    return lax.conv_general_dilated(
        x, w,
        window_strides=[v.stride for v in windows], padding=[(v.low, v.high) for v in windows],
        lhs_dilation=[v.input_dilation for v in windows], rhs_dilation=[v.dilation for v in windows],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"), feature_group_count=groups, preferred_element_type=compute,
    )  # fmt: skip


def _alone(w: Array, static: Static) -> bool:
    """Whether each channel of x is a group of its own, and the kernel has no more elements than a program should have lines."""
    windows, groups = static
    return groups > 1 == w.shape[-2] and math.prod(v.size for v in windows) <= MANY and all(v.outputs > 0 for v in windows)


def _x_ct(w: Array, y_ct: Array, static: Static, compute: jnp.dtype) -> Array:
    windows, groups = static
    *kernel, c, o = w.shape
    turned = tuple(
        Window(
            length=v.outputs, size=v.size, stride=v.input_dilation, dilation=v.dilation, input_dilation=v.stride,
            low=v.reach - 1 - v.low, high=v.places + v.low - span(v.outputs, v.stride),
        )
        for v in windows
    )  # fmt: skip
    backwards = lax.rev(w, range(len(windows)))

    def convolution(y_ct: Array, w: Array) -> Array:
        flipped = w.reshape(*kernel, c, groups, o // groups).swapaxes(-1, -3).reshape(*kernel, o // groups, groups * c)
        return _convolution(y_ct, flipped, turned, groups, compute)

    if not _alone(w, static):
        return convolution(y_ct, backwards)
    to_channels = ft.partial(_depthwise.gather, windows=turned, compute=compute, groups=groups)
    return lax.platform_dependent(y_ct, backwards, cpu=to_channels, default=convolution)


def _w_ct(x: Array, y_ct: Array, w: Array, static: Static, compute: jnp.dtype) -> Array:
    windows, groups = static
    convolution = ft.partial(_w_ct_as_convolution, windows=windows, groups=groups, compute=compute)
    way = _w_ct_of_channels if _alone(w, static) else _w_ct_as_products
    products = ft.partial(way, windows=windows, groups=groups, compute=compute)
    return lax.platform_dependent(x, y_ct, cpu=products, default=convolution)


def _w_ct_as_convolution(x: Array, y_ct: Array, windows: tuple[Window, ...], groups: int, compute: jnp.dtype) -> Array:
    space = "DHW"[-len(windows) :]
    return lax.conv_general_dilated(
        x, y_ct,
        window_strides=[v.dilation for v in windows],
        padding=[(v.low, v.reach - 1 + span(v.outputs, v.stride) - v.places - v.low) for v in windows],
        lhs_dilation=[v.input_dilation for v in windows], rhs_dilation=[v.stride for v in windows],
        dimension_numbers=(f"C{space}N", f"I{space}O", f"{space}NC"),
        batch_group_count=groups, preferred_element_type=compute,
    )  # fmt: skip


def _w_ct_as_products(x: Array, y_ct: Array, windows: tuple[Window, ...], groups: int, compute: jnp.dtype, elements: int = BLOCK) -> Array:
    """X^T Y_ct, added up over as many examples at a time as have so many elements of X."""
    out, along = y_ct.shape[-1], windows[-1].size
    each = math.prod(v.outputs * v.size for v in windows) * x.shape[-1]

    def add(total: Array, start: Array, size: int) -> Array:
        count = size * math.prod(v.outputs for v in windows)
        places = padded(take(x, start, size), windows)
        columns = [tap.reshape(count, groups, x.shape[-1] // groups) for tap in taps(places, windows)]
        own = take(y_ct, start, size).reshape(count, groups, out // groups)
        rows = [
            jnp.concatenate(columns[k : k + along], -1) for k in range(0, len(columns), along)
        ]  # of the kernel: products of a good size
        return total + jnp.concatenate([_outer(row, own, compute) for row in rows])

    none = jnp.zeros((math.prod(v.size for v in windows) * (x.shape[-1] // groups), groups, out // groups), compute)
    w_ct = over_blocks(add, none, len(x), max(elements // max(each, 1), 1), (x, y_ct))
    return w_ct.reshape(*(v.size for v in windows), x.shape[-1] // groups, out)


def _outer(row: Array, own: Array, compute: jnp.dtype) -> Array:
    """sum_n row_ngk own_ngo, as (k, g, o). Few columns without groups: a plain product, with the wider side first, is up to twice as fast."""
    if row.shape[1] == 1 and row.shape[2] <= NARROW:
        return jnp.matmul(own[:, 0].T, row[:, 0], preferred_element_type=compute).T[:, None]
    return jnp.einsum("ngk,ngo->kgo", row, own, preferred_element_type=compute)


def _w_ct_of_channels(x: Array, y_ct: Array, windows: tuple[Window, ...], groups: int, compute: jnp.dtype) -> Array:
    return _depthwise.w_ct(x, y_ct, windows, compute).reshape(*(v.size for v in windows), 1, y_ct.shape[-1])


_conv.defvjp(_forward, _backward)


def reference(x, w, b=None, *, strides=1, padding="SAME", input_dilation=1, kernel_dilation=1, feature_group_count=1):
    """The textbook's im2col: the patch of x under each output as a row, times the kernel as a matrix, group by group."""
    del feature_group_count  # the shapes say it
    rank = w.ndim - 2
    *kernel, c, o = w.shape
    batch = x.shape[: x.ndim - rank - 1]
    groups = x.shape[-1] // c if c else 1
    patches = plain_patches(x.reshape(math.prod(batch), *x.shape[len(batch) :]), kernel, strides, padding, kernel_dilation, input_dilation)
    outputs = patches.shape[: rank + 1]
    patches = patches.reshape(*outputs, groups, c * math.prod(kernel))
    matrix = jnp.moveaxis(w, -2, 0).reshape(c * math.prod(kernel), groups, o // groups)
    y = jnp.einsum("...gk,kgo->...go", patches, matrix).reshape(*batch, *outputs[1:], o)
    return y if b is None else y + b


SPEC = Spec(
    name="conv",
    fn=conv,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="B H W G*C"), "w": Arg(dims="K L C G*O"), "b": Arg(dims="G*O", optional=True)},
    sizes={"B": (0, 4), "H": (1, 17), "W": (1, 17), "G": (1, 3), "C": (1, 9), "O": (1, 9), "K": (1, 5), "L": (1, 5)},
    options={
        "strides": (1, (2, 3)),
        "padding": ("SAME", "VALID", ((6, -1), (1, 4))),
        "input_dilation": (1, (2, 1)),
        "kernel_dilation": (1, (1, 2)),
        "feature_group_count": (None,),
    },
    source="arXiv:1603.07285",
    example={"x": [[[[1], [2]], [[3], [4]]]], "w": [[[[1]], [[2]]]], "b": [0.5]},
)
