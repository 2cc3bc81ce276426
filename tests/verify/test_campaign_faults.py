"""Faults, injected: what a campaign and its journal go through, and that nothing is lost, counted twice or wrong after it.

Longer by these variables: VERIFY_KILLS (moments of kill -9, 12), VERIFY_FUZZ (inputs of each reader, 1500).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.verify import _campaign_fake as fake
from tests.verify.test_campaign import ROOT, config, content, verify, wait_for
from tests.verify.test_campaign import folder as folder
from tests.verify.test_reports import HOSTILE
from verify import SpecError
from verify.addresses import parse_address
from verify.campaign import rows as rows_module
from verify.campaign.config import Campaign
from verify.campaign.journal import Journal, is_journal
from verify.campaign.plan import Unit, plan, seconds, shard
from verify.campaign.rows import row
from verify.campaign.summary import Summary
from verify.config import RunConfig, convert, parse
from verify.records import Status, Verdict
from verify.sizes import parse as parse_sizes

KILLS = int(os.environ.get("VERIFY_KILLS", "8"))
FUZZ = int(os.environ.get("VERIFY_FUZZ", "1500"))
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}


def start(file, journal, *more, prefix=(), **environment):
    command = [
        *prefix,
        sys.executable,
        "-m",
        "tests.verify._campaign_fake",
        "campaign",
        file,
        "--journal",
        str(journal),
        "--workers",
        "2",
        "-q",
        *more,
    ]
    return subprocess.Popen(
        command, env={**ENVIRONMENT, **environment}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def lines(path):
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_nothing_and_counts_nothing_twice(folder):
    file, acked, rng = config(folder, cases=668, specs=["a_right", "b_wrong", "lost"]), folder / "acked", random.Random(0)
    verify("campaign", file, "--journal", "whole.db", status=1)
    assert len(content("whole.db")) == 501
    for moment in sorted(rng.randrange(1, 495) for _ in range(KILLS)):
        process = start(file, folder / "j.db", "--resume", **{fake.ACKED: str(acked), fake.SECONDS: "0.001"})
        wait_for(lambda process=process, moment=moment: len(lines(acked)) >= moment or process.poll() is not None)
        time.sleep(rng.uniform(0, 0.004))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was not killed while it ran"
    process = start(file, folder / "j.db", "--resume", **{fake.ACKED: str(acked)})
    process.communicate()
    assert process.returncode == 1
    assert content("j.db") == content("whole.db")
    assert len(lines(acked)) == len(set(lines(acked))), "a unit that was written down was run again"
    assert verify("report", "j.db").output.split("\n")[1:] == verify("report", "whole.db").output.split("\n")[1:]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which kills at the n-th write, is not installed")
@pytest.mark.parametrize("write", [1, 2, 3, 5, 9, 40, 41, 42])
def test_killed_at_each_kind_of_write(folder, write):
    file = config(folder)
    verify("campaign", file, "--journal", "whole.db", status=1)
    prefix = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=pwrite64:signal=SIGKILL:when={write}")
    killed = start(file, folder / "j.db", prefix=prefix)
    killed.communicate()
    assert killed.returncode != 1, "it was not killed"
    verify("campaign", file, "--journal", "j.db", "--resume", status=1)
    assert content("j.db") == content("whole.db")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which fails system calls, is not installed")
@pytest.mark.parametrize("fault", ["pwrite64:error=EIO:when=30", "fdatasync:error=EIO:when=20", "pwrite64:error=ENOSPC:when=20+3"])
def test_an_error_of_the_disk_is_said_and_costs_no_unit(folder, fault):
    file, acked = config(folder), folder / "acked"
    process = start(
        file, folder / "j.db", prefix=("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}"), **{fake.ACKED: str(acked)}
    )
    shown, _ = process.communicate()
    assert process.returncode == 2 and "journal" in shown and "Traceback" not in shown, shown
    assert set(lines(acked)) <= {str(unit) for unit in content("j.db")}
    verify("campaign", file, "--journal", "j.db", "--resume", status=1)
    verify("campaign", file, "--journal", "whole.db", status=1)
    assert content("j.db") == content("whole.db")


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_and_after_room_is_made_it_goes_on(folder, small_disk):
    file, acked, journal = config(folder, cases=400), folder / "acked", small_disk / "j.db"
    shown, _ = (process := start(file, journal, **{fake.ACKED: str(acked)})).communicate()
    assert process.returncode == 2 and "full" in shown and "--resume" in shown and "Traceback" not in shown, shown
    assert 10 < len(lines(acked)) < 300 and set(lines(acked)) <= {str(unit) for unit in content(journal)}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    verify("campaign", file, "--journal", str(journal), "--resume", status=1)
    verify("campaign", file, "--journal", "whole.db", status=1)
    assert content(journal) == content("whole.db")


def test_a_journal_that_cannot_be_written_to_can_be_read(folder, small_disk):
    file, journal = config(folder, specs=["a_right"]), small_disk / "j.db"
    verify("campaign", file, "--journal", str(journal))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "a_right" in verify("report", str(journal)).output
    assert "Read-only" in verify("campaign", file, "--journal", str(journal), "--resume", status=2).output
    assert "not" in verify("campaign", file, "--journal", str(small_disk / "new.db"), status=2).output
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


@pytest.fixture
def written(folder):
    verify("campaign", config(folder, cases=200), "--journal", "j.db", status=1)
    return folder / "j.db", content("j.db", times=True)


def whatever_is_read_is_true(path, truth):
    """Read a damaged journal: rows that are the truth, or an error that says so. Returns how many rows, or None."""
    refused = None
    try:
        with Journal(path) as journal:
            summary, rows = Summary(journal), journal.rows()[0]
    except SpecError as error:
        refused = str(error)
    if refused is not None:
        assert str(path) in refused and "\n" not in refused
        return None
    for found in rows:
        assert truth[found.unit] == (found.digest, found.attempts, json.loads(found.verdict))
    if len(rows) < len(truth):
        assert summary.remarks, "rows are missing, and nothing says so"
    return len(rows)


def test_cut_off_anywhere_it_says_so_and_never_lies(written, folder):
    path, truth = written
    whole, cut, kept = path.read_bytes(), folder / "cut.db", []
    for size in [0, 1, 15, 16, 99, 100, 101, 4095, *range(4096, len(whole), 4096), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        whatever_is_read_is_true(cut, truth)
        shown = verify("report", str(cut), status=None)
        assert shown.exit_code in (0, 2) and shown.output.strip()
        (folder / "new.db").unlink(missing_ok=True)
        exported = verify("journal", "export", str(cut), "new.db", status=None)
        assert exported.exit_code == (0 if size >= 16 else 2), exported.output
        if exported.exit_code == 0:
            kept.append(whatever_is_read_is_true(folder / "new.db", truth))
    assert len(kept) > 20 and kept[-1] > 0.9 * len(truth) and kept == sorted(kept), kept
    cut.write_bytes(whole[: len(whole) // 2])
    verify("campaign", str(folder / "c.toml"), "--journal", "cut.db", "--resume", status=2)
    (folder / "new.db").unlink()
    verify("journal", "export", "cut.db", "new.db")
    verify("campaign", str(folder / "c.toml"), "--journal", "new.db", "--resume", status=1)
    assert content("new.db", times=True) == truth


def test_a_flipped_bit_is_noticed(written, folder):
    path, truth = written
    whole, flipped, rng = path.read_bytes(), folder / "flipped.db", random.Random(1)
    noticed = 0
    for _ in range(160):
        position = rng.randrange(len(whole))
        flipped.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << rng.randrange(8))]) + whole[position + 1 :])
        count = whatever_is_read_is_true(flipped, truth)
        noticed += count is None or count < len(truth)
    assert noticed > 80, "most of a journal is rows"
    position = whole.index(b'"PASS"') + 1
    flipped.write_bytes(whole[:position] + b"S" + whole[position + 1 :])
    assert "1 damaged units were left out" in verify("report", "flipped.db").output
    shown = verify("campaign", str(folder / "c.toml"), "--journal", "flipped.db", "--resume", status=1)
    assert "1 rows of flipped.db are damaged; their units are run again" in shown.output
    assert content("flipped.db", times=True) == truth


@pytest.mark.parametrize("bytes_", [b"", b"garbage" * 1000, b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 5000, b"{}"])
def test_files_that_are_no_journal(folder, bytes_):
    (folder / "j.db").write_bytes(bytes_)
    for arguments in (("report", "j.db"), ("journal", "export", "j.db", "new.db"), ("merge", "j.db", "-o", "all.db")):
        shown = verify(*arguments, status=None)
        assert shown.exit_code == 2 or arguments[0] == "journal", shown.output
        assert shown.output.startswith("verify: ") or "0 units kept" in shown.output
    if bytes_:
        assert verify("campaign", config(folder), "--journal", "j.db", "--resume", status=2).output.startswith("verify: ")
        assert (folder / "j.db").read_bytes() == bytes_, "a foreign file is left as it is"


def test_a_foreign_database_is_left_as_it_is(folder):
    import sqlite3

    base = sqlite3.connect(folder / "j.db")
    base.executescript("CREATE TABLE units (a); INSERT INTO units VALUES (1);")
    base.close()
    before = (folder / "j.db").read_bytes()
    assert "no journal of verify" in verify("report", "j.db", status=2).output
    assert "no journal of verify" in verify("campaign", config(folder), "--journal", "j.db", "--resume", status=2).output
    assert (folder / "j.db").read_bytes() == before


def test_a_journal_of_a_later_version_is_refused(written):
    import sqlite3

    base = sqlite3.connect(written[0])
    base.execute("PRAGMA user_version=7")
    base.close()
    assert "its version is 7" in verify("report", "j.db", status=2).output


def test_two_campaigns_on_one_journal(folder):
    file, acked = config(folder), folder / "acked"
    first = start(file, folder / "j.db", **{fake.SECONDS: "0.1", fake.ACKED: str(acked)})
    wait_for(acked.exists)
    assert "another campaign writes to it" in verify("campaign", file, "--journal", "j.db", "--resume", status=2).output
    assert "are not done" in verify("report", "j.db").output, "it can be read meanwhile"
    first.communicate()
    assert first.returncode == 1 and len(content("j.db")) == 30


def test_a_clock_that_goes_backwards(folder, monkeypatch):
    file = config(folder)
    verify("campaign", file, "--journal", "whole.db", status=1)
    now = [datetime(2030, 1, 1, tzinfo=UTC)]

    class Backwards(datetime):
        @classmethod
        def now(cls, tz=None):
            now[0] -= timedelta(days=1)
            return now[0]

    monkeypatch.setattr(rows_module, "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: now[0].timestamp())
    verify("campaign", file, "--budget", "1h", "--fail-fast", "--journal", "j.db", status=1)
    verify("campaign", file, "--budget", "1h", "--journal", "j.db", "--resume", status=1)
    assert content("j.db") == content("whole.db")


def test_it_needs_no_network(folder):
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a process without network needs unshare")
    done = start(config(folder), folder / "j.db", prefix=("unshare", "-rn"))
    said, _ = done.communicate()
    assert done.returncode == 1 and len(content("j.db")) == 30, said


def test_reading_runs_no_code(written, folder):
    """Under an audit hook: neither a config that names a module nor a journal makes anything be imported, run or unpickled."""
    (folder / "evil.py").write_text("raise SystemExit('imported')")
    (folder / "evil.toml").write_text('specs = ["evil:SPEC", "os:system"]')
    script = f"""
