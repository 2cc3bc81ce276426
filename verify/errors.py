"""Every exception that verify raises on purpose.

SpecError (ValueError)         what the user gave cannot be used: name, spec, arguments, config
VjpMismatch (AssertionError)   a rule is not the derivative of its primal; raised by `assert_vjp`
InternalError (RuntimeError)   a fault of verify itself: please report it
"""

from verify.spec import SpecError as SpecError


class VjpMismatch(AssertionError):
    """A rule did not pass; `verdict` holds what was found."""

    def __init__(self, message: str, verdict: object) -> None:
        super().__init__(message)
        self.verdict = verdict


class InternalError(RuntimeError):
    """A fault of verify itself."""
