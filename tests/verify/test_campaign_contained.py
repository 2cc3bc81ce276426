"""Units that crash, hang, eat memory or end the process, with real workers: each costs its own row only, and every executor says the same."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.verify.test_campaign import HERE, ROOT, content, wait_for
from verify.campaign import contained
from verify.campaign.config import Campaign, Limits
from verify.campaign.executors import open_place, place_on
from verify.campaign.journal import Journal
from verify.campaign.plan import plan
from verify.campaign.supervisor import Progress, left, prepare, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("campaigns")]  # one after the other: each starts processes of its own
LIMITS = Limits(seconds=4.0, memory=0.5)
REASONS = {
    "CRASH": "SIGSEGV: Fatal Python error: Segmentation fault",
    "ABORT": "SIGABRT: LLVM ERROR: Cannot select: intrinsic",
    "LEAVE": "raises SystemExit",
    "VANISH": "the process died (exit status 0)",
    "STRANGE": "it raised Strange: <script>",
    "SLEEP": "it took longer than 4 s",
    "EAT": "it took more than 0.5 GiB of memory",
}


def campaign(*names, **more):
    return Campaign(
        **{"specs": tuple(f"{HERE}:{name}" for name in names), "cases": 4, "chunk": 2, "checks": ("gradient",), "limits": LIMITS, **more}
    )


def ran(config, place, path, show=lambda progress: None):
    with Journal(path, write=True) as journal:
        prepared = prepare(config, place)
        units = left(plan(config), journal.rows()[0], prepared)
        run(units, config, prepared, place, journal, Progress(total=len(units)), show)
    return content(path)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """What the good and the merely wrong units say in this process."""
    with open_place("inline", None) as place:
        return ran(campaign("RIGHT", "WRONG", "LEAVE"), place, tmp_path_factory.mktemp("inline") / "j.db")


def test_whatever_a_unit_does_costs_its_own_row_only(tmp_path, inline):
    config = campaign("RIGHT", *REASONS, "WRONG", cases=2)
    with open_place("processes", 2) as place:
        rows = ran(config, place, tmp_path / "j.db")
    assert len(rows) == len(plan(config))
    for unit, (_, attempts, verdict) in rows.items():
        name = unit.spec.partition(":")[2]
        if name in REASONS:
            assert verdict["status"] == "ERROR" and REASONS[name] in verdict["findings"][0]["message"], verdict
            assert attempts == (
                1 if name == "LEAVE" else 2
            )  # SystemExit is an exception that the function raises, and says something of it
            if name != "LEAVE":
                assert f"verify replay {unit.spec}/0/0" in verdict["findings"][0]["message"]
        else:
            assert (rows[unit]) == inline[unit]


@pytest.mark.nightly
def test_any_executor_and_dask_say_what_this_process_says(tmp_path, inline):
    pytest.importorskip("distributed", reason="dask is an extra: pip install 'manual-vjp[distributed]'")
    config = campaign("RIGHT", "WRONG", "LEAVE")
    with ThreadPoolExecutor(1) as pool:
        assert ran(config, place_on(pool, 1), tmp_path / "threads.db") == inline
        contained.kill_all()
    code = (
        "import sys; from tests.verify.test_campaign_contained import *\n"
        "with open_place('dask', 1) as place: ran(campaign('RIGHT', 'WRONG', 'LEAVE'), place, sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "dask.db")], cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "dask.db") == inline


def killing_a_dask_worker(path):
    """A campaign on two dask workers, of which one is killed, with what it runs, when the first unit is done."""
    from distributed import default_client

    config, killed = campaign("RIGHT", cases=24), []
    with open_place("dask", 2) as place, Journal(path, write=True) as journal:
        prepared = prepare(config, place)
        units = left(plan(config), journal.rows()[0], prepared)

        def kill_one(progress):
            if progress.done and not killed:
                killed.append(min(default_client().run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)

        run(units, config, prepared, place, journal, Progress(total=len(units)), kill_one)
    assert killed
    print(len(units))


@pytest.mark.nightly
def test_a_dask_worker_that_is_killed_loses_no_result(tmp_path):
    pytest.importorskip("distributed", reason="dask is an extra: pip install 'manual-vjp[distributed]'")
    code = "import sys; from tests.verify.test_campaign_contained import *; killing_a_dask_worker(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "dask.db")], cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with open_place("inline", None) as place:
        assert content(tmp_path / "dask.db") == ran(campaign("RIGHT", cases=24), place, tmp_path / "inline.db")


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.nightly
def test_workers_killed_at_random_cost_time_and_no_verdict(tmp_path, inline):
    config, begun, stop, rng = campaign("RIGHT", cases=48), threading.Event(), threading.Event(), random.Random(0)
    killed = []

    def kill():
        begun.wait()  # the first worker dies in any case, however fast the machine
        while not stop.wait(rng.uniform(2.0, 6.0) if killed else 0.0):
            for worker in list(contained._all):
                if worker._process.poll() is None:
                    killed.append(worker._process.pid)
                    os.kill(worker._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with open_place("inline", None) as place:
        truth = ran(config, place, tmp_path / "truth.db")
    killer.start()
    try:
        with open_place("processes", 1) as place:
            rows = ran(config, place, tmp_path / "j.db", lambda _: begun.set())
    finally:
        stop.set()
        begun.set()
        killer.join()
    assert killed and len(rows) == len(plan(config))
    for unit, (digest, attempts, verdict) in rows.items():
        if verdict["status"] == "ERROR":
            assert attempts == 2 and "SIGKILL" in verdict["findings"][0]["message"]
        else:
            verdict["notes"] = [note for note in verdict["notes"] if "was lost once" not in note]
            assert (digest, verdict) == (truth[unit][0], truth[unit][2])


def test_a_worker_that_has_kept_much_is_replaced():
    request = {"want": "unit", "seed": 0, "start": 0, "stop": 2, "checks": ["gradient"], "dtypes": [], "seconds": 60, "memory": 0.5}
    try:
        assert contained.answer({**request, "spec": f"{HERE}:RIGHT"})["kind"] == "done"
        kept = contained._mine.worker
        assert contained.answer({**request, "spec": f"{HERE}:RIGHT"})["kind"] == "done" and contained._mine.worker is kept
        assert contained.answer({**request, "spec": f"{HERE}:HOARD"})["kind"] == "done"
        assert contained._mine.worker is None and kept._process.poll() is not None
    finally:
        contained.kill_all()


def test_no_worker_outlives_a_supervisor_that_is_killed(tmp_path):
    code = f"from verify.campaign import contained; contained.answer(dict(want='unit', spec='{HERE}:SLEEP', seed=0, start=0, stop=1, checks=[], dtypes=[], seconds=99, memory=1))"  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=_environment())
    wait_for(lambda: _children(process.pid))
    children = _children(process.pid)
    time.sleep(2)
    process.kill()
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes() for child in children))


def _children(pid):
    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list the children of a process")
    return [child for listed in Path(f"/proc/{pid}/task").glob("*/children") for child in listed.read_text().split()]


def test_the_clock_of_a_unit_starts_when_its_imports_are_done(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text(f"import time; time.sleep(3); from {HERE} import RIGHT")
    monkeypatch.syspath_prepend(tmp_path)
    config = campaign("RIGHT", cases=2, limits=Limits(seconds=2.5))
    with open_place("processes", 1) as place:
        (row,) = ran(Campaign(**{**_fields(config), "specs": ("slow_to_import:RIGHT",)}), place, tmp_path / "j.db").values()
    assert row[1] == 1 and row[2]["status"] == "PASS"


def _fields(config):
    return {name: getattr(config, name) for name in config.__struct_fields__}


@pytest.mark.nightly
def test_interrupted_twice_it_ends_at_once_and_takes_its_workers_with_it(tmp_path):
    (tmp_path / "c.toml").write_text(f'specs = ["{HERE}:SLEEP"]\ncases = 1\n')
    command = [
        sys.executable,
        "-m",
        "verify.cli",
        "campaign",
        str(tmp_path / "c.toml"),
        "--journal",
        str(tmp_path / "j.db"),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: _children(process.pid))
    (child,) = _children(process.pid)
    time.sleep(8)  # long enough for it to begin, also on a machine that is busy; the unit itself would sleep for ten minutes
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "Ctrl-C again" in shown and "interrupted" in shown and "Traceback" not in shown, shown
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    assert content(tmp_path / "j.db") == {}
