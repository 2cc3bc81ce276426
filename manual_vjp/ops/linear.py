r"""Linear layer.

Source: Giles, "An extended collection of matrix derivative results for forward and reverse mode AD" (2008), section 2.2.1.

Forward, for each row x in R^d_in:
    y = x w + b
Derivation.  dy = dx w + x dw + db.  With <A, B> = sum of A * B, summed over the rows too:
    <y_ct, dx w> = <y_ct w^T, dx>     <y_ct, x dw> = <sum_rows x^T y_ct, dw>     <y_ct, db> = <sum_rows y_ct, db>
Backward, with y_ct given:
    x_ct = y_ct w^T     w_ct = sum_rows x^T y_ct     b_ct = sum_rows y_ct
Validity: everywhere; linear in each argument, so no kinks. 16-bit products are summed in float32 and rounded once.
Residuals: x and w, which the caller holds anyway, so no memory of their own; b (d_out numbers) only for its dtype and devices.
Cost, forward, backward:  products 2 R d_in d_out, 4 R d_in d_out     elementary functions none, none
    for R rows: one product forward, one for each of x and w in the backward.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, match, require_floating, require_shape, times_transpose
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array | None]  # x, w, b


def linear(
    x: Float[Array, "*batch d_in"], w: Float[Array, "d_in d_out"], b: Float[Array, "d_out"] | None = None
) -> Float[Array, "*batch d_out"]:
    """`x @ w + b`, with a derivative derived by hand.

    Args:
        x: input, `(*batch, d_in)` with any number of batch dimensions; any floating dtype, as are the others.
        w: weights, `(d_in, d_out)`.
        b: bias, `(d_out,)`, or None for none.

    Returns:
        `(*batch, d_out)`, in the dtype that x, w and b promote to.

    Raises:
        ValueError: a shape does not fit.
        TypeError: an argument is not floating point.

    Example:
        >>> x, w, b = jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]]), jnp.array([0.5])
        >>> linear(x, w, b)
        Array([[11.5]], dtype=float32)
        >>> jax.grad(lambda w: linear(x, w, b).sum())(w)
        Array([[1.],
               [2.]], dtype=float32)
    """
    require_floating("linear", x=x, w=w, b=b)
    if jnp.ndim(x) == 0:
        raise ValueError("linear: x has shape (), wanted (*batch, d_in): at least one dimension")
    require_shape("linear", "w", w, (jnp.shape(x)[-1], "d_out"), f"because x has shape {jnp.shape(x)}")
    require_shape("linear", "b", b, (jnp.shape(w)[-1],), f"because w has shape {jnp.shape(w)}")
    return _compiled(x, w, b)


@jax.custom_vjp
def _linear(x: Array, w: Array, b: Array | None) -> Array:
    return _forward(x, w, b)[0]


def _forward(x: Array, w: Array, b: Array | None) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, w, b)
    y = jnp.matmul(x.astype(result), w.astype(result), preferred_element_type=compute)
    y = y if b is None else y + b.astype(compute)
    return y.astype(result), (x, w, b)


def _backward(residuals: Residuals, y_ct: Array) -> tuple[Array, Array, Array | None]:
    x, w, b = residuals
    result, compute = dtypes(x, w, b)
    rows = tuple(range(y_ct.ndim - 1))
    x_ct = times_transpose(y_ct, w.astype(result), compute)
    w_ct = jnp.tensordot(x.astype(result), y_ct, axes=(rows, rows), preferred_element_type=compute)
    b_ct = None if b is None else match(y_ct.astype(compute), b)
    return match(x_ct, x), match(w_ct, w), b_ct


_linear.defvjp(_forward, _backward)
_compiled = jax.jit(_linear)  # so that a call outside of jit, and its gradient, compile once instead of primitive by primitive


def reference(x, w, b=None):
    """The textbook formula."""
    return x @ w if b is None else x @ w + b


SPEC = Spec(
    name="linear",
    fn=linear,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*batch d_in"), "w": Arg(dims="d_in d_out"), "b": Arg(dims="d_out", optional=True)},
    sizes={"batch": (0, 9), "d_in": (0, 130), "d_out": (0, 130)},
    source="Giles (2008), An extended collection of matrix derivative results, 2.2.1",
    example={"x": [[1, 0], [0, 1], [1, 1]], "w": [[2, 1], [-1, 3]], "b": [0.5, -2]},
)
