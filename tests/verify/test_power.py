"""Deliberate mistakes: those that a verification catches, those that it must not be said to catch, and those that are none."""

import json
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner

import verify
from verify.backward import edits, surgery
from verify.cases import draw
from verify.checks import ALL
from verify.cli import main
from verify.power import ends
from verify.power.ladder import smallest_caught
from verify.power.measure import judge_edits, summarised
from verify.power.mutant import Edit, mutated, operation
from verify.power.plan import catching_check, prepare_plan
from verify.power.screen import prepare
from verify.report.power import render_json, render_markdown


def rule(primal, forward, backward):
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function


def linear(x, w, b):
    return x @ w + b


def linear_backward(residuals, ct):
    x, w = residuals
    return ct @ w.T, x.T @ ct, ct.sum(0)


LINEAR = verify.Spec(
    name="plain_linear",
    fn=rule(linear, lambda x, w, b: (linear(x, w, b), (x, w)), linear_backward),
    args={"x": verify.Arg(dims="n d"), "w": verify.Arg(dims="d k"), "b": verify.Arg(dims="k")},
    sizes={"n": (1, 12), "d": (1, 12), "k": (1, 12)},
    dtypes=("float32", "bfloat16"),
)
POLYNOMIAL = verify.Spec(  # x^2 + x, with a term that is nothing and a condition that always holds
    name="polynomial",
    fn=rule(lambda x: x * x + x, lambda x: (x * x + x, x), lambda x, ct: (jnp.where(x < jnp.inf, 2 * x * ct + ct, 0.0) + 0 * x,)),
    args={"x": verify.Arg(dims="n")},
    sizes={"n": (1, 12)},
    dtypes=(),
)


together = pytest.mark.xdist_group("power")  # they look at one measurement


@pytest.fixture(scope="module")
def measured():
    plan = prepare_plan(LINEAR, 24, 0, None)  # bfloat16 comes first at the tenth, sizes above 8 after that
    sharp = [edit for edit in plan.edits if "round" not in edit.name]  # for these see test_a_rounded_cotangent
    return summarised(plan, judge_edits(plan, sharp), smallest_caught(plan), 0, time.perf_counter())


def caught(power):
    return {mutant.edit for mutant in power.killed}


@together
def test_mistakes_in_a_plain_rule_are_caught(measured):
    assert measured.survivors == () and bool(measured), str(measured)
    assert measured.kill_rate == 1 and len(measured.killed) > 50
    assert {
        "transpose the second operand",
        "mean instead of sum",
        "the incoming cotangent replaced by ones",
        "a residual replaced by zeros",
        "a cotangent with one element zeroed",
        "a cotangent times 1 + 1e-06 in float64",
    } <= caught(measured)
    assert all(mutant.address.startswith("plain_linear/0/") and mutant.check for mutant in measured.killed)


@together
def test_the_users_line_is_shown(measured):
    where = next(mutant for mutant in measured.mutants if mutant.edit == "mean instead of sum")
    assert "test_power.py:" in where.source and where.code == "return ct @ w.T, x.T @ ct, ct.sum(0)"
    assert where.equation.startswith("float64[") and "reduce_sum(" in where.equation


@together
def test_the_smallest_error_caught_in_each_dtype(measured):
    smallest = measured.smallest_caught
    assert smallest["float64"] <= 1e-8
    assert smallest["float32"] <= 1e-4
    assert 1e-4 < smallest["bfloat16"] < 1


def test_a_rounded_cotangent():
    plan = prepare_plan(LINEAR, 8, 0, None)
    (mutant,) = judge_edits(plan, [Edit("cotangent", "[0]", "rounded to bfloat16")])
    assert mutant.status == "killed"


@together
def test_renderings(measured):
    assert f"{len(measured.killed)} of {len(measured.killed) + len(measured.survivors)} mistakes caught" in str(measured)
    (operation,) = json.loads(render_json([measured], {}))["operations"]
    assert operation["killed"] == len(measured.killed) and len(operation["mutants"]) == len(measured.mutants)
    page = render_markdown([measured], "verify power plain_linear", {"jax": "0"})
    assert "`verify power plain_linear`" in page and "| plain_linear |" in page and "## Survivors" in page


