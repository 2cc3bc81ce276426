"""Every exception that verify raises on purpose.

SpecError (ValueError)         what the user gave cannot be used: name, spec, arguments, config
VjpMismatch (AssertionError)   a rule is not the derivative of its primal; raised by `assert_vjp`
InternalError (RuntimeError)   a fault of verify itself: please report it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.spec import SpecError as SpecError

if TYPE_CHECKING:
    from verify.records import Verdict


class VjpMismatch(AssertionError):
    """A rule did not pass; `verdict` holds what was found, and is the message, with what is wrong on its first line (pytest's summary shows no more)."""

    def __init__(self, verdict: Verdict) -> None:
        first = verdict.diagnosis or next((f.message for f in verdict.findings if f.status is verdict.status), "")
        from verify.report.text import render_verdict

        super().__init__(f"{verdict.name} {verdict.status}: {first}\n\n{render_verdict(verdict, verbose=False)}")
        self.verdict = verdict


class InternalError(RuntimeError):
    """A fault of verify itself."""
