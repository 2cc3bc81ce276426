"""An audit in a process of its own: a rule that hangs or crashes takes only itself with it.

The child finds the rules and verifies one after the other, and says so in lines of JSON. Where it is silent for too long, or ends too early, the parent ends it,
writes down which rule it was, and starts another child that leaves out what is done. Nothing is sent but text, and the parent never imports JAX.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from verify.auditing.rules import Rule
from verify.errors import SpecError
from verify.records import Finding, Report, Status, Verdict
from verify.report import json as report_json

CHANNEL = "VERIFY_AUDIT_CHANNEL"  # the descriptor that the child writes to
DONE = "VERIFY_AUDIT_DONE"  # how many rules are done: a program calls them in the same order each time
FIRST = 1800.0  # seconds until the rules are found: the program runs in that time
ENDED = "end"
STDERR = 2


class Channel:
    """The child's side."""

    def __init__(self) -> None:
        self._stream = os.fdopen(int(os.environ[CHANNEL]), "w", encoding="utf-8")

    def serve(self, rules: Sequence[Rule], verdicts: Callable[[Sequence[Rule]], Iterator[Verdict]]) -> None:
        """Judge the rules that are left, and tell the parent of each before and after."""
        left = rules[int(os.environ[DONE]) :]
        judged = verdicts(left)
        for rule in left:
            self._say("begin", name=rule.name, location=rule.location, calls=rule.calls, of=len(rules))
            self._say("verdict", record=report_json.record(Report(verdicts=(next(judged),))))
        self._say(ENDED)

    def refuse(self, error: SpecError) -> None:
        self._say("refused", text=str(error))

    def _say(self, kind: str, **fields: Any) -> None:
        sys.stdout.flush()  # the parent ends this process when it has heard the last line: what the program printed must be out before
        self._stream.write(json.dumps({"kind": kind, **fields}) + "\n")
        self._stream.flush()


def channel() -> Channel | None:
    """The channel to the parent, in a child."""
    return Channel() if CHANNEL in os.environ else None


def run(arguments: Sequence[str], timeout: float, progress: Callable[[int, int], None] | None = None) -> list[Verdict]:
    """The verdicts of `verify` with these arguments, run in children. Raises SpecError for what a child refuses to do."""
    verdicts: list[Verdict] = []
    while (trouble := _one_child(arguments, timeout, verdicts, progress)) is not None:
        verdicts.append(trouble)
    return verdicts


def _one_child(
    arguments: Sequence[str], timeout: float, verdicts: list[Verdict], progress: Callable[[int, int], None] | None
) -> Verdict | None:
    """Add what a child finds. None if it did all that was left, else the verdict on the rule that it did not survive."""
    reading, writing = os.pipe()
    environment = {**os.environ, CHANNEL: str(writing), DONE: str(len(verdicts))}
    child = subprocess.Popen([sys.executable, "-m", "verify.cli", *arguments], pass_fds=(writing,), env=environment, stdout=STDERR)
    os.close(writing)
    current: dict[str, Any] = {}  # the rule that the child is at

    def patience() -> float:
        return timeout if current else FIRST

    try:
        with os.fdopen(reading, encoding="utf-8") as stream:
            for message in _messages(stream, patience):
                if message is None:
                    child.kill()
                    return _lost(current, Status.INCONCLUSIVE, f"it took longer than {patience():g} s, and was ended")
                if message["kind"] == ENDED:
                    return None
                if message["kind"] == "refused":
                    raise SpecError(message["text"])
                if message["kind"] == "begin":
                    current.update(message)
                else:
                    verdicts += report_json.read(json.dumps(message["record"])).verdicts
                    if progress:
                        progress(len(verdicts), current["of"])
        return _lost(current, Status.ERROR, f"the process died ({_how(child.wait())})")
    finally:
        child.kill()
        child.wait()


def _lost(current: dict[str, Any], status: Status, what: str) -> Verdict:
    if not current:
        raise SpecError(f"{what} before the rules were known: the program does not run to its end here")
    finding = Finding(check="structure", status=status, message=f"{what} while this rule was verified")
    return Verdict(name=current["name"], status=status, findings=(finding,), location=current["location"], calls=current["calls"])


def _messages(stream: IO[str], patience: Callable[[], float]) -> Iterator[dict[str, Any] | None]:
    """The child's lines as they come; None after a silence of `patience` seconds."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=patience())
        except queue.Empty:
            yield None
            return
        if not line:
            return
        yield json.loads(line)


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