import sys
from verify.campaign.command import *
from verify.campaign.rows import row
from verify.campaign.summary import Summary
import verify.report.json, encodings.idna
seen = []
def read():
    Summary(Journal({str(written[0])!r})).report()
    return plan(load(sys.argv[1]))
read()  # msgspec evaluates the annotations of our own records once
sys.argv[1] = {str(folder / "evil.toml")!r}
sys.addaudithook(lambda event, args: seen.append((event, args)) if event in BAD else None)
BAD = ("exec", "compile", "subprocess.Popen", "os.system", "pickle.find_class")
assert read()[0].spec == "evil:SPEC"
assert not seen, seen
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "c.toml")], env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", [*HOSTILE, "::error::x", "=1+1", "' \" \\ $(touch x) `touch x`", "</script><script>alert(1)</script>"])
def test_hostile_names_in_every_output(folder, text):
    name = text.encode("utf-8", "replace").decode() or "x"
    with Journal("j.db", write=True) as journal:
        unit = Unit(spec=name, seed=0, start=0, stop=4)
        finding = fake.Finding(check="structure", status=Status.ERROR, message=f"it raised {name}", argument=name, address=name)
        journal.add(row(unit, "", 2, Verdict(name=name, status=Status.ERROR, findings=(finding,), address=name, notes=(name,))))
        journal.remember(planned=2, checks=["structure"], environment={"verify": name}, run={"command": name})
    with Journal("old.db", write=True) as journal:
        journal.add(row(unit, "", 1, Verdict(name=name, status=Status.PASS)))
    for kind in ("json", "junit", "html", "summary"):
        verify("report", "j.db", "--against", "old.db", f"--{kind}", f"out.{kind}")
    shown = verify("report", "j.db", "--against", "old.db", "-v").output
    assert all(c.isprintable() or c == "\n" for c in shown) and "new failure" in shown
    assert json.loads((folder / "out.json").read_text())["verdicts"][0]["name"] == name
    ElementTree.parse(folder / "out.junit")
    page, summary = (folder / "out.html").read_text(), (folder / "out.summary").read_text()
    assert "<script>alert" not in page and "\x1b" not in page and "\x1b" not in summary
    assert not any(line.startswith("::") for line in summary.splitlines())


