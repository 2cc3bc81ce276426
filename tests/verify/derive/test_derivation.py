"""Derivations: every formula that is shown is run, and a wrong one is noticed."""

import re
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from jaxtyping import Array, Float, Int

from verify import Arg, InternalError, Spec, SpecError
from verify.cli import main
from verify.derive import page, pullbacks, transcript, words
from verify.derive.derivation import derive
from verify.derive.example import Dims
from verify.derive.expressions import Expr, add, div, mul, name, neg, number, over, power, sub, view
from verify.derive.notation import write
from verify.derive.values import evaluate
from verify.registry import installed

N, NM, NMK = Arg(dims="n"), Arg(dims="n m"), Arg(dims="n m k")


def spec(fn, name="fn", options=None, **args):
    return Spec(name=name, fn=fn, args=args, options=options or {})


def lines(derivation):
    return [" ".join(line.split()) for line in transcript.render(derivation).splitlines()]


HEAVY = {"avg_pool", "conv", "dropout", "gru", "least_squares", "lstm", "max_pool", "project"}  # seconds each: XLA compiles parts of them


@pytest.mark.parametrize("operation", [pytest.param(op, marks=pytest.mark.slow) if op in HEAVY else op for op in installed()])
def test_the_formulas_of_every_operation_give_what_its_rule_and_jax_give(operation):
    derivation = derive(installed()[operation])
    assert derivation.agrees, [c for c in derivation.comparisons if not c.agrees]
    assert {c.against for c in derivation.comparisons} == {"reference", "rule", "jax.grad", "one piece"}
    assert {f"{v}_ct" for v in derivation.moving} == {c.of for c in derivation.comparisons if c.against == "rule"}
    assert max(map(len, transcript.render(derivation).splitlines())) <= 80
    markup = page.render(derivation, "", "")
    for formula in re.findall(r"<math.*?</math>", markup):
        ElementTree.fromstring(formula)
    assert "://" not in markup and "<script" not in markup and "default-src &#39;none&#39;; style-src" in markup


def test_linear_reads_as_in_a_textbook():
    found = lines(derive(installed()["linear"]))
    for line in (
        "1 h1 = x @ w (batch, d_in)(d_in, d_out) -> (batch, d_out)",
        "2 y = h1 + b (batch, d_out), (d_out) -> (batch, d_out)",
        "x_ct = y_ct @ w^T (batch, d_out)(d_out, d_in) -> (batch, d_in)",
        "w_ct = x^T @ y_ct (d_in, batch)(batch, d_out) -> (d_in, d_out)",
        "b_ct = sum_batch(y_ct) (batch, d_out) -> (d_out)",
        "x @ y_ct (batch, d_in)(batch, d_out) inner sizes d_in and batch differ",
        "y_ct^T @ x (d_out, batch)(batch, d_in) gives (d_out, d_in)",
        "x^T @ y_ct (d_in, batch)(batch, d_out) fits",
    ):
        assert line in found
    text = " ".join(found)
    assert "one product fits, x^T @ y_ct; none of the 16 products with the operand itself does; as the chain rule says" in text
    assert "differences of <y_ct, x @ w> agree with x^T @ y_ct alone" in text
    assert re.search(
        r"a sum, a mean or a maximum over batch would fit, .* the sum agrees; the mean is off by [\d.]+, the max is off by [\d.]+\.", text
    )


@pytest.mark.parametrize("operation", ["linear", "mlp", "gelu", "silu", "relu"])
def test_what_is_written_is_what_was_run(operation):
    """The text of each formula, read by Python. (Of operations whose arrays line up at the last axis, as in NumPy.)"""
    derivation = derive(installed()[operation])
    known = {"where": np.where, "tanh": np.tanh, "exp": np.exp, "sum_batch": lambda a: a.sum(0), **derivation.env}

    def read(e):
        return eval(
            write(e, Dims({})).replace("sum_2", "sum_batch").replace("sum_3", "sum_batch").replace("^T", ".T").replace("^", "**"), known
        )

    for step in derivation.tape.steps:
        np.testing.assert_allclose(read(step.value), derivation.env[step.name], rtol=1e-5)  # numbers are written with 6 digits
    for target, formula in (*derivation.definitions.items(), *derivation.finals.items()):
        np.testing.assert_allclose(read(formula), derivation.env[target], rtol=1e-4)  # where several such numbers are multiplied


