"""What a result hangs on, as one number: where it is the same, a unit need not be run again. Computed where the unit runs."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import verify
from verify.environment import environment
from verify.spec import Spec

DATA = ("name", "sizes", "options", "dtypes", "kinks", "residuals", "known_gaps")  # of a spec; the rest is code, and code is in the sources


def digest(spec: Spec, asked: Mapping[str, Any]) -> str:
    """Of the sources of the rule, the spec, the reference and all of their own package that they import, of verify, of versions, devices and settings."""
    files = sorted({file for part in (spec.fn, spec.reference, spec.domain) for file in _sources(_module(part))})
    ours = Path(verify.__file__).parent
    where = {key: value for key, value in environment().items() if key != "machine"}
    parts = [
        json.dumps([where, dict(asked)], sort_keys=True),
        *(f"{name}={getattr(spec, name)!r}" for name in DATA),
        repr(spec.args),
        _content(tuple(sorted(ours.rglob("*.py")))),
        _content(tuple(files)),
    ]
    return hashlib.sha256("\0".join(_without_addresses(part) for part in parts).encode("utf-8", "backslashreplace")).hexdigest()


def _without_addresses(text: str) -> str:
    """A function's repr holds where it lies in memory, which is another place in each process."""
    return " ".join("" if word.startswith("0x") else word for word in text.split(" "))


def _module(part: Any) -> str:
    return getattr(part, "__module__", None) or ""


@lru_cache(maxsize=1024)
def _content(files: tuple[Path, ...]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


@lru_cache(maxsize=1024)
def _sources(module: str) -> frozenset[Path]:
    """The source files of a module and of all that it imports, at any depth, from its own package. Nothing is imported to find them."""
    top = module.split(".", maxsplit=1)[0]
    if top in ("", "jax", "jaxlib", "numpy"):  # their versions are in the environment
        return frozenset()
    found: dict[str, Path] = {}
    left = [module]
    while left:
        name = left.pop()
        if name in found or name.split(".")[0] != top or (file := _file(name)) is None:
            continue
        found[name] = file
        left += _imports(name, file)
    return frozenset(found.values())


def _file(name: str) -> Path | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None


def _imports(name: str, file: Path) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
