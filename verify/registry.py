"""From what a user names to specs: installed ones by name (entry points), anything importable as `pkg.mod:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
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
        raise SpecError(
            f'there is no operation "{name}".{nearest(name, known)} Known: {", ".join(known) or "none"}. Anything importable: pkg.mod:name'
        )
    return known[name]


def _offered(module: str) -> str:
    """The names of a module's specs and rules, to choose from; "" if it cannot be imported."""
    try:
        values = vars(_import(module, module))
    except SpecError:
        return ""
    names = [name for name, value in values.items() if isinstance(value, Spec) or hasattr(value, "defvjp") or hasattr(value, "defjvp")]
    return f" (it has {', '.join(names)})" if names else ""


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
