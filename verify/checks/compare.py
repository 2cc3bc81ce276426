"""Elementwise comparison of what was got with what an oracle knows, and the Finding that says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from verify import tolerance
from verify.checks.error_map import error_map
from verify.records import Estimate, Finding, Status
from verify.values import wide


def failed(findings: Sequence[Finding]) -> bool:
    return any(finding.status is Status.FAIL for finding in findings)


def compare(
    check: str,
    what: str,
    names: Sequence[str],
    got: Sequence[np.ndarray],
    want: Estimate,
    dtype: str,
    address: str,
    infinities: bool = False,
) -> list[Finding]:
    """One FAIL for each wrong array, or one finding for all of them: PASS, or INCONCLUSIVE where nothing could be compared.

    `what` names the arrays in messages: "cotangent of", "output". Elements for which the oracle has no finite value, or knows its own
    error to be too large, are not compared and not counted; a got NaN or infinity where a finite value is wanted is wrong. With `infinities`, where the oracle
    says infinity the same one is wanted.
    """
    failures: list[Finding] = []
    compared = total = 0
    sensitivity: list[float] = []
    blind = ""
    for name, raw, value, error in zip(names, got, want.value, want.error, strict=True):
        array = wide(raw)
        infinite = np.isinf(value) if infinities else np.zeros(value.shape, bool)
        usable = (np.isfinite(value) & np.isfinite(error)) | infinite
        total += value.size
        compared += int(usable.sum())
        if not usable.all() and not blind:
            blind = _blindness(name, array, value, usable)
        if (seen := tolerance.detectable(value[usable], error[usable], dtype)) is not None:
            sensitivity.append(seen)
        with np.errstate(invalid="ignore"):
            off = np.abs(array - value)
            wrong = usable & ~np.where(infinite, array == value, off <= error)
        if wrong.any():
            failures.append(_failure(check, what, name, array, value, error, wrong, usable, dtype, address))
    detectable = max(sensitivity) if sensitivity else None
    if failures:
        return failures
    if not total:
        return [Finding(check=check, status=Status.SKIP, message="the arrays have no elements", dtype=dtype, address=address)]
    if not compared:
        return [
            Finding(check=check, status=Status.INCONCLUSIVE, message=f"nothing could be compared: {blind}", dtype=dtype, address=address)
        ]
    return [Finding(check=check, status=Status.PASS, comparisons=compared, detectable=detectable, dtype=dtype, address=address)]


def compare_twice(
    check: str, what: str, names: Sequence[str], got: Sequence[np.ndarray], want: Callable[[bool], Estimate], dtype: str, address: str
) -> list[Finding]:
    """The same with `want(False)`, and before anybody is accused with `want(True)`, which costs more: it allows for the reference's rounding in more ways,
    and for more than one right value where the function is not smooth."""
    findings = compare(check, what, names, got, want(False), dtype, address)
    return compare(check, what, names, got, want(True), dtype, address) if failed(findings) else findings


def skipped(findings: Sequence[Finding]) -> list[Finding]:
    """With SKIP for INCONCLUSIVE: where a transformation has nothing to compare with, the plain call may still be judged."""
    return [replace(finding, status=Status.SKIP) if finding.status is Status.INCONCLUSIVE else finding for finding in findings]


def _blindness(name: str, got: np.ndarray, value: np.ndarray, usable: np.ndarray) -> str:
    index = tuple(int(i) for i in np.argwhere(~usable)[0])
    count = int((~usable).sum())
    if not np.isfinite(value[index]):
        return f"{name}{subscript(index)} is {got[index]:.6g}, and the reference says {value[index]:.6g} ({count} of {value.size} elements)"
    return f"the oracle cannot bound its own error at {name}{subscript(index)} ({count} of {value.size} elements)"


def _failure(
    check: str,
    what: str,
    name: str,
    got: np.ndarray,
    want: np.ndarray,
    bound: np.ndarray,
    wrong: np.ndarray,
    usable: np.ndarray,
    dtype: str,
    address: str,
) -> Finding:
    with np.errstate(invalid="ignore", divide="ignore"):
        badness = np.where(wrong, np.where(np.isfinite(got), np.abs(got - want) / np.maximum(bound, 1e-300), np.inf), -1.0)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(badness)), badness.shape))
    count, total = int(wrong.sum()), int(usable.sum())
    message = (
        f"{what} {name} is wrong in {count} of {total} compared elements ({dtype}); worst at {name}{subscript(index)}: "
        f"got {got[index]:.10g}, want {want[index]:.10g} +- {bound[index]:.2g}"
    )
    return Finding(
        check=check, status=Status.FAIL, message=message, argument=name, index=index, got=float(got[index]), want=float(want[index]),
        bound=float(bound[index]), wrong=count, comparisons=total, dtype=dtype, address=address,
        errors=error_map(name, dtype, got, want, np.where(usable, bound, np.nan), index),
    )  # fmt: skip


def subscript(index: tuple[int, ...]) -> str:
    """`[0, 3]`, or nothing for a scalar."""
    return f"[{', '.join(map(str, index))}]" if index else ""
