"""What a report was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

VARIABLES = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_COMPILATION_CACHE_DIR", "JAX_DEBUG_NANS", "XLA_FLAGS")


def environment() -> dict[str, Any]:
    """Versions, devices, and the JAX settings that are in force. Starts JAX."""
    import jax

    return {
        **versions(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "settings": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def versions() -> dict[str, str]:
    """Versions alone, without starting JAX."""
    return {
        "verify": _version("manual-vjp"),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("jax", "jaxlib", "numpy")},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
