r"""Linear layer with sparse weights, differentiated on their pattern only.

Source: the rule of a product, Giles (2008), section 2.2.1, restricted to the entries that exist; as `jax.experimental.sparse` restricts it.

Forward, for each row x in R^d_in; the weights are entries k = 1 ... nse at (i_k, j_k) with the value data_k, entries of the same place add up:
    y_j = sum over k with j_k = j of x_(i_k) data_k + b_j
Derivation.  dy_j = sum over k with j_k = j of (dx_(i_k) data_k + x_(i_k) ddata_k) + db_j.  With <y_ct, dy> = sum_rows sum_j y_ct_j dy_j, sorted by entry:
    <y_ct, dy> = sum_rows sum_k y_ct_(j_k) (dx_(i_k) data_k + x_(i_k) ddata_k) + sum_rows <y_ct, db>
Backward, with y_ct given:
    data_ct_k = sum_rows x_(i_k) y_ct_(j_k)     x_ct_i = sum over k with i_k = i of y_ct_(j_k) data_k     b_ct = sum_rows y_ct
    Columns of x are gathered and scattered as rows of x^T, which are contiguous, in blocks of entries (on CPU small ones, which stay in the caches): no array of
    d_in x d_out, and none of nse x rows that grows with both.
Validity: everywhere; linear in each argument. Entries of the same place each get the gradient of that place. An entry outside of the matrix (with which BCOO
    fills up; with a negative number, too, which JAX's own product counts from the end) counts for nothing, and its gradient is 0. Zeros of the matrix that
    are no entries have no gradient. 16-bit values are summed in float32.
Residuals: x, the data and the indices, which the caller holds anyway, so no memory of their own; b only for its dtype and devices.
Cost, forward, backward:  products none, none     elementary functions none, none
    2 R nse operations forward and 4 R nse backward for R rows, gathered and scattered, which are slower than those of a product.
"""

import functools as ft
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from manual_vjp._blocks import over_blocks, put, take
from manual_vjp._rule import dtypes, match, require_floating, require_shape
from verify.spec import Arg, Spec

if TYPE_CHECKING:  # it imports SciPy's sparse matrices, which takes longer than all the rest here
    from jax.experimental.sparse import BCOO

Residuals = tuple[Array, Array, Array, Array | None]  # x, data, indices, b
CPU, OTHERS = 2**16, 2**24  # numbers of a block: 256 KiB stay in a core's cache; elsewhere blocks only bound the memory


def sparse_linear(x: Float[Array, "*batch d_in"], w: "BCOO", b: Float[Array, "d_out"] | None = None) -> Float[Array, "*batch d_out"]:
    """`x @ w + b` for a sparse matrix w, which is never made dense, forward or backward.

    Args:
        x: input, `(*batch, d_in)` with any number of batch dimensions; any floating dtype, as are the others.
        w: weights, a `jax.experimental.sparse.BCOO` matrix of shape `(d_in, d_out)`, without batch or dense dimensions. Its gradient is that of `w.data`:
            differentiate by the data, or by w with `jax.experimental.sparse.grad`.
        b: bias, `(d_out,)`, or None for none.

    Returns:
        `(*batch, d_out)`, in the dtype that x, w.data and b promote to.

    Raises:
        ValueError: a shape does not fit, or w has batch or dense dimensions.
        TypeError: w is no BCOO matrix, or an argument is not floating point.

    Example:
        >>> from jax.experimental.sparse import BCOO
        >>> x, places = jnp.array([[1.0, 2.0]]), jnp.array([[0, 2], [1, 0]])
        >>> loss = lambda data: sparse_linear(x, BCOO((data, places), shape=(2, 3))).sum()
        >>> sparse_linear(x, BCOO((jnp.array([3.0, 4.0]), places), shape=(2, 3)))
        Array([[8., 0., 3.]], dtype=float32)
        >>> jax.grad(loss)(jnp.array([3.0, 4.0]))
        Array([1., 2.], dtype=float32)
    """
    from jax.experimental.sparse import BCOO

    op = "sparse_linear"
    if not isinstance(w, BCOO):
        raise TypeError(f"{op}: w is {type(w).__name__}, wanted a jax.experimental.sparse.BCOO matrix, e.g. BCOO.fromdense(w)")
    if w.n_batch or w.n_dense:
        raise ValueError(
            f"{op}: w has {w.n_batch} batch and {w.n_dense} dense dimensions, wanted none; vmap over the data, or make it with n_batch=0, n_dense=0"
        )
    require_floating(op, **{"x": x, "w.data": w.data, "b": b})
    if jnp.ndim(x) == 0:
        raise ValueError(f"{op}: x has shape (), wanted (*batch, d_in): at least one dimension")
    require_shape(op, "w", w, (jnp.shape(x)[-1], "d_out"), f"because x has shape {jnp.shape(x)}")  # type: ignore[arg-type]
    require_shape(op, "b", b, (w.shape[1],), f"because w has shape {w.shape}")
    return _compiled(x, w.data, w.indices, b, w.shape)


@ft.partial(jax.jit, static_argnums=4)
def _compiled(x, data, indices, b, shape: tuple[int, int]):
    if 0 in shape:  # no entry lies inside, and JAX gathers nothing from an empty array
        data, indices = data[:0], indices[:0]
    return _sparse_linear(x, data, indices, b, shape)


