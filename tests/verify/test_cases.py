"""The same address gives the same bits, on any machine and in runs of any length; and draws respect what the spec says."""

import hashlib
from collections import Counter
from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest

from verify import Arg, Spec, SpecError
from verify.addresses import format_sizes, parse_address
from verify.cases import Static, draw, with_sizes
from verify.given import from_arrays
from verify.values import KINK_DISTANCE, Key, round_to


def anything(*args, **options):
    return args[0]


def spec(args, **more):
    return Spec(**{"name": "op", "fn": anything, "args": args, **more})


def drawn(made, count=200, seed=0):
    return list(draw(made, seed, range(count)))


def digest(case):
    state = hashlib.sha256()
    state.update(repr((case.address, dict(case.sizes), dict(case.options), case.dtypes, case.dtype)).encode())
    for leaf in jax.tree.leaves(case.args, is_leaf=lambda node: node is None or isinstance(node, Key)):
        if isinstance(leaf, np.ndarray):
            state.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).astype(leaf.dtype.newbyteorder("<")).tobytes())
        else:
            state.update(repr(leaf).encode())
    return state.hexdigest()[:16]


RICH = spec(
    {
        "x": Arg(dims="*b n d"), "w": {"w": Arg(dims="d", low=0.5, high=2.0), "b": Arg(dims="#n", optional=False)}, "mask": Arg(dims="n", dtype="bool"),
        "ids": Arg(dims="n", dtype="int32", low=0, high=7), "key": Arg(dtype="key"), "bias": Arg(dims="d", optional=True),
    },
    options={"flag": (True, False), "k": (1, 2, 3)}, kinks={"x": (0.0,)},
)  # fmt: skip
GOLDEN = {
    (0, 0): "a19c01b81086e15b",
    (0, 2): "27363c89076b4b2a",
    (0, 7): "4dced1150fa1620c",
    (0, 31): "68d35c7478debb4c",
    (0, 103): "8a39bb4df0c2d420",
    (2**63 - 1, 5): "2bf3ef50e0b6456d",
}


@pytest.mark.parametrize(("seed", "index"), GOLDEN)
def test_bits_are_pinned(seed, index):
    """A change here changes every address that anyone has written down: it needs a new major version."""
    assert digest(next(draw(RICH, seed, range(index, index + 1)))) == GOLDEN[seed, index]


def test_a_case_does_not_depend_on_how_many_are_drawn():
    long = drawn(RICH, 120)
    assert [digest(case) for case in draw(RICH, 0, range(10))] == [digest(case) for case in long[:10]]
    for index in (0, 1, 17, 48, 119):
        assert digest(next(draw(RICH, 0, range(index, index + 1)))) == digest(long[index])


def test_seed_index_and_name_all_matter():
    one = [digest(case) for case in drawn(RICH, 30)]
    assert len(set(one)) == 30
    assert not set(one) & {digest(case) for case in drawn(RICH, 30, seed=1)}
    first, other = (drawn(spec({"x": Arg(dims="3")}, name=name), 8) for name in ("a", "b"))
    assert not any(np.array_equal(x.args[0], y.args[0]) for x, y in zip(first, other, strict=True))


def test_purposes_draw_independently():
    case = drawn(RICH, 1)[0]
    assert case.rng("a").integers(2**40) != case.rng("b").integers(2**40)
    assert case.rng("a").integers(2**40) == case.rng("a").integers(2**40)


def test_shapes_follow_the_sizes():
    for case in drawn(RICH, 60):
        n, d, b = case.sizes["n"], case.sizes["d"], case.sizes["b"]
        x, w, mask, ids, key, bias = case.args
        assert x.shape == (*b, n, d) and w["w"].shape == (d,) and w["b"].shape in {(n,), (1,)}
        assert mask.shape == ids.shape == (n,) and mask.dtype == bool and ids.dtype == np.int32
        assert isinstance(key, Key) and (bias is None or bias.shape == (d,))


def test_broadcastable_dimensions_are_sometimes_one_and_sometimes_not():
    shapes = [(case.args[1]["b"].shape[0] == 1) for case in drawn(RICH, 100) if case.sizes["n"] > 1]
    assert 5 < sum(shapes) < len(shapes) - 5


