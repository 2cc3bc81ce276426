"""The process that runs units: it reads requests as lines of JSON, and answers each. The only part of a campaign that imports JAX and the users' code.

A request says what is wanted ("environment", "digest", "unit"); the answers to it are lines, too: "ready" (imports are done, the clock may start), "at" (the case that
begins), and at last one of "done", "refused" (the user's mistake) and "lost" (it did not end as a verdict).
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from verify.errors import SpecError
from verify.printable import short

GIB = 2**30
LOOK = 0.02  # seconds between two looks at the memory
Say = Callable[..., None]


def answer(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """The last line of an answer. Whatever the user's code raises is one, but for KeyboardInterrupt."""
    try:
        return {"kind": "done", **WANTED[request["want"]](request, say)}
    except SpecError as error:
        return {"kind": "refused", "text": str(error)}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {"kind": "lost", "what": f"it raised {_short(error)}"}


def _environment(request: dict[str, Any], say: Say) -> dict[str, Any]:
    from verify.checks import select
    from verify.environment import environment

    return {"checks": [check.NAME for check in select(request["checks"] or None)], "environment": environment()}


def _digest(request: dict[str, Any], say: Say) -> dict[str, Any]:
    from verify.campaign.digest import digest
    from verify.registry import resolve

    return {"digest": digest(resolve(request["spec"]), {key: request[key] for key in ("checks", "dtypes")})}


def _unit(request: dict[str, Any], say: Say) -> dict[str, Any]:
    from verify.cases import Case, draw
    from verify.judging import Judged, judge
    from verify.registry import resolve
    from verify.report.json import verdict_record
    from verify.runner import run_cases
    from verify.spec import Spec

    def one_by_one(spec: Spec, cases: Sequence[Case], selected: Sequence[ModuleType]) -> Iterator[Judged]:
        for case in cases:
            say("at", address=case.address)
            yield judge(spec, case, selected)

    digest = _digest(request, say)
    spec = resolve(request["spec"])
    say("ready")
    cases = list(draw(spec, request["seed"], range(request["start"], request["stop"])))
    wanted = [case for case in cases if not request["dtypes"] or case.dtype in request["dtypes"]]
    return {**digest, "verdict": verdict_record(run_cases(spec, wanted, request["checks"] or None, judges=one_by_one))}


WANTED: dict[str, Callable[[dict[str, Any], Say], dict[str, Any]]] = {"environment": _environment, "digest": _digest, "unit": _unit}


def _short(error: BaseException) -> str:
    try:
        text = short(error, 500)
    except Exception:  # a broken __str__ of the user's exception
        text = ""
    return type(error).__name__ + (f": {text}" if text else "")


def resident() -> int:
    """Bytes of memory that this process holds; the most that it ever held, where the system does not say more."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Channel:
    """Lines to the supervisor, and the limit of memory, which is watched by a thread while a unit runs."""

    def __init__(self, writing: int) -> None:
        self._writing = writing
        self._lock = threading.Lock()
        self.memory = 0.0
        self._most = 0.0  # bytes; 0 for no limit
        threading.Thread(target=self._watch, daemon=True).start()

    def say(self, kind: str, **fields: Any) -> None:
        if kind == "ready":
            self._most = resident() + self.memory * GIB
        self.send({"kind": kind, "resident": resident(), **fields})

    def send(self, message: dict[str, Any]) -> None:
        line = (json.dumps(message) + "\n").encode()
        with self._lock:
            while line:
                line = line[os.write(self._writing, line) :]

    def rest(self) -> None:
        self._most = 0.0

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK)
            most = self._most  # read once: the unit may end between the two uses
            if most and resident() > most:
                self.send({"kind": "lost", "what": f"it took more than {self.memory:g} GiB of memory"})
                os._exit(1)


def serve(reading: int, writing: int) -> None:
    """Answer until the supervisor is gone, even if it is gone while a unit runs."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        with os.fdopen(reading, "rb") as stream:
            for line in stream:
                requests.put(line)
        os._exit(0)

    faulthandler.enable()
    sys.stdout = sys.stderr  # what the users' functions print is not an answer
    threading.Thread(target=listen, daemon=True).start()
    channel = _Channel(writing)
    while True:
        request = json.loads(requests.get())
        channel.memory = request.get("memory", 0.0)
        try:
            reply = answer(request, channel.say)
        except KeyboardInterrupt as error:  # of the user's code: the terminal's does not come here
            reply = {"kind": "lost", "what": f"it raised {_short(error)}"}
        channel.rest()
        channel.send({"resident": resident(), **reply})


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
