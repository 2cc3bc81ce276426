"""What a measurement of power says: as text, as JSON, and as a page in Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from verify.printable import clean
from verify.records import Mutant, Power

SCHEMA = "verify-power/1"


def render_power(power: Power, verbose: bool = False) -> str:
    """One operation as text: the rate, the smallest errors, every survivor in full; a line for each that is no mistake.

    verbose: also a line for each mistake that was caught.
    """
    lines = [_headline(power), *(f"  {line}" for line in _summary(power))]
    for mutant in power.survivors:
        lines += ["", f"SURVIVED {power.name}: {mutant.edit}", *_details(mutant)]
    if power.equivalents:
        lines += ["", "no mistakes: these edits change no result"]
        lines += [f"  {_line(mutant)} ({mutant.note})" for mutant in power.equivalents]
    if verbose and power.killed:
        lines += ["", "caught"]
        lines += [f"  {mutant.check or '':<17} {_line(mutant)}; verify replay {mutant.address}" for mutant in power.killed]
    return clean("\n".join(lines))


def render_json(powers: Sequence[Power], environment: Mapping[str, Any]) -> str:
    """`{"schema", "environment", "operations": [...]}`."""
    operations = [
        {
            "name": power.name,
            "kill_rate": power.kill_rate,
            "killed": len(power.killed),
            "survived": len(power.survivors),
            "equivalent": len(power.equivalents),
            "left_out": power.left_out,
            "smallest_caught": dict(power.smallest_caught),
            "cases": power.cases,
            "pool": power.pool,
            "seed": power.seed,
            "seconds": round(power.seconds, 3),
            "mutants": [vars(mutant) for mutant in power.mutants],
        }
        for power in powers
    ]
    return json.dumps({"schema": SCHEMA, "environment": dict(environment), "operations": operations}, indent=2, allow_nan=False) + "\n"


def render_markdown(powers: Sequence[Power], command: str, environment: Mapping[str, Any]) -> str:
    """A page: how it was made, one row for each operation, and every survivor."""
    versions = ", ".join(f"{key} {value}" for key, value in environment.items() if isinstance(value, str))
    dtypes = list(dict.fromkeys(dtype for power in powers for dtype in power.smallest_caught))
    lines = [
        "# Would the verification catch a mistake?", "",
        f"Written by `{command}`; do not edit.", "",
        "Every operation's backward pass was broken on purpose, one edit at a time, and verified like any other rule. A mistake is *caught* if the",
        "verification says FAIL. An edit that changes no cotangent on an independent pool of inputs is no mistake, and is not counted.",
        "The last columns: the smallest relative error of one whole cotangent that is caught, the worst over arguments (none: not even half of it in the",
        "cases that were tried). Formulas are judged in float64; low precision is asked for rounding, which in 16 bits is coarse.", "",
        f"Environment: {versions}.", "",
        "| operation | mistakes | caught | rate | survived | no mistakes | left out | " + " | ".join(dtypes) + " | time |",
        "|---|---|---|---|---|---|---|" + "---|" * (len(dtypes) + 1),
    ]  # fmt: skip
    for power in powers:
        mistakes = len(power.killed) + len(power.survivors)
        cells = [power.name, mistakes, len(power.killed), _rate(power), len(power.survivors), len(power.equivalents), power.left_out]
        cells += [_size(power.smallest_caught.get(dtype)) for dtype in dtypes] + [f"{power.seconds:.0f} s"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    for title, pick in (("Survivors", lambda p: p.survivors), ("Edits that change no result", lambda p: p.equivalents)):
        lines += ["", f"## {title}", ""]
        found = [
            f"- {power.name}: {_line(mutant, tick='`')}" + (f" ({mutant.note})" if mutant.note else "")
            for power in powers
            for mutant in pick(power)
        ]
        lines += found or ["None."]
    return clean("\n".join(lines)) + "\n"


def _headline(power: Power) -> str:
    mistakes = len(power.killed) + len(power.survivors)
    left = f"; {power.left_out} more were left out (--limit)" if power.left_out else ""
    return (
        f"{power.name} {len(power.killed)} of {mistakes} mistakes caught ({_rate(power)}), {len(power.equivalents)} edits were none{left}"
    )


def _summary(power: Power) -> list[str]:
    checks = Counter(mutant.check for mutant in power.killed)
    by = ", ".join(f"{check} {count}" for check, count in checks.most_common())
    smallest = ", ".join(f"{dtype} {_size(size)}" for dtype, size in power.smallest_caught.items())
    if None in power.smallest_caught.values():
        smallest += " (none: not even half of it)"
    lines = [f"caught by: {by}"] if by else []
    lines += [f"smallest relative error caught in a cotangent: {smallest}"] if smallest else []
    return [*lines, f"{power.cases} cases, seed {power.seed}; equivalence on {power.pool} other inputs; {power.seconds:.1f} s"]


def _details(mutant: Mutant) -> list[str]:
    rows = [("on", mutant.equation), ("at", f"{mutant.source}: {mutant.code}" if mutant.source else ""), ("note", mutant.note)]
    return [f"  {title:<5} {text}" for title, text in rows if text]


def _line(mutant: Mutant, tick: str = "") -> str:
    at = f" at {mutant.source}: {tick}{mutant.code}{tick}" if mutant.source else ""
    return f"{mutant.edit}: {tick}{mutant.equation}{tick}{at}"


def _rate(power: Power) -> str:
    return "nothing to catch" if power.kill_rate is None else f"{100 * power.kill_rate:.1f} %"


def _size(size: float | None) -> str:
    return "none" if size is None else f"{size:.1e}"
