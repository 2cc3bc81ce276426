"""The evidence of a failure: it shows the mistake where it is, costs nothing without one, and its lines of Python really run."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verify
from verify import Arg, Spec, Status, blame
from verify.checks.error_map import error_map
from verify.diagnosis.elsewhere import elsewhere
from verify.records import Evidence, Finding

ROOT = Path(__file__).parents[2]
RULES = """
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from verify import Arg, Spec

@jax.custom_vjp
def product(x: Float[Array, "n d"], w: Float[Array, "d"]) -> Float[Array, "n"]:
    return x @ w

product.defvjp(lambda x, w: (x @ w, (x, w)), lambda res, ct: (3 * ct[:, None] * res[1], ct @ res[0]))

def power(x, b, *, exponent=2):
    raised = jax.custom_vjp(lambda x: x**exponent)
    raised.defvjp(lambda x: (x**exponent, x), lambda x, ct: (exponent * x**exponent * ct,))
    return (raised(x) + (0 if b is None else b),)

POWER = Spec(name="power", fn=power, args={"x": Arg(dims="n", low=2.0, high=3.0), "b": Arg(dims="n", optional=True)}, options={"exponent": (2, 3)})

def _rows(x):
    return jnp.cumsum(x, 0)

rows = jax.custom_vjp(_rows)
rows.defvjp(lambda x: (_rows(x), None), lambda _, ct: (jnp.cumsum(ct[::-1], 0)[::-1] * jnp.where(jnp.arange(ct.shape[0]) > 30, 2, 1)[:, None],))
ROWS = Spec(name="test_evidence_rules:ROWS", fn=rows, args={"x": Arg(dims="n d")}, sizes={"n": (40, 60)})
"""


@pytest.fixture(scope="module", autouse=True)
def rules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    (folder / "test_evidence_rules.py").write_text(RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


def rule(primal, backward):
    fn = jax.custom_vjp(primal)
    fn.defvjp(lambda x: (primal(x), x), backward)
    return fn


def test_the_map_is_wrong_where_the_rule_is():
    """The rule is wrong in one element: so is the map, in the same one, and nowhere else."""
    spec = Spec(name="one", fn=rule(jnp.sin, lambda x, ct: ((ct * jnp.cos(x)).at[1, 2].multiply(1.001),)), args={"x": Arg(dims="3 4")})
    evidence = verify.run(spec, cases=4, checks=["gradient"]).evidence
    (errors,) = evidence.errors
    above = np.array(errors.cells) > 1
    assert above.shape == (3, 4) and np.argwhere(above).tolist() == [[1, 2]]
    assert (errors.worst, errors.cell, errors.argument) == ((1, 2), (1, 2), "x")
    assert errors.got[1][2] == pytest.approx(1.001 * errors.want[1][2], rel=1e-12)  # the mistake, to float64
    assert (evidence.check, evidence.unit) == ("gradient", "its bound")


def test_a_large_array_is_seen_whole():
    got = np.zeros((5, 30, 90))
    got[4, 17, 88] = 2.0
    bound = np.full(got.shape, 0.5)
    bound[0] = np.nan  # 30 of 150 rows are not compared: the first two of blocks of 15
    errors = error_map("x", "float64", got, np.zeros(got.shape), bound, (4, 17, 88))
    cells = np.array(errors.cells, float)  # None becomes NaN
    assert errors.block == (15, 5) and cells.shape == (10, 18)
    assert np.argwhere(cells > 0).tolist() == [[9, 17]] == [list(errors.cell)] and cells[9, 17] == 4.0
    assert np.isnan(cells[:2]).all() and not np.isnan(cells[2:]).any() and errors.got == ()


def test_nan_is_infinitely_wrong_and_equal_infinities_are_not():
    values = np.array([np.nan, np.inf, np.inf])
    assert error_map("x", "f", values, np.array([1.0, 2.0, np.inf]), np.ones(3), (0,)).cells == ((np.inf, np.inf, 0.0),)
    assert error_map("x", "f", np.array(3.0), np.array(1.0), np.array(0.5), ()).cells == ((4.0,),)


def test_the_curve_holds_values_of_the_function():
    """Half the right rule: differences of the recorded values come within 1e-9 of the oracle (they round at 1e-16 / h), the rule stays at half."""
    curve = verify.run(
        Spec(name="half", fn=rule(jnp.exp, lambda x, ct: (ct * jnp.exp(x) / 2,)), args={"x": Arg(dims="n")}), cases=6, checks=["gradient"]
    ).evidence.curve
    slopes = (np.array(curve.ahead) - curve.behind) / (2 * np.array(curve.steps))
    assert np.min(np.abs(slopes - curve.want)) < 1e-9 * curve.size
    assert curve.rule == pytest.approx(curve.want / 2, rel=1e-12)
    assert len(curve.steps) > 20 and curve.oracle == "autodiff of the reference"


def test_every_case_has_its_error():
    """Wrong from four elements on: those cases have an error, the smaller ones none."""
    wrong = rule(jnp.sin, lambda x, ct: (ct * jnp.cos(x) * (1 + 0.5 * (x.size > 3)),))
    cases = verify.run(Spec(name="from_four", fn=wrong, args={"x": Arg(dims="n")}), cases=20, checks=["gradient"]).evidence.cases
    assert {case.elements > 3 for case in cases} == {True, False}
    assert all((case.error is not None) == (case.elements > 3) for case in cases)
    assert all(case.error is None or case.error > 1 for case in cases)


def test_precision_is_in_units_of_autodiff():
    def coarse(x, ct):
        return (2 * ct * (x.astype(jnp.bfloat16).astype(x.dtype) if x.dtype == jnp.float32 else x),)

    spec = Spec(name="coarse", fn=rule(lambda x: x * x, coarse), args={"x": Arg(dims="n")}, dtypes=("float32",))
    verdict = verify.run(spec, cases=20, checks=["precision", "gradient"])
    evidence = verdict.evidence
    assert evidence.check == "precision" and evidence.unit == "the error of JAX's autodiff" and evidence.curve is None
    assert max(case.error for case in evidence.cases if case.error) > 10  # bfloat16 has 16 bits fewer than float32
    assert max(finding.units or 0 for finding in verdict.findings) > 10


def test_without_a_failure_there_is_none(monkeypatch):
    def refuse(*args):
        raise AssertionError("evidence was collected for a PASS")

    monkeypatch.setattr(blame, "evidence", refuse)
    verdict = verify.run(
        Spec(name="right", fn=rule(jnp.sin, lambda x, ct: (ct * jnp.cos(x),)), args={"x": Arg(dims="n")}), cases=4, checks=["gradient"]
    )
    assert verdict and verdict.evidence is None and all(finding.errors is None for finding in verdict.findings)


def test_a_fault_in_it_leaves_the_verdict(monkeypatch):
    monkeypatch.setattr("verify.evidence.reproduce", lambda *args: 1 / 0)
    with pytest.warns(RuntimeWarning, match="no evidence was collected"):
        verdict = verify.run("test_evidence_rules:product", cases=3, checks=["gradient"])
    assert verdict.status is Status.FAIL and verdict.diagnosis and verdict.evidence is None


def test_given_arrays_have_no_address():
    evidence = verify.check(rule(jnp.sin, lambda x, ct: (ct * jnp.cos(x) * 2,)), jnp.ones(3), checks=["gradient"]).evidence
    assert isinstance(evidence, Evidence) and evidence.address is None and evidence.errors and evidence.reproduce == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_evidence_rules:product", ["from test_evidence_rules import product", "jax.vjp(product"]),
        ("test_evidence_rules:POWER", ["from test_evidence_rules import power", "exponent="]),
        ("test_evidence_rules:ROWS", ["verify.replay('test_evidence_rules:ROWS/"]),  # 40 rows are too many to write out
    ],
)
def test_its_lines_run_and_show_the_failure(name, words, rules):
    """In a new process, where nothing but the lines is known: they print the number that the report says the rule gives."""
    verdict = verify.run(name, cases=6, checks=["gradient"])
    lines = verdict.evidence.reproduce
    assert len(lines.splitlines()) == 5 and all(word in lines for word in words), lines
    path = os.pathsep.join([str(rules), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    finding = verdict.findings[0]
    assert (finding.check, finding.argument) == ("gradient", "x")
    printed = [
        float(word)
        for word in done.stdout.replace("[", " ").replace("]", " ").replace(",", " ").replace("(", " ").split()
        if _is_number(word)
    ]
    assert any(number == pytest.approx(finding.got, rel=1e-7) for number in printed), done.stdout  # arrays print eight digits


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("wrong", "words"), [(200, "is kept in bfloat16"), (1, "in few elements")])
def test_only_an_error_in_many_elements_is_a_rounding_to_a_coarser_dtype(wrong, words):
    finding = Finding(check="precision", status=Status.FAIL, dtype="float32", got=1.003, want=1.0, wrong=wrong, comparisons=300)
    (sentence,) = elsewhere(finding)
    assert words in sentence


def test_second_derivatives_that_are_wrong_at_single_points_are_told_so() -> None:
    finding = Finding(check="second-order", status=Status.FAIL, message="", address="rule/0/3", got=0.25, want=-0.25)
    (everywhere,), (there,) = elsewhere(finding), elsewhere(finding, at_points=True)
    assert "treats a residual as a constant" in everywhere
    assert "another derivative at this very point" in there


def test_nan_at_a_zero_cotangent_is_no_term_without_it():
    finding = Finding(
        check="zero-cotangent", status=Status.FAIL, message="a zero upstream cotangent gives nan at x[0]", got=float("nan"), dtype="float32"
    )
    (sentence,) = elsewhere(finding)
    assert "NaN or infinite in float32" in sentence and "not multiplied" not in sentence
    (sentence,) = elsewhere(replace(finding, got=1e-300))
    assert "not multiplied by the upstream cotangent" in sentence