def test_low_and_high_hold_for_floats_and_integers():
    for case in drawn(RICH, 150):
        w, ids = case.args[1]["w"], case.args[3]
        assert np.all((w >= 0.5) & (w <= 2.0))
        assert np.all((ids >= 0) & (ids < 7))


def test_every_index_is_drawn():
    assert set(np.concatenate([case.args[3] for case in drawn(RICH, 60)]).tolist()) == set(range(7))


@pytest.mark.parametrize(("low", "high"), [(None, 3.0), (2.0, None), (0.0, 1.0), (-1e-3, 1e-3), (100.0, 101.0), (-5.0, None), (None, -5.0)])
def test_one_sided_bounds(low, high):
    for case in drawn(spec({"x": Arg(dims="n", low=low, high=high)}, dtypes=()), 60):
        x = case.args[0]
        assert np.all(np.isfinite(x))
        assert low is None or np.all(x >= low)
        assert high is None or np.all(x <= high)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_bounds_survive_rounding(dtype):
    """0.001 has no exact bfloat16; a value rounded past the bound would leave the function's domain."""
    for case in drawn(spec({"x": Arg(dims="n", dtype=dtype, low=0.001, high=0.999)}), 60):
        assert np.all((case.args[0] >= 0.001) & (case.args[0] <= 0.999)), case.address


def test_special_values_appear_and_not_everywhere():
    cases = drawn(spec({"x": Arg(dims="n", special=(np.inf, -7.5))}, dtypes=()), 150)
    with_inf, with_it = ([bool(np.any(case.args[0] == value)) for case in cases] for value in (np.inf, -7.5))
    assert any(with_inf) and any(with_it)
    assert sum(with_inf) < len(cases) / 2
    assert not any(np.isneginf(case.args[0]).any() or np.isnan(case.args[0]).any() for case in cases)


def test_ordinary_draws_keep_away_from_kinks_and_edge_draws_hit_them():
    cases = drawn(spec({"x": Arg(dims="n"), "y": Arg(dims="n")}, kinks={"x": (0.5,)}, dtypes=()), 200)
    distances = [np.abs(case.args[0] - 0.5) for case in cases]
    assert any(np.any(distance == 0) for distance in distances)
    near = sum(int(np.sum((distance > 0) & (distance < KINK_DISTANCE))) for distance in distances)
    total = sum(distance.size for distance in distances)
    assert near <= 0.01 * total, f"{near} of {total} values lie close to the kink without being on it"
    assert any(np.any((np.abs(case.args[1] - 0.5) < KINK_DISTANCE) & (case.args[1] != 0.5)) for case in cases), "y has no kink"


def test_two_close_kinks_are_both_avoided():
    cases = drawn(spec({"x": Arg(dims="n")}, kinks={"x": (0.0, 0.1)}, dtypes=()), 100)
    for case in cases:
        x = case.args[0]
        off = x[(x != 0) & (x != 0.1)]
        assert np.all(np.abs(off) >= 2.0**-6) and np.all(np.abs(off - 0.1) >= 2.0**-6), case.address


def test_bounds_win_over_kinks():
    for case in drawn(spec({"x": Arg(dims="n", low=0.0, high=1.0)}, kinks={"x": (0.0, 1.0)}, dtypes=()), 100):
        assert np.all((case.args[0] >= 0.0) & (case.args[0] <= 1.0)), case.address


def test_masks_have_a_row_with_nothing_left_and_one_with_everything():
    masks = [case.args[1] for case in drawn(spec({"x": Arg(dims="n m"), "mask": Arg(dims="n m", dtype="bool")}), 100)]
    assert any((~mask).all(axis=-1).any() for mask in masks if mask.size)
    assert any(mask.all() for mask in masks if mask.size)
    assert any(mask.any() and not mask.all() for mask in masks)


def test_optional_arguments_are_given_and_left_out_in_every_combination():
    cases = drawn(
        spec({"x": Arg(dims="n"), "a": Arg(dims="n", optional=True), "b": Arg(dims="n", optional=True)}, options={"f": (0, 1)}), 24
    )
    seen = [(case.args[1] is None, case.args[2] is None, case.options["f"]) for case in cases]
    assert len(set(seen[:8])) == 8, "eight combinations in the first eight cases"
    assert len(set(seen[8:])) == 8


