"""One request in a process of its own: whatever becomes of the process, there is an answer, and nobody else is hurt.

Each thread that calls `answer` owns one worker process, which is used again until something is lost in it or it has grown. So any
`concurrent.futures.Executor` gives containment: the threads of a pool here, the processes of a cluster elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from typing import IO, Any

from verify.campaign.worker import GIB

START = 600.0  # seconds for imports, before a unit's own clock starts
GROWN = 0.5  # of the limit of memory: a worker that has kept so much, in JAX's caches, is replaced
LAST_WORDS = re.compile(rb"(?:LLVM ERROR|Fatal Python error|terminate called|Check failed)[^\r\n]{0,300}")


class Contained:
    """A worker process, and the two pipes to it."""

    def __init__(self) -> None:
        request, self._writing = os.pipe()
        self._reading, reply = os.pipe()
        self._errors = tempfile.TemporaryFile("ab+")  # noqa: SIM115 (it lives as long as the process)
        command = [sys.executable, "-m", "verify.campaign.worker", str(request), str(reply)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command, pass_fds=(request, reply), env=environment, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors,
            start_new_session=True,
        )  # fmt: skip
        os.close(request)
        os.close(reply)
        self.close = weakref.finalize(
            self, _close, self._process, (self._writing, self._reading), self._errors
        )  # also when its thread ends
        self._rest = b""
        self._first = 0  # bytes that it held when it was first ready

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last line of the answer; "lost" with the reason where the process gives none."""
        self._errors.truncate(0)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writing, (json.dumps(request) + "\n").encode())
        limit, what, address = START, "it was not ready after", ""
        deadline = time.monotonic() + limit
        while True:
            line = self._line(deadline)
            if line is None:
                return {"kind": "lost", "what": f"{what} {limit:g} s", "address": address}
            if not line:
                return {"kind": "lost", "what": f"the process died ({self._how()})", "address": address}
            message: dict[str, Any] = json.loads(line)
            if message["kind"] == "ready":
                limit, what = request["seconds"], "it took longer than"
                deadline = time.monotonic() + limit
                self._first = self._first or message["resident"]
            elif message["kind"] == "at":
                address = message["address"]
            else:
                return {"address": address, **message}

    def has_grown(self, reply: dict[str, Any], memory: float) -> bool:
        return bool(self._first) and reply["resident"] - self._first > GROWN * memory * GIB

    def kill(self) -> None:
        """End it and all that it started. From any thread."""
        _kill(self._process)

    def _line(self, deadline: float) -> bytes | None:
        """The next line; empty where the process has ended, None where the deadline is over."""
        while b"\n" not in self._rest:
            if not select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            more = os.read(self._reading, 1 << 16)
            if not more:
                return b""
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _how(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        said = LAST_WORDS.search(self._errors.read())
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return how + (f": {said[0].decode(errors='replace')}" if said else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _close(process: subprocess.Popen[bytes], pipes: tuple[int, int], errors: IO[bytes]) -> None:
    _kill(process)
    for pipe in pipes:
        os.close(pipe)
    errors.close()


_mine = threading.local()
_all: weakref.WeakSet[Contained] = weakref.WeakSet()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request of `verify.campaign.worker`, by this thread's worker process. It raises nothing that the user's code can cause."""
    worker: Contained | None = getattr(_mine, "worker", None)
    if worker is None:
        worker = _mine.worker = Contained()
        _all.add(worker)
    reply = worker.ask(request)
    if reply["kind"] == "lost" or worker.has_grown(reply, request.get("memory", 4.0)):
        _mine.worker = None
        worker.close()
    return reply


def kill_all() -> None:
    """End every worker process of this one."""
    for worker in list(_all):
        worker.kill()
