"""`verify explain`: the worked example that the project starts from, with each factor's shape, by rule, autodiff and finite differences."""

import re
from pathlib import Path

import numpy as np
import pytest

from verify import SpecError
from verify.checks import ALL
from verify.explain import explain

KEPT_SUM = """
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def kept_sum(x: Float[Array, "n"], keep: Bool[Array, "n"]) -> Float[Array, ""]:
    return jnp.where(keep.all(), x, 0).sum()
"""
WANT = {
    "x": ("y_ct @ w^T: (3, 2)(2, 2)", [[3, 2], [3, 2], [3, 2]]),
    "w": ("x^T @ y_ct: (2, 3)(3, 2)", [[2, 2], [2, 2]]),
    "b": ("y_ct summed over axis 0: (3, 2)", [3, 3]),
}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d*", text)]


def test_linear_shows_the_worked_example() -> None:
    head, *cotangents = explain("linear").split("Linear layer.")[0].split("\n  dL/d")
    assert numbers(head.split("output (3, 2)")[1]) == [2.5, -1, -0.5, 1, 1.5, 2]
    assert len(cotangents) == len(WANT)
    for block in cotangents:
        formula, want = WANT[block[0]]
        assert formula in block
        by_source = re.split(r"rule|autodiff|finite differences", block)[1:]
        assert len(by_source) == 3
        for printed in by_source:
            assert numbers(printed) == np.ravel(want).tolist()


def test_the_example_is_one_in_which_every_argument_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept_sum.py").write_text(KEPT_SUM)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = explain("kept_sum:kept_sum").split("Derivation")[0]
    assert re.search(r"keep \(\d,\) \[.*True", text)
    assert any(numbers(text.split("autodiff")[1].split("finite")[0]))


@pytest.mark.parametrize("name", ["relu", "mlp", "layer_norm", "attention"])
def test_every_operation_has_its_derivation_and_an_example(name: str) -> None:
    text = explain(name)
    for word in (
        "Source",
        "Forward",
        "Derivation",
        "Backward",
        "Validity",
        "Residuals",
        "Cost",
        "Worked example",
        "finite differences",
        "What the spec claims",
    ):
        assert word in text


@pytest.mark.parametrize("check", ALL, ids=[check.NAME for check in ALL])
def test_every_check_has_a_page_by_name_and_by_code(check) -> None:
    assert explain(check.NAME) == explain(check.CODE)
    assert len(explain(check.NAME).splitlines()) > 3


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(SpecError, match='Did you mean "linearity"'):
        explain("linearty")


def test_a_function_is_described_by_itself_not_by_what_its_module_is_about() -> None:
    assert "Cases in processes" not in explain("tests.verify.test_workers:RIGHT")
    assert "Derivation." in explain("manual_vjp.ops.relu:relu")