@pytest.mark.parametrize("seed", range(5))
def test_each_small_size_meets_each_combination_and_each_dtype_each_value(seed):
    """What is wrong for two elements, one factor and one flag alone is met by every seed."""
    upsampled = Spec(
        name="upsampled", fn=jax.custom_vjp(lambda x, **_: x), args={"x": Arg(dims="n l")}, sizes={"n": (1, 4), "l": (1, 24)},
        options={"scale": (2, 3, 5), "align": (False, True)},
    )  # fmt: skip
    cases = list(draw(upsampled, seed, range(104)))
    for size in (1, 2):
        assert len({tuple(case.options.values()) for case in cases if case.sizes["l"] == size}) == 6
    for dtype in ("float32", "bfloat16", "float16"):
        mine = [case.options for case in cases if case.dtype == dtype]
        assert {o["scale"] for o in mine} == {2, 3, 5} and {o["align"] for o in mine} == {False, True}


def test_pytrees_keep_their_structure():
    case = drawn(spec({"p": {"layers": [Arg(dims="n"), (Arg(dims="n m"), Arg(dims=""))]}}), 1)[0]
    assert isinstance(case.args[0]["layers"], list) and isinstance(case.args[0]["layers"][1], tuple)
    assert case.args[0]["layers"][1][1].shape == ()


@pytest.mark.parametrize("claimed", [("float32",), ("bfloat16", "float16"), ("float32", "bfloat16", "float16", "mixed")])
def test_every_claimed_dtype_has_its_turn_in_a_default_run(claimed):
    cases = drawn(spec({"x": Arg(dims="n"), "w": Arg(dims="n")}, dtypes=claimed), 104)
    assert {case.dtype for case in cases} == {"float64", *claimed}
    assert sum(case.dtype == "float64" for case in cases) > 0.85 * len(cases)
    for case in cases:
        if case.dtype == "mixed":
            assert case.dtypes[0] != case.dtypes[1]
        else:
            assert case.dtypes == (case.dtype, case.dtype)


def test_no_dtypes_claimed_means_float64_alone():
    assert {case.dtype for case in drawn(spec({"x": Arg(dims="n")}, dtypes=()), 48)} == {"float64"}


def test_values_are_exact_in_the_users_dtype():
    numpy_type = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float64": np.float64}
    for case in drawn(spec({"x": Arg(dims="n"), "h": Arg(dims="n", dtype="float16")}), 104):
        for leaf, dtype in zip(case.args, case.dtypes, strict=True):
            assert leaf.dtype == np.float64
            np.testing.assert_array_equal(leaf, leaf.astype(numpy_type[dtype]).astype(np.float64))
        assert case.dtypes[1] == "float16"


@pytest.mark.parametrize(
    ("value", "dtype", "want"),
    [
        (1 + 2**-8, "bfloat16", 1.0),
        (1 + 3 * 2**-8, "bfloat16", 1 + 2**-6),
        (0.1, "float16", 0.0999755859375),
        (0.1, "float64", 0.1),
        (1e-30, "float16", 0.0),
        (2**-24, "float16", 2**-24),
    ],
)
def test_round_to_nearest_even(value, dtype, want):
    assert float(round_to(np.array(value), dtype)) == want


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("layer_norm/0/7", ("layer_norm", 0, 7, None)),
        ("a.b:f/3/0", ("a.b:f", 3, 0, None)),
        ("op/0/2@n=1", ("op", 0, 2, {"n": "1"})),
        ("op/0/2@d_in=2,batch=2x1,e=()", ("op", 0, 2, {"d_in": "2", "batch": "2x1", "e": "()"})),
        ("op/0/2@", ("op", 0, 2, {})),
        (f"op/{2**63 - 1}/104", ("op", 2**63 - 1, 104, None)),
    ],
)
def test_addresses(address, parts):
    assert parse_address(address) == parts


