"""The same work in several processes: tracing is Python, so threads share one core.

Work travels as names and indices, and each worker draws the cases itself. A worker that dies (a segmentation fault in a kernel, memory) takes only its
own chunk with it: the rest goes on in fresh processes, the chunk is tried once more alone, and what dies again is an ERROR.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType

from verify import checks as all_checks
from verify.cases import Case, draw
from verify.judging import Judged, judge
from verify.records import Finding, Status
from verify.registry import resolve
from verify.spec import Spec

END = 5.0  # seconds in which a pool's thread has noticed that its processes are gone
CHUNK = 14  # cases, whole shapes: small enough to keep all workers busy to the end
Chunk = list[tuple[tuple[Finding, ...], dict[str, float]]]
Span = tuple[float, float]  # when it began and ended, in seconds of a clock that all processes share


class Workers:
    """Processes that judge cases of operations named as on the command line. Use as a context manager.

    `order(name, cases, seed, checks)` starts the work on an operation; calling `judges(name)` gives what `runner.run_cases` takes, and then
    `seconds(name)` how long the work took: much of it may be done before anybody waits for it.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._others = set(multiprocessing.active_children())
        self._threads = set(threading.enumerate())
        self._pool = self._new()
        self._futures: dict[str, list[Future[tuple[Chunk, Span]]]] = {}
        self._spans: dict[str, list[Span]] = {}
        self._orders: dict[str, list[tuple[str, int, int, int, tuple[str, ...]]]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """What nobody waits for any longer ends here: a verdict may stand while workers are still in large cases."""
        with _cancelled_is_no_fault():
            self._pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - self._others:
                child.kill()
            for thread in set(threading.enumerate()) - self._threads:
                if type(thread).__name__ == "_ExecutorManagerThread":  # others are the user's
                    thread.join(END)

    def order(self, name: str, cases: int, seed: int, checks: Sequence[str]) -> None:
        self._orders[name] = [(name, seed, start, min(start + CHUNK, cases), tuple(checks)) for start in range(0, cases, CHUNK)]
        self._futures[name] = [self._pool.submit(_work, *order) for order in self._orders[name]]

    def seconds(self, name: str) -> float:
        spans = self._spans.get(name, [])
        return max((end for _, end in spans), default=0.0) - min((start for start, _ in spans), default=0.0)

    def judges(self, name: str):  # type: ignore[no-untyped-def]
        def results(spec: Spec, cases: Sequence[Case], selected: Sequence[ModuleType]) -> Iterator[Judged]:
            del spec, selected  # the workers have their own
            by_index = iter(cases)
            try:
                for position in range(len(self._orders[name])):
                    for findings, seconds in self._result(name, position):
                        yield Judged(next(by_index), findings, seconds)
            finally:
                for future in self._futures[name]:
                    future.cancel()

        return results

    def _result(self, name: str, position: int) -> Chunk:
        try:
            chunk, span = self._futures[name][position].result()
        except BrokenProcessPool:
            return self._again(name, position)
        self._spans.setdefault(name, []).append(span)
        return chunk

    def _again(self, name: str, position: int) -> Chunk:
        """One chunk alone, in a process of its own; then everything that was lost goes to a fresh pool."""
        order = self._orders[name][position]
        with self._new(1) as alone:
            try:
                chunk, _ = alone.submit(_work, *order).result()
            except BrokenProcessPool:
                target, seed, start, stop, _ = order
                message = (
                    f"the process died while it ran cases {start} to {stop - 1}: a crash in native code, or memory ran out. "
                    f"Find the case with: verify run {target} --seed {seed} --cases N --jobs 1"
                )
                lost = Finding(check="structure", status=Status.ERROR, message=message, address=f"{target}/{seed}/{start}")
                chunk = [((lost,), {})] * (stop - start)
        self._pool = self._new()
        for other, orders in self._orders.items():
            for k, future in enumerate(self._futures[other]):
                lost_too = future.done() and not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)
                if lost_too and (other, k) != (name, position):
                    self._futures[other][k] = self._pool.submit(_work, *orders[k])
        return chunk

    def _new(self, jobs: int | None = None) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(jobs or self._jobs, mp_context=multiprocessing.get_context("spawn"))  # fork after JAX has started hangs


@contextlib.contextmanager
def _cancelled_is_no_fault() -> Iterator[None]:
    """The pool's own thread tells every future that its process has died, and stumbles over those that were cancelled just before."""
    hook = threading.excepthook

    def told(problem: threading.ExceptHookArgs) -> None:
        if not issubclass(problem.exc_type, InvalidStateError):
            hook(problem)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = hook


def _work(name: str, seed: int, start: int, stop: int, checks: tuple[str, ...]) -> tuple[Chunk, Span]:
    began = time.time()
    sys.stdout = sys.stderr  # what the users' functions print is not the report
    spec = resolve(name)
    selected = all_checks.select(checks)
    chunk = [(result.findings, result.seconds) for result in (judge(spec, case, selected) for case in draw(spec, seed, range(start, stop)))]
    return chunk, (began, time.time())
