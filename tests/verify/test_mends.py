"""The change of a rule's own source that would make it right is named by its line, and only if it mends every case."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verify import Arg, Spec, run
from verify._compat import enable_x64
from verify.backward.steps import NotFollowedError, Steps
from verify.cases import draw
from verify.diagnosis.evidence import gather
from verify.diagnosis.mending import search


def spec(primal: Callable[..., Any], forward: Callable[..., Any], backward: Callable[..., Any], **more: Any) -> Spec:
    rule = jax.custom_vjp(primal)
    rule.defvjp(forward, backward)
    return Spec(name="rule", fn=rule, **{"args": {"x": Arg(dims="n d")}, "sizes": {"n": (2, 6), "d": (2, 5)}, "dtypes": (), **more})  # type: ignore[arg-type]


def told(wrong: Spec, cases: int = 12) -> str:
    return run(wrong, cases=cases, checks=["gradient"]).diagnosis


def spread(x: jax.Array) -> jax.Array:
    return ((x - x.mean(0)) ** 2).sum(0) / (x.shape[0] - 1)


def keep(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return spread(x), x


def test_a_size_that_is_one_off() -> None:
    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        centred = x - x.mean(0)
        return (2 * ct * centred / x.shape[0],)

    assert "of the div in `2 * ct * centred / x.shape[0]`, test_mends.py:" in (said := told(spec(spread, keep, backward)))
    assert "is n - 1, " in said


def exact(x: jax.Array, slip: bool = False) -> jax.Array:
    return jnp.cos(x) + x * jnp.tanh(x)


def test_a_stale_residual() -> None:
    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        t = jnp.tanh(x)
        return (ct * (t - jnp.sin(x) + x * (1 - x * x)),)

    said = told(spec(lambda x: exact(x), lambda x: (exact(x), x), backward))
    assert "takes `t` of test_mends.py:" in said
    assert "in the place of argument x" in said


def test_the_sign_of_one_term() -> None:
    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        t = jnp.tanh(x)
        return (ct * (t + x * (1 - t * t)) + ct * jnp.sin(x),)

    said = told(spec(lambda x: exact(x), lambda x: (exact(x), x), backward))
    assert "ct * jnp.sin(x)" in said
    assert "has the other sign" in said or "flip the sign" in said


def loop(x: jax.Array, turns: int) -> jax.Array:
    return jax.lax.scan(lambda y, _: (jnp.sin(y) + 0.5 * y, y), x, None, length=turns)[0]


def loop_rule(slip: bool) -> Spec:
    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.scan(lambda y, _: (jnp.sin(y) + 0.5 * y, y), x, None, length=3)

    def backward(states: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        def step(y_ct: jax.Array, y: jax.Array) -> tuple[jax.Array, None]:
            through = y_ct * jnp.cos(y)
            return (through if slip else through + 0.5 * y_ct), None

        return (jax.lax.scan(step, ct, states, reverse=True)[0],)

    return spec(lambda x: loop(x, 3), forward, backward)


def two_paths(slip: bool) -> Spec:
    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        direct = ct * jnp.cos(x)
        through_mean = jnp.broadcast_to((ct * x).mean(0), x.shape)
        return (direct if slip else direct + through_mean,)

    def primal(x: jax.Array) -> jax.Array:
        return jnp.sin(x)

    def reference(x: jax.Array) -> jax.Array:
        pull = jax.lax.stop_gradient(x)
        return jnp.sin(x) + pull * (x.mean(0) - jax.lax.stop_gradient(x.mean(0)))

    return spec(primal, lambda x: (jnp.sin(x), x), backward, reference=reference)


def test_a_term_that_is_computed_and_never_used() -> None:
    said = told(two_paths(slip=True))
    assert "adds `through_mean` of test_mends.py:" in said
    assert "computed and never used" in said
    assert run(two_paths(slip=False), cases=12, checks=["gradient"])


@pytest.mark.parametrize("slip", [True, False])
def test_a_slip_inside_of_a_loop_is_mended_in_every_turn(slip: bool) -> None:
    (case,) = draw(loop_rule(slip), 0, range(1))
    evidence = gather(loop_rule(slip), case)
    assert evidence is not None
    rule = search._followed(evidence)
    assert rule is not None
    turns = [step for step in rule.steps if step.equation is not None and step.turn and step.key[1] == "cos"]
    assert [step.turn for step in turns] == [(2,), (1,), (0,)]
    assert len({step.key for step in turns}) == 1
    assert search.is_right(evidence, rule.again({})) != slip


def test_a_loop_unrolled_has_the_results_of_the_loop() -> None:
    def both(x: jax.Array) -> Any:
        return jax.value_and_grad(lambda x: loop(x, 5).sum())(x)

    x = np.linspace(-1.0, 1.0, 6)
    with enable_x64(True):
        jaxpr = jax.make_jaxpr(both)(x)
        want = both(x)
        got = Steps(jaxpr, [x], [("argument", "x")])
        for a, b in zip([got.values[slot] for slot in got.results], want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
        first = next(i for i, step in enumerate(got.steps) if step.key[1] == "sin")
        moved = got.again({first: lambda values: [np.sin(values[0]) + 1.0]})
        assert not np.allclose(moved[0], want[0])


def test_two_mistakes_are_mended_by_no_single_change() -> None:
    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        return (ct * (jnp.tanh(x) ** 3 - jnp.sin(2 * x) + x * (1 - x * jnp.exp(x))),)

    assert "the gradient is right" not in told(spec(lambda x: exact(x), lambda x: (exact(x), x), backward)).lower()


def test_what_the_primal_is_made_of_stays() -> None:
    """Half of the output would have that gradient: but the output is right, and the gradient is not."""

    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        return (ct * jnp.cos(x) / 2,)

    said = told(spec(lambda x: jnp.sin(x), lambda x: (jnp.sin(x), x), backward))
    assert "jnp.sin" not in said
    assert "the div in `ct * jnp.cos(x) / 2`, test_mends.py:" in said


def test_long_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.backward.steps.MOST", 2)
    with enable_x64(True), pytest.raises(NotFollowedError):
        Steps(jax.make_jaxpr(lambda x: jnp.sin(jnp.cos(jnp.exp(x))))(1.0), [np.float64(1.0)], [("argument", "x")])
    assert "The gradient is right" not in told(loop_rule(slip=True))


def test_a_cotangent_that_is_set_where_it_must_be_added() -> None:
    def backward(rows: jax.Array, ct: jax.Array) -> tuple[jax.Array, None]:
        return jnp.zeros((7, ct.shape[-1]), ct.dtype).at[rows].set(ct), None

    args = {"table": Arg(dims="7 d"), "rows": Arg(dims="n", dtype="int32", high="7")}
    wrong = spec(
        lambda table, rows: table[rows], lambda table, rows: (table[rows], rows), backward, args=args, sizes={"n": (4, 9), "d": (1, 3)}
    )
    assert "with one change of the scatter in `return jnp.zeros((7, ct.shape[-1])" in (said := told(wrong))
    assert "add instead of set" in said


def test_a_rule_with_a_key() -> None:
    def drop(x: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)

    def backward(key: jax.Array, ct: jax.Array) -> tuple[jax.Array, None]:
        return jnp.where(jax.random.bernoulli(key, 0.5, ct.shape), 3 * ct, 0), None

    args = {"x": Arg(dims="n d"), "key": Arg(dtype="key")}
    said = told(spec(drop, lambda x, key: (drop(x, key), key), backward, args=args))
    assert re.search(r"if the number 3 of the mul in `3 \* ct`, test_mends.py:\d+ is 2", said)


def test_a_coefficient_that_is_one_step_late() -> None:
    def primal(x: jax.Array, a: jax.Array) -> jax.Array:
        def step(h: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return (h := row[1] * h + row[0]), h

        return jax.lax.scan(step, jnp.zeros_like(x[0]), (x, a))[1]

    def backward(residuals: tuple[jax.Array, jax.Array], ct: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, states = residuals

        def step(carry: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            a_t, before, ct_t = row
            carry = ct_t + a_t * carry
            return carry, (carry, carry * before)

        before = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
        return jax.lax.scan(step, jnp.zeros_like(ct[0]), (a, before, ct), reverse=True)[1]

    args = {"x": Arg(dims="n d"), "a": Arg(dims="n d", low=0.1, high=1.0)}
    said = told(spec(primal, lambda x, a: (primal(x, a), (a, primal(x, a))), backward, args=args))
    assert "the mul in `a_t * carry`, test_mends.py:" in said
    assert "at the next index" in said


def test_a_constant_array_in_the_place_of_an_argument() -> None:
    table = np.linspace(1.0, 2.0, 12).reshape(4, 3)

    def backward(x: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        return (2 * ct * jnp.asarray(table.astype(ct.dtype)),)

    wrong = spec(lambda x: x * x, lambda x: (x * x, x), backward, args={"x": Arg(dims="4 3")}, sizes={})
    assert "takes argument x in the place of a constant array" in told(wrong)


def test_a_fault_in_it_costs_its_own_sentence_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> list[str]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("verify.diagnosis.gradient.mends", fail)
    with pytest.warns(RuntimeWarning, match="a fault of ours"):
        assert (
            told(spec(lambda x: 2 * x, lambda x: (2 * x, None), lambda _, ct: (ct,))) == "The cotangent of x: it is the right one times 0.5"
        )


def test_programs_that_call_back_to_python_are_left_alone() -> None:
    def host(x: jax.Array) -> jax.Array:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with enable_x64(True), pytest.raises(NotFollowedError):
        Steps(jax.make_jaxpr(host)(1.0), [np.float64(1.0)], [("argument", "x")])