def test_layer_norm_has_its_means_and_its_sums():
    found = lines(derive(installed()["layer_norm"]))
    for line in (
        "1 h1 = mean_D(x) (batch, D) -> (batch)",
        "4 h4 = mean_D(h3) (batch, D) -> (batch)",
        "scale_ct = sum_batch(y''_ct * y') (batch, D) -> (D)",
        "x_ct += repeat_D(h1_ct / D) (batch) -> (batch, D)",
    ):
        assert line in found


def test_a_scan_is_backpropagation_through_time():
    def rnn(x: Float[Array, "T b d"], w: Float[Array, "d h"], u: Float[Array, "h h"], h0: Float[Array, "b h"]):
        def step(h, x_t):
            h = jnp.tanh(x_t @ w + h @ u)
            return h, h

        return jax.lax.scan(step, h0, x)[1]

    found = lines(derive(Spec(name="rnn", fn=rnn)))
    for line in (
        "h_ct = out1_t_ct (b, h)",
        "h_ct += next_c1_ct (b, h)",
        "c1_ct = s2_ct @ u^T (b, h)(h, h) -> (b, h)",
        "w_ct = x_t^T @ s1_ct (d, b)(b, h) -> (d, h)",
        "w_ct = vjp(scan, w)(y_ct) (T, b, h) -> (d, h)",
    ):
        assert line in found


def test_the_bounds_of_a_slice_have_names_where_the_axis_has_them():
    def f(x: Float[Array, "n 2*d"]):
        half = x.shape[1] // 2
        return x[:, :half] * x[:, half:] + x[:3, :1]

    found = lines(derive(Spec(name="f", fn=f, sizes={"n": (3, 3)})))
    assert any("x[:, 0:d]" in line for line in found) and any("x[:, d:2*d]" in line for line in found)
    assert any("x[:, 0:1]" in line for line in found)


def test_a_step_has_the_name_of_the_users_variable():
    def f(x: Float[Array, "n m"], y: Float[Array, "m"]):
        shifted = x - y
        total = jnp.exp(shifted).sum(1)
        return jnp.log(total)

    steps = derive(Spec(name="f", fn=f)).tape.steps
    assert [step.name for step in steps] == ["shifted", "h2", "total", "out"]  # y is taken


def test_a_branch_is_folded_only_if_it_is_taken_in_every_run():
    relu = derive(spec(lambda x: jnp.where(x > 0, x, 0), x=Arg(dims="")))
    assert write(relu.tape.steps[0].value, relu.dims) == "where(x > 0, x, 0)"
    never = derive(spec(lambda x: jnp.where(x > 1e9, 2 * x, x), x=Arg(dims="")))
    assert len(never.tape.steps) == 1 and words.notes(never) == [
        "Everywhere in these runs x > 1e+09 is False: of each select only the branch that is taken is shown."
    ]


def test_a_wrong_pullback_is_noticed(monkeypatch):
    right = pullbacks.PULLBACKS["mul"]
    monkeypatch.setitem(pullbacks.PULLBACKS, "mul", lambda e, y, ct: right(e, y, ct)[::-1])
    derivation = derive(spec(lambda x, y: x * y, x=N, y=N))
    assert not derivation.agrees
    assert {(c.of, c.against) for c in derivation.comparisons if not c.agrees} == {
        (of, against) for of in ("x_ct", "y_ct") for against in ("rule", "jax.grad")
    }
    assert "THE FORMULAS SHOWN HERE DIFFER" in transcript.render(derivation)


@jax.custom_vjp
def halved(x: Float[Array, "n m"], w: Float[Array, "m k"]):
    return x @ w


halved.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, ct: (ct @ kept[1].T, kept[0].T @ ct / 2))


def test_a_wrong_rule_is_noticed_and_is_an_exit_status():
    derivation = derive(Spec(name="halved", fn=halved))
    assert [(c.of, c.against) for c in derivation.comparisons if not c.agrees] == [("w_ct", "rule")]
    assert "THE RULE DIFFERS from the formulas shown here and from JAX's autodiff, in w_ct" in words.verdict(derivation)
    done = CliRunner().invoke(main, ["explain", f"{__name__}:halved"])
    assert done.exit_code == 1 and "DIFFERS" in done.output


def test_a_formula_that_is_wrong_about_its_shape_is_an_internal_fault():
    wrong = Expr("sum", (name("x", (2, 3)),), (2,), (0,))
    with pytest.raises(InternalError, match=r"sum gives the shape \(3,\), but its formula says \(2,\)"):
        evaluate(wrong, {"x": np.ones((2, 3))})


