"""A rule that closes over a traced value, made callable after the trace has ended: numbers of the same shape and dtype stand in for it.

Whether a derivative is right does not depend on which constants its formula holds, as long as primal, forward and backward hold the same.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def freed(rule: Any) -> Any:
    """`rule` itself if nothing that it is made of is traced, else a copy without."""
    return _copied(rule, {}) if _holds_tracer(rule, set()) else rule


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, jax.custom_vjp | jax.custom_jvp):
        yield from vars(value).values()
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif _is_record(value):
        yield from vars(value).values()
    elif type(value) in (tuple, list):
        yield from value
    elif type(value) is dict:
        yield from value.values()


def _is_record(value: Any) -> bool:
    """An instance of a dataclass, as solvers and modules are."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__")


def _holds_tracer(value: Any, seen: set[int]) -> bool:
    if isinstance(value, jax.core.Tracer):
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_holds_tracer(part, seen) for part in _parts(value))


def _copied(value: Any, made: dict[int, Any]) -> Any:
    """A copy of what `_parts` looks into; an object is known before its parts are, as functions of a rule refer to the rule."""
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, jax.core.Tracer):
        made[id(value)] = _stand_in(value, len(made))
    elif isinstance(value, jax.custom_vjp | jax.custom_jvp) or _is_record(value):
        made[id(value)] = rule = object.__new__(type(value))
        vars(rule).update({key: _copied(part, made) for key, part in vars(value).items()})
    elif isinstance(value, types.FunctionType) and value.__closure__:
        cells = tuple(types.CellType() for _ in value.__closure__)
        made[id(value)] = new = types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
        new.__kwdefaults__, new.__qualname__, new.__module__ = value.__kwdefaults__, value.__qualname__, value.__module__
        for cell, old in zip(cells, value.__closure__, strict=True):
            try:
                cell.cell_contents = _copied(old.cell_contents, made)
            except ValueError:
                continue
    elif isinstance(value, types.MethodType):
        made[id(value)] = types.MethodType(_copied(value.__func__, made), _copied(value.__self__, made))
    elif isinstance(value, functools.partial):
        made[id(value)] = functools.partial(_copied(value.func, made), *_copied(value.args, made), **_copied(value.keywords, made))
    elif type(value) in (tuple, list):
        made[id(value)] = type(value)(_copied(part, made) for part in value)
    elif type(value) is dict:
        made[id(value)] = {key: _copied(part, made) for key, part in value.items()}
    else:
        return value
    return made[id(value)]


def _stand_in(tracer: Any, number: int) -> np.ndarray:
    if not jnp.issubdtype(tracer.dtype, jnp.floating):
        return np.zeros(tracer.shape, tracer.dtype)
    return np.random.default_rng(number).normal(size=tracer.shape).astype(tracer.dtype)
