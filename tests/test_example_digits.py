import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("digits")]  # both tests look at one run
PATH = Path(__file__).parents[1] / "examples" / "digits_mlp.py"


@pytest.fixture(scope="module")
def result():
    spec = importlib.util.spec_from_file_location("digits_mlp", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main()


def test_it_learns(result):
    assert result.by_hand.accuracy >= 0.95
    assert result.by_autodiff.accuracy >= 0.95
    assert result.by_hand.losses[-1] < 0.05 < 2 < result.by_hand.losses[0]


def test_loss_curves_differ_by_rounding_only(result):
    """No more than a few times what a float32 run differs from float64, which is rounding and nothing else; a wrong rule is off by 1e-3 at once."""
    assert len(result.by_hand.losses) == len(result.by_autodiff.losses) == 400
    assert np.isfinite(result.by_hand.losses).all()
    assert 0 < result.rounding < 1e-3
    assert 0 < result.float32_to_float64 < 1e-3
    assert result.difference <= 4 * max(result.rounding, result.float32_to_float64)
