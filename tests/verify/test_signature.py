"""From signatures to arguments: what is read, and what is said of signatures that cannot be read."""

import functools
import inspect
from typing import Optional

import jax
import pytest
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, Num, UInt8

from verify import Arg, Spec, SpecError
from verify.signature import arguments, nearest, parameters


def read(fn, **more):
    return arguments(Spec(**{"name": "op", "fn": fn, **more}))


def refused(fn, **more):
    with pytest.raises(SpecError) as error:
        read(fn, **more)
    assert str(error.value).startswith("op: ")
    return str(error.value)


def test_annotations():
    def fn(
        x: Float[Array, "*b n d"], w: Float32[Array, "d"], i: Int[Array, "n"], j: Int32[Array, ""], u: UInt8[Array, "n"], m: Bool[Array, "n"], a: Num[Array, "n"],
        bias: Float[Array, "d"] | None = None, *, eps: float = 1e-5,
    ):  # fmt: skip
        return x

    found = read(fn, options={"eps": (1e-5,)})
    assert {name: (arg.dims, arg.dtype, arg.optional) for name, arg in found.items()} == {
        "x": ("*b n d", "float", False), "w": ("d", "float32", False), "i": ("n", "int32", False), "j": ("", "int32", False), "u": ("n", "uint8", False),
        "m": ("n", "bool", False), "a": ("n", "float", False), "bias": ("d", "float", True),
    }  # fmt: skip


def test_optional_and_keys():
    def fn(key: Key[Array, ""], x: Optional[Float[Array, "n"]] = None):  # noqa: UP045
        return x

    found = read(fn)
    assert found["key"].dtype == "key" and found["x"].optional


def test_text_annotations():
    def fn(x: 'Float[Array, "n"]'):
        return x

    assert read(fn)["x"].dims == "n"


def test_named_arguments_override_their_annotation_only():
    def fn(x: Float[Array, "n"], y: Float[Array, "n"]):
        return x

    found = read(fn, args={"y": Arg(dims="n m")})
    assert (found["x"].dims, found["y"].dims, list(found)) == ("n", "n m", ["x", "y"])


def test_order_is_the_signatures():
    def fn(x, y):
        return x

    assert list(read(fn, args={"y": Arg(dims="n"), "x": Arg(dims="n")})) == ["x", "y"]


def rule(x: Float[Array, "n"], k: int = 2):
    return x


@pytest.mark.parametrize(
    "fn",
    [
        rule,
        jax.jit(rule),
        jax.custom_vjp(rule),
        jax.custom_jvp(rule),
        functools.partial(rule, k=3),
        jax.jit(jax.custom_vjp(rule)),
        jax.checkpoint(rule),
    ],
    ids=["function", "jit", "custom_vjp", "custom_jvp", "partial", "jit of custom_vjp", "checkpoint"],
)
def test_wrapped_functions_keep_their_signature(fn):
    assert read(fn)["x"].dims == "n"


def test_methods_and_callable_objects():
    class Layer:
        def __call__(self, x: Float[Array, "n"]):
            return x

        def method(self, y: Float[Array, "m"]):
            return y

    assert list(read(Layer())) == ["x"] and list(read(Layer().method)) == ["y"]


def test_functions_without_a_signature_go_by_args():
    assert list(read(lambda *xs: xs[0], args={"x": Arg(dims="n"), "y": Arg(dims="n")})) == ["x", "y"]


@pytest.mark.parametrize(
    ("fn", "more", "words"),
    [
        (lambda x: x, {}, ["'x'", "no jaxtyping annotation", "verify.check"]),
        (lambda x, y: x, {"args": {"x": Arg(dims="n")}}, ["'y'", "args="]),
        (lambda weight: weight, {"args": {"weight": Arg(dims="n"), "wieght": Arg(dims="n")}}, ["'wieght'", 'Did you mean "weight"?']),
        (lambda x: x, {"args": {"x": "n"}}, ["'x'", "Arg("]),
        (lambda x: x, {"args": {"x": None}}, ["'x'", "Arg("]),
        (lambda x: x, {"args": {"x": [Arg(dims="n"), 3]}}, ["'x'", "Arg("]),
        (lambda: 1.0, {}, ["no array arguments"]),
        (lambda x, *, eps=1: x, {"args": {"x": Arg(dims="n")}, "options": {"esp": (1,)}}, ["'esp'", 'Did you mean "eps"?']),
        (lambda x: x, {"args": {"x": Arg(dims="n")}, "options": {"x": (1,)}}, ["'x'", "option"]),
        (lambda x, flag, y: x, {"args": {"x": Arg(dims="n"), "y": Arg(dims="n")}, "options": {"q": (1,)}}, ["'flag'"]),
        (lambda x, flag=1, y=None: x, {"args": {"x": Arg(dims="n"), "y": Arg(dims="n")}}, ["'y'", "'flag'"]),
    ],
)
def test_refusals_name_the_argument(fn, more, words):
    message = refused(fn, **more)
    for word in words:
        assert word in message, message


def test_an_annotation_that_names_nothing():
    def fn(x: "Undefined[Array]"):
        return x

    assert "Undefined" in refused(fn)


def typed(x: Float[Array, "n"], *, flag: bool = False, k: int = 1, eps: float = 0.1, mode: str = "a", maybe: int | None = None, free=3):
    return x


@pytest.mark.parametrize(
    "options", [{"flag": (True,)}, {"k": (1, 2)}, {"eps": (1, 0.5)}, {"mode": ("a",)}, {"maybe": (None, 3)}, {"free": ("x", 1)}]
)
def test_option_values_of_the_right_type(options):
    assert read(typed, options=options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flag": (1,)}, "'flag' got 1 (int), wanted bool"),
        ({"k": ("2",)}, "'k' got '2' (str), wanted int"),
        ({"k": (1, 2.0)}, "'k' got 2.0 (float), wanted int"),
        ({"eps": (True,)}, "'eps' got True (bool), wanted float"),
        ({"mode": (0,)}, "'mode' got 0 (int), wanted str"),
        ({"maybe": ("x",)}, "'maybe' got 'x' (str), wanted int or None"),
        ({"k": (True,)}, "'k' got True (bool), wanted int"),
    ],
)
def test_option_values_of_the_wrong_type(options, words):
    assert words in refused(typed, options=options)


def test_complex_annotations():
    from jaxtyping import Complex, Complex64

    def fn(z: Complex[Array, "n"], w: Complex64[Array, ""]):
        return z

    assert [arg.dtype for arg in arguments(Spec(name="fn", fn=fn)).values()] == ["complex", "complex64"]


@pytest.mark.parametrize(
    ("word", "known", "sentence"),
    [("layernorm", ["layer_norm", "linear"], ' Did you mean "layer_norm"?'), ("zzz", ["layer_norm"], ""), ("x", [], ""), ("", ["a"], "")],
)
def test_nearest(word, known, sentence):
    assert nearest(word, known) == sentence


def test_options_of_any_name_are_no_argument():
    def scaled(x, y, **options):
        return x

    spec = Spec(name="scaled", fn=scaled, args={"x": Arg(dims="n"), "y": Arg(dims="n")}, options={"scale": (1.0, 2.0)})
    assert list(arguments(spec)) == ["x", "y"]


def test_parameters_are_shown_without_their_annotations():
    def f(x: Float[Array, "n d"], *, axis: int = -1) -> Float[Array, "n"]:
        return x.sum(axis)

    assert parameters(inspect.signature(f)) == "(x, *, axis=-1)"
