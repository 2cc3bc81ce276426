"""Campaigns: what is planned, run once, written down, gone on with, merged and compared. Faults are in test_campaign_faults.py."""

import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.verify import _campaign_fake as fake
from verify import SpecError
from verify.campaign.config import Campaign, Limits, load
from verify.campaign.digest import _content, _sources, digest
from verify.campaign.journal import Journal
from verify.campaign.plan import duration, plan, seconds, shard
from verify.cli import main
from verify.spec import Spec

ROOT = Path(__file__).parents[2]
SPECS = ["a_right", "b_wrong", "c_right"]
HERE = "tests.verify._campaign_specs"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake.install(monkeypatch.setattr)
    return tmp_path


def config(folder, specs=SPECS, **more):
    lines = [f"specs = {json.dumps(specs)}", *(f"{key} = {json.dumps(value)}" for key, value in {"cases": 40, "chunk": 4, **more}.items())]
    path = folder / "c.toml"
    path.write_text("\n".join(lines))
    return str(path)


def verify(*arguments, status=0):
    result = CliRunner().invoke(main, list(arguments), prog_name="verify", catch_exceptions=False)
    assert status is None or result.exit_code == status, result.output
    return result


def content(journal, times=False):
    """What a journal says, without what differs from run to run."""
    with Journal(journal) as opened:
        rows, damaged = opened.rows()
    assert not damaged
    found = {}
    for row in rows:
        verdict = json.loads(row.verdict)
        if not times:
            del verdict["seconds"], verdict["timings"]
        assert row.unit not in found
        found[row.unit] = (row.digest, row.attempts, verdict)
    return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("specs = []", ["specs"]),
        ("", ["specs"]),
        ('specs = ["a"]\nseed = 1', ["seed", "seeds"]),
        ('specs = ["a"]\n[limits]\nsecond = 1', ["second", "seconds", "limits"]),
        ('specs = ["a"]\n[limits]\nseconds = 0', ["seconds", "> 0"]),
        ('specs = ["a"]\n[limits]\nseconds = nan', ["seconds"]),
        ('specs = ["a"]\nseeds = [-1]', ["seeds", ">= 0"]),
        ('specs = ["a"]\nseeds = [9223372036854775808]', ["seeds"]),
        ('specs = ["a"]\nprofile = "depe"', ["profile", "depe"]),
        ('specs = ["a"]\ndtypes = ["int8"]', ["dtypes", "int8"]),
        ('specs = ["a"]\ncases = 0', ["cases", ">= 1"]),
        ('specs = [""]', ["specs"]),
    ],
)
def test_a_config_says_what_is_wrong_with_it(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(SpecError) as error:
        load(tmp_path / "c.toml")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_the_campaigns_of_this_repository_can_be_read_and_name_every_operation():
    from manual_vjp.catalog import NAMES

    for name in ("nightly", "deep"):
        assert load(ROOT / "configs" / f"{name}.toml").specs == NAMES


def test_the_plan_covers_every_case_once_and_its_shards_are_a_partition():
    campaign = Campaign(specs=("a", "b", "a"), seeds=(3, 1, 3), cases=30, chunk=7)
    units = plan(campaign)
    cases = [(unit.spec, unit.seed, index) for unit in units for index in range(unit.start, unit.stop)]
    assert sorted(cases) == sorted((spec, seed, index) for spec in "ab" for seed in (1, 3) for index in range(30))
    assert {unit.spec for unit in units[:2]} == {"a", "b"}, "a short campaign sees every spec"
    parts = [shard(units, f"{k}/3") for k in (1, 2, 3)]
    assert sorted(unit for part in parts for unit in part) == sorted(units)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/2/3", "-1/3", "1 /3", "", "١/٢"])
def test_shards_that_are_none(text):
    with pytest.raises(SpecError, match="K/N"):
        shard((), text)


def test_times():
    assert (seconds("90s"), seconds("30m"), seconds("1.5h")) == (90, 1800, 5400)
    for text in ("", "30", "m", "0s", "-1s", "1e9s", "nans", "30 m"):
        with pytest.raises(SpecError, match="no time"):
            seconds(text)
    assert [duration(value) for value in (45, 600, 9000, 260_000)] == ["45 s", "10.0 min", "2.5 h", "3.0 days"]


def test_a_dry_run_runs_nothing_and_knows_times_from_the_journal(folder):
    file = config(folder)
    shown = verify("campaign", file, "--dry-run", "--workers", "2")
    assert "30 units of 3 specs: about 36 s of one core, 18 s with 2" in shown.output and not list(folder.glob("*.db"))
    assert verify("campaign", file, "--dry-run", "-v").output.count("b_wrong/0/") == 10
    verify("campaign", file, status=1)
    assert "a_right: 10 units, 40 cases, about 5 s (as in the journal)" in verify("campaign", file, "--dry-run").output  # 0.5 s for 4 cases


def test_a_unit_is_run_once_and_again_when_its_sources_change(folder, monkeypatch):
    file, acked = config(folder), folder / "acked"
    monkeypatch.setenv(fake.ACKED, str(acked))
    verify("campaign", file, "--journal", "j.db", status=1)
    assert len(acked.read_text().split()) == 30
    assert "--resume" in verify("campaign", file, "--journal", "j.db", status=2).output
    verify("campaign", file, "--journal", "j.db", "--resume", status=1)
    assert len(acked.read_text().split()) == 30, "all was done"
    monkeypatch.setenv(fake.VERSION, "2")
    verify("campaign", file, "--journal", "j.db", "--resume", status=1)
    assert len(acked.read_text().split()) == 60 and len(content("j.db")) == 30, "all is run again, and counted once"
    more = config(folder, seeds=[0, 1])
    verify("campaign", more, "--journal", "j.db", "--resume", status=1)
    assert len(content("j.db")) == 60, "a plan may grow"
    assert "not in this plan" in verify("campaign", config(folder, chunk=5), "--journal", "j.db", "--resume", status=2).output


def test_only_failed_runs_what_failed(folder, monkeypatch):
    file, acked = config(folder), folder / "acked"
    verify("campaign", file, status=1)
    failed = {str(unit) for unit, (_, _, verdict) in content("c.db").items() if verdict["status"] != "PASS"}
    assert 0 < len(failed) < 10
    monkeypatch.setenv(fake.ACKED, str(acked))
    verify("campaign", file, "--only-failed", status=1)
    assert set(acked.read_text().split()) == failed


def test_fail_fast_and_a_budget_stop_early_and_are_not_a_success(folder, monkeypatch):
    file = config(folder)
    stopped = verify("campaign", file, "--fail-fast", "--workers", "1", "--journal", "a.db", status=1)
    failing = [unit for unit in plan(load(file)) if fake.verdict({**vars_of(unit)}).status == "FAIL"]
    assert (
        len(content("a.db")) == plan(load(file)).index(failing[0]) + 1 and "is FAIL" in stopped.output and "are not done" in stopped.output
    )
    right = config(folder, specs=["a_right"])
    monkeypatch.setenv(fake.SECONDS, "0.2")
    stopped = verify("campaign", right, "--budget", "0.5s", "--workers", "1", "--journal", "b.db", status=3)
    assert 1 <= len(content("b.db")) < 10 and "the budget is spent" in stopped.output
    monkeypatch.setenv(fake.SECONDS, "0")
    verify("campaign", right, "--journal", "b.db", "--resume")


def vars_of(unit):
    return {"spec": unit.spec, "seed": unit.seed, "start": unit.start, "stop": unit.stop}


def test_shards_merge_to_the_whole(folder):
    file = config(folder)
    verify("campaign", file, "--journal", "whole.db", status=1)
    for k in (1, 2, 3):
        verify("campaign", file, "--shard", f"{k}/3", "--journal", f"{k}.db", status=None)
    assert "30 units of 3 journals" in verify("merge", "1.db", "2.db", "3.db", "-o", "all.db").output
    assert content("all.db") == content("whole.db")
    assert verify("report", "all.db").output == verify("report", "whole.db").output
    assert "exists already" in verify("merge", "1.db", "-o", "all.db", status=2).output
    verify("merge", "1.db", "3.db", "-o", "some.db")
    assert "10 of 30 units are not done" in verify("report", "some.db").output
    verify("campaign", file, "--journal", "all.db", "--resume", status=1)


def test_merging_refuses_results_of_other_sources(folder, monkeypatch):
    file = config(folder)
    verify("campaign", file, "--journal", "a.db", status=1)
    monkeypatch.setenv(fake.VERSION, "2")
    verify("campaign", file, "--journal", "b.db", status=1)
    assert "other sources" in verify("merge", "a.db", "b.db", "-o", "all.db", status=2).output
    verify("merge", "a.db", "a.db", "-o", "same.db")
    assert content("same.db") == content("a.db")


def test_what_is_lost_is_tried_once_more_and_what_is_refused_is_not(folder):
    shown = verify("campaign", config(folder, specs=["a_right", "lost", "nothing"]), status=2)
    rows = content("c.db")
    assert {attempts for unit, (_, attempts, _) in rows.items() if unit.spec == "lost"} == {2}
    assert {attempts for unit, (_, attempts, _) in rows.items() if unit.spec != "lost"} == {1}
    assert "the process died (signal SIGSEGV), 2 times. Alone:" in " ".join(shown.output.split())
    assert "verify replay lost/0/0" in shown.output and "nothing: all its units are ERROR: there is no nothing" in shown.output
    assert all(verdict["status"] == "PASS" for unit, (_, _, verdict) in rows.items() if unit.spec == "a_right")
    assert "there is no nothing" in verify("campaign", config(folder, specs=["nothing"]), "--journal", "n.db", status=2).output


def test_the_summary_of_a_campaign_is_the_report_of_its_journal(folder):
    verify("campaign", config(folder), "--json", "a.json", "--html", "a.html", "--junit", "a.xml", "--summary", "a.md", status=1)
    verify("report", "c.db", "--json", "b.json", "--html", "b.html", "--junit", "b.xml", "--summary", "b.md")
    for kind in ("json", "html", "xml", "md"):
        assert (folder / f"a.{kind}").read_bytes() == (folder / f"b.{kind}").read_bytes()
    stored = json.loads((folder / "a.json").read_text())
    assert stored["run"]["units"] == stored["run"]["planned"] == 30
    assert {verdict["name"]: (verdict["status"], verdict["cases"]) for verdict in stored["verdicts"]} == {
        "a_right": ("PASS", 40), "b_wrong": ("FAIL", 40), "c_right": ("PASS", 40),
    }  # fmt: skip


def test_a_report_compares_with_an_earlier_journal(folder, monkeypatch):
    file = config(folder, specs=["a", "b"])
    verify("campaign", file, "--journal", "old.db")
    usual = fake.verdict

    def changed(request):
        verdict = usual(request)
        if request["spec"] == "a" and request["start"] == 8:
            return fake.Verdict(name="a", status=fake.Status.FAIL, cases=4)
        error = fake.Finding(check="precision", status=fake.Status.PASS, argument="x", dtype="bfloat16", units=3.0, comparisons=1)
        return fake.Verdict(name="b", status=fake.Status.PASS, findings=(*verdict.findings, error), seconds=2.0)

    monkeypatch.setattr(fake, "verdict", changed)
    verify("campaign", file, "--journal", "new.db", status=1)
    shown = verify("report", "new.db", "--against", "old.db", "--json", "new.json").output
    assert "new failure: a/0/8-11 was PASS, is FAIL" in shown and "slower: 20.0 s, it was 5.0 s" in shown
    assert "fixed: a/0/8-11 was FAIL, is PASS" in verify("report", "old.db", "--against", "new.db").output
    assert any("new failure" in note for note in json.loads((folder / "new.json").read_text())["verdicts"][0]["notes"])
    assert "nothing changed" in verify("report", "new.db", "--against", "new.db").output

    def worse(request):
        verdict = changed(request)
        findings = tuple(fake.Finding(**{**vars(f), "units": 2 * f.units}) if f.units else f for f in verdict.findings)
        return fake.Verdict(**{**vars(verdict), "findings": findings})

    monkeypatch.setattr(fake, "verdict", worse)
    verify("campaign", file, "--journal", "worse.db", status=1)
    shown = verify("report", "worse.db", "--against", "new.db").output
    assert "less accurate in bfloat16: the cotangent of x is 6 times as wrong as autodiff's, it was 3" in shown
    assert "--against compares journals" in verify("report", "new.json", "--against", "old.db", status=2).output


def test_workers_that_have_other_sources_are_refused(folder, monkeypatch):
    usual = fake.answer
    monkeypatch.setattr(fake, "answer", lambda request: usual(request) | ({"digest": "other"} if request["want"] == "unit" else {}))
    assert "other sources, versions or devices" in verify("campaign", config(folder), status=2).output


@pytest.mark.parametrize("name", ["dusk", "dask:", "dask://", "dask://a", "dask://a:b", "dask://a b:1", "ray://a:1", ""])
def test_executors_that_there_are_not(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert "--executor" in verify("campaign", config(tmp_path), "--executor", name, status=2).output


def test_interrupted_once_it_ends_its_units_and_goes_on_later(folder):
    file = config(folder, specs=["a_right"])
    command = [sys.executable, "-m", "tests.verify._campaign_fake", "campaign", file, "--journal", str(folder / "j.db"), "--workers", "2"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", fake.SECONDS: "0.3", fake.ACKED: str(folder / "acked")}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: (folder / "acked").exists())
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "waiting for the units that run" in shown and "stopped: interrupted" in shown, shown
    done = content(folder / "j.db")
    assert 2 <= len(done) < 10 and "are not done" in shown
    verify("campaign", file, "--journal", "j.db", "--resume")
    assert len(content("j.db")) == 10


def wait_for(condition, patience=30.0):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_a_digest_sees_the_rule_and_what_it_imports_of_its_package(tmp_path, monkeypatch):
    package = tmp_path / "campaign_digest_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rule.py").write_text("from . import helper\nfrom campaign_digest_package.deeper import constant\ndef f(x):\n    return x\n")
    (package / "helper.py").write_text("import os\n")
    (package / "deeper.py").write_text("constant = 1\n")
    (package / "other.py").write_text("from campaign_digest_package import rule\n")
    monkeypatch.syspath_prepend(tmp_path)
    rule = importlib.import_module("campaign_digest_package.rule")
    importlib.import_module("campaign_digest_package.other")
    asked = {"checks": [], "dtypes": []}

    def now(**changes):
        _content.cache_clear()
        return digest(Spec(**{"name": "f", "fn": rule.f, **changes}), asked)

    first = now()
    assert {path.stem for path in _sources("campaign_digest_package.rule")} == {"__init__", "rule", "helper", "deeper"}
    assert now() == first
    assert digest(Spec(name="f", fn=rule.f), {**asked, "checks": ["gradient"]}) != first
    assert now(sizes={"n": (1, 3)}) != first
    (package / "other.py").write_text("changed = 1\n")
    assert now() == first, "nothing of it is used"
    (package / "deeper.py").write_text("constant = 2\n")
    assert now() != first


def test_limits_have_defaults():
    assert Campaign(specs=("a",)).limits == Limits(seconds=600.0, memory=4.0)
