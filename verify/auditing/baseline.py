"""Differences that are meant: straight-through estimators, clipped or reversed gradients, rules that stop a gradient.

A baseline file lists them. A rule that is listed is not accused of the difference that is listed with it; of any other it is.

    # verify-baseline.toml
    [[rule]]
    name = "my_package.layers:reverse_gradient"
    reason = "gradient reversal (Ganin and Lempitsky 2015)"
    difference = "gradient: x; The cotangent of x: it is the right one times -1"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from verify.errors import SpecError
from verify.records import Report, Status, Verdict

FILE = "verify-baseline.toml"
TODO = "not explained yet"
DERIVATIVE = (
    "gradient",
    "finite-difference",
    "adjoint",
    "taylor",
    "complex-step",
    "tangent",
    "linearity",
    "second-order",
    "zero-cotangent",
    "primal",
    "structure",
)


class Gap(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One rule that differs from its primal's derivative on purpose; see the module."""

    name: str
    reason: str
    difference: str


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    rule: tuple[Gap, ...] = ()


def load(path: str | Path) -> tuple[Gap, ...]:
    """Read a baseline. Raises SpecError with the file, the key and what was wanted."""
    try:
        return msgspec.convert(tomllib.loads(Path(path).read_text(encoding="utf-8")), _File).rule
    except OSError as error:
        raise SpecError(f"baseline {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"baseline {path}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise SpecError(f"baseline {path}: {error}; each [[rule]] has name, reason and difference") from None


def difference(verdict: Verdict) -> str:
    """What is wrong with a rule, in words that stay the same while the mistake does: which check first, which arguments, and the diagnosis."""
    failing = [finding for finding in verdict.findings if finding.status is Status.FAIL]
    first = next((name for name in DERIVATIVE if any(finding.check == name for finding in failing)), failing[0].check if failing else "")
    arguments = sorted({finding.argument for finding in failing if finding.check == first and finding.argument})
    return "; ".join(part for part in (f"{first}: {', '.join(arguments)}" if arguments else first, verdict.diagnosis) if part)


def declared(verdict: Verdict, baseline: Iterable[Gap]) -> Verdict:
    """The verdict as the baseline sees it: SKIP for a difference that is listed, FAIL with both differences for another one."""
    gap = next((gap for gap in baseline if gap.name == verdict.name), None)
    if gap is None:
        return verdict
    if verdict.status is Status.PASS:
        return replace(
            verdict, notes=(*verdict.notes, f"listed as different on purpose ({gap.reason}), but it is not: remove it from the baseline")
        )
    if verdict.status is not Status.FAIL:
        return verdict
    now = difference(verdict)
    if now != gap.difference:
        words = f"it differs otherwise than the baseline says ({gap.reason}): listed {gap.difference!r}, now {now!r}"
        return replace(verdict, notes=(words, *verdict.notes))
    words = f"different on purpose: {gap.reason} ({gap.difference})"
    kept = tuple(finding for finding in verdict.findings if finding.status is not Status.FAIL)
    return replace(verdict, status=Status.SKIP, diagnosis="", evidence=None, findings=kept, notes=(words, *verdict.notes))


def render(report: Report, known: Sequence[Gap] = ()) -> str:
    """The baseline that excuses every rule of the report that FAILs, and keeps the reasons that are known."""
    reasons = {gap.name: gap for gap in known}
    gaps = dict(reasons)
    for verdict in report.verdicts:
        if verdict.status is Status.FAIL:
            reason = reasons[verdict.name].reason if verdict.name in reasons else TODO
            gaps[verdict.name] = Gap(name=verdict.name, reason=reason, difference=difference(verdict))
    lines = ["# Rules that differ from the derivative of their primal on purpose; read by verify audit."]
    for _, gap in sorted(gaps.items()):
        lines += [
            "",
            "[[rule]]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in msgspec.structs.asdict(gap).items()),
        ]
    return "\n".join(lines) + "\n"
