"""The shapes of a formula's factors, by the names of their dimensions: "(batch, d_in)(d_in, d_out) -> (batch, d_out)"."""

from __future__ import annotations

from collections.abc import Iterator

from verify.derive.example import Dims
from verify.derive.expressions import Expr
from verify.derive.notation import matrices, upstream


def told(e: Expr, dims: Dims) -> str:
    """The factors' shapes and the result's; one shape where all are the same."""
    if e.op == "einsum" and (forms := matrices(e)) is not None:
        factors = "".join(of(arg.shape[::-1] if turned else arg.shape, dims) for arg, turned in zip(e.args, forms, strict=True))
        return f"{factors} -> {of(e.shape, dims)}"
    shapes = list(dict.fromkeys(of(shape, dims) for shape in _shapes(e)))
    result = of(e.shape, dims)
    return result if shapes in ([result], []) else f"{', '.join(shapes)} -> {result}"


def of(shape: tuple[int, ...], dims: Dims) -> str:
    """ "(batch, D)", or "scalar"."""
    return dims.shape(shape) if shape else "scalar"


def _shapes(e: Expr) -> Iterator[tuple[int, ...]]:
    if e.op == "name":
        yield e.shape
    for arg in [e.args[k] for k in upstream(e)] if e.op in ("pullback", "scan_back") else e.args:
        yield from _shapes(arg)