def test_a_crippled_verification_has_survivors():
    power = verify.measure_power(LINEAR, cases=4, checks=("structure",), limit=6)
    assert not power and power.kill_rate == 0 and power.left_out > 20
    assert len(power.survivors) >= 4
    assert "SURVIVED plain_linear" in str(power) and "test_power.py:" in str(power) and "more were left out" in str(power)


@pytest.mark.nightly
def test_cases_of_a_single_size_have_survivors():
    power = verify.measure_power(LINEAR, cases=1, limit=40)  # the first case has the size 1 everywhere
    assert power.killed and power.survivors
    assert any("no cotangent changes in the 1 cases, but with n=" in mutant.note for mutant in power.survivors)


def test_what_changes_nothing_is_no_mistake():
    plan = prepare_plan(POLYNOMIAL, 8, 0, None)
    power = summarised(
        plan, judge_edits(plan, [edit for edit in plan.edits if edit.where == "equation" and "round" not in edit.name]), {}, 0, 0.0
    )
    none = {(mutant.edit, mutant.equation.split("(")[0].split()[-1]) for mutant in power.equivalents}
    assert {
        ("< and <= exchanged", "lt"),
        ("always true", "lt"),
        ("keep only the first term", "add"),
        ("flip the sign of the second term", "add"),
    } <= none
    assert "add 1 to the constant" in caught(power)
    assert all("no cotangent changes in" in mutant.note for mutant in power.equivalents)
    assert "no mistakes" in str(power)


def test_a_rule_by_custom_jvp():
    @jax.custom_jvp
    def square(x):
        return x * x

    @square.defjvp
    def _(primals, tangents):
        return square(primals[0]), 2 * primals[0] * tangents[0]

    power = verify.measure_power(verify.Spec(name="square", fn=square, args={"x": verify.Arg(dims="n")}, dtypes=()), cases=5, limit=12)
    assert power.killed and power.kill_rate > 0.8


def test_mutants_pass_on_options_integers_keys_and_trees():
    def scaled(params, index, key, *, factor):
        return factor * params["w"][index] + params["b"] * jax.random.uniform(key, ())

    def forward(params, index, key, factor):
        return scaled(params, index, key, factor=factor), (params, index, key)

    def backward(factor, residuals, ct):
        params, index, key = residuals
        w_ct = jnp.zeros_like(params["w"]).at[index].add(factor * ct)
        return {"w": w_ct, "b": ct * jax.random.uniform(key, ()).astype(ct.dtype)}, None, None

    inner = jax.custom_vjp(lambda params, index, key, factor: scaled(params, index, key, factor=factor), nondiff_argnums=(3,))
    inner.defvjp(forward, backward)
    spec = verify.Spec(
        name="tree",
        fn=lambda params, index, key, *, factor=2.0: inner(params, index, key, factor),
        args={
            "params": {"w": verify.Arg(dims="n"), "b": verify.Arg()},
            "index": verify.Arg(dtype="int32", low=0, high=1),
            "key": verify.Arg(dtype="key"),
        },
        options={"factor": (2.0, 3.0)},
        dtypes=(),
    )
    (case,) = draw(spec, 0, range(1, 2))
    fits = prepare(spec, case).fits
    wrong = [edit for edit in fits if edit.where == "cotangent" and edit.name in ("negated", "doubled")]
    assert {edit.target for edit in wrong} == {"[0]['w']", "[0]['b']"}
    assert catching_check(spec, case, ALL) is None
    assert [catching_check(mutated(spec, edit), case, ALL) for edit in wrong] == ["gradient"] * 4
    broken = mutated(spec, Edit("cotangent", "[0]['b']", "doubled")).fn
    args = ({"w": jnp.arange(3.0), "b": jnp.float32(1)}, jnp.int32(1), jax.random.key(0))
    gradient, wrong = (jax.jit(jax.grad(fn, allow_int=True))(*args) for fn in (spec.fn, broken))
    assert float(wrong["b"]) == pytest.approx(2 * float(gradient["b"])) and (wrong["w"] == gradient["w"]).all()
    batch = jax.vmap(lambda w: jax.grad(lambda w: broken({"w": w, "b": 1.0}, *args[1:], factor=3.0))(w))(jnp.ones((2, 3)))
    assert batch.tolist() == [[0, 3, 0], [0, 3, 0]]


