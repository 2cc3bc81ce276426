r"""Residual connection around any function, which keeps nothing that the function computes.

Source: He et al., "Deep residual learning for image recognition" (2016), arXiv:1512.03385; the function computed again in the backward:
    Chen et al., "Training deep nets with sublinear memory cost" (2016), arXiv:1604.06174.

Forward, for a function f of x and of parameters p, and a scale s:
    y = x + s f(x, p)
Derivation.  With J_x, J_p the derivatives of f:  dy = dx + s (J_x dx + J_p dp) + f(x, p) ds.
Backward, with y_ct given, and f_ct = s y_ct:
    x_ct = y_ct + J_x^T f_ct     p_ct = J_p^T f_ct     s_ct = y_ct f(x, p), summed to the shape of s
    J^T f_ct is f's own VJP (JAX's, or the rule that f has), made in the backward from x and p.
Validity: where f is differentiable. x + s f is computed in at least float32 and rounded once, f in what it computes in.
Residuals: x, p and s, which the caller holds anyway, so no memory of their own (autodiff keeps all that f's derivative needs, several arrays a layer); the price
    is a second run of f, once y_ct is there. In a stack of L blocks each keeps its x, and one block's inner arrays exist at a time, as with `jax.checkpoint`.
    On CPU, JAX 0.7 to 0.10 undo this (and `jax.checkpoint`) where the blocks are not in a `scan`: XLA finds the same products in forward and backward.
Cost, forward, backward:  products F, 3 F     elementary functions E, E
    where f takes F and E forward, and 2 F and none backward: f runs again.
"""

import functools as ft
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, match, require_floating, varied
from verify.spec import Arg, Spec

Residuals = tuple[Array, Any, Array | None, list[Any]]  # x, params, scale, what f closes over


def residual(
    f: Callable[[Array, Any], Array], x: Float[Array, "*shape"], params: Any = None, scale: Float[Array, "..."] | None = None
) -> Float[Array, "*shape"]:
    """`x + scale * f(x, params)`, whose backward computes f again instead of keeping what it needs of it.

    It is not compiled by itself, as f may be another function in each call: call it under `jax.jit`.

    Args:
        f: a function of x and params that returns an array of x's shape. It may be a closure, over traced arrays too, which get their gradients.
        x: input, of any shape and floating dtype.
        params: f's parameters: any pytree; integers, booleans and PRNG keys in it have no gradient.
        scale: what f's output is multiplied with, broadcastable to x: a learned number (ReZero), a row (LayerScale), 0 or 1 / keep for each
            element of a batch (stochastic depth); or None for 1.

    Returns:
        An array of the shape of x, in the dtype that x, f(x, params) and scale promote to.

    Raises:
        ValueError: f's output or scale does not fit the shape of x.
        TypeError: x, scale or f's output is not floating point.

    Example:
        >>> x, w = jnp.array([1.0, 2.0]), jnp.array(3.0)
        >>> residual(lambda x, w: w * x**2, x, w)
        Array([ 4., 14.], dtype=float32)
        >>> jax.grad(lambda x: residual(lambda x, w: w * x**2, x, w).sum())(x)
        Array([ 7., 13.], dtype=float32)
    """
    require_floating("residual", x=x, scale=scale)
    shape, scale_shape = jnp.shape(x), jnp.shape(scale) if scale is not None else ()
    if len(scale_shape) > len(shape) or any(size not in (1, want) for size, want in zip(scale_shape[::-1], shape[::-1], strict=False)):
        raise ValueError(f"residual: scale has shape {scale_shape}, wanted one that broadcasts to {shape}, the shape of x")
    closed, out = jax.make_jaxpr(f, return_shape=True)(x, params)
    if getattr(out, "shape", None) != shape:
        raise ValueError(f"residual: f returns {out}, wanted one array of the shape of x, {shape}")
    require_floating("residual", **{"f(x, params)": out})
    return _residual(closed.jaxpr, x, params, scale, closed.consts)


@ft.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _residual(f: Jaxpr, x: Array, params: Any, scale: Array | None, captured: list[Any]) -> Array:
    return _forward(f, x, params, scale, captured)[0]


def _branch(f: Jaxpr, x: Array, params: Any, captured: list[Any]) -> Array:
    """f(x, params), with what f closes over as an argument: an array of a surrounding trace must not be looked for in the backward."""
    return jaxpr_as_fun(ClosedJaxpr(f, captured))(x, *jax.tree.leaves(params))[0]


def _forward(f: Jaxpr, x: Array, params: Any, scale: Array | None, captured: list[Any]) -> tuple[Array, Residuals]:
    branch = _branch(f, x, params, captured)
    result, compute = dtypes(x, branch, scale)
    scaled = branch.astype(compute) if scale is None else scale.astype(compute) * branch.astype(compute)
    return (x.astype(compute) + scaled).astype(result), (x, params, scale, captured)


def _backward(f: Jaxpr, residuals: Residuals, y_ct: Array) -> tuple[Array, Any, Array | None, list[Any]]:
    x, params, scale, captured = residuals
    x_again, y_ct = _later(x, y_ct)
    branch, pullback = jax.vjp(ft.partial(_branch, f), x_again, *jax.tree.map(jax.lax.optimization_barrier, (params, captured)))
    compute = dtypes(x, branch, scale)[1]
    wide = y_ct.astype(compute)
    f_ct = wide if scale is None else scale.astype(compute) * wide
    x_branch_ct, params_ct, captured_ct = pullback(match(f_ct, branch))
    x_ct = match(wide, x).astype(compute) + x_branch_ct.astype(compute)
    scale_ct = None if scale is None else match(wide * branch.astype(compute), scale)
    return x_ct.astype(x.dtype), params_ct, scale_ct, captured_ct


def _later(x: Array, y_ct: Array) -> tuple[Array, Array]:
    """Both, behind a barrier: XLA neither finds what the forward computed from x, and so keeps it, nor computes it again before y_ct is there."""
    if varied(x, y_ct) is x:
        return jax.lax.optimization_barrier((x, y_ct))
    return jax.lax.optimization_barrier(x), y_ct  # a common barrier would mark x as different from device to device, as y_ct is


_residual.defvjp(_forward, _backward)


def tanh_block(x, w, scale=None):
    """What `verify` runs: a residual layer of tanh(x w)."""
    return residual(lambda x, w: jnp.tanh(x @ w), x, w, scale)


def reference(x, w, scale=None):
    """The textbook formula."""
    branch = jnp.tanh(x @ w)
    return x + (branch if scale is None else scale * branch)


SPEC = Spec(
    name="residual",
    fn=tanh_block,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="*batch d"), "w": Arg(dims="d d"), "scale": Arg(dims="#d", optional=True)},
    sizes={"batch": (0, 9), "d": (0, 70)},
    residuals=0.0,
    source="arXiv:1512.03385, arXiv:1604.06174",
)
