"""The measurements are run by hand, now and then: here only that their scripts can still be imported and know their options."""

import importlib
from pathlib import Path

import pytest

SCRIPTS = [path.stem for path in sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_can_be_imported(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    if hasattr(module, "main"):
        with pytest.raises(SystemExit) as ended:
            module.main(["--help"])
        assert ended.value.code == 0
        assert "usage" in capsys.readouterr().out