def test_every_equation_edit_keeps_shape_and_dtype():
    def program(x, y, p):
        s = jnp.where(p & (x < y), x - y, -x) / 2 + jnp.maximum(x, 0) * jnp.exp(y) + jnp.sin(x) ** 3
        return s @ y.T + jnp.cumsum(x @ y, 0) + s.sum(0)[:, None] + jax.lax.rsqrt(jnp.sqrt(jnp.abs(s)).max(1)) + s[::-1]

    args = (jnp.ones((3, 3)), jnp.full((3, 3), 0.5), jnp.ones((3, 3), bool))
    jaxpr = jax.make_jaxpr(program)(*args)
    tried = set()
    for place in surgery.places(jaxpr):
        for name in edits.edits_of(place.equation):
            tried.add(name)
            changed = surgery.Operation(frozenset([place.path]), lambda e, v, name=name: edits.edited(name, e, v))
            assert jax.make_jaxpr(lambda *a, op=changed: surgery.run(jaxpr, a, op))(*args).out_avals == jaxpr.out_avals, name
    assert len(tried) > 0.7 * len(edits.KINDS), set(edits.KINDS) - tried


def test_every_change_at_the_ends_keeps_shape_and_dtype():
    for dtype in ("float32", "bfloat16"):
        for shape in ((), (2, 2), (3, 70)):
            array = jnp.ones(shape, dtype)
            for table in (ends.RESIDUAL, ends.UPSTREAM, ends.COTANGENT):
                for name, end in table.items():
                    if not array.size or not end.fits(array, [array, jnp.zeros(shape, dtype)]):
                        continue
                    out = end.change(array, [array, jnp.zeros(shape, dtype)])
                    assert (out.shape, out.dtype) == (array.shape, array.dtype), name


def test_loops_and_branches_are_broken_inside():
    def program(x):
        body = lambda c, v: (c * 2.0 + v, jnp.sin(c))
        return jax.lax.cond(x.sum() > 0, lambda x: jax.lax.scan(body, x[0], x)[0], lambda x: x[0] - x[1], x)

    x = jnp.array([1.0, 2.0, 3.0])
    jaxpr = jax.make_jaxpr(program)(x)
    place = next(place for place in surgery.places(jaxpr) if place.equation.primitive.name == "mul")
    (out,) = surgery.run(jaxpr, [x], surgery.Operation(frozenset([place.path]), lambda e, v: edits.edited("drop the second factor", e, v)))
    assert float(out) == 7.0 and float(program(x)) == 19.0


def test_a_branch_for_another_platform_is_no_place_for_a_mistake():
    """Nothing that runs here could notice it: each edit there would be listed as equivalent."""
    jaxpr = jax.make_jaxpr(lambda x: jax.lax.platform_dependent(x, cpu=jnp.sin, tpu=jnp.tanh, default=jnp.cos))(1.0)
    assert [place.equation.primitive.name for place in surgery.places(jaxpr)] == ["platform_index", "sin"]
    jaxpr = jax.make_jaxpr(lambda x: jax.lax.platform_dependent(x, tpu=jnp.tanh, default=jnp.cos))(1.0)
    assert [place.equation.primitive.name for place in surgery.places(jaxpr)] == ["platform_index", "cos"]


def helper(x):
    return 3.0 * x


def in_blocks(x):
    """A first part, and the others in a loop: the same lines, run twice in the traced program."""

    def block(part):
        return helper(part) + 1.0

    rest = jax.lax.map(block, x[1:])
    return block(x[0]) + rest.sum() - helper(x[1])


def test_a_slip_is_made_in_each_run_of_its_line_and_in_no_other_line_that_calls_the_same_helper():
    jaxpr = jax.make_jaxpr(in_blocks)(jnp.ones(3))
    products = [place for place in surgery.places(jaxpr) if place.equation.primitive.name == "mul"]
    assert len(products) == 3 and len({place.key for place in products}) == 2
    (ones,) = {place.key for place in surgery.places(jaxpr) if place.equation.primitive.name == "add" and ".block)" in place.key[0]}
    assert [place.key for place in surgery.places(jaxpr)].count(ones) == 2
    (called_by_block,) = {key for key in (place.key for place in products) if ".block)" in key[0]}
    slip = operation(Edit("equation", called_by_block, "drop the first factor"), jaxpr)
    assert float(in_blocks(jnp.ones(3))) == 3 * 3 + 3 - 3
    assert float(surgery.run(jaxpr, [jnp.ones(3)], slip)[0]) == 3 * 1 + 3 - 3


