"""What every backward pass needs: the dtype to compute in, and a cotangent put back into the space of its primal."""

import math

import jax
import jax.numpy as jnp
from jax import Array


def dtypes(*arrays: Array | None) -> tuple[jnp.dtype, jnp.dtype]:
    """The dtype of the result of an operation on `arrays`, and the dtype to compute it in: at least 32 bits wide.

    >>> [d.name for d in dtypes(jnp.ones(2, "bfloat16"), None, jnp.ones(2, "bfloat16"))]
    ['bfloat16', 'float32']
    """
    result = jnp.result_type(*(a for a in arrays if a is not None))
    return result, (jnp.dtype("float32") if jnp.finfo(result).bits < 32 else result)


def times_transpose(y: Array, w: Array, compute: jnp.dtype) -> Array:
    """y w^T, computed in the dtype `compute`.

    JAX 0.7 refuses it on CPUs with bfloat16 units when y has more than two axes ("Unsupported element type for DotThunk"): there its rows are laid end to end.
    """
    if y.ndim > 2 and jax.__version_info__ < (0, 8):
        rows = jnp.matmul(y.reshape(math.prod(y.shape[:-1]), y.shape[-1]), w.T, preferred_element_type=compute)
        return rows.reshape(*y.shape[:-1], w.shape[0])
    return jnp.matmul(y, w.T, preferred_element_type=compute)


def match(ct: Array, primal: Array) -> Array:
    """`ct` as a cotangent of `primal`: in its shape, on its devices, in its dtype.

    A primal that was broadcast, along array axes or along the devices of a `jax.shard_map`, was used once per copy, so its cotangent is
    the sum over the copies. Every cotangent descends from that of the output, which varies over all devices that any argument varies
    over; so a sum may be missing here, but never a broadcast. The cast comes last: sums are taken in the dtype that `ct` was computed in.
    """
    lead = ct.ndim - primal.ndim
    stretched = tuple(lead + axis for axis, size in enumerate(primal.shape) if size == 1 != ct.shape[lead + axis])
    ct = jnp.sum(ct, axis=(*range(lead), *stretched)).reshape(primal.shape)
    copies = tuple(sorted(_varying(ct) - _varying(primal)))
    return (jax.lax.psum(ct, copies) if copies else ct).astype(primal.dtype)


def _varying(array: Array) -> frozenset[str]:
    """The mesh axes of an enclosing `jax.shard_map` along which `array` differs from device to device."""
    aval = jax.typeof(array)
    if hasattr(aval, "vma"):  # JAX 0.7
        return aval.vma
    return aval.manual_axis_type.varying


def varied(array: Array, *like: Array | None) -> Array:
    """`array`, marked under `jax.shard_map` as different from device to device wherever one of `like` is: what a loop carry of them needs."""
    axes = tuple(sorted(frozenset().union(*(_varying(other) for other in like if other is not None)) - _varying(array)))
    if not axes:
        return array
    if not hasattr(jax.lax, "pcast"):  # JAX 0.7
        return getattr(jax.lax, "pvary")(array, axes)  # noqa: B009
    return jax.lax.pcast(array, axes, to="varying")


def require_floating(op: str, **arguments: Array | None) -> None:
    """Raises TypeError unless every argument is floating point (or None): nothing else has a cotangent."""
    for name, value in arguments.items():
        if value is not None and not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            got = jnp.result_type(value)
            raise TypeError(f"{op}: {name} has dtype {got}, wanted a floating-point dtype; convert it, e.g. {name}.astype(jnp.float32)")


def require_shape(op: str, name: str, value: Array | None, wanted: tuple[int | str, ...], why: str) -> None:
    """Raises ValueError unless `value` (or None) has the shape `wanted`, in which text stands for any size."""
    if value is None:
        return
    got = jnp.shape(value)
    if len(got) != len(wanted) or any(not isinstance(want, str) and size != want for size, want in zip(got, wanted, strict=True)):
        text = f"({', '.join(str(size) for size in wanted)}{',' if len(wanted) == 1 else ''})"
        raise ValueError(f"{op}: {name} has shape {got}, wanted {text} {why}")


def static_number(op: str, name: str, value: float) -> float:
    """`value` as a Python float. It is a constant of the compiled program, without a cotangent; so TypeError if it is traced."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{op}: {name} is a traced array, wanted a Python number; pass it as a constant, outside of jit, grad and vmap")
    return float(value)


def require_axes(op: str, axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """`axis` as ascending numbers from 0 on. Raises ValueError for an axis that is not there, or that is named twice."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if not all(isinstance(a, int) and -ndim <= a < ndim for a in axes):
        raise ValueError(f"{op}: axis is {axis}, wanted numbers from {-ndim} to {ndim - 1} because the array has {ndim} dimensions")
    positive = tuple(sorted(a % ndim for a in axes))
    if len(set(positive)) < len(positive):
        raise ValueError(f"{op}: axis is {axis}, which names an axis twice")
    return positive


def require_mask(op: str, name: str, mask: Array | None, shape: tuple[int, ...], of: str) -> None:
    """Raises unless `mask` is None or boolean and broadcastable to `shape`, which is the shape of the argument `of`."""
    if mask is None:
        return
    if not jnp.issubdtype(jnp.result_type(mask), jnp.bool):
        raise TypeError(f"{op}: {name} has dtype {jnp.result_type(mask)}, wanted bool")
    got = jnp.shape(mask)
    if len(got) > len(shape) or any(size not in (1, want) for size, want in zip(got[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{op}: {name} has shape {got}, wanted one that broadcasts to {shape}, the shape of {of}")
