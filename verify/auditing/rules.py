"""A custom rule as it was heard: which one, from where, called with what."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from verify.cases import Static
from verify.spec import Spec

WRAPPERS = ("jax", "equinox")  # packages whose inner functions are no rules of theirs
SITES = 4  # source lines of calls that are remembered


@dataclass
class Signature:
    """One combination of shapes, dtypes and static arguments that a rule was called with.

    args: per positional argument a pytree with leaves `jax.ShapeDtypeStruct`, concrete arrays or `Static`. values: what the array leaves held in one
    of the calls, in the order of `jax.tree.leaves`; empty where no call had any. sites: where it was called.
    """

    args: tuple[Any, ...]
    calls: int = 0
    values: list[Any] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)


@dataclass
class Rule:
    """One custom rule, and every way in which it was called.

    name: "module:qualified name". location: "file:line" of the function that it is the rule of. place: the same of what JAX was given, which may be a
    wrapper's. kind: "custom_vjp" or "custom_jvp".
    function: takes the arguments of a signature. whole: whether `function` is the rule itself, which can be traced at other shapes, rather than
    one call in a traced program. in_float64: the same rule, or None, as the program calls it when all of its numbers are float64: a rule may hold functions
    that were made for the program's own dtypes. standing: one call of it as it stands in the traced program, or None: it may need what is there only while
    the program is traced. declared: the spec that its module has for it.
    """

    name: str
    location: str
    place: str
    kind: str
    function: Callable[..., Any]
    whole: bool = True
    signatures: dict[Any, Signature] = field(default_factory=dict)
    in_float64: Callable[[], Rule | None] = lambda: None
    standing: Callable[[], Rule | None] = lambda: None
    declared: Spec | None = None

    @property
    def calls(self) -> int:
        return sum(signature.calls for signature in self.signatures.values())


def plain(function: Any) -> Any:
    """The Python function inside of jit, partial and other wrappers."""
    for _ in range(20):
        inner = getattr(function, "func", None) if isinstance(function, functools.partial) else getattr(function, "__wrapped__", None)
        if inner is None:
            return function
        function = inner
    return function


def written(function: Any) -> Any:
    """The function that a person wrote, where a rule was made of it by a wrapper such as `jax.custom_gradient` or `equinox.filter_custom_vjp`."""
    inner = plain(function)
    for _ in range(4):
        if str(getattr(inner, "__module__", "")).split(".")[0] not in WRAPPERS or "<locals>" not in _as_written(inner):
            return inner
        held = [part for cell in inner.__closure__ or () if not _empty(cell) for part in _held(cell.cell_contents)]
        others = [plain(value) for value in held if hasattr(plain(value), "__code__") and plain(value).__module__ != inner.__module__]
        if not others:
            return inner
        inner = others[0]
    return inner


def _held(value: Any) -> list[Any]:
    """What a closure holds, and where that is an object of a wrapper, what this holds: equinox.filter_custom_vjp keeps the function as an attribute."""
    wrapper = type(value).__module__.split(".")[0] in WRAPPERS and not hasattr(value, "__code__")
    return [value, *getattr(value, "__dict__", {}).values()] if wrapper else [value]


def _as_written(function: Any) -> str:
    """The qualified name in the source, which `functools.wraps` does not change."""
    return str(getattr(getattr(function, "__code__", None), "co_qualname", ""))


def _empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def location(function: Any) -> str:
    """ "file:line" of a function's source, or the name of its type."""
    code = getattr(function, "__code__", None)
    return f"{near(code.co_filename)}:{code.co_firstlineno}" if code else f"{type(function).__module__}.{type(function).__name__}"


def near(path: str) -> str:
    """A path as seen from the current folder, if it lies inside."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return path


def name_of(function: Any) -> str:
    """ "module:qualified name" of a function, printable and without what an address may not hold."""
    inner = written(function)
    qualified = getattr(inner, "__qualname__", None) or getattr(inner, "__name__", None) or type(inner).__name__
    module = getattr(inner, "__module__", None) or "?"
    if module == "__main__" and (code := getattr(inner, "__code__", None)):  # a script, by the name that it has for others
        module = Path(code.co_filename).stem
    text = f"{module}:{qualified}"
    return "".join(c if c.isprintable() and not c.isspace() and c not in "/@" else "_" for c in text)


def identity(function: Any) -> Any:
    """Equal for functions that were made by the same code from the same plain values: a factory that is called twice makes one rule."""
    inner = plain(function)
    cells = getattr(inner, "__closure__", None) or ()
    extra = (
        [getattr(function, "args", ()), sorted(getattr(function, "keywords", {}).items())]
        if isinstance(function, functools.partial)
        else []
    )
    return (location(inner), location(written(inner)), tuple(_mark(cell) for cell in cells), _text(extra))


def _mark(cell: Any) -> Any:
    try:
        return _text(cell.cell_contents)
    except ValueError:  # not yet filled
        return None


def _text(value: Any) -> str:
    """What tells static values apart: plain ones by their text, functions by their source, arrays by shape and dtype, others by their type."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | type | np.dtype):
        return repr(value)[:200]
    if isinstance(value, tuple | list | set | frozenset):
        return f"{type(value).__name__}({','.join(map(_text, value))})"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(k)}:{_text(v)}" for k, v in value.items()) + "}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{tuple(value.shape)}"
    if callable(value):
        return location(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def describe(function: Any, args: tuple[Any, ...], static: set[int]) -> tuple[tuple[Any, ...], Any]:
    """The arguments of one call with their arrays as shapes (or the concrete arrays), and a key that is equal for calls of equal shapes."""
    described = tuple(Static(_untraced(arg)) if i in static else jax.tree.map(as_leaf, arg) for i, arg in enumerate(args))
    leaves, tree = jax.tree.flatten(described, is_leaf=lambda node: isinstance(node, Static))
    texts = tuple(_text(leaf.value) if isinstance(leaf, Static) else f"{leaf.dtype}{tuple(leaf.shape)}" for leaf in leaves)
    return described, (str(tree), texts)


def _untraced(value: Any) -> Any:
    """An argument that is not differentiated, as it is; for a key of the program's trace, which ends with it, another key."""
    if not isinstance(value, jax.core.Tracer) or not jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    with jax.ensure_compile_time_eval():
        return jax.random.split(jax.random.key(0, impl=jax.random.key_impl(value)), value.shape)


def as_leaf(value: Any) -> Any:
    """One leaf of the arguments as a signature keeps it; Static for what is no array and no number with a derivative."""
    if isinstance(value, jax.core.Tracer):
        return jax.ShapeDtypeStruct(value.shape, value.dtype)
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return value
    return np.asarray(value) if isinstance(value, float | complex) else Static(value)


def positional(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call by position, as custom rules pass them on. Raises TypeError as the call itself would."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return args
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args
