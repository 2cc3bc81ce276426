"""`verify.audit`: each rule of a program is found once, named with its line, and judged; wrong ones fail, right ones near them pass."""

from __future__ import annotations

import functools as ft
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core
from jax.sharding import AxisType, PartitionSpec

import verify
from verify.auditing import baseline
from verify.auditing.collect import collect
from verify.auditing.listen import Listener, listening
from verify.errors import SpecError
from verify.records import Status

GRADIENT = ["gradient", "finite-difference"]


@jax.custom_vjp
def squashed(x):
    return jnp.tanh(x)


squashed.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, ct: (ct * (1 - y**2),))


@jax.custom_vjp
def stale(x):  # saves x where the formula needs tanh(x)
    return jnp.tanh(x)


stale.defvjp(lambda x: (jnp.tanh(x), x), lambda y, ct: (ct * (1 - y**2),))


@jax.custom_jvp
def cube(x):
    return x**3


cube.defjvp(lambda primals, tangents: (primals[0] ** 3, 3 * primals[0] ** 2 * tangents[0]))


@ft.partial(jax.custom_vjp, nondiff_argnums=(0, 2))
def applied(function, x, times):
    return function(x) * times


applied.defvjp(lambda f, x, n: (f(x) * n, x), lambda f, n, x, ct: (jax.vjp(f, x)[1](ct)[0] * n,))


@jax.custom_vjp
def reverse(x):
    return x


reverse.defvjp(lambda x: (x, None), lambda _, ct: (-ct,))


@jax.custom_vjp
def dropped(x, key):
    return x * jax.random.bernoulli(key, 0.5, x.shape)


dropped.defvjp(lambda x, key: (dropped(x, key), key), lambda key, ct: (ct * jax.random.bernoulli(key, 0.5, ct.shape), None))


@jax.custom_vjp
def rows(table, index):
    return table[index]


rows.defvjp(
    lambda table, index: (table[index], (index, table.shape[0])),
    lambda r, ct: (jnp.zeros((r[1], ct.shape[1]), ct.dtype).at[r[0]].add(ct), None),
)


def inner(function):
    """A rule three levels deep: in a scan, in a jit, in a checkpoint."""

    def program(x):
        def step(total, row):
            return total + jax.checkpoint(jax.jit(lambda r: function(r * 2)))(row), None

        return jax.lax.scan(step, jnp.zeros(x.shape[1]), x)[0].sum()

    return program


X = jnp.linspace(-1.0, 1.5, 12).reshape(4, 3)


def statuses(report):
    return {verdict.name.rpartition(":")[2]: verdict.status for verdict in report}


def line_of(function):
    return inspect.getsourcelines(function)[1]


