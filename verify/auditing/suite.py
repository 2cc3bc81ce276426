"""`pytest --verify-audit`: every custom rule that a test suite calls is heard while it runs, and verified at the end.

Each is reported like a test, `verify-audit::module:function`. Under pytest-xdist each worker verifies what it has heard, a rule that several have heard
is verified by the first, and the reports travel to the controller with the worker's last message.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from verify.auditing.baseline import declared, load
from verify.auditing.examine import examine
from verify.auditing.listen import Listener, listening
from verify.auditing.rules import Rule
from verify.records import Status, Verdict

KEY = "verify_audit"  # of what is sent between the controller and its workers
OUTCOMES = {Status.PASS: "passed", Status.FAIL: "failed", Status.ERROR: "failed", Status.INCONCLUSIVE: "skipped", Status.SKIP: "skipped"}
Told = dict[str, Any]  # one verdict, as it is sent


class Suite:
    """The plugin of one pytest process: it listens from `start` on, until the last test has run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._listener = Listener()
        self._listening = contextlib.ExitStack()
        self._baseline = load(config.getoption("verify_baseline")) if config.getoption("verify_baseline") else ()
        self._budget = config.getoption("verify_budget")
        self._told: list[Told] = []
        self._late = 0
        self._worker = getattr(config, "workerinput", None)
        self._claims = Path(self._worker[KEY]) if self._worker else None

    def start(self) -> None:
        self._listening.enter_context(listening(self._listener))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        done = yield
        self._listening.close()
        if not session.config.option.collectonly:
            for told in self._verdicts():
                self._told.append(told)
                if self._worker is None:
                    self._report(told)
        return done

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._listening.close()  # where the loop was never reached
        if self._worker is not None:
            session.config.workeroutput[KEY] = {"told": self._told, "late": self._late}  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self._claims is None:
            self._claims = Path(tempfile.mkdtemp(prefix="verify-audit-"))
        node.workerinput[KEY] = str(self._claims)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        sent = getattr(node, "workeroutput", {}).get(KEY, {"told": [], "late": 0})
        self._late += sent["late"]
        for told in sent["told"]:
            self._told.append(told)
            self._report(told)

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._worker is not None:
            return
        counts = {status: sum(told["status"] == status for told in self._told) for status in reversed(Status)}
        words = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "the tests called no custom rule"
        late = f"; {self._late} more not verified, as --verify-budget {self._budget:g} s was spent" if self._late else ""
        terminalreporter.write_sep("=", "custom rules that the tests called")
        for told in self._told:
            if told["status"] == Status.INCONCLUSIVE:
                terminalreporter.write_line(f"INCONCLUSIVE {told['name']}: {told['short']}")
        terminalreporter.write_line(f"{words}{late}")

    def _verdicts(self) -> Iterator[Told]:
        """One after the other: the suite's own rules before JAX's, which others test as well."""
        start = time.perf_counter()
        jaxs = str(Path(jax.__file__).parent)
        mine = sorted(self._listener.rules.values(), key=lambda rule: str(Path(rule.location).absolute()).startswith(jaxs))
        for rule in mine:
            if not self._claimed(rule):
                continue
            if time.perf_counter() - start > self._budget:
                self._late += 1
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the suite may make errors of them, which is meant for its own
                verdict = declared(examine(rule), self._baseline)
            yield _told(verdict)

    def _claimed(self, rule: Rule) -> bool:
        """Whether this process is the first to verify the rule."""
        if self._claims is None:
            return True
        mark = self._claims / hashlib.sha256(f"{rule.name} {rule.location}".encode()).hexdigest()
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _report(self, told: Told) -> None:
        """As if a test had run."""
        file, _, line = told["location"].rpartition(":")
        where = (file, int(line) - 1 if line.isdigit() else 0, told["name"])
        outcome = OUTCOMES[Status(told["status"])]
        reason: Any = told["text"] if outcome == "failed" else (file, where[1] + 1, told["short"]) if outcome == "skipped" else None
        for when in ("setup", "call", "teardown"):
            called = when == "call"
            report = pytest.TestReport(
                nodeid=f"verify-audit::{told['name']}", location=where, keywords={}, outcome=outcome if called else "passed",  # type: ignore[arg-type]
                longrepr=reason if called else None, when=when, duration=told["seconds"] if called else 0.0,  # type: ignore[arg-type]
            )  # fmt: skip
            self._config.hook.pytest_runtest_logreport(report=report)


def _told(verdict: Verdict) -> Told:
    first = next((finding.message for finding in verdict.findings if finding.status is verdict.status and finding.message), "")
    short = verdict.diagnosis or first or "; ".join(verdict.notes)
    return {
        "name": verdict.name, "status": str(verdict.status), "location": verdict.location, "seconds": verdict.seconds, "short": short[:500],
        "text": str(verdict),
    }  # fmt: skip
