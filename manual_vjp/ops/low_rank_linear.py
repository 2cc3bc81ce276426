r"""Linear layer whose weights are a product of two thin matrices, W = u v^T, which is never formed.

Source: Hu et al., "LoRA: low-rank adaptation of large language models" (2021), arXiv:2106.09685; the rules of a product from Giles (2008), section 2.2.1.

Forward, for each row x in R^d_in, with u (d_in, r) and v (d_out, r):
    h = x u     y = h v^T + b
Derivation.  dh = dx u + x du     dy = dh v^T + h dv^T + db.  With <A, B> = sum of A * B, summed over the rows too:
    <y_ct, dh v^T> = <y_ct v, dh>     <y_ct, h dv^T> = <sum_rows y_ct^T h, dv>     <h_ct, dx u> = <h_ct u^T, dx>     <h_ct, x du> = <sum_rows x^T h_ct, du>
Backward, with y_ct given:
    h_ct = y_ct v     v_ct = sum_rows y_ct^T h     u_ct = sum_rows x^T h_ct     x_ct = h_ct u^T     b_ct = sum_rows y_ct
    6 rows r (d_in + d_out) operations in all; the dense layer takes 6 rows d_in d_out.
Validity: everywhere; linear in each argument, so no kinks. In 16-bit dtypes h is rounded to the result's dtype between the two products, as autodiff of
    the plain formula has it; sums are taken in float32. Cheaper than the dense layer where r < d_in d_out / (d_in + d_out).
Residuals: h, rows x r numbers, is the only array of its own, or none, and h is computed again; x, u and v are arguments, b is kept for its dtype and devices.
Cost, forward, backward:  products 2 R r (d_in + d_out), 4 R r (d_in + d_out)     elementary functions none, none
    for R rows; where h is computed again, 2 R r d_in more.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, match, require_floating, require_shape, times_transpose
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array | None, Array | None]  # x, u, v, h, b


def low_rank_linear(
    x: Float[Array, "*batch d_in"],
    u: Float[Array, "d_in r"],
    v: Float[Array, "d_out r"],
    b: Float[Array, "d_out"] | None = None,
    *,
    residuals: str = "hidden",
) -> Float[Array, "*batch d_out"]:
    """`x @ (u @ v.T) + b`, as two thin products.

    Args:
        x: input, `(*batch, d_in)` with any number of batch dimensions; any floating dtype, as are the others.
        u, v: the factors of the weights, `(d_in, r)` and `(d_out, r)`.
        b: bias, `(d_out,)`, or None for none.
        residuals: "hidden" keeps h = x u for the backward, `(*batch, r)`; "minimal" keeps nothing of its own and computes h again.

    Returns:
        `(*batch, d_out)`, in the dtype that the arguments promote to.

    Raises:
        ValueError: a shape does not fit, or residuals is another name.
        TypeError: an argument is not floating point.

    Example:
        >>> x, u, v = jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]]), jnp.array([[1.0], [10.0]])
        >>> low_rank_linear(x, u, v)
        Array([[ 11., 110.]], dtype=float32)
        >>> jax.grad(lambda v: low_rank_linear(x, u, v).sum())(v)
        Array([[11.],
               [11.]], dtype=float32)
    """
    op = "low_rank_linear"
    require_floating(op, x=x, u=u, v=v, b=b)
    if jnp.ndim(x) == 0:
        raise ValueError(f"{op}: x has shape (), wanted (*batch, d_in): at least one dimension")
    require_shape(op, "u", u, (jnp.shape(x)[-1], "r"), f"because x has shape {jnp.shape(x)}")
    require_shape(op, "v", v, ("d_out", jnp.shape(u)[-1]), f"because u has shape {jnp.shape(u)}")
    require_shape(op, "b", b, (jnp.shape(v)[0],), f"because v has shape {jnp.shape(v)}")
    if residuals not in ("hidden", "minimal"):
        raise ValueError(f"{op}: residuals is {residuals!r}, wanted 'hidden' or 'minimal'")
    return _compiled(x, u, v, b, residuals == "hidden")


@ft.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _low_rank_linear(x: Array, u: Array, v: Array, b: Array | None, keep: bool) -> Array:
    return _forward(x, u, v, b, keep)[0]


def _hidden(x: Array, u: Array, result: jnp.dtype, compute: jnp.dtype) -> Array:
    return jnp.matmul(x.astype(result), u.astype(result), preferred_element_type=compute).astype(result)


def _forward(x: Array, u: Array, v: Array, b: Array | None, keep: bool) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, u, v, b)
    h = _hidden(x, u, result, compute)
    y = times_transpose(h, v.astype(result), compute)
    y = y if b is None else y + b.astype(compute)
    return y.astype(result), (x, u, v, h if keep else None, b)


def _backward(keep: bool, residuals: Residuals, y_ct: Array) -> tuple[Array, Array, Array, Array | None]:
    del keep  # it shows in h
    x, u, v, h, b = residuals
    result, compute = dtypes(x, u, v, b)
    if h is None:  # the barrier keeps XLA from finding the forward's h, and so from keeping it, and from computing it before y_ct is there
        x_again, u_again, y_ct = jax.lax.optimization_barrier((x, u, y_ct))
        h = _hidden(x_again, u_again, result, compute)
    rows = tuple(range(y_ct.ndim - 1))
    product = ft.partial(jnp.tensordot, preferred_element_type=compute)
    h_ct = jnp.matmul(y_ct, v.astype(result), preferred_element_type=compute).astype(result)
    x_ct = times_transpose(h_ct, u.astype(result), compute)
    u_ct = product(x.astype(result), h_ct, axes=(rows, rows))
    v_ct = product(y_ct, h, axes=(rows, rows))
    b_ct = None if b is None else match(y_ct.astype(compute), b)
    return match(x_ct, x), match(u_ct, u), match(v_ct, v), b_ct


_low_rank_linear.defvjp(_forward, _backward)
_compiled = jax.jit(_low_rank_linear, static_argnums=4)


def reference(x, u, v, b=None, *, residuals="hidden"):
    """The textbook formula; h is rounded to the result's dtype, as every product of JAX is."""
    del residuals  # they change no value
    y = (x @ u) @ v.T
    return y if b is None else y + b


SPEC = Spec(
    name="low_rank_linear",
    fn=low_rank_linear,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*batch d_in"), "u": Arg(dims="d_in r"), "v": Arg(dims="d_out r"), "b": Arg(dims="d_out", optional=True)},
    sizes={"batch": (0, 9), "d_in": (0, 130), "d_out": (0, 130), "r": (0, 20)},
    options={"residuals": ("hidden", "minimal")},
    residuals=1.0,
    source="arXiv:2106.09685; Giles (2008), 2.2.1",
)
