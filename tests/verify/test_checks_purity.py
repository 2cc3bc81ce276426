"""State that a rule keeps or changes is found; a rule that only computes is not accused, however it is written."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verify
from verify import Arg, Spec
from verify.blame import BY_CHANCE
from verify.cases import draw
from verify.checks import select
from verify.judging import judge
from verify.records import Finding, Status
from verify.runner import run_spec

VECTOR = {"x": Arg(dims="n")}


def findings(fn, args=None, **more):
    of = Spec(name="rule", fn=fn, args=args or VECTOR, **more)
    (case,) = draw(of, 0, range(1, 2))
    return judge(of, case, select(["purity"])).findings


def wrong(fn, args=None, **more):
    found = [finding.message for finding in findings(fn, args, **more) if finding.status is Status.FAIL]
    assert found, "nothing was found"
    return " ".join(found)


def right(fn, args=None, **more):
    found = findings(fn, args, **more)
    assert {finding.status for finding in found} == {Status.PASS}, found


def rule(primal, forward, backward):
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function


SQUARE = rule(lambda x: x**2, lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))
STASH = {}


def stash_forward(x):
    STASH["x"] = x
    return x**2, None


STASHED = rule(lambda x: x**2, stash_forward, lambda _, ct: (2 * STASH["x"] * ct,))


LAST = {"size": 0}


def size_kept(x):
    LAST["size"] = x.size
    return x.mean(), x


MEAN_OF_LAST_SIZE = rule(lambda x: x.mean(), size_kept, lambda x, ct: (jnp.full_like(x, ct / LAST["size"]),))
MEAN = rule(lambda x: x.mean(), lambda x: (x.mean(), x), lambda x, ct: (jnp.full_like(x, ct / x.size),))


def test_a_size_kept_from_the_last_call_is_disturbed_by_a_call_of_another_size():
    message = wrong(MEAN_OF_LAST_SIZE)
    assert "if the function is called at n=" in message and "what the last call left behind" in message
    right(MEAN)


def test_of_a_rule_with_state_the_report_tells_what_the_address_shows_again():
    verdict = verify.run(Spec(name="mean", fn=MEAN_OF_LAST_SIZE, args=VECTOR))
    assert "what the last call left behind" in str(verdict).split("next")[0]
    assert verdict.findings[0].check == "purity" and verdict.address == verdict.findings[0].address


def test_state_that_another_thread_has_overwritten_is_looked_for_again_alone():
    """As threads may have it: one case fails by what another has left behind, and the check that knows the cause was disturbed itself."""

    def judges(spec, cases, selected):
        for case in cases:
            result = judge(spec, case, selected)
            kept = tuple(finding for finding in result.findings if finding.check != "purity")
            undisturbed = tuple(Finding(check="purity", status=Status.PASS, address=case.address) for _ in result.findings[len(kept) :])
            stale = (Finding(check="structure", status=Status.FAIL, message="stale", address=case.address),) if case.index == 3 else ()
            yield replace(result, findings=(*kept, *undisturbed, *stale))

    for function, told in ((MEAN_OF_LAST_SIZE, "what the last call left behind"), (MEAN, BY_CHANCE)):
        verdict = run_spec(Spec(name="mean", fn=function, args=VECTOR), cases=8, judges=judges)
        said = " ".join([verdict.findings[0].message, verdict.diagnosis])
        assert verdict.status is Status.FAIL and told in said, said


def test_a_residual_in_a_global():
    message = wrong(STASHED)
    assert "STASH['x']" in message and "tracer" in message and "Return it as a residual" in message
    assert verify.run(Spec(name="square", fn=STASHED, args=VECTOR), cases=2).status is Status.FAIL


def test_a_residual_on_the_host():
    """Right as long as each backward follows its own forward."""
    kept = {}

    def keep(x):
        kept["x"] = np.array(x)
        return np.zeros_like(kept["x"])

    def forward(x):
        return x**2, jax.pure_callback(keep, x, x)

    def backward(ticket, ct):
        return (2 * ct * jax.pure_callback(lambda ticket: kept["x"] + ticket, ct, ticket),)

    message = wrong(rule(lambda x: x**2, forward, backward))
    assert "called once more before its backward runs" in message and "Return residuals from the forward" in message


def test_a_residual_in_an_attribute_of_a_callable():
    class Layer:
        def __init__(self):
            self.call = rule(lambda x: x**2, self.forward, lambda _, ct: (2 * self.x * ct,))

        def forward(self, x):
            self.x = x
            return x**2, None

        def __call__(self, x):
            return self.call(x)

    assert ".x" in wrong(Layer())


def test_a_tracer_in_a_cache_and_the_numpy_array_beside_it():
    @functools.lru_cache
    def traced(size):
        return jnp.sqrt(jnp.arange(1.0, size + 1))

    @functools.lru_cache
    def constant(size):
        return np.sqrt(np.arange(1.0, size + 1))

    def scaled(weights):
        return rule(lambda x: x * weights(x.size), lambda x: (x * weights(x.size), None), lambda _, ct: (ct * weights(ct.size),))

    right(scaled(constant))
    assert "the lru_cache of" in wrong(scaled(traced))


def test_counters_and_caches_of_shapes_are_not_residuals():
    calls = []

    def forward(x):
        calls.append(x.shape)
        return x**2, x

    right(rule(lambda x: x**2, forward, lambda x, ct: (2 * x * ct,)))


def layer(params, x):
    return rule(lambda w, x: x * w, lambda w, x: (x * w, (w, x)), lambda r, ct: (ct * r[1], ct * r[0]))(params["w"], x)


TREE = {"params": {"w": Arg(dims="n")}, "x": Arg(dims="n")}


def test_the_callers_dict():
    def changing(params, x):
        params["w"] = params["w"] * 2
        return layer(params, x)

    def copying(params, x):
        return layer({**params, "w": params["w"] * 2}, x)

    message = wrong(changing, TREE)
    assert "params['w'] is another object" in message and "{**params" in message
    right(copying, TREE)


def test_another_entry_in_the_callers_dict():
    def changing(params, x):
        params["cache"] = x
        return layer(params, x)

    assert "params['cache'] is another object" in wrong(changing, TREE)


def test_an_argument_changed_in_place():
    def changing(x):
        x -= x.mean()
        return SQUARE(x)

    def fresh(x):
        x = x - x.mean()
        return SQUARE(x)

    message = wrong(changing)
    assert "changes its argument x in place" in message and " was " in message and "Under jit the same line changes nothing" in message
    right(fresh)


def test_the_upstream_cotangent_changed_in_place():
    def changing(x, ct):
        ct *= 2 * x
        return (ct,)

    found = findings(rule(lambda x: x**2, lambda x: (x**2, x), changing))
    assert "changes the upstream cotangent y_ct in place" in found[0].message


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_setting_of_jax(where):
    before = jax.config.jax_default_matmul_precision

    def change(here):
        if here == where:
            jax.config.update("jax_default_matmul_precision", "highest")

    def forward(x):
        change("forward")
        return x**2, x

    def backward(x, ct):
        change("backward")
        return (2 * x * ct,)

    try:
        assert "jax_default_matmul_precision is 'highest' after the rule ran" in wrong(rule(lambda x: x**2, forward, backward))
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    assert "update" not in vars(jax.config)


def test_a_setting_for_a_while_is_no_change():
    def forward(x):
        with jax.default_matmul_precision("highest"):
            return x**2, x

    def backward(x, ct):
        before = jax.config.jax_default_matmul_precision
        jax.config.update("jax_default_matmul_precision", "highest")
        jax.config.update("jax_default_matmul_precision", before)
        return (2 * x * ct,)

    right(rule(lambda x: x**2, forward, backward))


def test_transformations_inside_of_rules():
    """Nested jit, scan, vmap, remat and custom rules keep caches of their own, and leak nothing."""
    inner = jax.custom_jvp(jnp.sin)
    inner.defjvp(lambda primals, tangents: (inner(*primals), jnp.cos(primals[0]) * tangents[0]))

    @jax.jit
    def helper(x):
        return jax.lax.scan(lambda c, _: (c + inner(x), None), jnp.zeros_like(x), None, length=3)[0]

    def primal(x):
        return jax.vmap(jax.checkpoint(helper))(x[:, None])[:, 0]

    def forward(x):
        return jax.vjp(primal, x)

    right(rule(primal, forward, lambda pullback, ct: pullback(ct)))


def test_on_example_arrays():
    verdict = verify.check(STASHED, np.array([1.0, 2.0, 3.0]), checks=["purity"])
    assert verdict.status is Status.FAIL
