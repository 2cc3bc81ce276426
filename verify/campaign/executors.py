"""Who runs the units: this process, processes here, or a cluster. The answers are the same to the bit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from verify.campaign import contained, worker
from verify.environment import cores
from verify.spec import SpecError

CONNECT = 30  # seconds to reach a scheduler
NAMES = "inline, processes, dask or dask://HOST:PORT"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Takes a request (see `verify.campaign.worker`) and gives a future of the answer; `slots` of them are handed out at a time."""

    submit: Callable[[dict[str, Any]], Future[dict[str, Any]]]
    slots: int


def place_on(executor: Executor, slots: int) -> Place:
    """Any executor of `concurrent.futures`, of threads, processes or machines. Each of its threads owns a worker process, so its own may be shared with others."""
    return Place(submit=lambda request: executor.submit(contained.answer, request), slots=slots)


@contextlib.contextmanager
def open_place(name: str, workers: int | None) -> Iterator[Place]:
    """The executor of this name. Raises SpecError. On leaving, what still runs here is ended."""
    if name == "inline":
        yield Place(submit=_inline, slots=1)
    elif name == "processes":
        with _threads(workers or cores()) as place:
            yield place
    elif name == "dask" or re.fullmatch(r"dask://[^\s/@]+:[0-9]{1,5}", name):
        with _dask(name.removeprefix("dask").removeprefix("://"), workers) as place:
            yield place
    else:
        raise SpecError(f"--executor {name!r} is none of {NAMES}")


def _inline(request: dict[str, Any]) -> Future[dict[str, Any]]:
    answered: Future[dict[str, Any]] = Future()
    address = ""

    def say(kind: str, **fields: Any) -> None:
        nonlocal address
        address = fields.get("address", address)

    reply = worker.answer(request, say)
    answered.set_result({"address": address, **reply})
    return answered


@contextlib.contextmanager
def _threads(count: int) -> Iterator[Place]:
    pool = ThreadPoolExecutor(count, thread_name_prefix="verify-campaign")
    try:
        yield place_on(pool, count)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        contained.kill_all()
        pool.shutdown()


@contextlib.contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Place]:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise SpecError("--executor dask needs dask: pip install 'manual-vjp[distributed]'") from None
    with contextlib.ExitStack() as stack:
        if address:
            try:
                client = stack.enter_context(Client(address, timeout=CONNECT))
            except OSError as error:
                raise SpecError(f"--executor dask://{address}: there is no scheduler: {error}") from None
        else:
            cluster = LocalCluster(n_workers=workers or cores(), threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        threads = sum(client.nthreads().values())
        if not threads:
            raise SpecError(f"--executor dask://{address}: the scheduler has no workers yet; start some first")
        executor = stack.enter_context(client.get_executor(pure=False))
        yield place_on(executor, 2 * threads)  # one more for each, so that none waits for the network
