"""What a Spec and an Arg refuse at once, with a message that names the field."""

import subprocess
import sys

import jax.numpy as jnp
import pytest

from verify import Arg, Spec, SpecError, Status, check, run


def identity(x):
    return x


def spec(**changes):
    return Spec(**{"name": "op", "fn": identity, "args": {"x": Arg(dims="n")}, **changes})


def test_the_smallest_spec():
    made = spec()
    assert (made.name, made.reference, dict(made.sizes), dict(made.options)) == ("op", None, {}, {})


def test_frozen_and_named_only_but_the_dims():
    with pytest.raises(AttributeError):
        spec().name = "other"
    with pytest.raises(TypeError):
        Spec("op", identity)
    with pytest.raises(TypeError):
        Arg("n", "float32")
    assert Arg("n d", low=0.0) == Arg(dims="n d", low=0.0)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a@b", "a\n", "\t", "a\x1b[2J", "a\x00", "a\u202eb", "\u200b"])
def test_names_that_cannot_be_addresses(name):
    with pytest.raises(SpecError, match=r"Spec\.name"):
        spec(name=name)


@pytest.mark.parametrize("name", ["layer_norm", "pkg.mod:f", "ärger", "<script>", "[red]", "a-b", "f[0]"])
def test_names_that_can(name):
    assert spec(name=name).name == name


@pytest.mark.parametrize("name", [None, 3, b"op", ["op"]])
def test_a_name_is_text(name):
    with pytest.raises(SpecError, match="name"):
        spec(name=name)


@pytest.mark.parametrize(("field", "value"), [("fn", 3), ("fn", None), ("fn", "f"), ("reference", 3), ("reference", "f")])
def test_functions_are_callable(field, value):
    with pytest.raises(SpecError, match=field):
        spec(**{field: value})


@pytest.mark.parametrize("dtypes", ["float32", ("float31",), ("int32",), ("float32", "float"), (None,)])
def test_dtypes(dtypes):
    with pytest.raises(SpecError, match="dtypes"):
        spec(dtypes=dtypes)


@pytest.mark.parametrize("dtypes", [(), ("float32",), ("bfloat16", "float16", "mixed")])
def test_dtypes_that_are_fine(dtypes):
    assert spec(dtypes=dtypes).dtypes == dtypes


@pytest.mark.parametrize("values", ["abc", b"ab", 3, None, (), [], {1, 2}, 1.5])
def test_an_option_is_a_sequence_of_values(values):
    with pytest.raises(SpecError, match="'eps'"):
        spec(options={"eps": values})


@pytest.mark.parametrize("bounds", [3, (1,), (1, 2, 3), (2, 1), (-1, 3), (1.0, 3), ("1", "3"), None, (True, 2), "13", (1, None)])
def test_bounds_of_a_size(bounds):
    with pytest.raises(SpecError, match=r"sizes\['n'\]"):
        spec(sizes={"n": bounds})


@pytest.mark.parametrize("bounds", [(0, 0), (1, 1), (0, 5), [2, 3]])
def test_bounds_that_are_fine(bounds):
    assert spec(sizes={"n": bounds}).sizes["n"] == bounds


@pytest.mark.parametrize("dtype", ["float31", "", "complex31", "Float", None, float])
def test_dtype_of_an_argument(dtype):
    with pytest.raises(SpecError, match="dtype"):
        Arg(dims="n", dtype=dtype)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (3.0, 1.0), (float("nan"), 1.0), (0.0, float("nan"))])
def test_low_lies_below_high(low, high):
    with pytest.raises(SpecError, match="low"):
        Arg(dims="n", low=low, high=high)


@pytest.mark.parametrize("dims", [3, None, ("n", "d"), ["n"]])
def test_dims_are_text(dims):
    with pytest.raises(SpecError, match="dims"):
        Arg(dims=dims)


def test_a_kink_is_a_sequence_of_numbers():
    """kinks={"x": 0.0} is an easy slip for (0.0,), and must not surface later as a TypeError."""
    with pytest.raises(SpecError, match="kinks"):
        spec(kinks={"x": 0.0})


def test_special_is_a_sequence_of_numbers():
    with pytest.raises(SpecError, match="special"):
        Arg(dims="n", special=0.0)


def test_spec_error_is_a_value_error():
    assert issubclass(SpecError, ValueError)


def test_declaring_specs_needs_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); import verify.spec; new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "extra = new - set(sys.stdlib_module_names) - {'verify'}; print(sorted(extra)); sys.exit(bool(extra))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_module_of_a_specs_name_is_not_imported(tmp_path, monkeypatch):
    """Whether the command line finds the spec by its name is asked of what is installed."""
    (tmp_path / "named_like_a_spec.py").write_text("from pathlib import Path; Path(__file__).with_suffix('.ran').touch()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    verdict = run(Spec(name="named_like_a_spec", fn=lambda x: x, reference=lambda x: x, args={"x": Arg(dims="n")}, dtypes=()), cases=2)
    assert verdict and not verdict.installed
    assert not (tmp_path / "named_like_a_spec.ran").exists()


def test_example_arrays_of_nan_alone_are_refused() -> None:
    with pytest.raises(SpecError, match="check: x is NaN everywhere"):
        check(jnp.sin, jnp.full(3, jnp.nan))
    assert check(jnp.sin, jnp.array([1.0, jnp.nan, 2.0]), checks=["primal"]).status is not Status.FAIL
