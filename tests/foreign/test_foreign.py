"""Rules that this project did not write: the right ones pass, near wrong variants of them do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import pytest

import verify
from tests.foreign import rules
from verify.records import Status
from verify.spec import Spec

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SEED = 7
FEW, SOME, ENOUGH = 2, 7, 8  # an interpreted kernel takes seconds for a case; the seventh case is the second in low precision


def specs(*names: str) -> list[Spec]:
    return [getattr(rules, name) for name in names]


def one_in_three(every: Iterable[Spec]) -> list[object]:
    """The others nightly."""
    return [pytest.param(spec, id=spec.name, marks=[pytest.mark.nightly] if k % 3 else []) for k, spec in enumerate(every)]


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "verify.cli", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("spec", specs("SILU", "SELU", "SOFTMAX"), ids=lambda spec: spec.name)
def test_function_without_a_hand_written_rule_is_no_success(spec: Spec) -> None:
    verdict = verify.run(spec, cases=FEW)
    assert verdict.status is Status.INCONCLUSIVE
    assert "calls no custom rule" in str(verdict)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(rules.PALLAS_RMS_NORM, id="pallas_rms_norm"),
        pytest.param(rules.PALLAS_LAYER_NORM, id="pallas_layer_norm", marks=pytest.mark.nightly),
        pytest.param(rules.PALLAS_ATTENTION, id="pallas_attention", marks=pytest.mark.nightly),
    ],
)
def test_kernel_of_jax_passes_and_is_judged_in_float32(spec: Spec) -> None:
    verdict = verify.run(spec, cases=FEW)
    assert verdict.status is Status.PASS, str(verdict)
    assert {finding.dtype for finding in verdict.findings if finding.check == "gradient"} == {"float32"}


@pytest.mark.nightly
def test_kernel_that_knows_no_64_bit_types_is_judged_with_x64_off() -> None:
    verdict = verify.run(rules.PALLAS_CAUSAL_ATTENTION, cases=FEW)
    assert verdict.status is Status.PASS, str(verdict)


@pytest.mark.parametrize(
    "spec",
    one_in_three(specs("RELU", "RELU6", "LOG1MEXP", "XLOG1PY", "LOGIT", "ENTR", "KL_DIV", "SINC", "SAFE_CROSS_ENTROPY")),
)
def test_custom_rule_of_jax_or_optax_passes(spec: Spec) -> None:
    verdict = verify.run(spec, cases=SOME)
    assert verdict.status is Status.PASS, str(verdict)


# At 0 or at a tie JAX's autodiff of these primals is wrong, which is why they have rules: d xlogy/dx = log y, d logaddexp(x, x) = 1/2, i0' = 0.
SINGULAR = {
    "xlogy": (jsp.xlogy, [0.0, 1.0], [0.5, 2.0]),
    "softplus": (jax.nn.softplus, [0.0, 1.0]),
    "logaddexp": (jnp.logaddexp, [0.5, 1.0], [0.5, 2.0]),
    "i0": (jnp.i0, [0.0, 1.0]),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.nightly] if name == "i0" else []) for name in SINGULAR])
def test_rule_that_knows_better_than_its_primal_is_not_accused(name: str) -> None:
    function, *arrays = SINGULAR[name]
    verdict = verify.check(function, *(jnp.array(values) for values in arrays))
    assert verdict.status is not Status.FAIL, str(verdict)


@pytest.mark.parametrize("spec", one_in_three(rules.HONEST.values()))
def test_right_rule_passes(spec: Spec) -> None:
    verdict = verify.run(spec, cases=SOME, seed=SEED)
    assert verdict.status is Status.PASS, str(verdict)


@pytest.mark.parametrize("spec", one_in_three(rules.WRONG.values()))
def test_near_wrong_rule_fails(spec: Spec) -> None:
    verdict = verify.run(spec, cases=1 if "rms" in spec.name else ENOUGH)
    assert verdict.status is Status.FAIL, str(verdict)
    assert verdict.address is not None


def test_command_line_passes_a_rule_of_jax() -> None:
    done = command_line("run", "tests.foreign.rules:RELU6", "--cases", "8", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 PASS" in done.stdout
    assert done.stderr == ""


def test_command_line_fails_a_near_wrong_rule_and_says_where() -> None:
    done = command_line("run", "tests.foreign.rules:WRONG_SILU", "--cases", "8", "-q")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL tests.foreign.rules:WRONG_SILU" in done.stdout
    assert "the cotangent of x" in done.stdout
