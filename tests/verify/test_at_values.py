"""Values at which a cotangent is wrong, in words."""

from types import SimpleNamespace

import numpy as np
import pytest

from verify.diagnosis.at_values import only_at

X = np.array([-1.0, 0.3, 1.0, 1.0, -1.0, 2.0])


def evidence(wrong: np.ndarray, x: np.ndarray = X) -> SimpleNamespace:
    """A case with one argument, whose cotangent should be 1 and is 5 at wrong elements."""
    return SimpleNamespace(
        names=["x"], others=[], cotangents=[], observation=SimpleNamespace(diff=[x]), want=[np.ones(x.shape)], got=[np.where(wrong, 5.0, 1.0)],
        wrong_elements=lambda leaf: wrong,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.abs(X) == 1, "it is wrong exactly where x is -1 or 1, and 5 times the right one there"),
        (
            np.array([1, 0, 1, 0, 0, 0], bool),
            "it is wrong only where x is -1 or 1, and 5 times the right one there, and not everywhere there",
        ),
        (X == 2, "it is wrong exactly where x is 2, and 5 times the right one there"),
        (X >= 1, "it is wrong exactly where x is 1 or 2, and 5 times the right one there"),
        (np.abs(X) < 1, "it is wrong exactly where x is 0.3, and 5 times the right one there"),
        (X != 1, None),  # three values
    ],
)
def test_one_or_two_values_of_all_wrong_elements(wrong, said):
    assert only_at([evidence(wrong)] * 3, 0) == said


def test_a_value_that_was_hit_once_is_none_that_wrong_elements_share():
    x = np.array([0.25, -1.0, 1.0, -1.0])
    assert only_at([evidence(np.array([1, 1, 0, 1], bool), x)], 0) is None


def test_where_an_argument_has_one_value_it_says_nothing():
    assert only_at([evidence(np.ones(4, bool), np.full(4, 2.0))] * 3, 0) is None
