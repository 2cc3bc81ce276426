"""Does the rule lower for CPU, CUDA, ROCm and TPU, wherever its primal does?

JAX lowers for a platform that this machine does not have, so no accelerator is needed. A backward that calls a kernel or a routine that one platform has (a Schur
decomposition exists on CPU only) works where it was written, and fails when a colleague trains elsewhere, though the primal runs there. FAIL only where
the primal lowers for a platform and the differentiated rule does not; a primal that does not lower there either is not portable by itself: SKIP.

Run once, with 64-bit types off, in float32 or in the case's own dtypes. Lowering is not running: a foreign function (`jax.ffi`) lowers for every platform, whether
it is registered there or not, and a kernel may still be refused by the platform's compiler. Foreign functions that the derivative calls and the primal does not are
reported as SKIP. A rule that is meant for some platforms says so with `known_gaps={"portability": why}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from verify import programs
from verify._compat import enable_x64, walk
from verify.checks.structure import raised
from verify.observation import Observation
from verify.records import Finding, Status
from verify.values import cast

CODE, NAME, TITLE = "V023", "portability", "the rule lowers for cpu, cuda, rocm and tpu where its primal does"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
CALLBACK = "platform for the specified backend"  # JAX 0.7 lowers no callback to Python for another platform than its own, whoever calls it
INDEX = 2  # the first case that has a dtype of users' hands


def applies(observation: Observation) -> bool:
    case = observation.case
    return bool(observation.measured) and case.index == (0 if case.thorough else INDEX)


def judge(observation: Observation) -> list[Finding]:
    address, call = observation.case.address, observation.call.call
    dtypes = ["float32" if dtype == "float64" else dtype for dtype in observation.measured[-1].dtypes]
    with enable_x64(False):
        inputs = (cast(observation.diff, dtypes), observation.rest, observation.cts["base"])
        try:
            primal = jax.jit(lambda diff, rest, cts: call.run(diff, rest)).trace(*inputs)
            rule = jax.jit(programs.rule(call)).trace(*inputs)
        except Exception as error:
            return [_skip(observation, f"it cannot be traced in {', '.join(dict.fromkeys(dtypes))} with 64-bit types off: {raised(error)}")]
        refused: dict[str, list[str]] = {}
        skipped: dict[str, list[str]] = {}
        good = 0
        for platform in PLATFORMS:
            problem = _problem(rule, platform)
            if problem is None:
                good += 1
                continue
            own = problem if CALLBACK in problem else _problem(primal, platform)
            if own is None:
                refused.setdefault(problem.replace(f"platform {platform}", "this platform"), []).append(platform)
            else:
                skipped.setdefault(own.replace(f"platform {platform}", "this platform"), []).append(platform)
    findings = [
        Finding(
            check=NAME, status=Status.FAIL, address=address,
            message=f"the primal lowers for {' and '.join(where)}, the derivative does not: {why}. Write the backward with operations that every platform has, "
            'choose by jax.lax.platform_dependent, or declare known_gaps={"portability": ...}',
        )
        for why, where in refused.items()
    ]  # fmt: skip
    findings += [_skip(observation, f"the primal itself does not lower for {' and '.join(where)}: {why}") for why, where in skipped.items()]
    foreign = sorted(_foreign(rule.jaxpr) - _foreign(primal.jaxpr))
    if foreign and not refused:
        findings.append(
            _skip(
                observation,
                f"the derivative calls foreign functions that the primal does not: {', '.join(foreign)}; that they are registered on every platform is not known",
            )
        )
    if good and not refused:
        findings.append(Finding(check=NAME, status=Status.PASS, comparisons=good, address=address))
    return findings


def _problem(traced: Any, platform: str) -> str | None:
    """Why a traced function does not lower for a platform, or None if it does."""
    try:
        _lower(traced, platform)
    except Exception as error:  # JAX and the kernel languages raise many types
        return raised(error)
    return None


def _lower(traced: Any, platform: str) -> None:
    lower: Callable[..., Any] = traced.lower
    lower(lowering_platforms=(platform,))


def _foreign(jaxpr: Any) -> set[str]:
    return {str(equation.params.get("target_name", "?")) for equation in walk(jaxpr) if equation.primitive.name == "ffi_call"}


def _skip(observation: Observation, reason: str) -> Finding:
    return Finding(check=NAME, status=Status.SKIP, message=reason, address=observation.case.address)