def deep(x):
    """The same nested loop in a loop and after it: JAX keeps so few lines of the way that both look alike."""

    def block(c):
        return jax.lax.scan(lambda c, v: (c * v, None), c, x)[0]

    return block(jax.lax.scan(lambda c, _: (block(c), None), x[0], None, length=2)[0])


def test_a_slip_in_a_nested_loop_is_made_in_each_run_of_it():
    jaxpr = jax.make_jaxpr(deep)(jnp.array([2.0, 3.0]))
    products = [place for place in surgery.places(jaxpr) if place.equation.primitive.name == "mul"]
    assert len(products) == 2 and len({place.key for place in products}) == 1
    slip = operation(Edit("equation", products[0].key, "drop the second factor"), jaxpr)
    assert float(surgery.run(jaxpr, [jnp.array([2.0, 3.0])], slip)[0]) == 2


@pytest.mark.nightly
def test_a_key_among_the_residuals():
    dropped = rule(
        lambda x, key: jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0),
        lambda x, key: (dropped(x, key), key),
        lambda key, ct: (jnp.where(jax.random.bernoulli(key, 0.5, ct.shape), ct, 0.0), None),
    )
    spec = verify.Spec(name="dropped", fn=dropped, args={"x": verify.Arg(dims="n"), "key": verify.Arg(dtype="key")}, dtypes=())
    plan = prepare_plan(spec, 3, 0, None)
    mutants = judge_edits(plan, [edit for edit in plan.edits if edit.where == "residual"])
    assert mutants and {mutant.status for mutant in mutants} <= {"killed", "equivalent"}


def test_the_last_residual_is_the_same_whichever_arguments_are_absent():
    """Counted from the first, it would be another one where b is None, and a mistake in it would be met in some of the cases only."""

    def backward(residuals, ct):
        x, b, e = residuals
        return 2 * ct * e * x * (1 if b is None else b), None if b is None else ct * e

    scaled = rule(lambda x, b: jnp.exp(x * x) * (1 if b is None else b), lambda x, b: (scaled(x, b), (x, b, jnp.exp(x * x))), backward)
    spec = verify.Spec(name="scaled", fn=scaled, args={"x": verify.Arg(dims="n"), "b": verify.Arg(dims="n", optional=True)}, dtypes=())
    found = {len(prepared.residuals): prepared.fits for prepared in prepare_plan(spec, 8, 0, None).cases}
    assert sorted(found) == [2, 3]
    assert all(Edit("residual", number, "times 1.001") in fits for fits in found.values() for number in (0, -1))


def test_seeds_of_the_pool_are_not_those_of_the_cases():
    made = prepare_plan(LINEAR, 3, 0, None)
    assert len(made.cases) == 3 and len(made.pool) > 50
    assert not {p.case.seed for p in made.cases} & {p.case.seed for p in made.pool}
    assert prepare(LINEAR, made.cases[0].case).fits.keys() == made.cases[0].fits.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["power", "layer_nrom"], "layer_norm"),
        (["power", "layer_norm", "--check", "nonsense"], "there is no check"),
        (["power", "layer_norm", "--json", "-", "--markdown", "-"], "would mix two reports"),
        (["power", "layer_norm", "--limit", "0"], "--limit"),
    ],
)
def test_usage_errors(arguments, said):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and said in result.output


def test_a_wrong_rule_is_to_be_mended_first():
    wrong = rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, ct: (2 * jnp.cos(x) * ct,))
    with pytest.raises(verify.SpecError, match=r"(?s)verdict FAIL.*mend the rule first.*right one times 2"):
        verify.measure_power(verify.Spec(name="wrong", fn=wrong, args={"x": verify.Arg(dims="n")}), cases=2)
    with pytest.raises(verify.SpecError, match="limit must be at least 1"):
        verify.measure_power(LINEAR, cases=2, limit=0)
    with pytest.raises(verify.SpecError, match="checks is empty"):
        verify.measure_power(LINEAR, cases=2, checks=())


