"""Tells whether a hand-written derivative is right, wrong, or cannot be judged, with evidence.

The names below load on first use, so that `import verify` (and the pytest plugin) costs nothing and does not import JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from verify.errors import InternalError as InternalError
from verify.errors import SpecError as SpecError
from verify.errors import VjpMismatch as VjpMismatch
from verify.spec import Arg as Arg
from verify.spec import Spec as Spec

if TYPE_CHECKING:
    from verify.api import assert_vjp as assert_vjp
    from verify.api import check as check
    from verify.api import replay as replay
    from verify.api import run as run
    from verify.auditing.audit import audit as audit
    from verify.power.measure import measure_power as measure_power
    from verify.pytest_plugin import parametrize as parametrize
    from verify.records import Finding as Finding
    from verify.records import Power as Power
    from verify.records import Report as Report
    from verify.records import Status as Status
    from verify.records import Verdict as Verdict
    from verify.strip import strip_custom_rules as strip_custom_rules

_LAZY = {
    "assert_vjp": "verify.api",
    "audit": "verify.auditing.audit",
    "check": "verify.api",
    "replay": "verify.api",
    "run": "verify.api",
    "measure_power": "verify.power.measure",
    "parametrize": "verify.pytest_plugin",
    "Finding": "verify.records",
    "Power": "verify.records",
    "Report": "verify.records",
    "Status": "verify.records",
    "Verdict": "verify.records",
    "strip_custom_rules": "verify.strip",
}
__all__ = ["Arg", "InternalError", "Spec", "SpecError", "VjpMismatch", *_LAZY]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'verify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
