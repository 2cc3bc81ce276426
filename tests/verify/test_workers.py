"""Cases in processes: the same verdict as in this one, and a dying process takes only its own chunk with it."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import InvalidStateError
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from verify import Arg, Spec, Status
from verify.checks import select
from verify.registry import resolve
from verify.runner import run_spec
from verify.workers import CHUNK, Workers, _cancelled_is_no_fault

CHECKS = [check.NAME for check in select(None)]
MARK = "VERIFY_TEST_CRASH_MARK"


def _rule(factor: float):
    sine = jax.custom_vjp(jnp.sin)
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: ((factor * ct * jnp.cos(x)).astype(x.dtype),))
    return sine


def crash_always(x):
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def crash_once(x):
    mark = Path(os.environ[MARK])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _rule(1.0)(x)


ARGS = {"x": Arg(dims="n")}
RIGHT = Spec(name=f"{__name__}:RIGHT", fn=_rule(1.0), args=ARGS)
WRONG = Spec(name=f"{__name__}:WRONG", fn=_rule(1.5), args=ARGS)
ALWAYS = Spec(name=f"{__name__}:ALWAYS", fn=crash_always, args=ARGS)
ONCE = Spec(name=f"{__name__}:ONCE", fn=crash_once, args=ARGS)


def verdicts(*specs: Spec, cases: int = 4):
    with Workers(2) as workers:
        for spec in specs:
            workers.order(spec.name, cases, 0, CHECKS)
        return [run_spec(resolve(spec.name), cases, 0, CHECKS, judges=workers.judges(spec.name)) for spec in specs]


@pytest.mark.slow
def test_the_same_verdict_in_processes_as_here() -> None:
    for spec, there in zip((RIGHT, WRONG), verdicts(RIGHT, WRONG, cases=CHUNK + 3), strict=True):
        here = run_spec(spec, CHUNK + 3, 0, CHECKS)
        assert there.findings == here.findings
        assert (there.status, there.diagnosis, there.address) == (here.status, here.diagnosis, here.address)


def idle(x):
    time.sleep(600)
    return x


IDLE = Spec(name=f"{__name__}:IDLE", fn=idle, args=ARGS)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["end", "interrupt"])
def test_nobody_is_waited_for_when_the_verdicts_stand(how: str) -> None:
    """What still runs ends with the pool: after an early verdict, or Ctrl-C."""
    with pytest.raises(KeyboardInterrupt) if how == "interrupt" else contextlib.nullcontext(), Workers(1) as workers:
        before = set(multiprocessing.active_children())
        workers.order(IDLE.name, 2, 0, CHECKS)
        (worker,) = set(multiprocessing.active_children()) - before
        if how == "interrupt":
            raise KeyboardInterrupt
    deadline = time.monotonic() + 10
    while worker.exitcode is None and time.monotonic() < deadline:  # the pool waits for it, too: whoever is first knows
        time.sleep(0.05)
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_process_that_dies_costs_its_own_operation_only() -> None:
    dead, right = verdicts(ALWAYS, RIGHT)
    assert dead.status is Status.ERROR
    assert "the process died while it ran cases 0 to 3" in dead.findings[0].message
    assert right.status is Status.PASS


@pytest.mark.slow
@pytest.mark.nightly
def test_a_process_that_died_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    (verdict,) = verdicts(ONCE)
    assert verdict.status is Status.PASS


def slow(x):
    time.sleep(0.3)
    return x


SLOW = Spec(name=f"{__name__}:SLOW", fn=slow, args=ARGS)


@pytest.mark.slow
@pytest.mark.nightly
def test_the_time_of_an_operation_is_that_of_its_work_and_not_of_the_wait_for_it() -> None:
    with Workers(1) as workers:
        for spec in (RIGHT, SLOW):
            workers.order(spec.name, 2, 0, CHECKS)
        workers._futures[SLOW.name][-1].result()  # done before anybody asks
        seconds = [run_spec(resolve(name), 2, 0, CHECKS, judges=workers.judges(name)).seconds for name in (RIGHT.name, SLOW.name)]
        assert workers.seconds(SLOW.name) >= 0.6 > seconds[1]
        assert workers.seconds(RIGHT.name) > 0


@pytest.mark.parametrize(("error", "told"), [(InvalidStateError("CANCELLED"), []), (RuntimeError("of the user's"), ["of the user's"])])
def test_a_pool_that_ends_early_prints_no_traceback_of_its_own(error, told, monkeypatch) -> None:
    """Python's pool sets the result of futures that were cancelled, in a thread of its own."""
    seen: list[str] = []

    def fail() -> None:
        raise error

    monkeypatch.setattr(threading, "excepthook", lambda problem: seen.append(str(problem.exc_value)))
    with _cancelled_is_no_fault():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert seen == told
