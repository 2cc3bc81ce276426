r"""Linear least squares, also with a ridge penalty, and the solution of least norm where there are more unknowns than equations.

Source: Golub & Pereyra (SIAM J. Numer. Anal. 10, 1973); implicit differentiation as in Blondel et al., "Efficient and modular implicit
    differentiation" (2022), arXiv:2105.15183.

Forward, for x (m, n), each column y in R^m and l2 >= 0; q r is the QR factorisation of
    (a) x above sqrt(l2) I, where l2 > 0 or m >= n; q_1 are the first m rows of q:     w = r^-1 q_1^T y
    (b) x^T, where l2 = 0 and m < n:     w = q r^-T y
Derivation.  (a) w is the root of (x^T x + l2 I) w = x^T y, where x^T x + l2 I = r^T r and x = q_1 r. Differentiated, with e = y - x w:
        r^T r dw = dx^T e + x^T (dy - dx w)
        <w_ct, dw> = <v, dx^T e + x^T (dy - dx w)> = <e v^T - (x v) w^T, dx> + <x v, dy> for v = r^-1 r^-T w_ct, x v = q_1 r^-T w_ct
    (b) w = x^T l with x x^T l = y and x x^T = r^T r. Differentiated:  dw = dx^T l + x^T dl     r^T r dl = dy - dx w - x dx^T l
        <w_ct, dw> = <w_ct, dx^T l> + <s, dy - dx w - x dx^T l> = <l (w_ct - x^T s)^T - s w^T, dx> + <s, dy> for s = r^-1 q^T w_ct, x^T s = q q^T w_ct
Backward, with w_ct given, sums over the columns of y being products of matrices:
    (a) y_ct = q_1 r^-T w_ct     v = r^-1 r^-T w_ct     x_ct = e v^T - y_ct w^T
    (b) y_ct = r^-1 q^T w_ct     l = r^-1 r^-T y     x_ct = l (w_ct - q q^T w_ct)^T - y_ct w^T
Validity: (a) with l2 = 0 where the columns of x are linearly independent, with l2 > 0 everywhere; (b) where the rows are. Elsewhere the solution jumps, and nothing
    here warns: the diagonal of r is divided by. Errors grow with the condition number of x, in the gradient as its square. 16-bit inputs compute in float32.
Residuals: q (of x's size), r (n x n, or m x m in (b)) and w; x and y, which the caller holds.
Cost, forward, backward:  products 2 m n k, 8 m n k     elementary functions none, none
    and forward a QR factorisation, some 4 m n^2 (4 m^2 n in (b)), and a triangular solve, n^2 k; in the backward two.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, match, require_floating, require_shape, static_number, varied
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array, Array]  # x, y, q_1 or q, r, w


def least_squares(x: Float[Array, "m n"], y: Float[Array, "m *k"], *, l2: float = 0.0) -> Float[Array, "n *k"]:
    """The w that minimises `sum((x @ w - y)**2) + l2 * sum(w**2)`; with l2 = 0 and n > m, the smallest of those with x w = y.

    Args:
        x: `(m, n)`, of full rank where l2 is 0; any floating dtype, as is y.
        y: `(m,)`, or `(m, k)` for k problems with the same x.
        l2: the ridge penalty; a Python number of at least 0, not an array.

    Returns:
        `(n,)` or `(n, k)`, in the dtype that x and y promote to.

    Raises:
        ValueError: a shape does not fit, or l2 is negative.
        TypeError: an argument is not floating point, or l2 is traced.

    Example:
        >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), jnp.array([3.0, 4.0, 5.0])
        >>> least_squares(x, y)
        Array([3., 2.], dtype=float32)
        >>> jax.grad(lambda y: least_squares(x, y).sum())(y)
        Array([1. , 0.5, 0. ], dtype=float32)
    """
    op = "least_squares"
    require_floating(op, x=x, y=y)
    require_shape(op, "x", x, ("m", "n"), "a row for each equation")
    if jnp.ndim(y) not in (1, 2) or jnp.shape(y)[0] != jnp.shape(x)[0]:
        m = jnp.shape(x)[0]
        raise ValueError(f"{op}: y has shape {jnp.shape(y)}, wanted ({m},) or ({m}, k) because x has shape {jnp.shape(x)}")
    l2 = static_number(op, "l2", l2)
    if not l2 >= 0:
        raise ValueError(f"{op}: l2 is {l2}, wanted a number of at least 0")
    return _compiled(x, y, l2)


@ft.partial(jax.jit, static_argnums=2)
def _compiled(x, y, l2: float):
    return _least_squares(x, y if y.ndim == 2 else y[:, None], l2).reshape(x.shape[1], *y.shape[1:])


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _least_squares(x: Array, y: Array, l2: float) -> Array:
    return _forward(x, y, l2)[0]


def _forward(x: Array, y: Array, l2: float) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, y)
    wide_x, wide_y = x.astype(compute), y.astype(compute)
    if _is_wide(x, l2):
        q, r = jnp.linalg.qr(wide_x.T)
        w = _product(q, _solve(r, wide_y, transpose_a=True))
    else:
        q, r = jnp.linalg.qr(jnp.concatenate([wide_x, l2**0.5 * jnp.eye(x.shape[1], dtype=compute)]) if l2 else wide_x)
        q = q[: len(x)]
        w = _solve(r, _product(q.T, wide_y))
    return w.astype(result), (x, y, q, r, w)


def _backward(l2: float, residuals: Residuals, w_ct: Array) -> tuple[Array, Array]:
    x, y, q, r, w = residuals
    wide_x, wide_y, w_ct = (array.astype(w.dtype) for array in (x, y, w_ct))
    if _is_wide(x, l2):
        c = _product(q.T, w_ct)
        y_ct = _solve(r, c)
        multiplier = _solve(r, _solve(r, wide_y, transpose_a=True))
        x_ct = _product(multiplier, (w_ct - _product(q, c)).T) - _product(y_ct, w.T)
    else:
        u = _solve(r, w_ct, transpose_a=True)
        y_ct = _product(q, u)
        x_ct = _product(wide_y - _product(wide_x, w), _solve(r, u).T) - _product(y_ct, w.T)
    return match(x_ct, x), match(y_ct, y)


def _is_wide(x: Array, l2: float) -> bool:
    return l2 == 0 and x.shape[0] < x.shape[1]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _solve(r: Array, b: Array, transpose_a: bool = False) -> Array:
    return jax.lax.linalg.triangular_solve(varied(r, b), varied(b, r), left_side=True, transpose_a=transpose_a)


_least_squares.defvjp(_forward, _backward)


def reference(x, y, *, l2=0.0):
    """The textbook formula: the normal equations, with the Cholesky factor of their matrix."""
    result = jnp.result_type(x, y)
    wide = jnp.promote_types(result, "float32")  # there is no Cholesky factor in 16 bits
    x, y = x.astype(wide), y.astype(wide)
    if l2 == 0 and x.shape[0] < x.shape[1]:
        return (x.T @ _solve_positive(x @ x.T, y)).astype(result)
    return _solve_positive(x.T @ x + l2 * jnp.eye(x.shape[1], dtype=wide), x.T @ y).astype(result)


def _solve_positive(matrix, b):
    factor = jnp.linalg.cholesky(matrix)
    columns = b.reshape(b.shape[0], -1) if b.size else b.reshape(b.shape[0], 0)
    half = jax.lax.linalg.triangular_solve(factor, columns, left_side=True, lower=True)
    return jax.lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True).reshape(b.shape)


def _well_conditioned(rng, sizes, dtype):
    """Twice a signed partial permutation with some noise added: singular values from about 1 to 3."""
    m, n = sizes["m"], sizes["n"]
    small = min(m, n)
    x = rng.integers(-1000, 1001, size=(m, n)) / (1000 * max(m, n, 1) ** 0.5)
    x[rng.permutation(m)[:small], rng.permutation(n)[:small]] += 2 * rng.choice([-1, 1], size=small)
    return x


SPEC = Spec(
    name="least_squares",
    fn=least_squares,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="m n", sample=_well_conditioned), "y": Arg(dims="m k")},
    sizes={"m": (0, 40), "n": (0, 40), "k": (0, 5)},
    options={"l2": (0.0, 0.5)},
    source="Golub & Pereyra (1973); arXiv:2105.15183",
)
