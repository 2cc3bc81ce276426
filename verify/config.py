"""`--config FILE`: what to run, as TOML. Reading it runs no code and imports nothing that it does not name as an operation.

specs = ["linear", "my_package.rules:SPEC"]   # all installed operations if left out
profile = "default"                            # or "quick", "deep"; or a number:
cases = 104
seed = 0
checks = ["gradient", "structure"]            # all if left out
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from verify.signature import nearest
from verify.spec import SpecError

LARGEST = 2**22  # bytes of a config
DEEP = re.compile(
    rb"""^[ \t\[]*(?:[\w\-"']+[ \t]*\.[ \t]*){64}""", re.MULTILINE
)  # a key of so many parts: tomllib takes hours for a megabyte of them
Config = TypeVar("Config", bound=msgspec.Struct)


class RunConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What `verify run` takes from a file; the command line wins over it."""

    specs: tuple[str, ...] = ()
    cases: int | None = None
    profile: Literal["quick", "default", "deep"] = "default"
    seed: int | None = None
    checks: tuple[str, ...] | None = None


def load(path: str | Path) -> RunConfig:
    """Read and validate a config. Raises SpecError with the file, the key and what was wanted."""
    return read(path, RunConfig)


def read(path: str | Path, kind: type[Config]) -> Config:
    """A TOML file as a struct of this kind. Raises SpecError with the file, the key and what was wanted."""
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise SpecError(f"config {path!s}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > LARGEST:
        raise SpecError(f"config {path}: more than {LARGEST:,} bytes, so it is no config")
    try:
        return convert(parse(text), kind)
    except SpecError as error:
        raise SpecError(f"config {path}: {error}") from None


def parse(text: bytes) -> dict[str, Any]:
    """TOML as a dict. Raises SpecError."""
    if DEEP.search(text):
        raise SpecError("a key of more than 64 parts is no key of a config")
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SpecError(f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number of more digits than Python reads
        raise SpecError(f"not TOML: {error}") from None


def convert(data: Mapping[str, Any], kind: type[Config]) -> Config:
    """What was read, as a struct of this kind. Raises SpecError."""
    _refuse_unknown(data, kind, "")
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise SpecError(_words(str(error), data)) from None


def _words(message: str, data: Mapping[str, Any]) -> str:
    """msgspec's sentence, with the key in front and what was got behind."""
    what, _, place = message.replace("`", "").partition(" - at $")
    path = [part for part in re.split(r"[.\[\]]+", place) if part]
    value: Any = data
    for part in path:
        inside = value.get(part) if isinstance(value, Mapping) else value[int(part)] if isinstance(value, list) and part.isdigit() else None
        if inside is None:
            return f"{what} at {place.lstrip('.')}"
        value = inside
    wanted = (
        what.partition(", got ")[0]
        .replace("Expected ", "wanted ", 1)
        .replace("int | null", "a whole number")
        .replace("int", "a whole number")
    )
    return f"{place.lstrip('.')}: {wanted}, got {value!r}" if path else what


@lru_cache
def _known(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The keys of a table, and the types of their values."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _refuse_unknown(data: Mapping[str, Any], kind: type[msgspec.Struct], table: str) -> None:
    """msgspec would refuse them too, but it does not say what was meant."""
    known = _known(kind)
    for key, value in data.items():
        if key not in known:
            raise SpecError(f"unknown key {key!r}{table}.{nearest(key, known)} Known: {', '.join(known)}")
        if isinstance(value, dict) and isinstance(known[key], type) and issubclass(known[key], msgspec.Struct):
            _refuse_unknown(value, known[key], f" in [{key}]")