POSITIVE = Arg(dims="n", low=0.5, high=2.0)
INSIDE = Arg(dims="n", low=-0.9, high=0.9)
UNARY = {
    **{f: (getattr(jax.lax, f), N) for f in ("neg", "exp", "exp2", "expm1", "sin", "cos", "tan", "tanh", "sinh", "cosh", "atan", "abs", "logistic", "erf", "cbrt")},
    **{f: (getattr(jax.lax, f), POSITIVE) for f in ("log", "log1p", "sqrt", "rsqrt")},
    **{f: (getattr(jax.lax, f), INSIDE) for f in ("asin", "acos")},
}  # fmt: skip
OTHER = {
    "add": (lambda x, y: x + y[:, 0], {"x": N, "y": Arg(dims="n 1")}),
    "sub": (lambda x, y: x - y, {"x": NM, "y": Arg(dims="m")}),
    "mul": (lambda x, y: x[:, None] * y, {"x": N, "y": NM}),
    "div": (lambda x, y: x / y[:, None], {"x": NM, "y": POSITIVE}),
    "power": (lambda x: x**3 + 2 / x**2, {"x": POSITIVE}),
    "pow": (lambda x, y: x**y, {"x": POSITIVE, "y": N}),
    "maximum": (lambda x, y: jnp.maximum(x, y) + jnp.maximum(x, 0), {"x": N, "y": N}),
    "minimum": (lambda x, y: jnp.minimum(x, y) + jnp.minimum(x, x), {"x": N, "y": N}),
    "where": (lambda x, y: jnp.where(x > y, x * y, y), {"x": N, "y": N}),
    "sum": (lambda x: (x**2).sum((0, 2)), {"x": NMK}),
    "mean": (lambda x: (x - x.mean(1, keepdims=True)) ** 2, {"x": NM}),
    "max": (lambda x: jnp.max(jnp.concatenate([x, x]), 0), {"x": NM}),
    "min": (lambda x: jnp.min(x, 1), {"x": NM}),
    "prod": (lambda x: jnp.prod(x, 1), {"x": NM}),
    "einsum": (lambda x, y: jnp.einsum("nmk,nkh->hnm", x, y), {"x": NMK, "y": Arg(dims="n k h")}),
    "transpose": (lambda x: x.transpose(2, 0, 1), {"x": NMK}),
    "reshape": (lambda x: x.reshape(x.shape[0], -1), {"x": NMK}),
    "slice": (lambda x: jax.lax.slice(x, (1, 0), x.shape, (1, 2)) * 3, {"x": NM}),
    "concatenate": (lambda x, y: jnp.concatenate([x, 2 * y], 1), {"x": NM, "y": Arg(dims="n k")}),
    "flip": (lambda x: x[::-1] * x, {"x": N}),
    "cumsum": (lambda x: jnp.cumsum(x, 1) + jax.lax.cumsum(x, 0, reverse=True), {"x": NM}),
    "jax": (lambda x: jnp.sort(x, 1), {"x": NM}),
    "scan": (lambda x, h: jax.lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), h, x), {"x": NM, "h": Arg(dims="m")}),
}
MORE = {
    "a form of a result": (lambda x: (x**2)[:, None], {"x": N}),
    "nothing": (lambda x: x, {"x": N}),
    "held": (lambda x: x * jax.lax.stop_gradient(x), {"x": N}),
    "matrix and vector": (lambda x, w: w @ x + x @ w.T, {"x": Arg(dims="m"), "w": NM}),
    "gram": (lambda x: x.T @ x, {"x": NM}),
    "outer": (lambda x, y: jnp.einsum("n,m->nm", x, y), {"x": N, "y": Arg(dims="m")}),
    "same name twice": (lambda x, y: jnp.einsum("nij,njk->nik", x, y), {"x": Arg(dims="n m m"), "y": Arg(dims="n m m")}),
    "an output used twice": (lambda x: (x**2, jnp.sin(x**2), x), {"x": N}),
    "an argument not used": (lambda x, y: 2 * x, {"x": N, "y": N}),
    "a scan in reverse": (lambda x: jax.lax.scan(lambda c, r: (c + r.sum(), c * r), 0.0, x, reverse=True)[1], {"x": NM}),
    "a scan in a scan": (
        lambda x, w: jax.lax.scan(lambda c, row: (jax.lax.scan(lambda a, r: (a * r + w.sum(), None), c, row)[0], c), 1.0, x)[0],
        {"x": NM, "w": Arg(dims="k")},
    ),
    "a loop that counts": (lambda x: jax.lax.fori_loop(0, 5, lambda i, c: jnp.where(i % 2 == 0, c * x[i], jnp.sin(c)), x), {"x": N}),
    "a constant output": (lambda x: (x, jnp.ones(3)), {"x": N}),
    "complex numbers on the way": (lambda x: jnp.abs(jnp.fft.rfft(x))[1:], {"x": N}),
    "a linear solve": (lambda a, b: jnp.linalg.solve(a @ a.T + 9 * jnp.eye(5), b), {"a": NM, "b": N}),
    "float32 on the way": (lambda x: jnp.sin(x.astype(jnp.float32)), {"x": N}),
    "a checkpoint": (jax.checkpoint(lambda x: jnp.sin(x) * x), {"x": N}),
    "a custom rule": (jax.nn.relu, {"x": N}),
    "indices": (lambda x, i: jnp.tanh(x[i]), {"x": NM, "i": Arg(dims="k", dtype="int32", low=0, high=2)}),
    "a mask": (lambda x, mask: jnp.where(mask, x, -jnp.inf).max(1, initial=0.0), {"x": NM, "mask": Arg(dims="n m", dtype="bool")}),
    "a key": (lambda x, key: x * jax.random.bernoulli(key, 0.5, x.shape), {"x": N, "key": Arg(dtype="key")}),
}  # fmt: skip