@pytest.mark.parametrize("differentiate", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_wrong_rule_three_levels_deep_is_named_with_its_line(differentiate):
    program = inner(stale)
    (verdict,) = verify.audit(jax.grad(program) if differentiate else program, X, checks=GRADIENT)
    assert verdict.status is Status.FAIL
    assert verdict.location == f"tests/verify/test_audit.py:{line_of(stale)}"
    assert verdict.location in str(verdict)


def test_right_rule_near_it_passes():
    (verdict,) = verify.audit(jax.grad(inner(squashed)), X, checks=GRADIENT)
    assert verdict.status is Status.PASS
    assert verdict.name == "test_audit:squashed"


def custom_equations(jaxpr):
    """The functions of all custom rules of a traced program: walked here without verify."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("custom_"):
            yield equation.params["call_jaxpr"].jaxpr.debug_info.func_src_info
        for value in equation.params.values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, core.ClosedJaxpr):
                    yield from custom_equations(item.jaxpr)
                elif isinstance(item, core.Jaxpr):
                    yield from custom_equations(item)


def everything(x, index, key):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    looped = jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, cube(c[1])), (0, x))[1]
    branched = jax.lax.cond(x[0, 0] > 0, lambda x: applied(jnp.sin, x, 2), squashed, x)
    mapped = jax.vmap(lambda row, k: dropped(row, k))(x, jax.random.split(key, 4))
    sharded = jax.shard_map(reverse, mesh=mesh, in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d"))(x)
    return inner(stale)(looped + branched + mapped + sharded) + rows(x, index).sum() + jax.nn.relu(x).sum() + jax.nn.relu(x[0]).sum()


def test_every_rule_is_found_and_none_twice():
    args = X, jnp.array([0, 3, 3]), jax.random.key(0)
    rules, _ = collect(everything, args)
    walked = set(custom_equations(jax.make_jaxpr(everything)(*args).jaxpr))
    assert len(walked) == 8
    assert len(rules) == len({rule.name for rule in rules}) == len(walked)
    relu = next(rule for rule in rules if rule.name.endswith(":relu"))
    assert (relu.calls, len(relu.signatures)) == (2, 2)


def test_values_of_the_program_are_used_where_it_has_them():
    rules, _ = collect(jax.grad(lambda x: inner(squashed)(x + 5)), (X,))
    ((signature,),) = [rule.signatures.values() for rule in rules]
    assert signature.values[0].tolist() == pytest.approx(((X[0] + 5) * 2).tolist())
    rules, _ = collect(inner(squashed), (jax.ShapeDtypeStruct((4, 3), "float32"),))
    assert not next(iter(rules[0].signatures.values())).values


def test_rules_that_were_traced_before_are_found_too():
    program = jax.jit(inner(cube))
    program(X)
    assert statuses(verify.audit(program, X, checks=GRADIENT)) == {"cube": Status.PASS}


@pytest.mark.parametrize(
    ("program", "args"),
    [
        (lambda x: applied(lambda y: jnp.sin(y) * 3, x, 2).sum(), (X,)),
        (lambda x, key: dropped(x, key).sum(), (X, jax.random.key(1))),
        (lambda x, index: rows(x, index).sum(), (X, jnp.array([1, 1, 2]))),
        (lambda x, index: rows(x, index).sum(), (jax.ShapeDtypeStruct((4, 3), "float32"), jax.ShapeDtypeStruct((3,), "int32"))),
    ],
    ids=["function and number", "key", "indices", "shapes only"],
)
def test_arguments_without_a_derivative(program, args):
    (verdict,) = verify.audit(program, *args, checks=GRADIENT)
    assert verdict.status is Status.PASS, str(verdict)


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("differentiate", [False, True])
def test_rule_that_closes_over_a_traced_value(differentiate, wrong):
    def program(x, w):
        @jax.custom_vjp
        def scaled(x):
            return jnp.sin(x) * w

        scaled.defvjp(lambda x: (scaled(x), x), lambda x, ct: (ct * jnp.cos(x) * (1 if wrong else w),))
        return scaled(x).sum()

    (verdict,) = verify.audit(jax.grad(program) if differentiate else program, X, X + 2, checks=GRADIENT)
    assert verdict.status is (Status.FAIL if wrong else Status.PASS), str(verdict)


def test_a_factory_makes_one_rule_for_each_setting():
    def made(factor, backward=None):
        rule = jax.custom_vjp(lambda x: x * factor)
        rule.defvjp(lambda x: (x * factor, None), backward or (lambda _, ct: (ct * factor,)))
        return rule

    rules, _ = collect(lambda x: made(2.0)(x) + made(2.0)(x) + made(3.0)(x) + made(3.0, lambda _, ct: (ct,))(x), (X,))
    assert sorted(rule.calls for rule in rules) == [1, 1, 2]


def test_a_wrapper_is_named_by_what_it_wraps():
    @jax.custom_gradient
    def exponential(x):
        return jnp.exp(x), lambda ct: ct * jnp.exp(x)

    (verdict,) = verify.audit(lambda x: exponential(x).sum(), X, checks=GRADIENT)
    assert verdict.status is Status.PASS
    assert "exponential" in verdict.name
    assert verdict.location.startswith("tests/verify/test_audit.py:")


@pytest.mark.parametrize("differentiate", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_rule_that_needs_what_its_program_holds_open(differentiate, factor):
    opened = []

    @jax.custom_vjp
    def square(x):
        if not opened:
            raise RuntimeError("nothing is open")
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, ct: (factor * x * ct,))

    def program(x):
        opened.append(True)
        try:
            return jax.lax.scan(lambda c, x: (c, square(x)), 0.0, x)[1].sum()
        finally:
            opened.pop()

    (verdict,) = verify.audit(jax.grad(program) if differentiate else program, jnp.ones((3, 2)), checks=GRADIENT)
    assert verdict.status is (Status.PASS if factor == 2 else Status.FAIL)
    assert verdict.name.endswith("square") and "cannot be called outside of the program" in " ".join(verdict.notes)


def test_a_call_in_its_own_forward_that_nobody_can_differentiate():
    @ft.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def normalised(x, with_sum):
        return (x / x.sum(), x.sum()) if with_sum else x / x.sum()

    def backward(with_sum, residuals, ct):
        if with_sum:
            raise ValueError("no derivative with the sum")
        y, total = residuals
        return ((ct - (ct * y).sum()) / total,)

    normalised.defvjp(lambda x, with_sum: (normalised(x, False), normalised(x, True)), backward)
    (verdict,) = verify.audit(jax.grad(lambda x: normalised(x, False)[0]), jnp.arange(1.0, 5.0), checks=GRADIENT)
    assert verdict.status is Status.PASS, str(verdict)
    assert "nobody can, was left out: ValueError: no derivative with the sum" in " ".join(verdict.notes)


@pytest.mark.parametrize("wrong", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_values_at_which_nothing_can_be_told(wrong):
    @jax.custom_vjp
    def volume(matrix):  # of a positive definite matrix; NaN for others, as those that are drawn are
        return 2 * jnp.log(jnp.diag(jnp.linalg.cholesky(matrix))).sum()

    volume.defvjp(lambda m: (volume(m), m), lambda m, ct: (ct * jnp.linalg.inv(m) * (1.1 if wrong else 1),))
    (verdict,) = verify.audit(volume, 4 * jnp.eye(3) + 1, checks=["gradient", "linearity"])
    assert verdict.status is (Status.FAIL if wrong else Status.PASS), str(verdict)
    assert wrong or "nothing could be told" in " ".join(verdict.notes)


def test_an_argument_of_infinities_is_drawn_anew():
    @jax.custom_jvp
    def lower(x, y):
        return jnp.minimum(x, y)

    @lower.defjvp
    def _(primals, tangents):
        return lower(*primals), jnp.where(primals[0] <= primals[1], *tangents)

    (verdict,) = verify.audit(lower, jnp.arange(4.0), jnp.full(4, jnp.inf), checks=GRADIENT)
    assert verdict.status is Status.PASS, str(verdict)


def test_listening_ends():
    before = jax.custom_vjp.__call__, jax.custom_jvp.__call__
    with pytest.raises(ZeroDivisionError), listening(Listener()):
        1 / 0  # noqa: B018
    assert (jax.custom_vjp.__call__, jax.custom_jvp.__call__) == before


def test_no_float_argument_is_left_out_and_nothing_found_is_no_success():
    count = jax.custom_jvp(lambda x: x.sum())
    count.defjvp(lambda primals, tangents: (primals[0].sum(), tangents[0].sum()))
    (verdict,) = verify.audit(lambda x: count(x), jnp.arange(3))
    assert verdict.status is Status.SKIP
    assert not verify.audit(lambda x: x + 1, X)


def test_program_that_raises_is_a_clear_error():
    with pytest.raises(SpecError, match="the program raises TypeError"):
        verify.audit(lambda x: x @ x, X)
    with pytest.raises(SpecError, match="must be callable, got int"):
        verify.audit(3)


def test_budget_leaves_the_rest_with_its_reason():
    report = verify.audit(lambda x: squashed(x) + cube(x), X, checks=GRADIENT, budget=0.0)
    assert [verdict.status for verdict in report] == [Status.PASS, Status.SKIP] or all(v.status is Status.SKIP for v in report)
    assert "budget of 0 s" in str(report)


def test_a_declared_difference_is_no_failure_until_it_changes():
    report = verify.audit(lambda x: reverse(x).sum(), X, checks=GRADIENT)
    (verdict,) = report
    assert verdict.status is Status.FAIL
    (gap,) = _reread(baseline.render(report))
    assert gap.reason == baseline.TODO
    (excused,) = verify.audit(lambda x: reverse(x).sum(), X, checks=GRADIENT, baseline=[gap])
    assert excused.status is Status.SKIP
    assert gap.reason in str(excused)
    other = baseline.Gap(name=gap.name, reason="reversal", difference=gap.difference.replace("wrong sign", "right one times 2"))
    changed = baseline.declared(verdict, [other])
    assert changed.status is Status.FAIL
    assert "differs otherwise" in str(changed)
    (right,) = verify.audit(lambda x: squashed(x).sum(), X, checks=GRADIENT)
    unneeded = baseline.declared(right, [baseline.Gap(name=right.name, reason="none", difference="x")])
    assert unneeded.status is Status.PASS
    assert "remove it" in unneeded.notes[-1]


def _reread(text, path="verify-baseline.toml"):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path).write_text(text)
        return baseline.load(Path(folder) / path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rule]]\nname = 'a'", "missing required field `reason`"),
        ("[[rules]]", "unknown field `rules`"),
        ("not toml", "not TOML"),
        ("[[rule]]\nname = 1\nreason = ''\ndifference = ''", "Expected `str`"),
    ],
)
def test_bad_baseline_is_a_clear_error(text, words):
    with pytest.raises(SpecError, match=re.escape(words)):
        _reread(text)


MODULE = """
import jax
import jax.numpy as jnp

@jax.custom_vjp
def forgetful(x, w):
    return x * w

forgetful.defvjp(lambda x, w: (x * w, (x, w)), lambda r, ct: (ct * r[1], ct))

def loss(x, w=2.0):
    return forgetful(x, x + w).sum()

def example():
    return (jnp.arange(6.0),)

if __name__ == "__main__":
    import sys
    print("trained", sys.argv[1:], jax.grad(loss)(*example()))
    if "fail" in sys.argv:
        raise OSError("no disk")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(MODULE)
    return tmp_path


def command(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as most have it
    return subprocess.run(
        [sys.executable, "-m", "verify.cli", "audit", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.nightly
def test_what_a_program_prints_is_not_lost_when_its_process_is_slow_to_end(folder):
    module = folder / "model.py"
    module.write_text(f"import atexit, time\natexit.register(time.sleep, 5)\n{module.read_text()}")
    assert "trained" in command(folder, "model.py", "--check", "gradient").stderr


def test_command_line_audits_a_program_and_a_script(folder):
    done = command(folder, "model:loss", "--args", "model:example", "--check", "gradient", "--json", "a.json")
    assert done.returncode == 1, done.stderr
    assert "FAIL model:forgetful" in done.stdout
    assert "from model import forgetful" in done.stdout
    (verdict,) = json.loads((folder / "a.json").read_text())["verdicts"]
    assert (verdict["location"], verdict["calls"]) == ("model.py:5", 1)
    done = command(folder, "model.py", "--check", "gradient", "--write-baseline", "--", "fail")
    assert done.returncode == 1
    assert "OSError" in done.stdout
    assert "trained ['fail']" in done.stderr
    done = command(folder, "model:loss", "--arg", "x=f32[6]", "--check", "gradient")
    assert done.returncode == 0, done.stdout
    assert "different on purpose" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model"], "wanted pkg.mod:program"),
        (["model:los"], 'Did you mean "loss"?'),
        (["nosuch.py"], "there is no file nosuch.py"),
        (["model:loss", "--arg", "x=f33[2]"], "there is no dtype 'f33'"),
        (["model:loss", "--arg", "y=f32[2]"], "has no parameter 'y'"),
        (["model:loss", "--arg", "x=f32(2)"], "wanted name=dtype[sizes]"),
        (["model:loss"], "missing a required argument: 'x'"),
        (["model:loss", "--args", "model:example", "--arg", "x=f32[2]"], "exclude each other"),
        (["model:loss", "--baseline", "none.toml"], "none.toml"),
        (["model:loss", "--args", "model:example", "--check", "gradiant"], 'Did you mean "gradient"?'),
        (["model.py", "--arg", "x=f32[2]"], "are for programs"),
    ],
)
def test_bad_command_lines_are_one_line(folder, monkeypatch, arguments, words):
    from click.testing import CliRunner

    from verify.cli import main

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    done = CliRunner().invoke(main, ["audit", "--timeout", "0", *arguments])
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


HOSTILE = """
import os, time
import jax

def rule(backward):
    made = jax.custom_vjp(lambda x: 2 * x)
    made.defvjp(lambda x: (2 * x, None), backward)
    return made

hangs = rule(lambda _, ct: time.sleep(1000))
dies = rule(lambda _, ct: os._exit(7))
right = rule(lambda _, ct: (2 * ct,))

def program(x):
    return hangs(dies(right(x))).sum()
"""


@pytest.mark.slow
@pytest.mark.nightly
def test_a_rule_that_hangs_or_kills_its_process_costs_only_its_own_verdict(folder):
    (folder / "hostile.py").write_text(HOSTILE)
    done = command(folder, "hostile:program", "--arg", "x=f32[3]", "--check", "gradient", "--timeout", "15", "--json", "out.json")
    assert done.returncode == 2, done.stderr
    verdicts = json.loads((folder / "out.json").read_text())["verdicts"]
    assert sorted(verdict["status"] for verdict in verdicts) == ["ERROR", "INCONCLUSIVE", "PASS"]
    assert "the process died (exit status 7)" in done.stdout
    assert "longer than 15 s" in done.stdout


SUITE = textwrap.dedent("""
    import jax, pytest
    from model import loss, example

    @pytest.mark.parametrize("n", range(3))
    def test_loss(n):
        assert jax.grad(loss)(*example()).shape == (6,)

    def test_relu():
        assert jax.nn.relu(1.0) == 1
""")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_pytest_reports_each_rule_once(folder, processes):
    (folder / "test_model.py").write_text(SUITE)
    spread = ["-n", "2"] if processes else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--verify-audit", "--junitxml=out.xml", *spread], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "1 failed, 5 passed" in done.stdout
    assert "FAILED verify-audit::model:forgetful" in done.stdout
    assert "1 FAIL, 1 PASS" in done.stdout
    assert (folder / "out.xml").read_text().count('classname="verify-audit"') == 2


def test_pytest_without_the_flag_hears_nothing(folder):
    (folder / "test_model.py").write_text("def test_nothing():\n    import sys\n    assert 'jax' not in sys.modules\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


RULES = """
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

def rule(function, forward, backward, **options):
    made = jax.custom_vjp(function, **options)
    made.defvjp(forward, backward)
    return made

square = rule(lambda x: x * x, lambda x: (x * x, x), lambda x, ct: (2 * x * ct,))
same_square = square

@jax.custom_vjp
def product(x: Float[Array, "n m"], w: Float[Array, "m k"]) -> Float[Array, "n k"]:
    return x @ w

product.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, ct: (ct @ r[1].T, r[0].T @ ct * 2))

@jax.custom_vjp
def strange(x):
    assert x.shape == (17, 1, 2)
    return x

strange.defvjp(lambda x: (x, None), lambda _, ct: (ct,))

class Layer:
    halve = staticmethod(rule(lambda x: x / 2, lambda x: (x / 2, None), lambda _, ct: (ct / 2,)))
"""


def test_scan_lists_every_rule_once_and_judges_what_it_can(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from verify.auditing.scan import judged, scan
    from verify.cli import main

    deep = tmp_path / "scanned" / "namespace"
    deep.mkdir(parents=True)
    (tmp_path / "scanned" / "__init__.py").write_text("from scanned.namespace.rules import square")
    (deep / "rules.py").write_text(RULES)  # a folder without __init__.py
    (deep / "broken.py").write_text("import nosuchmodule")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(main, ["scan", "scanned", "--list"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0].rpartition(":")[2] for line in done.stdout.splitlines()] == ["Layer.halve", "product", "square", "strange"]
    assert "scanned.namespace.broken: ModuleNotFoundError" in done.stderr
    assert CliRunner().invoke(main, ["scan", "scanned/namespace/rules.py", "--list"]).stdout == done.stdout
    unused = CliRunner().invoke(main, ["audit", "scanned/namespace/rules.py", "--timeout", "0"])
    assert unused.exit_code == 3 and "(verify run scanned/namespace/rules.py verifies those" in " ".join(unused.stderr.split())
    done = CliRunner().invoke(main, ["scan", "scanned", "--check", "gradient", "--json", "out.json", "--timeout", "0"])
    assert done.exit_code == 1, done.output
    found = {v["name"].rpartition(":")[2]: v for v in json.loads((tmp_path / "out.json").read_text())["verdicts"]}
    assert {name: verdict["status"] for name, verdict in found.items()} == {
        "product": "FAIL", "square": "PASS", "Layer.halve": "PASS", "strange": "INCONCLUSIVE",
    }  # fmt: skip
    assert "w" in found["product"]["findings"][0]["argument"]
    assert 'args={"x": verify.Arg(dims="...")}' in found["strange"]["notes"][0]
    (deep / "rules.py").write_text(
        RULES + 'import verify\nSTRANGE = verify.Spec(name="s", fn=strange, args={"x": verify.Arg(dims="17 1 2")})\n'
    )
    importlib.reload(sys.modules["scanned.namespace.rules"])
    (spec,) = (rule.declared for rule in scan("scanned")[0] if rule.name.endswith(":strange"))
    assert spec.name == "s" and [judged(rule).status.name for rule in scan("scanned")[0] if rule.declared] == ["PASS"]
    assert CliRunner().invoke(main, ["scan", "nosuchpackage", "--timeout", "0"]).exit_code == 2
