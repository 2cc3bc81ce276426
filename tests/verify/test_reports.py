"""Reports from records: JSON, JUnit and text, also for names that would repaint a terminal or break a parser."""

import html as html_text
import io
import json
import re
from xml.etree import ElementTree

import junitparser
import pytest

from verify import Finding, Report, Status, Verdict
from verify.printable import clean, short
from verify.report import json as json_report
from verify.report import junit, summary
from verify.report.text import render_report, render_verdict

HOSTILE = [
    "<script>",
    "\x1b[2J",
    "a\x00b",
    "[/red]",
    "[bold]x[/bold]",
    "a\u202eb",
    "]]>",
    "&amp;\"'",
    "a\nb",
    "\ud800",
    "\ufffe",
    "x" * 300,
    "ärger 漢字 🙂",
    "--",
    "\r\x07\x9b31m",
]
NUMBERS = [float("nan"), float("inf"), -float("inf"), 0.0, 1e-300]


def finding(status=Status.FAIL, check="gradient", **changes):
    made = {
        "check": check,
        "status": status,
        "message": f"{check} says so",
        "argument": "x",
        "index": (0, 3),
        "got": 1.5,
        "want": 2.5,
        "bound": 1e-9,
        "wrong": 1,
    }
    return Finding(**{**made, "comparisons": 8, "cases": 2, "detectable": 1.2e-10, "dtype": "float64", "address": "op/0/7", **changes})


def verdict(status=Status.FAIL, *findings, **changes):
    made = {
        "name": "op",
        "status": status,
        "findings": findings or (finding(status),),
        "comparisons": 8,
        "cases": 2,
        "shapes": 2,
        "seconds": 0.25,
    }
    return Verdict(**{**made, **changes})


FULL = verdict(
    Status.FAIL, finding(), finding(Status.PASS, "structure", argument=None, index=None), finding(Status.SKIP, "vmap"), finding(Status.INCONCLUSIVE, "primal"),
    diagnosis="it is twice the right one", address="op/0/7@n=1", smallest_case="n=1", notes=("stopped after 8 failing cases",), smallest_detectable=1.2e-10,
)  # fmt: skip


def loaded(report):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(json_report.render(report), parse_constant=refuse)


def test_json_says_all_of_it():
    record = loaded(Report(verdicts=(FULL,), environment={"jax": "1.2", "devices": ["cpu:cpu"]}))
    assert record["schema"] == "verify-report/1" and record["environment"] == {"jax": "1.2", "devices": ["cpu:cpu"]}
    (one,) = record["verdicts"]
    assert {"address", "name", "status", "findings", "comparisons", "diagnosis"} <= set(one)
    assert (one["name"], one["status"], one["address"], one["diagnosis"], one["comparisons"]) == (
        "op",
        "FAIL",
        "op/0/7@n=1",
        "it is twice the right one",
        8,
    )
    first = one["findings"][0]
    assert {"check", "status", "argument", "index", "got", "want", "bound", "message"} <= set(first)
    assert (first["check"], first["status"], first["argument"], first["index"]) == ("gradient", "FAIL", "x", [0, 3])
    assert (first["got"], first["want"], first["bound"], first["message"]) == (1.5, 2.5, 1e-9, "gradient says so")
    assert [f["status"] for f in one["findings"]] == ["FAIL", "PASS", "SKIP", "INCONCLUSIVE"]
    assert one["findings"][1]["index"] is None and one["findings"][1]["argument"] is None


def test_json_of_nothing():
    assert loaded(Report(verdicts=()))["verdicts"] == []


@pytest.mark.parametrize("number", NUMBERS)
def test_json_survives_every_float(number):
    got = loaded(Report(verdicts=(verdict(Status.FAIL, finding(got=number, want=-number, bound=number)),)))["verdicts"][0]["findings"][0][
        "got"
    ]
    assert repr(float(got)) == repr(number)


