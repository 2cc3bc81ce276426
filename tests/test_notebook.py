"""The notebook is its text form, keeps no outputs, leaves Colab's JAX alone, and runs from top to bottom."""

import json
import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="install '.[docs]'")
NOTEBOOK = (
    Path(__file__).parents[1] / "notebooks" / "verify_on_colab.ipynb"
)  # not verify: in its own folder its text form would be imported in the place of the package
SPACE = re.compile(r"\s+")


def test_it_is_its_text_form() -> None:
    """`jupytext --sync notebooks/verify_on_colab.ipynb` makes one from the other."""
    import jupytext

    text = jupytext.read(NOTEBOOK.with_suffix(".py"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [(cell.cell_type, cell.source) for cell in text.cells] == [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_it_keeps_no_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


def test_its_install_cell_changes_nothing_that_colab_has() -> None:
    installs = [cell["source"] for cell in json.loads(NOTEBOOK.read_text())["cells"] if "pip" in "".join(cell["source"])]
    code = [text for source in installs if (text := "".join(source)).startswith("import")]
    assert len(code) == 1
    assert '"--no-deps"' in code[0]
    assert not re.search(r'"(jax|jaxlib|libtpu|numpy)["\[=<>]|--upgrade|"-U"', code[0])


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=170, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert re.search(r"linear +PASS.*layer_norm +PASS.*softmax_cross_entropy +PASS", printed, re.S)
    first, last, difference = map(float, re.search(r"loss (\S+) -> (\S+); largest difference (\S+)", printed).groups())
    assert last < 0.1 * first
    assert difference < 1e-4, "the layers' float32 rounding (2e-7 when written) and nothing else"
    assert "it is the right one times 3" in SPACE.sub(" ", printed + "".join(str(output.get("data", "")) for output in outputs))
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