@ft.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sparse_linear(x: Array, data: Array, indices: Array, b: Array | None, shape: tuple[int, int]) -> Array:
    return _forward(x, data, indices, b, shape)[0]


def _forward(x: Array, data: Array, indices: Array, b: Array | None, shape: tuple[int, int]) -> tuple[Array, Residuals]:
    result, compute = dtypes(x, data, b)

    def product(x: Array, data: Array, indices: Array, *, elements: int) -> Array:
        columns = x.T

        def step(y: Array, start: Any, size: int) -> Array:
            i, j = _places(take(indices, start, size), shape)
            return _add(y, j, _rows(columns, i, compute) * take(data, start, size).astype(compute)[:, None])

        return _over_entries(step, jnp.zeros((shape[1], len(x)), compute), elements, (x, data, indices)).T

    y = _by_platform(product, _flat(x), data, indices).reshape(*x.shape[:-1], shape[1])
    y = y if b is None else y + b.astype(compute)
    return y.astype(result), (x, data, indices, b)


def _backward(shape: tuple[int, int], residuals: Residuals, y_ct: Array) -> tuple[Array, Array, None, Array | None]:
    x, data, indices, b = residuals
    compute = dtypes(x, data, b)[1]

    def products(x: Array, data: Array, indices: Array, y_ct: Array, *, elements: int) -> tuple[Array, Array]:
        columns, columns_ct = x.T, y_ct.T

        def step(carry: Any, start: Any, size: int) -> Any:
            x_ct, data_ct = carry
            i, j = _places(take(indices, start, size), shape)
            ct = _rows(columns_ct, j, compute)
            x_ct = _add(x_ct, i, ct * take(data, start, size).astype(compute)[:, None])
            return x_ct, put(data_ct, jnp.sum(ct * _rows(columns, i, compute), axis=1), start)

        empty = jnp.zeros((shape[0], len(x)), compute), jnp.zeros(data.shape, compute)
        x_ct, data_ct = _over_entries(step, empty, elements, (x, data, indices, y_ct))
        return x_ct.T, data_ct

    x_ct, data_ct = _by_platform(products, _flat(x), data, indices, _flat(y_ct))
    b_ct = None if b is None else match(y_ct.astype(compute), b)
    return match(x_ct.reshape(x.shape), x), match(data_ct, data), None, b_ct


_sparse_linear.defvjp(_forward, _backward)


def _flat(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _places(indices: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Rows and columns; `shape`, which is no place, for those outside of it: JAX would count negative ones from the end."""
    outside = jnp.array(shape, "int32")  # an index of 8 bits may not hold it
    inside = jnp.all((indices >= 0) & (indices < outside), axis=1, keepdims=True)
    places = jnp.where(inside, indices, outside).astype("int32")
    return places[:, 0], places[:, 1]


def _rows(array: Array, numbers: Array, compute: jnp.dtype) -> Array:
    return array.at[numbers].get(mode="fill", fill_value=0).astype(compute)


def _add(total: Array, numbers: Array, rows: Array) -> Array:
    return total.at[numbers].add(rows, mode="drop")


def _over_entries(step: Any, empty: Any, elements: int, arrays: tuple[Array, ...]) -> Any:
    """`step` over blocks of entries, so many that a block gathers `elements` numbers."""
    x, data = arrays[:2]
    block = min(max(elements // max(len(x), 1), 1), max(len(data), 1))
    return over_blocks(step, empty, len(data), block, arrays)


def _by_platform(function: Any, *arrays: Array) -> Any:
    """`function`, with small blocks on CPU and large ones elsewhere."""
    x, data = arrays[:2]
    if len(x) * len(data) <= CPU:
        return function(*arrays, elements=CPU)
    return jax.lax.platform_dependent(*arrays, cpu=ft.partial(function, elements=CPU), default=ft.partial(function, elements=OTHERS))


def on_pattern(x, data, indices, b):
    """`sparse_linear` as a function of arrays alone, which is what `verify` draws; b says how many columns there are."""
    from jax.experimental.sparse import BCOO

    return sparse_linear(x, BCOO((data, indices), shape=(x.shape[-1], b.shape[0])), b)


def reference(x, data, indices, b):
    """The textbook formula: the dense matrix, as a product of two one-hot matrices with the data between them."""
    from_row = (indices[:, :1] == jnp.arange(x.shape[-1])).astype(data.dtype)
    to_column = (indices[:, 1:] == jnp.arange(b.shape[0])).astype(data.dtype)
    return x @ ((from_row * data[:, None]).T @ to_column) + b


def _some_places(rng, sizes, dtype):
    """Places of the matrix and just outside of it, repeated ones among them."""
    return rng.integers(0, [sizes["d_in"] + 1, sizes["d_out"] + 1], size=(sizes["nse"], 2))


SPEC = Spec(
    name="sparse_linear",
    fn=on_pattern,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={
        "x": Arg(dims="*batch d_in"),
        "data": Arg(dims="nse"),
        "indices": Arg(dims="nse 2", dtype="int32", sample=_some_places),
        "b": Arg(dims="d_out"),
    },
    sizes={"batch": (0, 9), "d_in": (0, 40), "nse": (0, 130), "d_out": (0, 40)},
    residuals=1.0,
    source="Giles (2008), 2.2.1, on a pattern",
)
