"""Headless Chromium, driven through a pipe by its DevTools protocol: enough to load a page, run a line in it, and hear what it complains of."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess
from contextlib import contextmanager

CHROMIUM = next((path for name in ("google-chrome", "chromium", "chromium-browser", "chrome") if (path := shutil.which(name))), None)
QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-background-networking")


class Page:
    def __init__(self, read, write):
        self._read, self._write, self._ids, self._left = read, write, itertools.count(1), b""
        self.events = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    _session = None

    def __call__(self, method, **params):
        """One command, and its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params, **({"sessionId": self._session} if self._session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self._left:
            assert select.select([self._read], [], [], 60)[0], "the browser says nothing"
            chunk = os.read(self._read, 2**16)
            assert chunk, "the browser has gone"
            self._left += chunk
        message, _, self._left = self._left.partition(b"\0")
        found = json.loads(message)
        if "method" in found:
            self.events.append(found)
        return found

    def load(self, path):
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def run(self, expression):
        """The value of a line of JavaScript; a promise is awaited."""
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    @property
    def complaints(self):
        """Errors, warnings and violations of the content security policy since the page was loaded."""
        found = [e["params"]["entry"]["text"] for e in self.events if e["method"] == "Log.entryAdded"]
        found += [str(e["params"]) for e in self.events if e["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")]
        return found

    @property
    def requests(self):
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def browser(folder):
    to_read, to_write = os.pipe(), os.pipe()

    command = [CHROMIUM, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
    script = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", str(to_write[0]), str(to_read[1]), *command],
        pass_fds=(to_write[0], to_read[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_write[0])
    os.close(to_read[1])
    try:
        yield Page(to_read[0], to_write[1])
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_read[0])
        os.close(to_write[1])
