"""The README's examples run, and print what it says."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

from verify import Status, run
from verify.registry import resolve

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
PRINTED = re.findall(r"```\n(linear FAIL.*?)```", README, re.S)[0]


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_published_slip_prints_what_the_readme_shows(tmp_path: Path) -> None:
    stream, script = io.StringIO(), tmp_path / "slip.py"
    script.write_text(PYTHON[0])
    with contextlib.redirect_stdout(stream):
        exec(compile(PYTHON[0], str(script), "exec"), {})
    assert words(PRINTED) in words(stream.getvalue())
    repaired = PYTHON[0].replace("return y_ct @ w,", "return y_ct @ w.T,")
    assert repaired != PYTHON[0]
    with contextlib.redirect_stdout(stream):
        exec(compile(repaired, "README.md", "exec"), {})
    assert "linear PASS" in stream.getvalue()


@pytest.mark.slow
def test_the_rule_with_a_missing_scale_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rules.py").write_text(PYTHON[2] + "\nimport verify\n\n" + PYTHON[3])
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_rules", None)
    try:
        verdicts = [run(resolve(target)) for target in ("my_rules:scaled_sum", "my_rules:SPEC")]
    finally:
        sys.modules.pop("my_rules", None)  # other pages have a module of this name, too
    for verdict in verdicts:
        assert verdict.status is Status.FAIL
        assert "times sqrt(d)" in verdict.diagnosis
        assert "a factor 1/sqrt(d) is missing" in verdict.diagnosis
