"""What several reports say in the same words."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from verify.records import Report, Status

NEXT = {  # check -> what to do about a FAIL
    "structure": "make the backward return one cotangent per argument, in the argument's shape and dtype",
    "primal": "make forward rule and primal compute the same value, or mend the reference",
    "gradient": "compare the formula of this cotangent with its derivation",
    "finite-difference": "compare the formula with its derivation",
    "adjoint": "compare the formula with its derivation",
    "taylor": "compare the formula with its derivation",
    "complex-step": "compare the formula with its derivation",
    "tangent": "compare the formula of the tangent with its derivation; it must be linear in the tangents and use each of them",
    "linearity": "remove what is not linear in the upstream cotangent from the backward (clip, sign, square, a constant)",
    "precision": "accumulate in float32, save residuals in the argument's dtype or wider, round once at the end",
    "extremes": "shift before exp, guard the division and the square root (with a where on their input, not on their output), scale before squaring",
    "kinks": "choose a value between the one-sided derivatives, and share a tied gradient so that the shares sum to one",
    "arguments": "make each cotangent independent of which others are wanted; instantiate SymbolicZero, and do not read `perturbed` for another argument",
    "sharing": "do not compare arguments by identity, and do not write into them",
    "reuse": "return what the backward needs as residuals; keep nothing outside",
    "zero-cotangent": "multiply every term of the backward by the upstream cotangent, and keep 0/0 out of it",
    "repeatability": "keep no state between calls; pass PRNG keys as arguments",
    "second-order": "make the backward a differentiable function of residuals and cotangent, with no stop_gradient and no stale value",
    "jit": "do not read values in Python inside the rule",
    "scan": "return each cotangent in its argument's dtype, and keep no state in Python",
    "remat": "make the forward rule give the same residuals each time it runs",
    "residuals": "save less, and recompute it in the backward",
    "vmap": "count axes from the end, and reduce over the axes that the primal broadcasts, not over all but the last",
    "sharding": "sum over the mesh axes along which the cotangent varies and its argument does not; no other psum, no mean",
    "portability": "write the backward with operations that every platform of the primal has",
    "purity": "keep nothing and change nothing outside of the rule: residuals are returned, inputs are copied, settings are the caller's",
    "nondifferentiable": "return None for arguments without a derivative, and let them be batched like any other",
}


PAIR = "make the forward rule return a pair: the value, in the primal's own structure, and the residuals"
RAISES = "mend what raises: the forward rule gets the primal's arguments; the backward gets the static ones, the residuals and the upstream cotangent"


def next_step(check: str, message: str) -> str:
    """What to do about a FAIL that says this."""
    if check == "structure" and "fwd rule" in message:
        return PAIR
    if check == "linearity" and any(f"({dtype})" in message for dtype in ("float32", "bfloat16", "float16")):
        return NEXT["precision"]  # it is linear in float64, and rounds
    return RAISES if check == "structure" and "the rule raises" in message else NEXT.get(check, "")


def explained(name: str, address: str | None, check: str) -> str:
    """What `verify explain` shows most about: the derivation of a function that can be named, where formulas are to be compared, else the check."""
    return name if address and ":" in name and NEXT.get(check, "").startswith("compare the formula") else check


def replay(address: str, installed: bool) -> str:
    """What runs a case again: a command, or a line of Python for a Spec that the command does not know."""
    return f"verify replay {shlex.quote(address)}" if installed else f'verify.replay("{address}", spec=...)'


def totals(report: Report) -> str:
    """How many verdicts say what, the worst first: "1 FAIL, 15 PASS"."""
    counts = {status: sum(verdict.status is status for verdict in report.verdicts) for status in reversed(Status)}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing ran"


def elapsed(run: Mapping[str, Any], each: Iterable[float]) -> float:
    """Seconds of a run from first to last; where it does not say, those of its operations, which may have run at the same time."""
    return float(run["seconds"]) if "seconds" in run else sum(each)


def error_text(value: float | None) -> str:
    """A relative error, as it is read: 1.3e-10."""
    return "" if value is None else f"{value:.1e}" if value < 1 else "> 100 %"
