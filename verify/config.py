"""`--config FILE`: what to run, as TOML. Reading it runs no code and imports nothing that it does not name as an operation.

specs = ["linear", "my_package.rules:SPEC"]   # all installed operations if left out
profile = "default"                            # or "quick", "deep"; or a number:
cases = 104
seed = 0
checks = ["gradient", "structure"]            # all if left out
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from verify.signature import nearest
from verify.spec import SpecError


class RunConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What `verify run` takes from a file; the command line wins over it."""

    specs: tuple[str, ...] = ()
    cases: int | None = None
    profile: Literal["quick", "default", "deep"] = "default"
    seed: int | None = None
    checks: tuple[str, ...] | None = None


def load(path: str | Path) -> RunConfig:
    """Read and validate a config. Raises SpecError with the file, the key and what was wanted."""
    try:
        text = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise SpecError(f"config {path!s}: {getattr(error, 'strerror', None) or error}") from None
    try:
        data = tomllib.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SpecError(f"config {path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"config {path}: not TOML: {error}") from None
    known = RunConfig.__struct_fields__
    for key in data:
        if key not in known:
            raise SpecError(f"config {path}: unknown key {key!r}.{nearest(key, known)} Known: {', '.join(known)}")
    try:
        return msgspec.convert(data, RunConfig)
    except msgspec.ValidationError as error:
        raise SpecError(f"config {path}: {error}") from None
