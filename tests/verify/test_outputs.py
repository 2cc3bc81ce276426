"""Where reports go: files whole or not at all, a summary that is appended, a stored report shown again."""

import json
import os
import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.verify.test_reports import FULL, HOSTILE, finding, verdict
from verify import Report, SpecError, Status, files
from verify.cli import main
from verify.report import json as json_report
from verify.report import summary

REPORT = Report(verdicts=(FULL, verdict(Status.PASS, finding(Status.PASS), name="fine")), environment={"jax": "1.2"}, run={"seed": 3})


def verify(*args, **options):
    return CliRunner(env={"COLUMNS": "100"}).invoke(main, [str(arg) for arg in args], **options)


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json_report.render(REPORT))
    return path


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_has_the_permissions_that_the_umask_gives(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write(str(tmp_path / "new"), "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report"
    files.write(str(path), "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SpecError, match="No space left"):
        files.write(str(path), "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="links, pipes")
def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    files.write(str(tmp_path / "link"), "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write(str(tmp_path / "pipe"), "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_summary_is_appended(tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("# Of another step\n")
    for _ in range(2):
        assert verify("report", stored_in(tmp_path), "--summary", path).exit_code == 0
    text = path.read_text()
    assert text.startswith("# Of another step\n") and text.count("### Derivatives: 1 FAIL, 1 PASS") == 2


def stored_in(folder):
    (folder / "r.json").write_text(json_report.render(REPORT))
    return folder / "r.json"


def test_the_summary_says_what_matters_worst_first():
    text = summary.render(Report(verdicts=REPORT.verdicts[::-1], environment=REPORT.environment))
    rows = [line for line in text.splitlines() if line.startswith("| ") and "operation" not in line]
    assert ["op" in rows[0] and "FAIL" in rows[0], "fine" in rows[1] and "PASS" in rows[1]] == [True, True]
    for words in ("it is twice the right one", "verify replay op/0/7", "gradient says so", "jax 1.2"):
        assert words in text
    assert "nothing ran" in summary.render(Report(verdicts=()))


@pytest.mark.parametrize("text", [*HOSTILE, "a|b", "[x](http://y)", "`code`", "**b**", "<img src=x>", "@user #1"])
def test_the_summary_shows_names_to_the_letter(text):
    hostile = verdict(Status.FAIL, finding(message=text, argument=text), name=text, diagnosis=text, address=text)
    rendered = summary.render(Report(verdicts=(hostile,)))
    row = next(line for line in rendered.splitlines() if "FAIL" in line and line.startswith("|"))
    assert row.count("|") == 6  # five cells
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", rendered)
    assert set(re.findall(r"</?[a-z]+", rendered)) <= {"<code", "</code"}
    assert not re.search(r"[`\[\]@]|\*\*.*\*\*.*\*\*", row)


def test_a_stored_report_is_shown_again(stored):
    result = verify("report", stored)
    assert result.exit_code == 0 and result.stdout.splitlines() == [*str(REPORT).splitlines()], result.output
    assert verify("report", "-", input=stored.read_bytes()).stdout == result.stdout


def test_a_stored_report_in_every_form(stored, tmp_path):
    outputs = {kind: tmp_path / f"again.{kind}" for kind in ("json", "junit", "html", "summary")}
    result = verify("report", stored, *(word for kind, path in outputs.items() for word in (f"--{kind}", path)))
    assert result.exit_code == 0, result.output
    assert outputs["json"].read_text() == stored.read_text()
    assert outputs["html"].read_text() == REPORT.to_html()
    assert all(path.stat().st_size for path in outputs.values())
    assert verify("report", stored, "--html", "-").stdout == REPORT.to_html()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("", "no JSON"),
        ("{}", "schema"),
        ('{"schema": "\x1b[2J"}', "no JSON"),
        ('{"schema": "\\u001b[2J"}', "not a report"),
    ],
)
def test_what_is_no_report_is_one_line_and_exit_status_2(tmp_path, content, words):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    result = verify("report", path)
    assert result.exit_code == 2 and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1 and words in result.stderr and "\x1b" not in result.stderr


def test_a_run_says_what_was_asked_for(tmp_path):
    path = tmp_path / "run.json"
    result = verify("run", "relu", "--cases", 2, "--seed", 7, "--check", "gradient", "--json", path, "--html", tmp_path / "run.html")
    assert result.exit_code == 0, result.output
    run = json.loads(path.read_text())["run"]
    assert run.pop("date") and run.pop("seconds") > 0
    assert run == {
        "command": "verify run relu --cases 2 --seed 7 --check=gradient",
        "seed": 7,
        "cases": 2,
        "checks": ["gradient"],
        "operations": 1,
    }
    assert run["command"] in (tmp_path / "run.html").read_text()