def test_one_megabyte_of_garbage_is_no_config(folder):
    rng = random.Random(2)
    texts = [
        rng.randbytes(2**20), b"[" * 2**20, b"a.b." * 2**18, b"a = [" + b"[" * 2**20, b'x = "' + b"a" * 2**20, b"a = " + b"9" * 2**20, b"\n" * 2**20,
        b"specs = [" + b'"a", ' * 2**17 + b"]\nseed = 1", b"[limits]\n" * 2**17, b"#" * 2**23,
    ]  # fmt: skip
    for text in texts:
        (folder / "big.toml").write_bytes(text)
        begin = time.monotonic()
        shown = verify("campaign", "big.toml", "--dry-run", status=2)
        assert shown.output.startswith("verify: config big.toml: ") and len(shown.output) < 2000
        assert time.monotonic() - begin < 20


CONFIG = b'specs = ["linear", "a.b:c"]\nseeds = [0, 1]\nprofile = "deep"\ncases = 28\nchecks = ["gradient"]\nchunk = 14\nworkers = 2\n[limits]\nseconds = 1.5\nmemory = 4\n'
RUN = b'specs = ["linear"]\nseed = 1\ncases = 28\nchecks = ["gradient"]\n'
WORDS = [b"=", b"[", b"]", b'"', b"'''", b"\n", b".", b"inf", b"nan", b"-", b"1e400", b"2**70", b"9" * 30, b"\xff", b"\0", b"{", b"}", b",", b"true", b"0x", b"1979-05-27", b"limits", b"seed", b"#", b"\\u0000"]  # fmt: skip
GRAMMAR = ["n", "d_in", "*batch", "...", "_", "#n", "n=4", "kv*r", "n-1", "(", ")", "+", "//", "0", "1" * 9, " ", "**", "é", "٣", "\0", "*", "#", "=", "-", "n//0", "((((", "1e3"]  # fmt: skip
ADDRESS = [
    "layer_norm",
    "/",
    "0",
    "7",
    "@",
    "n=3",
    ",",
    "batch=2x1",
    "()",
    "x",
    "=",
    "-1",
    "9" * 25,
    "٣",
    "\n",
    " ",
    "pkg.mod:f",
    "\0",
    "é",
]


