"""From a config to units of work: a pure function, so that every machine makes the same plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verify.campaign.config import Campaign
from verify.profiles import case_count
from verify.spec import SpecError

CASE_SECONDS = 0.3  # of one case on one core, where nothing better is known: measured over the layers of this repository


@dataclass(frozen=True, kw_only=True, order=True)
class Unit:
    """The cases `start` to `stop - 1` of one spec and seed: what is run, written down and counted as one."""

    spec: str
    seed: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.spec}/{self.seed}/{self.start}-{self.stop - 1}"


def plan(campaign: Campaign) -> tuple[Unit, ...]:
    """All units, breadth first: a campaign that is stopped early has seen something of every spec.

    >>> [str(unit) for unit in plan(Campaign(specs=("relu", "linear"), cases=20))]
    ['relu/0/0-13', 'linear/0/0-13', 'relu/0/14-19', 'linear/0/14-19']
    """
    cases = case_count(campaign.cases, 0, campaign.profile)
    specs, seeds = dict.fromkeys(campaign.specs), dict.fromkeys(campaign.seeds)
    return tuple(
        Unit(spec=spec, seed=seed, start=start, stop=min(start + campaign.chunk, cases))
        for seed in seeds
        for start in range(0, cases, campaign.chunk)
        for spec in specs
    )


def shard(units: Sequence[Unit], text: str) -> tuple[Unit, ...]:
    """The part "K/N" of the units, K from 1. All parts together are the whole, and no two have a unit in common. Raises SpecError.

    >>> shard(plan(Campaign(specs=("relu",), cases=42)), "2/3")
    (Unit(spec='relu', seed=0, start=14, stop=28),)
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SpecError(f"--shard {text!r} is not K/N with 1 <= K <= N, such as 2/8")
    part, parts = int(match[1]), int(match[2])
    return tuple(units[(part - 1) * len(units) // parts : part * len(units) // parts])  # in one piece: some of every spec


def seconds(text: str) -> float:
    """A time such as 90s, 30m or 1.5h. Raises SpecError.

    >>> seconds("30m")
    1800.0
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(s|m|h)", text, re.ASCII)
    if match is None or not float(match[1]):
        raise SpecError(f"--budget {text!r} is no time such as 90s, 30m or 1.5h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def duration(value: float) -> str:
    """A time as it is read: "45 s", "12 min", "3.5 h", "2.1 days"."""
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s"
