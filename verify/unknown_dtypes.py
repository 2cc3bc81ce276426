"""Dtypes that nobody named, and that a function does not know: `jax.numpy.linalg` has no bfloat16.

A spec that names no dtypes claims those that users have. Where the function or its reference cannot be run in one of them, that is said, and no mistake.
"""

from __future__ import annotations

from dataclasses import replace

from verify import engine, programs
from verify.cases import Case
from verify.printable import short
from verify.records import Finding, Status
from verify.spec import Spec
from verify.values import cast


def in_float64(case: Case) -> Case:
    """The same case in float64 alone."""
    return replace(case, dtype="float64", dtypes=tuple("float64" if dtype == case.dtype else dtype for dtype in case.dtypes))


def skipped(spec: Spec, case: Case, error: programs.StageError) -> Finding | None:
    """What is said in the place of the exception that ended the case, or None where it has another reason than the dtype."""
    if case.dtype == "float64" or spec.dtypes_named or not (who := _who(spec, case, error)):
        return None
    text = short(error.cause, 200).rstrip(". ")
    message = f"in {case.dtype} {who} raises {type(error.cause).__name__}: {text}. Name the dtypes that it knows with dtypes=, or () for float64 alone"
    return Finding(check="precision", status=Status.SKIP, message=message, address=case.address, dtype=case.dtype)


def _who(spec: Spec, case: Case, error: programs.StageError) -> str:
    """Whose doing it is: of a rule, whose function and reference compile in this dtype, it is a mistake, and "" here."""
    if error.stage in ("primal", "reference"):
        return {"primal": "the function itself", "reference": "the reference"}[error.stage]
    if error.stage != "compilation":
        return ""
    call, diff, rest = programs.bind(spec, case)
    user = cast(diff, [dtype for dtype in case.dtypes if dtype is not None])
    for who, run in (("the function itself", call.run), ("the reference", call.run_reference)):
        try:
            engine.quick(run, user, rest, x64=False)
        except Exception:
            return who
    return ""