def test_the_command(tmp_path):
    page, data = tmp_path / "power.md", tmp_path / "power.json"
    arguments = ["power", "relu", "--cases", "4", "--limit", "3", "-q", "--json", str(data), "--markdown", str(page)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (0, 1), result.output
    assert "relu" in result.output and "mistakes caught" in result.output
    assert json.loads(data.read_text())["schema"] == "verify-power/1"
    assert "verify power relu --cases 4" in page.read_text()


def test_an_equation_of_a_library_function_has_the_line_of_the_call():
    fn = rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.where(x < 9, ct * jnp.cos(x), 0),))
    spec = verify.Spec(name="where", fn=fn, args={"x": verify.Arg(dims="n")}, dtypes=())
    assert verify.run(spec, cases=3)  # which traces jnp.where from elsewhere
    plan = prepare_plan(spec, 3, 0, None)
    edit = next(edit for edit in plan.edits if edit.name == "always the value where false")
    assert "test_power.py" in edit.target[0]
    assert judge_edits(plan, [edit])[0].status == "killed"


def test_a_transpose_that_the_shapes_of_a_case_forbid_is_caught_there():
    """An exception is no silent mistake: only sizes that agree by chance let it run."""
    jaxpr = jax.make_jaxpr(lambda x, w: x @ w)(jnp.ones((3, 4)), jnp.ones((4, 5)))
    rectangular = next(place.equation for place in surgery.places(jaxpr) if place.equation.primitive.name == "dot_general")
    moves = ["exchange the operands", "transpose the first operand", "transpose the second operand"]
    assert [edits.cannot_run(move, rectangular) for move in moves] == [True, True, True]
    assert not edits.cannot_run("flip the sign", rectangular)
    alike = jax.make_jaxpr(lambda x, w: x @ w)(jnp.ones((3, 3)), jnp.ones((3, 3)))
    assert not any(edits.cannot_run(move, alike.eqns[0]) for move in moves)


def test_what_changes_nothing_in_a_few_inputs_is_looked_for_in_more():
    """No row of these is longer than 64; so what is done to elements beyond is no mistake yet."""
    fn = rule(lambda x: 2.0 * x, lambda x: (2.0 * x, None), lambda _, ct: (2.0 * ct,))
    spec = verify.Spec(name="double", fn=fn, args={"x": verify.Arg(dims="n")}, dtypes=(), sizes={"n": (1, 70)})
    plan = prepare_plan(spec, 6, 0, None)
    edit = Edit("cotangent", "[0]", f"zeroed from index {ends.TAIL} on")
    short = tuple(prepared for prepared in (*plan.cases, *plan.pool) if edit not in prepared.fits)
    long = next(prepared for prepared in plan.pool if edit in prepared.fits)

    few = replace(plan, cases=short[:6], pool=short, more=lambda: iter([long]), edits={edit: ("", "")})
    assert judge_edits(few, [edit])[0].status == "survived"
    assert judge_edits(replace(few, more=lambda: iter(short)), [edit])[0].status == "equivalent"


@pytest.mark.parametrize(("columns", "fate"), [(2, "survived"), (3, "killed")])
def test_a_transposed_cotangent_that_the_shapes_of_a_case_forbid_is_caught_there(columns, fate):
    """Linearity alone does not see a transpose; the shapes of a case do, if they are not square."""
    fn = rule(lambda w: 2 * w, lambda w: (2 * w, None), lambda _, ct: (2 * ct,))

    def plan(columns):
        spec = verify.Spec(name="w", fn=fn, args={"w": verify.Arg(dims="n m")}, dtypes=(), sizes={"n": (2, 2), "m": (columns, columns)})
        return prepare_plan(spec, 3, 0, ["linearity"])

    square = plan(2)
    edit = next(edit for edit in square.edits if edit.name == "transposed")
    assert judge_edits(replace(plan(columns), edits=square.edits), [edit])[0].status == fate


def test_a_backward_that_raises_at_some_sizes_leaves_these_out():
    mean = rule(lambda x: x.mean(), lambda x: (x.mean(), x), lambda x, ct: (jnp.broadcast_to(ct * (1 / x.shape[0]), x.shape),))
    spec = verify.Spec(name="mean", fn=mean, args={"x": verify.Arg(dims="n")}, sizes={"n": (0, 3)}, dtypes=())
    plan = prepare_plan(spec, 24, 0, None)
    assert {prepared.case.sizes["n"] for prepared in (*plan.cases, *plan.pool)} == {1, 2, 3}
