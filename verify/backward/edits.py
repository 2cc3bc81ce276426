"""What may go wrong in one equation of a backward pass: a table of small edits, each a slip that people make.

An edit keeps the equation's shape and dtype; where it cannot (a transpose of what is not square), it does not fit, and the equation stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend import core

from verify import _compat


@dataclass(frozen=True)
class Kind:
    """One kind of edit: the primitives that it is made on, `fits(equation)`, and `apply(equation, values)` -> the new output."""

    primitives: tuple[str, ...]
    apply: Callable[[Any, list[Any]], Any]
    fits: Callable[[Any], bool]


KINDS: dict[str, Kind] = {}


def edits_of(equation: Any) -> list[str]:
    """The names of the edits that fit an equation as it stands."""
    if len(equation.outvars) != 1 or not hasattr(equation.outvars[0].aval, "dtype"):
        return []
    name = equation.primitive.name
    return [edit for edit, kind in KINDS.items() if name in kind.primitives and _allowed(equation) and kind.fits(equation)]


def edited(name: str, equation: Any, values: list[Any]) -> list[Any]:
    """The outputs of an equation under an edit, in its own shape and dtype."""
    out = equation.outvars[0].aval
    return [jnp.broadcast_to(jnp.asarray(KINDS[name].apply(equation, values)).astype(out.dtype), out.shape)]


def _allowed(equation: Any) -> bool:
    """Whole-number arithmetic is index arithmetic: an error there is out of bounds, not a wrong derivative. Comparisons and predicates count."""
    dtype = equation.outvars[0].aval.dtype
    return bool(dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.floating))


def kind(name: str, primitives: str, fits: Callable[[Any], bool] = lambda equation: True) -> Callable[[Any], Any]:
    def add(apply: Callable[[Any, list[Any]], Any]) -> Callable[[Any, list[Any]], Any]:
        KINDS[name] = Kind(tuple(primitives.split()), apply, fits)
        return apply

    return add


def _again(equation: Any, values: list[Any], **params: Any) -> Any:
    return _compat.bind(equation, values, {**equation.params, **params})[0]


def _shape(equation: Any, operand: int) -> tuple[int, ...]:
    return tuple(equation.invars[operand].aval.shape)


def _full(operand: int) -> Callable[[Any], bool]:
    """The operand alone has the shape of the result, or is stretched to it, and is no constant."""

    def fits(equation: Any) -> bool:
        shape, out = _shape(equation, operand), equation.outvars[0].aval.shape
        stretched = len(shape) == len(out) and all(a in (1, b) for a, b in zip(shape, out, strict=True))
        return stretched and not isinstance(equation.invars[operand], core.Literal)

    return fits


def _literals(equation: Any) -> list[int]:
    return [i for i, atom in enumerate(equation.invars) if isinstance(atom, core.Literal)]


def _scaled_literal(change: Callable[[Any], Any]) -> Callable[[Any, list[Any]], Any]:
    def apply(equation: Any, values: list[Any]) -> Any:
        where = set(_literals(equation))
        return _again(equation, [jnp.asarray(change(v), equation.invars[i].aval.dtype) if i in where else v for i, v in enumerate(values)])

    return apply


def _float_literal(equation: Any) -> bool:
    """It holds a constant that doubling changes."""
    return any(jnp.issubdtype(equation.invars[i].aval.dtype, jnp.floating) and equation.invars[i].val != 0 for i in _literals(equation))


SUM, PRODUCT, BINARY = "add add_any sub", "mul div", "add add_any sub mul div max min"
FLOAT = f"{BINARY} dot_general reduce_sum exp log rsqrt sqrt tanh logistic integer_pow pow cumsum neg"

kind("keep only the first term", SUM, _full(0))(lambda e, v: v[0])
kind("keep only the second term", SUM, _full(1))(lambda e, v: -v[1] if e.primitive.name == "sub" else v[1])
kind("flip the sign of the second term", SUM)(lambda e, v: v[0] + v[1] if e.primitive.name == "sub" else v[0] - v[1])
kind("flip the sign of the first term", SUM)(lambda e, v: -v[0] - v[1] if e.primitive.name == "sub" else v[1] - v[0])
kind("drop the minus", "neg")(lambda e, v: v[0])
kind("flip the sign", "mul div dot_general")(lambda e, v: -_again(e, v))
kind("drop the second factor", "mul div", _full(0))(lambda e, v: v[0])
kind("drop the first factor", "mul", _full(1))(lambda e, v: v[1])
kind("divide the other way round", "div")(lambda e, v: v[1] / v[0])
kind("multiply instead of divide", "div")(lambda e, v: v[0] * v[1])
kind("divide instead of multiply", "mul", lambda e: not _literals(e))(lambda e, v: v[0] / v[1])
kind("double the constant", BINARY, _float_literal)(_scaled_literal(lambda c: c * 2))
kind("halve the constant", BINARY, _float_literal)(_scaled_literal(lambda c: c / 2))
kind("add 1 to the constant", BINARY, lambda e: _float_literal(e) or (len(_literals(e)) > 0 and e.primitive.name != "mul"))(
    _scaled_literal(lambda c: c + 1)
)
kind("keep only the first operand", "max min", _full(0))(lambda e, v: v[0])
kind("keep only the second operand", "max min", _full(1))(lambda e, v: v[1])
kind("max and min exchanged", "max min")(lambda e, v: (jnp.minimum if e.primitive.name == "max" else jnp.maximum)(v[0], v[1]))
kind("raise the exponent by 1", "integer_pow")(lambda e, v: _again(e, v, y=e.params["y"] + 1))
kind("lower the exponent by 1", "integer_pow")(lambda e, v: _again(e, v, y=e.params["y"] - 1))
kind("drop the function", "exp log rsqrt sqrt tanh logistic sin cos erf log1p expm1 abs sign clamp integer_pow pow")(
    lambda e, v: v[1 if e.primitive.name == "clamp" else 0]
)
kind("sin and cos exchanged", "sin cos")(lambda e, v: (jnp.cos if e.primitive.name == "sin" else jnp.sin)(v[0]))
kind("sqrt and 1/sqrt exchanged", "sqrt rsqrt")(lambda e, v: (lax.rsqrt if e.primitive.name == "sqrt" else jnp.sqrt)(v[0]))

_OTHER = {"lt": lax.le, "le": lax.lt, "gt": lax.ge, "ge": lax.gt}
kind("< and <= exchanged", "lt le gt ge")(lambda e, v: _OTHER[e.primitive.name](*jnp.broadcast_arrays(*v)))
kind("compare the other way round", "lt le gt ge eq ne")(lambda e, v: ~_again(e, v))
kind("always true", "lt le gt ge eq ne and or not")(lambda e, v: True)
kind("always false", "lt le gt ge eq ne and or not")(lambda e, v: False)
kind("and and or exchanged", "and or")(lambda e, v: (jnp.logical_or if e.primitive.name == "and" else jnp.logical_and)(v[0], v[1]))

_two = lambda e: len(e.invars) == 3 and e.invars[0].aval.dtype == jnp.bool_  # noqa: E731
kind("negate the condition", "select_n", _two)(lambda e, v: _again(e, [v[0], v[2], v[1]]))
kind("always the value where false", "select_n", _two)(lambda e, v: v[1])
kind("always the value where true", "select_n", _two)(lambda e, v: v[2])


def _pairs(equation: Any, operand: int) -> list[tuple[int, int]]:
    """Each summed axis with each free axis of a dot_general's operand."""
    contract, batch = (dims[operand] for dims in equation.params["dimension_numbers"])
    return [(s, f) for s in contract for f in range(len(_shape(equation, operand))) if f not in (*contract, *batch)]


