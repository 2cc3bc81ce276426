"""From a Python signature to the arguments that a function takes."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from verify.spec import ARG_DTYPES, Arg, Spec, SpecError

_ABSTRACT = {"float": "float", "int": "int32", "uint": "uint32", "bool": "bool", "complex": "complex", "key": "key", "prng_key": "key"}
ANY_NUMBER = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD  # *args, **options


def parameters(signature: inspect.Signature) -> str:
    """A signature without its annotations, which are long: "(x, w, *, axis=-1)"."""
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A "did you mean" sentence, or nothing.

    >>> nearest("layernorm", ["layer_norm", "linear"])
    ' Did you mean "layer_norm"?'
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


def argument_names(function: Callable[..., Any], count: int) -> tuple[str, ...]:
    """Names of the first `count` positional arguments; "arg0", ... where the signature says none."""
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (ValueError, TypeError):
        parameters = []
    return tuple(parameters[i].name if i < len(parameters) else f"arg{i}" for i in range(count))


def arguments(spec: Spec) -> dict[str, Any]:
    """The spec's positional arguments, name -> Arg (or a pytree of them): what `args` says, else the annotations of `fn`.

    Raises SpecError when an argument is described nowhere, or a description has no argument.
    """
    parameters = _parameters(spec.fn, spec.name)
    if spec.args is not None and (parameters is None or not any(name in parameters for name in spec.args)):
        found = dict(spec.args)  # *args, builtins: the spec is all there is
    else:
        if parameters is None:
            raise SpecError(f"{spec.name}: the signature of fn cannot be read; describe its arguments with args=")
        found = _from_annotations(spec, parameters)
    for name, arg in found.items():
        _require_args(spec.name, name, arg)
    if not found and spec.options:
        raise SpecError(
            f"{spec.name}: every parameter of fn is listed in options= ({', '.join(map(repr, spec.options))}), so there is no array to differentiate by"
        )
    if not found:
        raise SpecError(f"{spec.name}: fn takes no array arguments, so there is nothing to differentiate")
    _check_options(spec, parameters)
    for what, names in (("kinks", spec.kinks), ("example", spec.example)):
        for name in names:
            if name not in found:
                raise SpecError(f"{spec.name}: {what} names {name!r}, which is no argument.{nearest(name, found)}")
    return found


def _from_annotations(spec: Spec, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    given = dict(spec.args or {})
    if unknown := set(given) - set(parameters):
        name = min(unknown)
        raise SpecError(
            f"{spec.name}: args names {name!r}, which is no parameter of fn.{nearest(name, parameters)} It has {', '.join(parameters)}"
        )
    found: dict[str, Any] = {}
    missing = None
    for name, parameter in parameters.items():
        annotated = given.get(name, _from_annotation(spec.name, parameter.annotation))
        if annotated is None or parameter.kind is parameter.KEYWORD_ONLY or name in spec.options:
            if parameter.default is parameter.empty and name not in spec.options and parameter.kind not in ANY_NUMBER:
                raise SpecError(
                    f"{spec.name}: argument {name!r} has no jaxtyping annotation and no entry in args=. "
                    f'Annotate it ({name}: Float[Array, "n d"]), or give args={{"{name}": Arg(dims="n d"), ...}}, '
                    f"or verify it on example arrays: verify.check(fn, *arrays)"
                )
            missing = missing or name
            continue
        if missing and missing not in spec.options:
            raise SpecError(
                f"{spec.name}: argument {name!r} comes after {missing!r}, which is not described; arguments are passed by position"
            )
        found[name] = annotated
    return found


def _parameters(function: Callable[..., Any], name: str) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(function, eval_str=True).parameters)
    except (ValueError, TypeError):
        return None
    except NameError as error:
        raise SpecError(f"{name}: an annotation of fn cannot be read: {error}") from None


def _from_annotation(spec: str, annotation: Any) -> Arg | None:
    """An Arg for a jaxtyping annotation, or None. Duck-typed: jaxtyping itself is not needed to read it."""
    optional = False
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        options = typing.get_args(annotation)
        optional = type(None) in options
        annotation = next((option for option in options if hasattr(option, "dim_str")), None)
    if not hasattr(annotation, "dim_str") or not hasattr(annotation, "dtypes"):
        return None
    dtype = _dtype(annotation.dtypes)
    if dtype is None:
        raise SpecError(f"{spec}: verify draws no {annotation!r} yet; it draws floats, integers, booleans and PRNG keys")
    return Arg(dims=annotation.dim_str, dtype=dtype, optional=optional)


def _dtype(names: Any) -> str | None:
    """The dtype to draw for a jaxtyping category: `Float` lists all float dtypes, `Int32` exactly one. None for what is not drawn."""
    known = [names] if isinstance(names, str) else [str(name) for name in names]
    if any(name.startswith(("float", "bfloat")) for name in known) and len(known) > 1:
        return "float"
    for name in known:
        if name in ARG_DTYPES:
            return name if len(known) == 1 else _ABSTRACT.get(name.rstrip("0123456789"), name)
        if name.rstrip("0123456789") in _ABSTRACT:
            return _ABSTRACT[name.rstrip("0123456789")]
    return "float"


def _require_args(spec: str, name: str, arg: Any) -> None:
    if isinstance(arg, Arg):
        return
    children = list(arg.values()) if isinstance(arg, Mapping) else list(arg) if isinstance(arg, (list, tuple)) else None
    if children is None:
        raise SpecError(f'{spec}: args[{name!r}] must be Arg(dims="...") or a dict, list or tuple of them, got {arg!r}')
    for child in children:
        _require_args(spec, name, child)


def _check_options(spec: Spec, parameters: Mapping[str, inspect.Parameter] | None) -> None:
    if parameters is None or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option, values in spec.options.items():
        if option not in parameters:
            raise SpecError(f"{spec.name}: option {option!r} is no parameter of fn.{nearest(option, parameters)}")
        wanted = _plain_types(parameters[option].annotation)
        for value in values:
            right = type(value) in wanted or (isinstance(value, int) and float in wanted and not isinstance(value, bool))
            if wanted and not right:
                names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in wanted)
                raise SpecError(f"{spec.name}: option {option!r} got {value!r} ({type(value).__name__}), wanted {names}")


def _plain_types(annotation: Any) -> tuple[type, ...]:
    """The builtin types that an annotation allows; empty when it says more than that."""
    members = typing.get_args(annotation) if typing.get_args(annotation) else (annotation,)
    plain = tuple(type(None) if member is None else member for member in members)
    return plain if all(member in (bool, int, float, str, type(None)) for member in plain) else ()