@pytest.mark.parametrize(
    "address",
    ["", "op", "op/0", "op/0/", "op/-1/0", "op/0/-1", "op/a/0", "/0/0", f"op/{2**63}/0", "op/0/1.5", "op/0/0@n", "op/0/0@n=", "op/0/0@n=x",
     "op/0/0@n=-1", "op/0/0@n=2x", "op/0/0 ", "op/0/0\n", "op/٣/0", "op/0/1@n=1,n=2"],
)  # fmt: skip
def test_what_is_no_address(address):
    with pytest.raises(SpecError, match="address"):
        parse_address(address)


def test_addresses_lead_back_to_the_case():
    for case in drawn(RICH, 30):
        name, seed, index, sizes = parse_address(case.address)
        assert (name, sizes) == ("op", None)
        assert digest(next(draw(RICH, seed, range(index, index + 1)))) == digest(case)


@pytest.mark.parametrize("sizes", [{"n": 1, "d": 2, "b": ()}, {"n": 3, "d": 1, "b": (2, 1)}, {"n": 0, "d": 5, "b": (4,)}])
def test_resized_addresses_lead_back_too(sizes):
    case = with_sizes(RICH, drawn(RICH, 6)[5], sizes)
    assert dict(case.sizes) == sizes
    name, seed, index, text = parse_address(case.address)
    assert text is not None and format_sizes(sizes) == case.address.partition("@")[2]
    assert digest(next(draw(RICH, seed, range(index, index + 1), text))) == digest(case)


def test_some_sizes_may_be_replaced_alone():
    case = drawn(RICH, 6)[5]
    again = next(draw(RICH, 0, range(5, 6), {"n": "2"}))
    assert again.sizes == {**case.sizes, "n": 2}
    assert f"@{format_sizes(again.sizes)}" in again.address


@pytest.mark.parametrize("sizes", [{"q": "2"}, {"n": "2x3"}, {"n": "()"}])
def test_sizes_that_are_none_of_the_operations(sizes):
    with pytest.raises(SpecError, match="op: "):
        next(draw(RICH, 0, range(1), sizes))


def test_each_combination_of_options_meets_the_sizes_that_it_allows():
    """One group allows any number of channels, four only multiples; three strides with a kernel of two never belong together."""
    spec = Spec(
        name="grouped", fn=lambda x, *, groups, stride, kernel: x, args={"x": Arg(dims="n C")},
        options={"groups": (1, 4), "stride": (1, 3), "kernel": (2, 3)},
        domain=lambda sizes, options: sizes["C"] % options["groups"] == 0 and options["stride"] <= options["kernel"],
    )  # fmt: skip
    cases = list(draw(spec, 0, range(104)))
    assert all(case.sizes["C"] % case.options["groups"] == 0 and case.options["stride"] <= case.options["kernel"] for case in cases)
    assert any(case.sizes["C"] % 4 for case in cases if case.options["groups"] == 1)
    seen = Counter((case.options["groups"], case.options["stride"], case.options["kernel"]) for case in cases)
    assert len(seen) == 6 and min(seen.values()) >= 6
    again = next(draw(spec, 0, range(50, 51)))
    assert (again.sizes, again.options) == (cases[50].sizes, cases[50].options)


def test_replayed_sizes_outside_of_the_domain_are_refused():
    made = spec({"x": Arg(dims="n-3")}, sizes={"n": (4, 9)})
    with pytest.raises(SpecError):
        next(draw(made, 0, range(1), {"n": "1"}))


