"""`verify campaign FILE.toml`: what is verified, and what each piece of it may cost. Reading it runs no code.

specs = ["linear", "my_package.rules:SPEC"]
seeds = [0, 1, 2]                     # [0] if left out
profile = "deep"                      # "quick", "default", "deep", or a number of cases for each spec and seed:
cases = 728
dtypes = ["bfloat16"]                 # only the cases that are also run in these dtypes; all if left out
checks = ["gradient", "precision"]    # all if left out
chunk = 14                            # cases of a unit: what one worker does in one go
workers = 4                           # processes; one for each core if left out

[limits]                              # of a unit
seconds = 600.0                       # counted from when its worker is ready
memory = 4.0                          # GiB above what the worker held before
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from verify.config import read

Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, Meta(min_length=1)]


class Limits(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Of one unit: seconds, and GiB of memory beside what its worker held before."""

    seconds: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    memory: Annotated[float, Meta(gt=0, le=4096)] = 4.0


class Campaign(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a campaign's file says."""

    specs: Annotated[tuple[Text, ...], Meta(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)] = (0,)
    profile: Literal["quick", "default", "deep"] = "default"
    cases: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    dtypes: tuple[Literal["float64", "float32", "bfloat16", "float16", "mixed"], ...] = ()
    checks: tuple[Text, ...] = ()
    chunk: Annotated[int, Meta(ge=1, le=1000)] = 14
    workers: Annotated[int, Meta(ge=1, le=1024)] | None = None
    limits: Limits = Limits()


def load(path: str | Path) -> Campaign:
    """Read and validate a campaign's file. Raises SpecError with the file, the key and what was wanted."""
    return read(path, Campaign)
