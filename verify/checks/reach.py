"""What a function holds on to: tracers that can be reached from it, for `purity`."""

from __future__ import annotations

import functools
import gc
import sys
import types
from typing import Any

import jax
import numpy as np

FOREIGN = {"jax", "jaxlib", "numpy", "ml_dtypes", "verify", *sys.stdlib_module_names} - {
    "__main__"
}  # modules whose state is not the rule's
REACH = 20_000  # objects looked at


def tracers(root: Any) -> dict[str, Any]:
    """Every tracer that can be reached from a function through closures, globals, attributes and containers: where it is -> the tracer."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [(getattr(root, "__name__", "the function"), root)]
    while queue and len(seen) < REACH:
        path, node = queue.pop(0)
        if isinstance(node, jax.core.Tracer):
            found.setdefault(path, node)
            continue
        if id(node) in seen or isinstance(node, (str, bytes, int, float, complex, np.ndarray, np.generic, jax.Array, types.ModuleType)):
            continue
        seen.add(id(node))
        queue += _children(path, node)
    return found


def _children(path: str, node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [(f"{path}[{key!r}]", value) for key, value in list(node.items())]
    if isinstance(node, (list, tuple, set, frozenset)):
        return [(f"{path}[{k}]", value) for k, value in enumerate(list(node))]
    if isinstance(node, types.MethodType):
        return [(path, node.__self__), (path, node.__func__)]
    if isinstance(node, functools.partial):
        return [(path, node.func), (f"{path}'s arguments", [*node.args, node.keywords])]
    if isinstance(node, functools._lru_cache_wrapper):
        return [
            (f"the lru_cache of {path}", kept) for kept in gc.get_referents(node) if isinstance(kept, (jax.core.Tracer, tuple, list))
        ] + [(path, node.__wrapped__)]
    if isinstance(node, types.FunctionType):
        return _of_function(path, node)
    if isinstance(node, (jax.custom_vjp, jax.custom_jvp)):
        return [(f"{path}'s {name}", value) for name, value in vars(node).items() if callable(value) or not name.startswith("_")]
    wrapped = getattr(node, "__wrapped__", None) if callable(node) else None
    if isinstance(wrapped, types.FunctionType):  # jax.jit
        return [(path, wrapped)]
    owner = node if isinstance(node, type) else type(node)
    if (getattr(owner, "__module__", None) or "").split(".")[0] in FOREIGN:
        return []
    try:
        attributes = dict(vars(node))
    except TypeError:
        return []
    return [(f"{path}.{name}", value) for name, value in attributes.items() if not name.startswith("__")]


def _of_function(path: str, function: types.FunctionType) -> list[tuple[str, Any]]:
    if (function.__module__ or "").split(".")[0] in FOREIGN:
        return [(path, function.__wrapped__)] if hasattr(function, "__wrapped__") else []
    children: list[tuple[str, Any]] = [(f"{path}'s default arguments", (function.__defaults__, function.__kwdefaults__))]
    children += [(f"{path}.{name}", value) for name, value in vars(function).items()]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            children.append((name, cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    children += [(name, function.__globals__[name]) for name in _names(function.__code__) if name in function.__globals__]
    return children


def _names(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if isinstance(inner, types.CodeType)))