@pytest.mark.parametrize(
    ("args", "more", "words"),
    [
        ({"i": Arg(dims="n", dtype="int32")}, {}, ["floating-point", "i: int32"]),
        ({"k": Arg(dtype="key"), "m": Arg(dims="n", dtype="bool")}, {}, ["floating-point", "k: key", "m: bool"]),
        ({"x": Arg(dims="rows")}, {"sizes": {"row": (1, 2)}}, ["'row'", 'Did you mean "rows"?']),
        ({"x": Arg(dims="*n"), "y": Arg(dims="n")}, {}, ["'n'", "'*n'"]),
        ({"x": Arg(dims="n", sample=lambda rng, sizes, dtype: np.zeros(999))}, {}, ["(999,)", "'n'"]),
        ({"x": Arg(dims="n", sample=lambda rng, sizes, dtype: ["a"] * sizes["n"])}, {}, ["sample"]),
        ({"x": Arg(dims="n", sample=lambda rng, sizes, dtype: 1 / 0)}, {}, ["sample", "ZeroDivisionError"]),
        ({"x": Arg(dims="n", sample=lambda rng: 0)}, {}, ["sample"]),
        ({"x": Arg(dims="n")}, {"domain": lambda sizes, options: sizes["rows"] > 1}, ["domain", "rows"]),
        ({"x": Arg(dims="n")}, {"domain": lambda sizes, options: 1 / 0}, ["domain", "ZeroDivisionError"]),
        ({"x": Arg(dims="n")}, {"kinks": {"y": (0.0,)}}, ["kinks", "'y'"]),
        ({"x": Arg(dims="n m"), "y": Arg(dims="n//m")}, {"sizes": {"m": (0, 0)}}, ["no sizes"]),
        ({"x": Arg(dims="1000000000000")}, {}, ["x", "large"]),
        ({}, {}, ["no array arguments"]),
    ],
)  # fmt: skip
def test_specs_that_cannot_be_drawn_say_why(args, more, words):
    with pytest.raises(SpecError) as error:
        drawn(spec(args, **more), 3)
    for word in words:
        assert word in str(error.value)


def test_division_by_a_dimension_that_may_be_zero():
    """n//m at m = 0 is no shape: the size is passed over."""
    cases = drawn(spec({"x": Arg(dims="n//m")}, sizes={"m": (0, 3)}), 60)
    assert all(case.sizes["m"] > 0 for case in cases)


def test_given_arrays_come_first_as_they_are_then_others_of_their_range():
    given = np.array([[1.0, 2.0], [3.0, 3.0]], np.float32)
    ids = np.array([4, 5], np.int32)
    cases = [from_arrays("f", (given, ids, Static("mode")), ("x", "ids", "mode"), {}, 0, index, "given") for index in range(4)]
    np.testing.assert_array_equal(cases[0].args[0], given)
    for case in cases[1:]:
        x = case.args[0]
        assert x.shape == (2, 2) and np.all((x >= 1) & (x <= 3)) and not np.array_equal(x, given)
        np.testing.assert_array_equal(case.args[1], ids)
        assert case.args[2] == Static("mode") and case.dtypes == ("float32", None, None)
    assert not np.array_equal(cases[1].args[0], cases[2].args[0])


def test_given_infinities_stay_where_they_are():
    given = np.array([1.0, np.inf, -np.inf, 2.0])
    case = from_arrays("f", (given,), ("x",), {}, 0, 1, "given")
    np.testing.assert_array_equal(np.isfinite(case.args[0]), [True, False, False, True])


@pytest.mark.parametrize("given", [np.zeros(5), np.ones(5), np.full(5, -3.0)])
def test_constant_examples_are_varied(given):
    assert np.ptp(from_arrays("f", (given,), ("x",), {}, 0, 1, "given").args[0]) > 0


def test_integers_without_bounds_are_in_range_of_every_dimension():
    """As indices they may lie beyond one that JAX clamps in the value and drops in the gradient."""
    spec = Spec(name="take", fn=lambda t, i: t[i], args={"t": Arg(dims="v d"), "i": Arg(dims="n", dtype="int32")})
    drawn = [case for case in draw(spec, 0, range(104)) if case.args[1].size]
    assert all(case.args[1].max() < min(size for size in case.args[0].shape if size) for case in drawn if case.args[0].size)
    assert len({int(i) for case in drawn for i in case.args[1]}) > 4
    given = replace(spec, args={**spec.args, "i": Arg(dims="n", dtype="int32", low=20, high=30)})
    assert all(((case.args[1] >= 20) & (case.args[1] < 30)).all() for case in draw(given, 0, range(104)))


