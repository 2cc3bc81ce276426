"""The examples at a smaller size, one run each. The limits are those that the examples themselves measure or state."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_transformer(capsys):
    """The curves may differ by a few times what autodiff's own curves differ by in other orders of summation; a wrong rule is off by 1e-3 at once."""
    result = load("transformer").main(["--steps", "60"])
    assert "by hand against autodiff" in capsys.readouterr().out
    for run in (result.by_hand, result.by_autodiff, result.in_bfloat16):
        assert len(run.losses) == len(run.norms) == 60
        assert np.isfinite(run.losses).all() and (run.norms > 0).all()
        assert (
            run.losses[-20:].mean() < result.frequencies < np.log(128) * 0.9 < run.losses[0]
        )  # it knows more than how frequent each letter is
    assert 0 < result.rounding < 1e-4
    assert result.difference <= 4 * result.rounding
    assert (
        10 * result.rounding < np.max(np.abs(result.in_bfloat16.losses - result.by_hand.losses)) < 0.05
    )  # bfloat16 it is, and no more than that


def test_parallel(capsys):
    module = load("parallel")
    result = module.main(["--steps", "5"])
    assert result.single.losses.dtype == np.float64
    assert result.single.losses[-1] < 0.9 * result.single.losses[0]
    for run in (result.by_shard_map, result.by_jit):
        assert 0 < module.difference(run, result.single) < module.BOUND  # 0 would be the same run twice
        np.testing.assert_allclose(run.losses, result.single.losses, rtol=module.BOUND)
    if result.by_processes is None:
        assert f"NOT RUN: {result.reason}" in capsys.readouterr().out
        pytest.skip(result.reason)
    assert 0 < module.difference(result.by_processes, result.single) < module.BOUND


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("make_gloo_tcp_collectives only implemented for linux and macos"), SystemExit),
        (RuntimeError("address in use"), RuntimeError),
    ],
)
def test_a_platform_without_collectives_is_told_from_a_failure(error, raised, capsys):
    module = load("parallel")

    def initialize(*args, **options):
        raise error

    module.jax = SimpleNamespace(config=SimpleNamespace(update=lambda *args: None), distributed=SimpleNamespace(initialize=initialize))
    with pytest.raises(raised) as caught:
        module.process(0, "localhost:1", 1, "unused")
    assert capsys.readouterr().err == (f"{module.MISSING}: {error}\n" if raised is SystemExit else "")
    assert raised is not SystemExit or caught.value.code == module.NOT_HERE
