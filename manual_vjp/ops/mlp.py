r"""Two-layer perceptron: linear, ReLU, linear.

Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors" (Nature 323, 1986); ReLU for the sigmoid.

Forward, for each row x in R^d_in:
    z = x w1 + b1     h = max(z, 0)     y = h w2 + b2
Derivation.  The chain of three derivatives: linear, ReLU, linear (see `linear` and `relu` for each).
    dy = dh w2 + h dw2 + db2     dh = [h > 0] dz     dz = dx w1 + x dw1 + db1
    Since h = 0 exactly where z <= 0, the pre-activation z and its mask need not be kept.
Backward, with y_ct given:
    w2_ct = sum_rows h^T y_ct     b2_ct = sum_rows y_ct     h_ct = y_ct w2^T     z_ct = 0 where h = 0, h_ct elsewhere
    w1_ct = sum_rows x^T z_ct     b1_ct = sum_rows z_ct     x_ct = z_ct w1^T
Validity: z = 0 is a kink, where the derivative of ReLU is 0 by convention. In 16-bit dtypes h is rounded to the result's dtype between
    the layers, as autodiff of the plain formula has it; sums are taken in float32.
Residuals: h, rows x d_hidden numbers, is the only array of its own (autodiff keeps h, a mask and one more of that size), or none, and h is computed again
    (in one straight program on CPU, XLA before JAX 0.12 finds the h of the forward and keeps it all the same; not inside of a scan);
    x, w1 and w2 are arguments, b1 and b2 are kept for their dtype and devices.
Cost, forward, backward:  products 2 R d_hidden (d_in + d_out), 4 R d_hidden (d_in + d_out)     elementary functions none, none
    for R rows; where h is computed again, 2 R d_in d_hidden more.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import require_floating, require_shape
from manual_vjp.ops.linear import _backward as linear_backward
from manual_vjp.ops.linear import _forward as linear_forward
from manual_vjp.ops.relu import _backward as relu_backward
from manual_vjp.ops.relu import _forward as relu_forward
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array, Array]  # x, w1, b1, h, w2, b2


def mlp(
    x: Float[Array, "*batch d_in"],
    w1: Float[Array, "d_in d_hidden"],
    b1: Float[Array, "d_hidden"],
    w2: Float[Array, "d_hidden d_out"],
    b2: Float[Array, "d_out"],
    *,
    residuals: str = "hidden",
) -> Float[Array, "*batch d_out"]:
    """`relu(x @ w1 + b1) @ w2 + b2` as one operation, which keeps one array of activations for its derivative.

    Args:
        x: input, `(*batch, d_in)` with any number of batch dimensions; any floating dtype, as are the others.
        w1, b1: first layer, `(d_in, d_hidden)` and `(d_hidden,)`.
        w2, b2: second layer, `(d_hidden, d_out)` and `(d_out,)`.
        residuals: "hidden" keeps the activations h for the backward, `(*batch, d_hidden)`; "minimal" keeps nothing of its own and computes h again, one
            more product of six.

    Returns:
        `(*batch, d_out)`, in the dtype that the arguments promote to.

    Raises:
        ValueError: a shape does not fit, or residuals is another name.
        TypeError: an argument is not floating point.

    Example:
        >>> x, w1, b1 = jnp.array([1.0, 2.0]), jnp.array([[1.0, -1.0], [1.0, -1.0]]), jnp.zeros(2)
        >>> w2, b2 = jnp.array([[2.0], [5.0]]), jnp.array([1.0])
        >>> mlp(x, w1, b1, w2, b2)
        Array([7.], dtype=float32)
        >>> jax.grad(lambda x: mlp(x, w1, b1, w2, b2).sum())(x)
        Array([2., 2.], dtype=float32)
    """
    require_floating("mlp", x=x, w1=w1, b1=b1, w2=w2, b2=b2)
    if jnp.ndim(x) == 0:
        raise ValueError("mlp: x has shape (), wanted (*batch, d_in): at least one dimension")
    require_shape("mlp", "w1", w1, (jnp.shape(x)[-1], "d_hidden"), f"because x has shape {jnp.shape(x)}")
    require_shape("mlp", "b1", b1, (jnp.shape(w1)[-1],), f"because w1 has shape {jnp.shape(w1)}")
    require_shape("mlp", "w2", w2, (jnp.shape(w1)[-1], "d_out"), f"because w1 has shape {jnp.shape(w1)}")
    require_shape("mlp", "b2", b2, (jnp.shape(w2)[-1],), f"because w2 has shape {jnp.shape(w2)}")
    if residuals not in ("hidden", "minimal"):
        raise ValueError(f"mlp: residuals is {residuals!r}, wanted 'hidden' or 'minimal'")
    return _compiled(x, w1, b1, w2, b2, residuals == "hidden")


@ft.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _mlp(x: Array, w1: Array, b1: Array, w2: Array, b2: Array, keep: bool) -> Array:
    return _forward(x, w1, b1, w2, b2, keep)[0]


def _hidden(x: Array, w1: Array, b1: Array) -> Array:
    z, _ = linear_forward(x, w1, b1)
    return relu_forward(z)[0]


def _forward(x: Array, w1: Array, b1: Array, w2: Array, b2: Array, keep: bool) -> tuple[Array, Residuals]:
    h = _hidden(x, w1, b1)
    y, _ = linear_forward(h, w2, b2)
    return y, (x, w1, b1, h if keep else None, w2, b2)


def _backward(keep: bool, residuals: Residuals, y_ct: Array) -> tuple[Array | None, ...]:
    x, w1, b1, h, w2, b2 = residuals
    if h is None:  # the barrier keeps XLA from finding the forward's h: it is computed when y_ct is there, not before
        x_again, w1_again, y_ct = jax.lax.optimization_barrier((x, w1, y_ct))
        h = _hidden(x_again, w1_again, b1)
    h_ct, w2_ct, b2_ct = linear_backward((h, w2, b2), y_ct)
    (z_ct,) = relu_backward(h, h_ct)
    x_ct, w1_ct, b1_ct = linear_backward((x, w1, b1), z_ct)
    return x_ct, w1_ct, b1_ct, w2_ct, b2_ct


_mlp.defvjp(_forward, _backward)
_compiled = jax.jit(_mlp, static_argnums=5)


def reference(x, w1, b1, w2, b2, *, residuals="hidden"):
    """The textbook formula; written with `z <= 0` so that NaN, which compares false, stays NaN."""
    del residuals  # they change no value
    z = x @ w1 + b1
    return jnp.where(z <= 0, 0, z) @ w2 + b2


SPEC = Spec(
    name="mlp",
    fn=mlp,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={
        "x": Arg(dims="*batch d_in"),
        "w1": Arg(dims="d_in d_hidden"),
        "b1": Arg(dims="d_hidden"),
        "w2": Arg(dims="d_hidden d_out"),
        "b2": Arg(dims="d_out"),
    },
    sizes={"batch": (0, 9), "d_in": (0, 70), "d_hidden": (0, 130), "d_out": (0, 70)},
    options={"residuals": ("hidden", "minimal")},
    source="Rumelhart, Hinton & Williams (Nature 323, 1986)",
)