def test_what_may_be_stretched_is_given_in_full_along_a_long_axis_in_every_other_case():
    spec = Spec(
        name="biased", fn=jax.custom_vjp(lambda x, bias, **_: x), args={"x": Arg(dims="n m"), "bias": Arg(dims="#n #m", optional=True)},
        options={"a": (1, 2, 3), "b": (1, 2, 3)},
    )  # fmt: skip
    cases = list(draw(spec, 0, range(104)))
    long = [case for case in cases if max(case.sizes["n"], case.sizes["m"]) > 64]
    shapes = [(case.args[1] is not None and case.args[1].shape, (case.sizes["n"], case.sizes["m"])) for case in long if case.index % 2 == 0]
    assert len(shapes) > 10
    assert all(size == full for shape, sizes in shapes for size, full in zip(shape, sizes, strict=True) if full > 64)
    left = [case for case in long if case.index % 2]
    assert any(case.args[1] is None for case in left) and any(case.args[1] is not None and 1 in case.args[1].shape for case in left)
    (case,) = [case for case in long if case.index % 2 == 0][:1]
    (smaller,) = draw(spec, 0, range(case.index, case.index + 1), sizes={"n": 2, "m": 3})
    assert smaller.options == case.options and smaller.args[1] is not None


def indices_of(**bounds):
    args = {"table": Arg(dims="v d"), "rows": Arg(dims="n", dtype="int32", **bounds)}
    return Spec(name="lookup", fn=lambda table, rows: table[rows], args=args, sizes={"v": (2, 40)}, dtypes=())


def test_bounds_of_integers_may_be_sizes():
    drawn = [(case.args[1], case.sizes["v"]) for case in draw(indices_of(low="v-2", high="v"), 0, range(60))]
    assert all(((v - 2 <= rows) & (rows < v)).all() for rows, v in drawn)
    assert {int(v - rows.max()) for rows, v in drawn if rows.size} == {1, 2}


@pytest.mark.parametrize(
    ("bounds", "message"), [({"high": "w"}, "'v', 'd', 'n'"), ({"high": "v d"}, "whole numbers"), ({"high": "*v"}, "whole numbers")]
)
def test_bounds_that_are_no_size(bounds, message):
    with pytest.raises(SpecError, match=f"rows: high=.*{message}"):
        next(draw(indices_of(**bounds), 0, range(1)))


def test_bounds_of_other_numbers_are_numbers():
    with pytest.raises(SpecError, match="integers only"):
        Arg(dims="n", high="n")


def test_a_sample_of_complex_numbers_is_told_their_dtype():
    """Told the dtype of their parts, `astype` dropped the imaginary ones without a word."""
    told = set()

    def sample(rng, sizes, dtype):
        told.add(dtype)
        return (rng.standard_normal(sizes["n"]) + 1j).astype(dtype)

    spec = Spec(
        name="complex", fn=lambda z: z, args={"z": Arg(dims="n", dtype="complex", sample=sample)}, sizes={"n": (1, 4)}, dtypes=("float32",)
    )
    assert all(np.array_equal(case.args[0].imag, np.ones_like(case.args[0].imag)) for case in draw(spec, 0, range(20)))
    assert told == {"complex128", "complex64"}


def test_special_values_of_integers_appear_and_not_everywhere():
    """A label that is ignored lies outside of low and high: it was never drawn, and what is wrong for it passed."""
    args = {"logits": Arg(dims="n k"), "labels": Arg(dims="n", dtype="int32", high="k", special=(-100,))}
    labels = [
        case.args[1]
        for case in draw(Spec(name="loss", fn=lambda x, y: x, args=args, sizes={"n": (4, 9), "k": (2, 5)}, dtypes=()), 0, range(40))
    ]
    assert any((y == -100).any() and (y >= 0).any() for y in labels)
    assert any((y >= 0).all() for y in labels)
    assert all(y.dtype == np.int32 and ((y == -100) | ((y >= 0) & (y < 5))).all() for y in labels)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dtype": "int32", "special": (0.5,)}, "whole"),
        ({"dtype": "bool", "special": (1,)}, "bool"),
        ({"special": (1.0,), "sample": lambda *_: 0}, "sample="),
    ],
)
def test_special_values_that_could_not_be_drawn(more, message):
    with pytest.raises(SpecError, match=message):
        Arg(dims="n", **more)
