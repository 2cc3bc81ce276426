"""What benchmarks/textbook.py measures, against the claims, at a smaller size; and its page shows its last result."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import textbook

ROOT = Path(__file__).parents[1]


def test_operations_of_linear():
    """To the last one: the products alone, as there is no bias."""
    for row in textbook.operations(((33, 65, 129), (64, 32, 16))):
        assert row["forward"] == row["claim"]
        assert row["backward"] == 2 * row["claim"]


@pytest.mark.slow
def test_memory_of_checkpoints():
    """What four times the depth adds is what the claim adds, up to a twentieth: the weights, which the claim leaves out, are a fiftieth of an array a layer; the rest does not depend on the depth."""
    shallow, deep = textbook.memory((16, 64))
    for name in ("all", "each", "root"):
        added, claim = (deep[key][name] - shallow[key][name] for key in ("measured", "claims"))
        assert added == pytest.approx(claim, rel=0.05), name


@pytest.mark.nightly
def test_norms_of_gradients():
    layers = 12
    k = np.arange(layers + 1)
    found = textbook.norms(layers)
    for s in textbook.SPECTRAL:
        np.testing.assert_allclose(found["plain"][f"{s}"], s**k, rtol=1e-5)  # exact; six digits are kept
        # a random turn is at a right angle to what it turns, nearly: squares add up; four deviations of 1 / FEATURES in each of the layers
        np.testing.assert_allclose(
            np.log(found["residual"][f"{s}"]), k * np.log(1 + s**2) / 2, atol=4 * np.sqrt(layers) / textbook.FEATURES
        )
        # both: nothing vanishes, and growth is that of a root instead of a power
        assert all(1 <= value <= 2 * np.sqrt(1 + at) for at, value in enumerate(found["residual, normalised"][f"{s}"]))
    normalised = [found["normalised"][f"{s}"] for s in textbook.SPECTRAL]
    np.testing.assert_allclose(
        normalised, np.broadcast_to(normalised[1], (3, layers + 1)), rtol=1e-3
    )  # a factor before it changes nothing, but for eps


def test_the_page_shows_the_last_result():
    record = json.loads((ROOT / "benchmarks/results/textbook.json").read_text())
    assert textbook.markdown(record) in (ROOT / "docs/textbook.md").read_text()
