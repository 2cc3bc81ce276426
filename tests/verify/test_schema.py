"""The JSON report against its published schema, and what is read back: real reports of every status, and everything that is no report."""

import json
from importlib.resources import files

import jsonschema
import pytest
from click.testing import CliRunner

from verify.cli import main
from verify.report.json import NotAReport, read, render

SCHEMA = json.loads((files("verify.report") / "schema.json").read_text("utf-8"))
RULES = """
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

def custom(primal, backward):
    fn = jax.custom_vjp(primal)
    fn.defvjp(lambda x: (primal(x), x), backward)
    return fn

def _square(x: Float[Array, "n"]):
    return x * x

def _nowhere(x: Float[Array, "n"]):
    return jnp.log(-1 - x * x)

right = custom(_square, lambda x, ct: (2 * x * ct,))
half = custom(_square, lambda x, ct: (jnp.where(x.size > 4, jnp.nan, x) * ct,))
nowhere = custom(_nowhere, lambda x, ct: (ct * 2 * x / (1 + x * x),))

def raises(x: Float[Array, "n"]):
    raise RuntimeError("the primal is broken")
"""
STATUSES = {"right": "PASS", "half": "FAIL", "nowhere": "INCONCLUSIVE", "raises": "ERROR"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The JSON text of one run with a verdict of each status."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "schema_rules.py").write_text(RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        names = [f"schema_rules:{name}" for name in STATUSES]
        result = CliRunner().invoke(main, ["run", *names, "--cases", "8", "--json", "-", "--check", "gradient", "--check", "linearity"])
    assert result.exit_code == 1, result.output
    return result.stdout


def validator():
    return jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one_and_says_what_each_field_means():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    silent = [name for name, field in fields(SCHEMA) if "description" not in field and "$ref" not in field and name != "environment"]
    assert silent == []


def fields(schema):
    """Every property in the schema with its name, at any depth."""
    for name, field in schema.get("properties", {}).items():
        yield name, field
        yield from fields(field)
    for child in [*schema.get("$defs", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        yield from fields(child)


def test_reports_of_every_status_are_valid(report):
    record = json.loads(report)
    assert [verdict["status"] for verdict in record["verdicts"]] == list(STATUSES.values())
    validator().validate(record)


def test_it_describes_every_field_that_is_written(report):
    """The same schema with nothing allowed beside what it names."""

    def closed(schema):
        if isinstance(schema, list):
            return [closed(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        strict = {key: closed(value) for key, value in schema.items()}
        return {**strict, "additionalProperties": False} if "properties" in schema and "type" in schema else strict

    record = json.loads(report)
    assert record["verdicts"][1]["evidence"]["curve"] and record["verdicts"][1]["evidence"]["cases"]
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(record)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "verify-report/2"),
        (("verdicts",), {}),
        (("verdicts", 0, "status"), "pass"),
        (("verdicts", 0, "cases"), -1),
        (("verdicts", 1, "findings", 0, "got"), "a lot"),
        (("verdicts", 1, "evidence", "errors", 0, "block"), [1]),
        (("verdicts", 1, "evidence", "curve", "rule"), None),
    ],
)
def test_it_refuses_what_no_report_has(report, path, value):
    record = json.loads(report)
    *way, last = path
    place = record
    for step in way:
        place = place[step]
    place[last] = value
    assert not validator().is_valid(record)


def test_a_report_is_read_as_it_was_written(report):
    again = read(report)
    assert render(again) == report
    assert read(b"\xef\xbb\xbf" + report.encode()) == again  # as editors on Windows store it


def test_an_older_report_is_read_and_shown(report):
    """Of the first version: no run, timings, units or evidence."""
    record = json.loads(report)
    del record["run"]
    for verdict in record["verdicts"]:
        del verdict["timings"], verdict["evidence"]
        for finding in verdict["findings"]:
            del finding["units"]
    validator().validate(record)
    old = read(json.dumps(record))
    assert "half" in str(old) and "half" in old.to_html()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("<html>", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", 'no "schema"'),
        ("3", 'no "schema"'),
        ('{"schema": "verify-power/1"}', "verify-power/1"),
        ('{"schema": "verify-report/1"}', "verdicts"),
        ('{"schema": "verify-report/1", "verdicts": [{"name": "x", "status": "GOOD"}]}', "GOOD"),
        ('{"schema": "verify-report/1", "verdicts": [{"name": "x", "status": "PASS", "cases": "many"}]}', "$.verdicts[0].cases"),
    ],
)
def test_what_is_no_report_is_told_in_one_line(text, words):
    with pytest.raises(NotAReport, match=r"^[^\n]*$") as caught:
        read(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("seconds",), "nan", "the times"),
        (("evidence", "errors", 0, "cells"), [], "the errors"),
        (("evidence", "errors", 0, "cells"), [[1.0], [1.0, 2.0]], "the errors"),
        (("evidence", "errors", 0, "cell"), [0, 10**6], "the errors"),
        (("evidence", "errors", 0, "shape"), [0], "the errors"),
        (("evidence", "errors", 0, "cells", 0, 0), "nan", "the errors"),
        (("evidence", "curve", "steps"), [0.1], "the steps"),
        (("evidence", "curve", "steps", 0), 0, "the steps"),
    ],
)
def test_numbers_that_no_report_has_are_told_before_they_are_drawn(report, path, value, words):
    record = json.loads(report)
    *way, last = path
    place = record["verdicts"][1]
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(NotAReport, match=f"{words} of .*half"):
        read(json.dumps(record))


def test_a_report_cut_off_anywhere_is_told(report):
    for end in range(0, len(report) - 2, len(report) // 20):
        with pytest.raises(NotAReport, match="no JSON, or cut off"):
            read(report[:end])