@pytest.mark.parametrize("text", HOSTILE)
def test_json_keeps_hostile_text_to_the_letter_and_stays_ascii_safe(text):
    rendered = json_report.render(Report(verdicts=(verdict(Status.FAIL, finding(message=text, argument=text), name=text, diagnosis=text),)))
    one = json.loads(rendered)["verdicts"][0]
    assert one["name"] == one["diagnosis"] == one["findings"][0]["message"] == text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", rendered)
    rendered.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_junit_parses_whatever_the_names_are(text):
    report = Report(verdicts=(verdict(Status.FAIL, finding(message=text, argument=text), name=text, diagnosis=text, address=text),))
    rendered = junit.render(report)
    parsed = junitparser.JUnitXml.fromstring(rendered.encode("utf-8"))
    (suite,) = list(parsed)
    (case,) = list(suite)
    assert suite.failures == 1 and suite.tests == 1 and isinstance(case.result[0], junitparser.Failure)
    if text in ("<script>", "[/red]", "]]>", "&amp;\"'"):
        assert suite.name == text


def test_junit_counts_what_it_holds(tmp_path):
    report = Report(
        verdicts=(
            FULL,
            verdict(Status.PASS, finding(Status.PASS), name="fine"),
            verdict(Status.ERROR, finding(Status.ERROR), name="broken"),
        )
    )
    path = tmp_path / "report.xml"
    path.write_text(junit.render(report), encoding="utf-8")
    suites = {suite.name: suite for suite in junitparser.JUnitXml.fromfile(str(path))}
    assert {name: (s.tests, s.failures, s.errors, s.skipped) for name, s in suites.items()} == {
        "op": (4, 1, 1, 1),
        "fine": (1, 0, 0, 0),
        "broken": (1, 0, 1, 0),
    }
    failed = next(case for case in suites["op"] if case.result and isinstance(case.result[0], junitparser.Failure))
    assert "gradient says so" in failed.result[0].message and "verify replay op/0/7@n=1" in failed.result[0].text
    assert "it is twice the right one" in failed.result[0].text
    for suite in suites.values():
        assert len({case.name for case in suite}) == suite.tests, "case names must be distinct, or CI systems merge them"


def test_junit_of_a_verdict_without_findings_still_fails_when_it_is_not_pass():
    """An operation where nothing ran must not vanish from a CI summary."""
    (suite,) = list(junitparser.JUnitXml.fromstring(junit.render(Report(verdicts=(Verdict(name="op", status=Status.SKIP),))).encode()))
    assert suite.tests >= 1


def test_junit_is_xml_with_its_declaration():
    rendered = junit.render(Report(verdicts=(FULL,)))
    assert rendered.startswith("<?xml")
    ElementTree.parse(io.BytesIO(rendered.encode("utf-8")))


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("text", ["op", "a_very_long_operation_name_of_some_package.and_module:and_function_with_a_name", *HOSTILE])
def test_text_fits_its_width_and_has_no_escape(width, text):
    wide = verdict(
        Status.FAIL,
        finding(message=text * 3, argument=text[:20]),
        name=text,
        diagnosis=text,
        address=f"{text}/0/7",
        smallest_case=text,
        notes=(text,),
    )
    rendered = render_report(Report(verdicts=(wide, FULL)), width=width, colour=False, verbose=True)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ufffe]", rendered)
    from rich.cells import cell_len

    assert max(cell_len(line) for line in rendered.splitlines()) <= width


def test_text_keeps_brackets():
    assert "[/red]" in render_report(Report(verdicts=(verdict(name="[/red]"),)))
    assert "[bold]x[/bold]" in render_verdict(verdict(Status.FAIL, finding(message="[bold]x[/bold]")))


def test_text_says_what_matters():
    rendered = render_report(Report(verdicts=(FULL,)), width=100)
    for words in (
        "FAIL op",
        "gradient says so",
        "it is twice the right one",
        "verify replay op/0/7@n=1",
        "n=1",
        "stopped after 8",
        "verify explain gradient",
        "1 FAIL",
    ):
        assert words in rendered
    assert rendered == "\n".join(line.rstrip() for line in rendered.split("\n"))


