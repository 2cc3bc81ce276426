"""Rounding inside of a formula, which moving the inputs does not show, is no mistake; what a better formula keeps is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verify import Arg, Spec, Status, run
from verify.cases import draw
from verify.observe import observe
from verify.rounding import noise_inside


def naive(x: jax.Array) -> jax.Array:
    return jnp.log((1 + x * x) * 2) - jnp.log(2.0).astype(x.dtype)


def careful(x: jax.Array) -> jax.Array:
    return jnp.log1p(x * x)


def spec(of, reference) -> Spec:
    fn = jax.custom_vjp(of)
    fn.defvjp(lambda x: (of(x), x), lambda x, ct: (ct * 2 * x / (1 + x * x),))
    return Spec(name="log", fn=fn, reference=reference, args={"x": Arg(dims="n")}, dtypes=("float32",))


def noise(reference, x: np.ndarray) -> np.ndarray:
    case = next(iter(draw(Spec(name="of", fn=reference, args={"x": Arg(dims="n")}, sizes={"n": (x.size, x.size)}), 0, range(1))))
    call = observe(Spec(name="of", fn=reference, args={"x": Arg(dims="n")}), case).call
    (found,) = noise_inside(call, case, [x], [], [np.asarray(reference(x))])
    return found


@pytest.mark.parametrize(("formula", "least", "most"), [(naive, 1e-16, 2e-15), (careful, 1e-33, 1e-30)])
def test_noise_is_that_of_the_formula(formula, least, most):
    """Of x^2 = 1e-16 beside 1 nothing is left, and log1p keeps it."""
    with jax.enable_x64(True):
        assert least <= noise(formula, np.array([1e-8, 2e-8, -3e-8])).max() <= most


def test_a_largest_element_stays_the_one_that_it_is():
    with jax.enable_x64(True):
        assert noise(lambda x: jnp.where(x == jnp.max(x), 1.0, 0.0), np.array([1.0, 3.0, 2.0])).max() == 0


@pytest.mark.parametrize(
    ("fn", "reference", "status"),
    [(careful, naive, Status.PASS), (naive, naive, Status.PASS), (careful, careful, Status.PASS), (naive, careful, Status.FAIL)],
)
def test_who_loses_digits_is_judged_by_what_the_reference_keeps(fn, reference, status):
    verdict = run(spec(fn, reference), cases=60, checks=["primal", "gradient"])
    assert verdict.status is status, str(verdict)
