r"""Embedding: rows of a table, looked up by index.

Source: Bengio et al., "A neural probabilistic language model" (JMLR 3, 2003); the derivative is that of a product with a one-hot matrix.

Forward, for each index k, with a table of V rows in R^D:
    y = table[k]     y = 0 where k is the padding index     y = NaN where k is not one of 0 to V - 1
Derivation.  y_n = sum_v [k_n = v] table_v is linear in the table:  dy_n = dtable[k_n], or 0 for padding. With <A, B> = sum of A * B:
    <y_ct, dy> = sum_n <y_ct_n, dtable[k_n]> = sum_v <sum_n [k_n = v] y_ct_n, dtable_v>
Backward, with y_ct given: rows of the same index add up,
    table_ct[v] = sum_n [k_n = v] y_ct_n     0 for the padding index
Validity: everywhere; linear. An index outside of 0 to V - 1 is a mistake that no compiled program can raise for: its row is NaN, as from `jnp.take`, and it
    adds nothing to table_ct. A negative one does not count from the end. 16-bit cotangents are summed in float32.
Residuals: the indices, and the table for its dtype, size and devices; both are the caller's, so no memory of their own.
Cost, forward, backward:  products none, none     elementary functions none, none
    a row copied for each index, and one added in the backward.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from manual_vjp._rule import dtypes, match, require_floating, require_shape
from verify.spec import Arg, Spec

Residuals = tuple[Array, Array]  # table, indices


def embedding(table: Float[Array, "V D"], indices: Int[Array, "*batch"], *, padding_index: int | None = None) -> Float[Array, "*batch D"]:
    """`table[indices]`, whose derivative adds up the rows of equal indices.

    Args:
        table: `(V, D)`, of any floating dtype.
        indices: integers from 0 to V - 1, of any shape.
        padding_index: rows of this index are 0 and give the table no gradient; or None for none. (PyTorch's `padding_idx` returns the table's row, which
            it sets to 0 at first and never trains: the same, but where a table is loaded in which it is not 0.)

    Returns:
        `(*batch, D)`, in the dtype of the table. NaN for an index outside of the table, negative ones too.

    Raises:
        ValueError: the table is no matrix or has no rows, or padding_index names no row of it.
        TypeError: the table is not floating point, or the indices are not integers.

    Example:
        >>> table = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> embedding(table, jnp.array([1, 1, 0]))
        Array([[3., 4.],
               [3., 4.],
               [1., 2.]], dtype=float32)
        >>> jax.grad(lambda table: embedding(table, jnp.array([1, 1, 0])).sum())(table)
        Array([[1., 1.],
               [2., 2.]], dtype=float32)
    """
    require_floating("embedding", table=table)
    require_shape("embedding", "table", table, ("V", "D"), "a row for each index")
    if jnp.shape(table)[0] == 0:
        raise ValueError(f"embedding: table has shape {jnp.shape(table)}, wanted (V, D) with V of at least 1")
    if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        raise TypeError(f"embedding: indices has dtype {jnp.result_type(indices)}, wanted integers: the numbers of rows of the table")
    if padding_index is not None and not 0 <= padding_index < jnp.shape(table)[0]:
        raise ValueError(f"embedding: padding_index is {padding_index}, wanted a row of the table, 0 to {jnp.shape(table)[0] - 1}, or None")
    return _compiled(table, indices, padding_index)


@ft.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _embedding(table: Array, indices: Array, padding_index: int | None) -> Array:
    return _forward(table, indices, padding_index)[0]


def _forward(table: Array, indices: Array, padding_index: int | None) -> tuple[Array, Residuals]:
    rows = _rows(table, indices)
    y = table.at[rows].get(mode="fill", fill_value=jnp.nan)
    if padding_index is not None:
        y = jnp.where((rows == padding_index)[..., None], 0, y)
    return y, (table, indices)


def _backward(padding_index: int | None, residuals: Residuals, y_ct: Array) -> tuple[Array, None]:
    table, indices = residuals
    rows = _rows(table, indices)
    if padding_index is not None:
        rows = jnp.where(rows == padding_index, len(table), rows)
    total = jnp.zeros(table.shape, dtypes(table)[1])
    return match(total.at[rows].add(y_ct.astype(total.dtype), mode="drop"), table), None


def _rows(table: Array, indices: Array) -> Array:
    """The indices as int32, with len(table), which is no row, for those that are none: JAX would count a negative one from the end."""
    none = jnp.int32(len(table))  # an index of 8 bits may not hold it
    return jnp.where((indices >= 0) & (indices < none), indices, none).astype("int32")


_embedding.defvjp(_forward, _backward)
_compiled = jax.jit(_embedding, static_argnums=2)


def reference(table, indices, *, padding_index=None):
    """The textbook formula: a product with a one-hot matrix."""
    numbers = jnp.arange(table.shape[0])
    one_hot = indices[..., None] == numbers
    y = jnp.where((indices[..., None] == numbers).any(-1, keepdims=True), one_hot.astype(table.dtype) @ table, jnp.nan)
    return y if padding_index is None else jnp.where((indices == padding_index)[..., None], 0, y)


def _some_indices(rng, sizes, dtype):
    """Rows of the table, repeated ones among them."""
    return rng.integers(0, sizes["V"], size=sizes["batch"])


SPEC = Spec(
    name="embedding",
    fn=embedding,
    reference=reference,
    args={"table": Arg(dims="V D"), "indices": Arg(dims="*batch", dtype="int32", sample=_some_indices)},
    sizes={"batch": (0, 60), "V": (1, 70), "D": (0, 40)},
    options={"padding_index": (None, 0)},
    source="Bengio et al. (JMLR 3, 2003)",
)