@pytest.mark.parametrize("status", list(Status))
def test_every_status_is_named(status):
    for rendered in (render_report(Report(verdicts=(verdict(status),))), str(verdict(status))):
        assert str(status) in rendered
    rendered = render_report(Report(verdicts=(verdict(status, smallest_detectable=1e-10),)), width=140)
    assert ("would have been caught" in rendered) == (status is Status.PASS)


def test_colour_only_when_asked_for():
    assert "\x1b[" in render_report(Report(verdicts=(FULL,)), colour=True)
    assert "\x1b" not in render_report(Report(verdicts=(FULL,)), colour=False) + str(FULL)


def test_nothing_ran():
    assert "nothing ran" in str(Report(verdicts=()))
    assert not Report(verdicts=())


@pytest.mark.parametrize(
    ("statuses", "good"),
    [([Status.PASS], True), ([Status.PASS, Status.SKIP], False), ([Status.PASS, Status.INCONCLUSIVE], False), ([Status.FAIL], False)],
)
def test_only_pass_is_success(statuses, good):
    assert bool(Report(verdicts=tuple(verdict(status) for status in statuses))) is good
    assert [bool(verdict(status)) for status in statuses] == [status is Status.PASS for status in statuses]


@pytest.mark.parametrize(
    ("installed", "said", "unsaid"),
    [(True, "verify replay op/0/7", "spec="), (False, 'verify.replay("op/0/7", spec=...)', "verify replay")],
)
def test_a_spec_of_a_script_is_replayed_in_python_and_an_installed_one_by_the_command(installed, said, unsaid):
    report = Report(verdicts=(verdict(address="op/0/7", installed=installed),))
    restored = json_report.read(json_report.render(report))
    page = html_text.unescape(report.to_html())
    markdown = html_text.unescape(summary.render(report))
    case = ElementTree.fromstring(junit.render(report)).find(".//failure").text
    for text in (render_verdict(report.verdicts[0]), render_verdict(restored.verdicts[0]), page, markdown, case):
        assert said in text and unsaid not in text


def test_replay_commands_can_be_pasted():
    import shlex

    for address in (
        "op/0/7",
        "op/0/7@b=()",
        "it's/0/7",
        'a"b/0/1',
        "a$b/0/1@n=()",
        "a!b/0/0",
        "[x]/0/0",
        "a#b/0/0",
        "~a/0/0",
        "a\\b/0/0",
        "{a,b}/0/0",
    ):
        line = next(line for line in str(verdict(address=address)).splitlines() if line.strip().startswith("replay"))
        assert shlex.split(line.split("replay ", 1)[1])[-1] == address
        if any(c in address for c in "()'\"$![]#~\\{}"):
            assert re.search(r"verify replay ['\"]", line), f"{address} is not quoted"


@pytest.mark.parametrize("c", ["\x00", "\x1b", "\u202e", "\u2066", "\ud800", "\ufffe", "\u200b", "\x85"])
def test_clean(c):
    assert clean(f"a{c}b") == "a\ufffdb"


def test_clean_leaves_ordinary_text():
    assert clean("ärger 漢字 🙂\n\tx²") == "ärger 漢字 🙂\n\tx²"


def test_github_shows_a_wrong_rule_beside_its_source_whatever_it_is_called():
    from verify.report import github

    wrong = Verdict(name="a:b\n::error::,%", status=Status.FAIL, location="src/a,b.py:12", diagnosis="off by 50 %\nor so")
    right, nowhere = Verdict(name="right", status=Status.PASS, location="src/c.py:1"), Verdict(name="spec", status=Status.FAIL)
    text = github.render(Report(verdicts=(wrong, right, nowhere)))
    assert text == "::error file=src/a%2Cb.py,line=12,title=a%3Ab%0A%3A%3Aerror%3A%3A%2C%25%3A FAIL::off by 50 %25%0Aor so"


def test_long_messages_are_cut_between_words():
    told = short("word " * 100, 300)
    assert told.endswith("word ...") and 290 < len(told) <= 300
    assert short("two\n  lines") == "two lines"
    assert short("x" * 400, 300) == "x" * 296 + " ..."