def _swappable(operand: int) -> Callable[[Any], tuple[int, int] | None]:
    """A summed axis and a free axis of the same size: a transpose that no shape forbids."""

    def find(equation: Any) -> tuple[int, int] | None:
        shape = _shape(equation, operand)
        return next(((s, f) for s, f in _pairs(equation, operand) if shape[s] == shape[f] > 1), None)

    return find


def _transposed(operand: int) -> Callable[[Any, list[Any]], Any]:
    def apply(equation: Any, values: list[Any]) -> Any:
        axes = _swappable(operand)(equation)
        assert axes is not None
        return _again(equation, [jnp.swapaxes(v, *axes) if i == operand else v for i, v in enumerate(values)])

    return apply


def _exchanged(equation: Any) -> bool:
    """The product with its operands exchanged has the same shapes."""
    (contract, batch), shape = equation.params["dimension_numbers"], _shape(equation, 0)
    return shape == _shape(equation, 1) and contract[0] != contract[1] and batch[0] == batch[1] and len(shape) >= 2


def _two_contracted(equation: Any) -> bool:
    (_, right), _ = equation.params["dimension_numbers"]
    sizes = [_shape(equation, 1)[axis] for axis in right]
    return len(right) >= 2 and sizes[0] == sizes[1] > 1


def _permuted(equation: Any, values: list[Any]) -> Any:
    (left, right), batch = equation.params["dimension_numbers"]
    return _again(equation, values, dimension_numbers=((left, (right[1], right[0], *right[2:])), batch))


kind("transpose the first operand", "dot_general", lambda e: _swappable(0)(e) is not None)(_transposed(0))
kind("transpose the second operand", "dot_general", lambda e: _swappable(1)(e) is not None)(_transposed(1))
TRANSPOSES = {"transpose the first operand": 0, "transpose the second operand": 1}


