"""A fault in a diagnosis costs its own sentence, and no verdict."""

from __future__ import annotations

import traceback
import warnings


def warn() -> None:
    """Called where an exception was caught."""
    message = f"the diagnosis failed, the verdict stands; please report this:\n{traceback.format_exc()}"
    warnings.warn(message, RuntimeWarning, stacklevel=3)