@pytest.mark.parametrize("what", UNARY)
def test_the_pullback_of_a_function_of_one_array(what):
    function, arg = UNARY[what]
    assert derive(spec(function, x=arg)).agrees


@pytest.mark.parametrize("what", {**OTHER, **MORE})
def test_the_pullback_of(what):
    function, args = {**OTHER, **MORE}[what]
    derivation = derive(spec(function, **args))
    assert derivation.agrees, transcript.render(derivation)
    assert what in MORE or what in {step.value.op for step in derivation.tape.steps}


def test_every_pullback_is_tested():
    assert set(pullbacks.PULLBACKS) == set(UNARY) | set(OTHER)


A, B, C = (name(text, (3,)) for text in "abc")


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (mul(add(A, B), C), "(a + b) * c"),
        (sub(A, sub(B, C)), "a - (b - c)"),
        (sub(A, neg(B)), "a + b"),
        (div(A, mul(B, C)), "a / (b * c)"),
        (mul(A, div(B, C)), "a * b / c"),
        (neg(add(A, B)), "-(a + b)"),
        (mul(neg(A), B), "-a * b"),
        (power(mul(A, B), 2), "(a * b)^2"),
        (power(A, -2), "a^(-2)"),
        (mul(number(0.5), A), "0.5 * a"),
        (over("sum", neg(A), (0,)), "-sum_n(a)"),
        (mul(number(1 / 5), A), "1/m * a"),
        (view(name("s", ()), (3,), ()), "repeat_n(s)"),
        (add(A, view(name("s", ()), (3,), ())), "a + s"),
    ],
)
def test_notation_keeps_the_order_of_operations(formula, text):
    assert write(formula, Dims({3: "n", 5: "m"})) == text


def test_a_size_that_could_be_two_products_has_no_name():
    dims = Dims({2: "a", 3: "b", 4: "c", 6: "d", 35: "e*f"})
    assert [dims.of(n) for n in (2, 8, 12, 24, 35, 70, 1)] == ["a", "a*c", "12", "24", "e*f", "70", "1"]


def test_indices_into_a_table_are_told_apart_from_what_is_differentiated():
    def embed(table: Float[Array, "V d"], ids: Int[Array, "n"]):
        return jnp.tanh(table[ids])

    text = transcript.render(derive(Spec(name="embed", fn=embed)))
    assert "table_ct = vjp(gather, table)(h1_ct)" in text and "gather: computed by JAX" in text and "ids_ct" not in text


def test_complex_arguments_have_no_derivation_yet():
    with pytest.raises(SpecError, match="no derivation is written for complex arguments yet"):
        derive(spec(lambda z: z * 2, z=Arg(dims="n", dtype="complex")))


def test_what_rounds_to_16_bits_cannot_be_compared():
    with pytest.raises(SpecError, match="rounds to bfloat16 on the way"):
        derive(spec(lambda x: jnp.sin(x.astype(jnp.bfloat16)), x=N))


def test_the_command_writes_a_page(tmp_path):
    file = tmp_path / "linear.html"
    done = CliRunner().invoke(main, ["explain", "linear", "--html", str(file)])
    assert done.exit_code == 0, done.output
    assert "<msup><mi>w</mi><mo>⊤</mo></msup>" in file.read_text(encoding="utf-8")
    assert "Linear layer." in file.read_text(encoding="utf-8")  # the author's own derivation
    refused = CliRunner().invoke(main, ["explain", "gradient", "--html", str(file)])
    assert refused.exit_code == 2 and "gradient is a check" in refused.output