def cannot_run(name: str, equation: Any) -> bool:
    """The edit moves axes, and this equation's shapes forbid it: whoever writes it gets an exception from JAX here."""
    if name == "leave the axes as they are":
        return equation.primitive.name == "transpose" and _shape(equation, 0) != tuple(equation.outvars[0].aval.shape)
    if equation.primitive.name != "dot_general":
        return False
    if name == "exchange the operands":
        (left, right), _ = equation.params["dimension_numbers"]
        return any(_shape(equation, 1)[a : a + 1] != _shape(equation, 0)[b : b + 1] for a, b in zip(left, right, strict=True))
    if name not in TRANSPOSES:
        return False
    operand = TRANSPOSES[name]
    shape, pairs = _shape(equation, operand), _pairs(equation, operand)
    return bool(pairs) and all(shape[s] != shape[f] for s, f in pairs)


kind("exchange the operands", "dot_general", _exchanged)(lambda e, v: _again(e, [v[1], v[0]]))
kind("sum over the axes in another order", "dot_general", _two_contracted)(_permuted)


def _other_axes(equation: Any) -> tuple[int, ...] | None:
    """Other axes over which a reduction has a result of the same shape."""
    shape, axes = _shape(equation, 0), tuple(equation.params["axes"])
    wanted = tuple(equation.outvars[0].aval.shape)
    for step in range(1, len(shape)):
        other = tuple(sorted((axis + step) % len(shape) for axis in axes))
        if other != axes and tuple(s for i, s in enumerate(shape) if i not in other) == wanted and any(shape[a] > 1 for a in other):
            return other
    return None


def _counted(equation: Any) -> int:
    count = 1
    for axis in equation.params["axes"]:
        count *= _shape(equation, 0)[axis]
    return count


def _slice(stop: Callable[[int], int]) -> Callable[[Any, list[Any]], Any]:
    def apply(equation: Any, values: list[Any]) -> Any:
        axis = equation.params["axes"][-1]
        return _again(equation, [lax.slice_in_dim(values[0], 0, stop(values[0].shape[axis]), axis=axis)])

    return apply


_several = lambda e: _counted(e) > 1 and _shape(e, 0)[e.params["axes"][-1]] > 1  # noqa: E731
kind("reduce over another axis", "reduce_sum reduce_max reduce_min", lambda e: _other_axes(e) is not None)(
    lambda e, v: _again(e, v, axes=_other_axes(e))
)
kind("mean instead of sum", "reduce_sum", _several)(lambda e, v: _again(e, v) / _counted(e))
kind("the first element instead of the sum", "reduce_sum", _several)(_slice(lambda size: 1))
kind("leave the last element out of the sum", "reduce_sum", _several)(_slice(lambda size: size - 1))
kind("zero instead of the extremum", "reduce_max reduce_min")(lambda e, v: 0)
kind("sum from the other end", "cumsum")(lambda e, v: _again(e, v, reverse=not e.params["reverse"]))
kind("leave the axes as they are", "transpose", lambda e: _shape(e, 0) == e.outvars[0].aval.shape and e.outvars[0].aval.size > 1)(
    lambda e, v: v[0]
)
kind("do not reverse", "rev")(lambda e, v: v[0])


def _scattered(scatter: Callable[..., Any]) -> Callable[[Any, list[Any]], Any]:
    def apply(equation: Any, values: list[Any]) -> Any:
        params = equation.params
        return scatter(*values, params["dimension_numbers"], unique_indices=params["unique_indices"], mode=params["mode"])

    return apply


kind("set instead of add", "scatter-add")(_scattered(lax.scatter))
kind("add instead of set", "scatter")(_scattered(lax.scatter_add))


def _other_dims(equation: Any) -> tuple[int, ...] | None:
    """Other dimensions along which an operand can be broadcast to the same shape."""
    dims, shape, out = equation.params["broadcast_dimensions"], _shape(equation, 0), equation.outvars[0].aval.shape
    for i, axis in enumerate(dims):
        for other in range(len(out)):
            moved = (*dims[:i], other, *dims[i + 1 :])
            if other != axis and out[other] == shape[i] > 1 and list(moved) == sorted(set(moved)):
                return moved
    return None


kind("broadcast along another axis", "broadcast_in_dim", lambda e: _other_dims(e) is not None)(
    lambda e, v: _again(e, v, broadcast_dimensions=_other_dims(e))
)


def _wider(dtype: str) -> Callable[[Any], bool]:
    bits = jnp.finfo(dtype).bits
    return lambda e: jnp.issubdtype(e.outvars[0].aval.dtype, jnp.floating) and jnp.finfo(e.outvars[0].aval.dtype).bits > bits


kind("round to bfloat16", FLOAT, _wider("bfloat16"))(lambda e, v: _again(e, v).astype("bfloat16"))
kind("round to float32", "dot_general reduce_sum exp", _wider("float32"))(lambda e, v: _again(e, v).astype("float32"))
