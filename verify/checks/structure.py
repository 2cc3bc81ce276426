"""Does the rule run, and does every cotangent have its argument's shape and dtype?

JAX refuses a backward that returns the wrong number or shape of cotangents, and that refusal is reported here with your own line. It does not
look at dtypes: a float32 cotangent for a bfloat16 argument is handed on, and makes a later `scan`, an optimiser or a sharded sum fail far away.
Cure: end the backward with `.astype(argument.dtype)`.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import jax

from verify.observation import Observation
from verify.printable import short
from verify.records import Finding, Status

CODE, NAME, TITLE = "V001", "structure", "the rule runs; every cotangent has its argument's shape and dtype"


def applies(observation: Observation) -> bool:
    return True


def judge(observation: Observation) -> list[Finding]:
    address = observation.case.address
    if observation.raised is not None:
        return [Finding(check=NAME, status=Status.FAIL, message=_raised(observation), address=address)]
    failures, compared = [], 0
    notes = [Finding(check=NAME, status=Status.SKIP, message=observation.no_float64, address=address)] if observation.no_float64 else []
    for measured in observation.measured:
        base = measured.runs["base"]
        for name, cotangent, wanted in zip(observation.call.names, base["rule"], measured.dtypes, strict=True):
            compared += 1
            if str(cotangent.dtype) != wanted:
                message = (
                    f"the cotangent of {name} is {cotangent.dtype} where {name} is {wanted}; JAX does not convert it. "
                    f"Return it as `.astype({name}.dtype)`"
                )
                failures.append(Finding(check=NAME, status=Status.FAIL, message=message, argument=name, dtype=wanted, address=address))
        for k, (forward, primal) in enumerate(zip(base["out"], base["primal"], strict=True)):
            compared += 1
            if forward.dtype != primal.dtype:
                message = f"output {k} is {forward.dtype} when differentiated and {primal.dtype} when not; the forward rule must return the primal's dtype"
                failures.append(Finding(check=NAME, status=Status.FAIL, message=message, dtype=measured.dtype, address=address))
    return notes + (failures or [Finding(check=NAME, status=Status.PASS, comparisons=compared, address=address)])


def _raised(observation: Observation) -> str:
    assert observation.raised is not None
    cause = observation.raised.cause
    line = user_line(cause)
    text = " ".join(str(cause).split())
    where = f" at {line}" if line else ""
    transposing = isinstance(cause, (AssertionError, NotImplementedError)) and observation.call.forward_rules
    cannot = (
        ". Reverse mode transposes the tangents that a custom_jvp rule returns: they must be linear in those it is given"
        if transposing
        else ""
    )
    return f"the rule raises {type(cause).__name__}{where}: {text[:600]}{cannot}"


def raised(error: BaseException, most: int = 300) -> str:
    """Kind, place and words of an error: "ValueError at file.py:12 in backward: `...`: shapes differ"."""
    line = user_line(error)
    return f"{type(error).__name__}{' at ' + line if line else ''}: {short(error, most)}"


def user_line(cause: BaseException) -> str:
    """The innermost line outside of JAX and of verify: "file.py:12 in backward: `return g @ w`"."""
    inside = (str(Path(jax.__file__).parent), str(Path(__file__).parents[1]))
    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if not frame.filename.startswith(inside)]
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    if not frames:
        return ""
    frame = frames[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}" + (f": `{frame.line}`" if frame.line else "")
