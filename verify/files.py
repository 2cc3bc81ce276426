"""How reports reach a file: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from verify.spec import SpecError

STDOUT = "-"


def require_writable(path: str) -> None:
    """Fail before the work, not after it. Raises SpecError."""
    if path == STDOUT:
        return
    target = _target(path)
    if target.is_dir():
        raise SpecError(f"cannot write {path}: it is a folder")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise SpecError(f"cannot write {path}: {target.parent} is not a writable folder")


def write(path: str, content: str) -> None:
    """Replace the file at `path`, with the permissions that the umask gives. A link stays a link; a device or pipe is written to. Raises SpecError."""
    if path == STDOUT:
        click.echo(content, nl=False)
        return
    target = _target(path)
    try:
        if target.exists() and not target.is_file():
            target.write_text(content, encoding="utf-8")
        else:
            _replace(target, content)
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror or error}") from None


def append(path: str, content: str) -> None:
    """Add to a file that others add to as well. Raises SpecError."""
    if path == STDOUT:
        click.echo(content, nl=False)
        return
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror or error}") from None


def _target(path: str) -> Path:
    """What a path names in the end."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise SpecError(f"cannot write {path}: {error}") from None


def _replace(target: Path, content: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
