"""What the failing cases share, where a mistake needs more than that to show."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
import pytest

from verify import Arg, Spec
from verify.cases import Case, draw
from verify.diagnosis.trigger import SEVERAL, trigger

SPEC = Spec(
    name="windowed",
    fn=jax.custom_vjp(lambda x, mode: x),
    args={"x": Arg(dims="n m")},
    sizes={"n": (1, 130), "m": (1, 20)},
    options={"mode": ("same", "full", "valid")},
    dtypes=(),
)


def told(fails: Callable[[Case], bool], most: int = 8) -> str | None:
    """As a run tells it: up to eight failing cases, and those that passed before."""
    cases, failures = [], 0
    for case in draw(SPEC, 0, range(104)):
        cases.append((case, fails(case)))
        if (failures := failures + cases[-1][1]) == most:
            break
    return trigger(cases)


def hidden(case: Case) -> bool:
    """A third thing that the mistake needs."""
    return case.index % 3 != 0


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda case: case.options["mode"] == "same" and case.sizes["m"] % 2 == 0, "all 8 failing cases have mode='same' and an even m"),
        (
            lambda case: case.options["mode"] == "full" and case.sizes["m"] % 2 == 1,
            "all 8 failing cases have mode='full'",
        ),  # most sizes are odd
        (lambda case: case.sizes["n"] > 64, "all 8 failing cases have n >= 65"),
        (lambda case: case.options["mode"] != "full", "all 8 failing cases have another mode than 'full'"),
        (lambda case: True, None),
    ],
)
def test_what_failing_cases_share_is_told_though_some_passing_ones_share_it(fails, said):
    assert told(lambda case: hidden(case) and fails(case)) == said


def test_what_a_smaller_failing_case_lacks_is_no_part_of_the_mistake():
    fails = lambda case: hidden(case) and case.sizes["n"] > 64
    (smaller,) = draw(SPEC, 0, range(1), {"n": 1})
    cases = []
    for case in draw(SPEC, 0, range(104)):
        cases.append((case, fails(case)))
        if sum(failed for _, failed in cases) == 8:
            break
    assert "n >= 65" in trigger(cases)
    assert "n >= 65" not in str(trigger([*cases, (smaller, True)]))


@pytest.mark.parametrize(
    ("fails", "smaller", "said"),
    [
        (lambda x: (x == 0).any(), [[0.0, 1.5]], "where x holds a 0 ("),
        (lambda x: np.unique(x).size < x.size, [[1.5, 1.5]], "where x holds equal values ("),
        (lambda x: (x == 0).any() and np.unique(x).size < x.size, [[0.0, 0.0]], "where x holds a 0 and equal values ("),
    ],
)
def test_zeros_and_equal_values_are_told_apart_by_small_cases(fails, smaller, said):
    cases = [(case, bool(fails(case.args[0]))) for case in draw(SPEC, 0, range(104)) if case.style != "edges"]
    cases.append((replace(cases[0][0], args=(np.array(smaller),)), True))
    assert said in (trigger(cases) or "")


def test_a_style_is_no_trigger_where_other_cases_of_it_pass() -> None:
    cases = list(draw(SPEC, 0, range(104)))
    tiny = [case for case in cases if case.style == "tiny"]
    (smaller,) = draw(SPEC, 0, range(tiny[0].index, tiny[0].index + 1), sizes={"n": 2})
    outcomes = [*((case, case is tiny[0]) for case in cases), (smaller, True)]
    assert len(tiny) > SEVERAL and "tiny" not in str(trigger(outcomes))
    assert "tiny" in str(trigger([(case, case.style == "tiny") for case in cases]))


@pytest.mark.parametrize(("dtype", "said"), [("float64", "where x holds equal values ("), ("bfloat16", "when n >= 65 (")])
def test_equal_values_are_no_trigger_where_a_low_precision_makes_many(dtype, said):
    def equal(case: Case) -> Case:
        values = np.ones_like(case.args[0]) if case.sizes["n"] > 64 else np.linspace(1, 2, case.args[0].size).reshape(case.args[0].shape)
        return replace(case, args=(values,), dtype=dtype, style="unit")

    cases = [(equal(case), case.sizes["n"] > 64) for case in draw(SPEC, 0, range(104)) if case.args[0].size > 1]
    assert said in str(trigger(cases))
