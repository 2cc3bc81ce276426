"""From what a user names to specs: installed ones by name (entry points), anything importable as `pkg.mod:attribute`, all of a module or a file."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from verify.signature import nearest
from verify.spec import Spec, SpecError

GROUP = "verify.specs"


def installed() -> dict[str, Spec]:
    """Every spec that an installed package declares in the entry-point group `verify.specs` (a mapping of name to Spec, or one Spec)."""
    found: dict[str, Spec] = {}
    for entry in entry_points(group=GROUP):
        value = entry.load()
        specs = value if isinstance(value, Mapping) else {value.name: value}
        found |= dict(specs)
    return dict(sorted(found.items()))


def named(names: Sequence[str]) -> tuple[str, ...]:
    """The specs that `names` stand for, each once: a module or a file (`rules.py`) stands for every spec in it, or, if it has none, for every rule.

    Raises SpecError for a file elsewhere, and for a module that has neither.
    """
    return tuple(dict.fromkeys(spec for name in names for spec in _named(name)))


def _named(name: str) -> list[str]:
    path, colon, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    path = module_of(path)
    if colon or name in installed() or not _is_module(path):
        return [f"{path}{colon}{attribute}"]
    specs, rules = _held(_import(path, name))
    if not specs and not rules:
        raise SpecError(f"{name} has no Spec and no custom_vjp or custom_jvp; write {path}:name for a function that calls one")
    return [f"{path}:{attribute}" for attribute in specs or rules]


def module_of(name: str) -> str:
    """The module that a file is when imported from the working directory; what is no file here stays as it is. Raises SpecError for a file elsewhere."""
    if not (name.endswith(".py") and Path(name).is_file()):
        return name
    try:
        return ".".join(Path(name).resolve().relative_to(Path.cwd().resolve()).with_suffix("").parts)
    except ValueError:
        raise SpecError(
            f"{name} is not below the working directory ({Path.cwd()}), so it cannot be imported; change to its directory"
        ) from None


def _held(module: ModuleType) -> tuple[list[str], list[str]]:
    """The names of a module's specs, and of the rules that it defines; where one has several, the first."""
    first = {id(value): name for name, value in reversed(vars(module).items())}
    values = {name: vars(module)[name] for name in reversed(first.values())}
    specs = [name for name, value in values.items() if isinstance(value, Spec)]
    rules = [name for name, value in values.items() if hasattr(value, "defvjp") or hasattr(value, "defjvp")]
    return specs, [name for name in rules if getattr(values[name], "__module__", None) == module.__name__]


def resolve(name: str) -> Spec:
    """The spec called `name`: an installed one, or `pkg.mod:attribute` with a Spec or a function. Raises SpecError."""
    if ":" in name:
        return _from_module(name)
    known = installed()
    if name not in known:
        module, _, attribute = name.rpartition(".")
        if name.endswith(".py") and (Path(name).is_file() or _is_module(Path(name).stem)):
            raise SpecError(f"{name} is a file; write {'.'.join(Path(name).with_suffix('').parts)}:name{_offered(Path(name).stem)}")
        if found := next((path for path in (name, module) if path and _is_module(path)), None):
            offered = "" if found == module else _offered(found)
            raise SpecError(f"{name}: {found} is a module; write {found}:{attribute if found == module else 'name'}{offered}")
        if name.endswith(".py"):
            raise SpecError(f"there is no file {name} here ({Path.cwd()})")
        raise SpecError(
            f'there is no operation "{name}".{nearest(name, known)} Known: {", ".join(known) or "none"}. Anything importable: pkg.mod:name, or rules.py'
        )
    return known[name]


def _offered(module: str) -> str:
    """The names of a module's specs and rules, to choose from; "" if it cannot be imported."""
    try:
        specs, rules = _held(_import(module, module))
    except SpecError:
        return ""
    return f" (it has {', '.join([*specs, *rules])})" if specs or rules else ""


def _is_module(path: str) -> bool:
    _see_here()
    try:
        return importlib.util.find_spec(path) is not None
    except (Exception, SystemExit):  # the package around it is imported, and may raise anything
        return False


def _from_module(target: str) -> Spec:
    value = load_attribute(target)
    if isinstance(value, Spec):
        return value if installed().get(value.name) is value else replace(value, name=target)  # a name that can be typed again
    if not callable(value):
        raise SpecError(f"{target} is of type {type(value).__name__}, not a Spec or a function")
    if isinstance(value, type):
        raise SpecError(f"{target} is a class; name a function, or a Spec of a function that builds and calls it")
    return Spec(name=target, fn=value)


def load_attribute(target: str) -> Any:
    """What `pkg.mod:attribute` names, its module imported. Raises SpecError."""
    module_name, _, attribute = target.partition(":")
    value: Any = _import(module_name, target)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise SpecError(
                f"{target}: module {module_name} has no {attribute!r}.{nearest(part, [n for n in dir(value) if not n.startswith('_')])}"
            )
        value = getattr(value, part)
    return value


def _import(module_name: str, target: str) -> Any:
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        raise SpecError(f"{target}: {module_name!r} is no module name; write pkg.mod:name (not a file path)")
    _see_here()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints is not the report
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise SpecError(f"{target}: there is no module {error.name!r} here ({Path.cwd()}) or installed") from None
        raise SpecError(f"{target}: importing {module_name} failed: it needs module {error.name!r}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise SpecError(f"{target}: importing {module_name} failed{_where(module_name, error)}: {type(error).__name__}: {error}") from error


def _where(module_name: str, error: BaseException) -> str:
    """The line of the module that raised, or that called what did: " at rules.py:11"."""
    spec = importlib.util.find_spec(module_name) if module_name.rpartition(".")[0] in ("", *sys.modules) else None
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if spec is not None and frame.filename == spec.origin]
    return f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def _see_here() -> None:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # console scripts do not have it, and users' modules lie there
