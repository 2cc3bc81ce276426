r"""Orthogonal projection onto the column space of a matrix.

Source: Golub & Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate" (SIAM J. Numer. Anal. 10, 1973).

Forward, for each row x in R^m, with a (m, n) of full column rank, a = q r with q^T q = I and r upper triangular:
    c = x q     y = c q^T
    which is x P for P = a (a^T a)^-1 a^T = q q^T. P is never formed: it has m x m elements.
Derivation.  P a = a gives dP a = (I - P) da, and P P = P, P^T = P give dP = dP P + P dP = dP P + (dP P)^T. With a+ = r^-1 q^T and P = a a+:
    dP = (I - P) da a+ + ((I - P) da a+)^T     dy = dx P + x dP
    <y_ct, x dP> = <(y_ct - y_ct P)^T (x a+^T) + (x - x P)^T (y_ct a+^T), da>, with rows as they are and summed over them
Backward, with y_ct given, and z(v) = v a+^T = (v q) r^-T:
    x_ct = y_ct P     a_ct = sum_rows (y_ct - y_ct P)^T z(x) + (x - x P)^T z(y_ct)
Validity: where the columns of a are linearly independent, so n <= m; elsewhere P jumps, and nothing here warns: z divides by the diagonal of r. Errors grow
    with the condition number of a. Where m = n, P = I and a_ct = 0. 16-bit inputs compute in float32.
Residuals: q (m x n) and r (n x n); x, which the caller holds, and a for its dtype and devices.
Cost, forward, backward:  products 4 R m n, 12 R m n     elementary functions none, none
    for R rows, and forward a QR factorisation, some 4 m n^2; in the backward two triangular solves, each R n^2.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._rule import dtypes, match, require_floating, require_shape, varied
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array, Array, Array]  # x, a, q, r


def project(x: Float[Array, "*batch m"], a: Float[Array, "m n"]) -> Float[Array, "*batch m"]:
    """Each row of x, projected onto the space that the columns of a span.

    Args:
        x: `(*batch, m)` with any number of batch dimensions; any floating dtype, as is a.
        a: `(m, n)`, whose columns are linearly independent, so n <= m.

    Returns:
        `(*batch, m)`, in the dtype that x and a promote to: for each row the vector a w that is nearest to it.

    Raises:
        ValueError: a shape does not fit, or a has more columns than rows.
        TypeError: an argument is not floating point.

    Example:
        >>> x, a = jnp.array([3.0, 5.0]), jnp.array([[1.0], [1.0]])
        >>> project(x, a).round(3)
        Array([4., 4.], dtype=float32)
        >>> jax.grad(lambda x: project(x, a)[0])(x).round(3)
        Array([0.5, 0.5], dtype=float32)
    """
    require_floating("project", x=x, a=a)
    if jnp.ndim(x) == 0:
        raise ValueError("project: x has shape (), wanted (*batch, m): at least one dimension")
    require_shape("project", "a", a, (jnp.shape(x)[-1], "n"), f"because x has shape {jnp.shape(x)}")
    if jnp.shape(a)[1] > jnp.shape(a)[0]:
        raise ValueError(f"project: a has shape {jnp.shape(a)}, wanted (m, n) with n <= m: more columns cannot be linearly independent")
    return _compiled(x, a)


@jax.custom_vjp
def _project(x: Array, a: Array) -> Array:
    return _forward(x, a)[0]


def _forward(x: Array, a: Array) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, a)
    q, r = jnp.linalg.qr(a.astype(compute))
    return _product(_product(x.astype(compute), q), q.T).astype(result), (x, a, q, r)


def _backward(residuals: Residuals, y_ct: Array) -> tuple[Array, Array]:
    x, a, q, r = residuals

    def parts(v: Array) -> tuple[Array, Array, Array]:
        """v P, what is left of v, and z(v), of rows in a matrix."""
        v = v.astype(q.dtype).reshape(math.prod(v.shape[:-1]), len(q))
        c = _product(v, q)
        inside = _product(c, q.T)
        z = jax.lax.linalg.triangular_solve(varied(r, c), varied(c, r), transpose_a=True)
        return inside, v - inside, z

    _, x_left, x_z = parts(x)
    x_ct, y_ct_left, y_ct_z = parts(y_ct)
    return match(x_ct.reshape(x.shape), x), match(_product(y_ct_left.T, x_z) + _product(x_left.T, y_ct_z), a)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


_project.defvjp(_forward, _backward)
_compiled = jax.jit(_project)


def reference(x, a):
    """The textbook formula, x a (a^T a)^-1 a^T, with the Cholesky factor of a^T a."""
    result = jnp.result_type(x, a)
    wide = jnp.promote_types(result, "float32")  # there is no Cholesky factor in 16 bits
    x, a = x.astype(wide), a.astype(wide)
    factor = jnp.linalg.cholesky(a.T @ a)
    half = jax.lax.linalg.triangular_solve(factor, a.T, left_side=True, lower=True)
    return (x @ half.T @ half).astype(result)


def _well_conditioned(rng, sizes, dtype):
    """Twice a signed permutation with some noise added: singular values from about 1 to 3."""
    m, n = sizes["m"], sizes["n"]
    a = rng.integers(-1000, 1001, size=(m, n)) / (1000 * max(m, 1) ** 0.5)
    a[rng.permutation(m)[:n], range(n)] += 2 * rng.choice([-1, 1], size=n)
    return a


def _is_tall(sizes, options):
    """More columns than rows are never linearly independent."""
    return sizes["n"] <= sizes["m"]


SPEC = Spec(
    name="project",
    fn=project,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={"x": Arg(dims="rows m"), "a": Arg(dims="m n", sample=_well_conditioned)},
    sizes={"rows": (0, 9), "m": (0, 70), "n": (0, 24)},
    domain=_is_tall,
    source="Golub & Pereyra (SIAM J. Numer. Anal. 10, 1973)",
)
