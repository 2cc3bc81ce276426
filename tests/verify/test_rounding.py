"""Rounding inside of a formula, which moving the inputs does not show, is no mistake; what a better formula keeps is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verify import Arg, Spec, Status, replay, run
from verify.cases import draw
from verify.rounding import rounded_inside


def naive(x: jax.Array) -> jax.Array:
    return jnp.log((1 + x * x) * 2) - jnp.log(2.0).astype(x.dtype)


def careful(x: jax.Array) -> jax.Array:
    return jnp.log1p(x * x)


def spec(of, reference) -> Spec:
    fn = jax.custom_vjp(of)
    fn.defvjp(lambda x: (of(x), x), lambda x, ct: (ct * 2 * x / (1 + x * x),))
    return Spec(name="log", fn=fn, reference=reference, args={"x": Arg(dims="n")}, dtypes=("float32",))


def noise(formula, x: np.ndarray) -> np.ndarray:
    case = next(iter(draw(Spec(name="of", fn=formula, args={"x": Arg(dims="n")}), 0, range(1))))
    (found,) = rounded_inside([np.zeros(x.shape)], lambda x: [formula(x)], case, x)
    return found


@pytest.mark.parametrize(("formula", "least", "most"), [(naive, 1e-16, 2e-15), (careful, 1e-33, 1e-30)])
def test_noise_is_that_of_the_formula(formula, least, most):
    """Of x^2 = 1e-16 beside 1 nothing is left, and log1p keeps it."""
    assert least <= noise(formula, np.array([1e-8, 2e-8, -3e-8])).max() <= most


def test_a_largest_element_stays_the_one_that_it_is():
    assert noise(lambda x: jnp.where(x == jnp.max(x), 1.0, 0.0), np.array([1.0, 3.0, 2.0])).max() == 0


def complement(slope: float) -> Spec:
    """log(1 - e^-x) and its derivative 1 / (e^x - 1), times `slope`; the reference has lost most digits near 0."""
    of = jax.custom_jvp(lambda x: jnp.where(x < 0.69, jnp.log(-jnp.expm1(-x)), jnp.log1p(-jnp.exp(-x))))
    of.defjvp(lambda primals, tangents: (of(*primals), slope * tangents[0] / jnp.expm1(*primals)))
    return Spec(
        name="complement",
        fn=of,
        reference=lambda x: jnp.log(1 - jnp.exp(-x)),
        args={"x": Arg(dims="n", low=0.0, high=20.0)},
        dtypes=("float32",),
    )


LOST = ("complement/0/93", "complement/1/61", "complement/2/1")


@pytest.mark.parametrize("address", LOST)
def test_digits_that_only_the_reference_has_lost(address):
    """In reverse and in forward mode; also of 5e-15, which ulps of its own leave where the rounding of 1 - e^-x is the same."""
    assert replay(address, spec=complement(1.0)).status is not Status.FAIL
    assert replay(address, spec=complement(1.001)).status is Status.FAIL


@pytest.mark.parametrize(
    ("fn", "reference", "status"),
    [(careful, naive, Status.PASS), (naive, naive, Status.PASS), (careful, careful, Status.PASS), (naive, careful, Status.FAIL)],
)
def test_who_loses_digits_is_judged_by_what_the_reference_keeps(fn, reference, status):
    verdict = run(spec(fn, reference), cases=30, checks=["primal", "gradient"])
    assert verdict.status is status, str(verdict)