def mutated(rng, config=CONFIG):
    text = bytearray(config)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(text) + 1)
        text[at : at + rng.choice([0, 0, 1, 3, 10])] = rng.choice(
            [*WORDS, rng.randbytes(rng.randrange(4)), CONFIG[rng.randrange(99) : rng.randrange(150)]]
        )
    return bytes(text)


def joined(rng, parts):
    return "".join(rng.choice(parts) for _ in range(rng.randrange(0, 9)))


@pytest.mark.parametrize(
    ("read", "make"),
    [
        (lambda text: plan(convert(parse(text), Campaign)), mutated),
        (lambda text: convert(parse(text), RunConfig), lambda rng: mutated(rng, RUN)),
        (parse_sizes, lambda rng: joined(rng, GRAMMAR)),
        (parse_address, lambda rng: rng.choice(["", "linear/0/7", "linear/0/7@"]) + joined(rng, ADDRESS)),
        (lambda text: shard((), text), lambda rng: joined(rng, ["1", "/", "3", "0", "-", "٣", " ", "9" * 9])),
        (seconds, lambda rng: joined(rng, ["1", ".", "s", "m", "h", "-", "e", "٣", "9" * 9])),
    ],
    ids=["campaign", "config", "sizes", "address", "shard", "budget"],
)
def test_readers_take_or_refuse_whatever_comes(read, make):
    rng, taken = random.Random(3), 0
    for _ in range(FUZZ):
        text = make(rng)
        try:
            read(text)
            taken += 1
        except SpecError:
            pass
        except Exception as error:
            pytest.fail(f"{text!r}: {type(error).__name__}: {error}")
    assert 0 < taken < FUZZ, "both must come up"


def test_what_is_a_journal(folder):
    assert not is_journal("nothing.db") and not is_journal("a\0b") and not is_journal(folder)
    assert "no such file" in verify("merge", "nothing.db", "-o", "all.db", status=2).output
    assert Path("all.db").exists() is False
