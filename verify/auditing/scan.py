"""`verify scan PACKAGE`: every custom rule that a package defines, and the verdict on those whose arguments can be guessed.

Arguments come from a `verify.Spec` of the rule in its module, or from jaxtyping annotations; else a few calls are tried: all arguments arrays of one shape, with the defaults of what is not an array.
Of a rule that accepts none of these, the report shows the spec to fill in.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from verify.auditing.calls import outputs
from verify.auditing.examine import examine
from verify.auditing.rules import Rule, Signature, location, plain, written
from verify.cases import Static
from verify.errors import SpecError
from verify.printable import short
from verify.records import Status, Verdict
from verify.runner import run_spec
from verify.signature import arguments
from verify.spec import Spec

SHAPES = ((4, 3), (3,), (), (2, 3, 4), (3, 3))  # of all arguments together, tried in order
MATRICES = ((4, 3), (3, 5), (5,))  # x, w, b
CASES = 28
WRAPPED = ("_custom_vjp", "_custom_jvp", "fn", "f", "__wrapped__")  # where objects of libraries keep the rule that they call


def modules(package: str) -> Iterator[tuple[str, Any]]:
    """Every module of a package with its name, imported; the exception in the place of one that cannot be. Folders without __init__.py count, too.

    Raises SpecError where the package itself cannot be imported.
    """
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise SpecError(f"there is no package {package!r} here or installed ({error})") from None
    except (Exception, SystemExit) as error:
        raise SpecError(f"importing {package} failed: {type(error).__name__}: {error}") from error
    yield package, root
    for name in sorted(_names(root)):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                yield name, importlib.import_module(name)
            except (Exception, SystemExit) as error:
                yield name, error


def _names(root: Any) -> set[str]:
    found = {info.name for info in pkgutil.walk_packages(getattr(root, "__path__", []), f"{root.__name__}.", onerror=lambda name: None)}
    for folder in getattr(root, "__path__", []):
        for path in Path(folder).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if all(part.isidentifier() for part in parts) and parts[-1] not in ("__init__", "__main__"):
                found.add(".".join((root.__name__, *parts)))
    return {name for name in found if not {"tests", "test", "__main__", "conftest"} & set(name.split("."))}


def rules_of(module: Any, package: str) -> Iterator[Rule]:
    """The rules that a module and its classes hold, if their function is written in the package; each by the name under which it is held."""
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__}
    declared = {id(_rule(spec.fn)): spec for spec in vars(module).values() if isinstance(spec, Spec)}
    for prefix, holder in {"": module, **{f"{name}.": value for name, value in classes.items()}}.items():
        for attribute, value in list(vars(holder).items()):
            rule = _rule(value)
            if rule is not None and _package(getattr(written(rule.fun), "__module__", "")) == _package(package):
                kind = "custom_vjp" if isinstance(rule, jax.custom_vjp) else "custom_jvp"
                name = f"{module.__name__}:{prefix}{attribute}"
                yield Rule(
                    name=name,
                    location=location(written(rule.fun)),
                    place=location(plain(rule.fun)),
                    kind=kind,
                    function=rule,
                    declared=declared.get(id(rule)),
                )


def _package(module: Any) -> str:
    return str(module).split(".", maxsplit=1)[0]


def _rule(value: Any, depth: int = 0) -> Any:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, jax.custom_vjp | jax.custom_jvp):
        return value
    if depth > 3 or isinstance(value, type | types.ModuleType | types.FunctionType):
        return None
    with contextlib.suppress(Exception):
        for name in WRAPPED:
            inner = inspect.getattr_static(value, name, None)
            if inner is not None and (found := _rule(inner, depth + 1)) is not None:
                return found
    return None


def scan(package: str) -> tuple[list[Rule], list[str]]:
    """Every rule of a package, each once, and what could not be imported."""
    found: dict[int, Rule] = {}
    at_home: set[int] = set()  # found where they are written, not where they are imported
    trouble = []
    for name, module in modules(package):
        if isinstance(module, BaseException):
            trouble.append(f"{name}: {type(module).__name__}: {short(module, 200)}")
            continue
        for rule in rules_of(module, package):
            home = name == getattr(written(rule.function.fun), "__module__", "")  # type: ignore[attr-defined]
            if id(rule.function) not in found or (home and id(rule.function) not in at_home):
                found[id(rule.function)] = rule
            if home:
                at_home.add(id(rule.function))
    return sorted(found.values(), key=lambda rule: rule.name), trouble


def judged(rule: Rule, seed: int = 0, checks: Sequence[str] | None = None) -> Verdict:
    """The verdict on a rule of a package; INCONCLUSIVE with the spec to fill in, where its arguments cannot be guessed."""
    if not (getattr(rule.function, "bwd", None) or getattr(rule.function, "jvp", None)):
        return Verdict(
            name=rule.name, status=Status.SKIP, location=rule.location, notes=("it has no derivative rule yet (defvjp, defjvp)",)
        )
    with contextlib.suppress(SpecError):
        spec = replace(rule.declared, name=rule.name) if rule.declared else Spec(name=rule.name, fn=rule.function)
        arguments(spec)
        return replace(run_spec(spec, CASES, seed, checks), location=rule.location, address=None)
    if not (guesses := list(_guesses(rule))):
        return Verdict(name=rule.name, status=Status.INCONCLUSIVE, location=rule.location, notes=(template(rule),))
    rule.signatures = dict(enumerate(guesses[:2]))
    verdict = examine(rule, seed, checks, guessed=True)
    if verdict.status is Status.INCONCLUSIVE:
        return replace(verdict, calls=0, notes=(template(rule),))
    shapes = "; ".join(", ".join(str(tuple(leaf.shape)) for leaf in jax.tree.leaves(s.args) if hasattr(leaf, "shape")) for s in guesses[:2])
    return replace(verdict, calls=0, notes=(f"arguments were guessed: arrays of shapes {shapes}", *verdict.notes[1:]))


def _guesses(rule: Rule) -> Iterator[Signature]:
    parameters = _parameters(rule)
    if parameters is None:
        return
    static = set(getattr(rule.function, "nondiff_argnums", ()))
    arrays = [i for i, p in enumerate(parameters) if i not in static and p.default is p.empty]
    if any(parameters[i].default is parameters[i].empty for i in static) or not arrays:
        return
    trials = [[shape] * len(arrays) for shape in SHAPES] + ([list(MATRICES[: len(arrays)])] if len(arrays) in (2, 3) else [])
    for shapes in trials:
        given = dict(zip(arrays, shapes, strict=True))
        args = tuple(jax.ShapeDtypeStruct(given[i], "float32") if i in given else Static(p.default) for i, p in enumerate(parameters))
        if _works(rule, args):
            yield Signature(args=args)


def _works(rule: Rule, args: tuple[Any, ...]) -> bool:
    """Whether the function takes these arguments and returns floating-point numbers of some size."""
    return any(jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact) and leaf.size for leaf in outputs(rule, args))


def _parameters(rule: Rule) -> list[inspect.Parameter] | None:
    try:
        found = list(inspect.signature(rule.function).parameters.values())
    except (ValueError, TypeError):
        return None
    return found if all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in found) else None


def template(rule: Rule) -> str:
    """A spec to fill in."""
    static = set(getattr(rule.function, "nondiff_argnums", ()))
    parameters = _parameters(rule) or []
    described = ", ".join(f'"{p.name}": verify.Arg(dims="...")' for i, p in enumerate(parameters) if i not in static)
    options = ", ".join(f'"{p.name}": (...,)' for i, p in enumerate(parameters) if i in static)
    module, _, path = rule.name.partition(":")
    options = f", options={{{options}}}" if options else ""
    return (
        f"its arguments cannot be guessed; say what they are (of a dict, list or tuple: one of Arg), beside the rule or elsewhere: import verify; "
        f"from {module} import {path.split('.')[0]}; "
        f'SPEC = verify.Spec(name="{path}", fn={path}, args={{{described}}}{options})'
    )
