"""The grammar of dimensions and the schedule of sizes: what a run is promised to meet early, and never to leave."""

import itertools

import numpy as np
import pytest

from verify import SpecError
from verify.sizes import ARGUMENT_BUDGET, DEFAULT_BOUNDS, ELEMENT_BUDGET, LARGE, MAX_RANK, dimension_names, parse, schedule

EARLY = 48  # draws within which every edge of up to four dimensions must be met


def sizes_of(dims, sizes):
    return tuple(size for dim in parse(dims, "x") for size in dim.size(sizes))


def drawn(count, plain=(), variadic=(), bounds=None, seed=0, admits=lambda sizes: True):
    return list(itertools.islice(schedule(plain, variadic, bounds or {}, np.random.default_rng(seed), admits), count))


@pytest.mark.parametrize(
    ("dims", "sizes", "shape"),
    [
        ("", {}, ()),
        ("3", {}, (3,)),
        ("n d_in", {"n": 4, "d_in": 5}, (4, 5)),
        ("kv*r", {"kv": 3, "r": 4}, (12,)),
        ("n-1 n+1", {"n": 4}, (3, 5)),
        ("n//2", {"n": 7}, (3,)),
        ("(a+b)*c", {"a": 1, "b": 2, "c": 5}, (15,)),
        ("a+b*c", {"a": 1, "b": 2, "c": 5}, (11,)),
        ("*batch D", {"batch": (2, 3), "D": 4}, (2, 3, 4)),
        ("*batch D", {"batch": (), "D": 4}, (4,)),
        ("n *mid m", {"n": 1, "mid": (7,), "m": 2}, (1, 7, 2)),
        ("#n", {"n": 4}, (4,)),
        ("rows=4 n", {"n": 2}, (4, 2)),
        ("{n}", {"n": 3}, (3,)),
        ("  n   m ", {"n": 1, "m": 2}, (1, 2)),
    ],
)
def test_shapes(dims, sizes, shape):
    assert sizes_of(dims, sizes) == shape


def test_anonymous_dimensions_of_two_arguments_are_different_dimensions():
    plain, variadic = dimension_names([parse("_ _ ...", "x"), parse("_ ...", "y")])
    assert len(plain) == 3 and len(variadic) == 2


def test_names_in_order_of_appearance():
    assert dimension_names([parse("*b n m"), parse("m*k *b"), parse("3 n")]) == (("n", "m", "k"), ("b",))


def test_broadcastable_dimensions_are_marked():
    assert [dim.may_be_one for dim in parse("#n m *#batch")] == [True, False, True]


@pytest.mark.parametrize(
    "dims", ["n!", "2.5", "*", "n**2", "*n+1", "f(n)", "n/2", "n,m", "'n'", "n.m", "n[0]", "n if n else 1", "-1", "(" * 300 + "n"]
)
def test_unreadable_dimensions_name_argument_and_text(dims):
    with pytest.raises(SpecError, match="argument weight") as error:
        parse("ok " + dims, "weight")
    assert dims.split()[0][:20] in str(error.value)


@pytest.mark.parametrize("dims", ["n//(m-1)", "n//(a-b)"])
def test_division_that_is_undefined_where_all_are_one_is_still_grammar(dims):
    names = dimension_names([parse(dims, "x")])[0]
    assert set(names) == {c for c in dims if c.isalpha()}


def test_name_both_plain_and_variadic():
    with pytest.raises(SpecError, match=r"'n'.*'\*n'"):
        dimension_names([parse("*n"), parse("n")])


NAMES = {
    1: (("a",), ()),
    2: (("a", "b"), ()),
    3: (("a", "b", "c"), ()),
    4: (("a", "b", "c", "d"), ()),
    5: (("a", "b"), ("v",)),
}


@pytest.mark.parametrize("shape", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_every_edge_is_met_early(shape, seed):
    plain, variadic = NAMES[shape]
    found = drawn(EARLY, plain, variadic, dict.fromkeys(plain, (0, 130)), seed)
    for name in plain:
        seen = {sizes[name] for sizes in found}
        assert {0, 1} <= seen, f"{name}: {sorted(seen)}"
        assert max(seen) > 64
    for first, second in itertools.combinations(plain, 2):
        assert any(sizes[first] == sizes[second] > 1 for sizes in found), f"never a square of {first} and {second}"
        assert any(sizes[first] != sizes[second] and min(sizes[first], sizes[second]) > 1 for sizes in found)
    if len(plain) > 1:
        assert any(len({sizes[name] for name in plain}) == 1 and sizes["a"] > 1 for sizes in found)
    assert any(all(sizes[name] == 1 for name in plain) for sizes in found)
    for name in variadic:
        assert {0, 1, 2, MAX_RANK} <= {len(sizes[name]) for sizes in found}


@pytest.mark.parametrize("shape", NAMES)
def test_distinct_while_there_is_room(shape):
    found = drawn(300, *NAMES[shape]) if shape > 1 else drawn(60, *NAMES[shape])
    assert len({tuple(sizes.items()) for sizes in found}) == len(found)


def test_zero_only_where_it_is_allowed():
    found = drawn(400, ("a", "b"), ("v",), {"a": (0, 9)})
    assert any(sizes["a"] == 0 for sizes in found)
    assert all(sizes["b"] >= 1 and all(n >= 1 for n in sizes["v"]) for sizes in found)


@pytest.mark.parametrize("bounds", [(1, 1), (2, 5), (100, 130), (7, 7), (1, 1024), (500, 1024), (0, 1)])
def test_bounds_are_never_left(bounds):
    low, high = bounds
    for sizes in drawn(120, ("a", "b"), ("v",), {"a": bounds, "v": bounds}, seed=3):
        assert low <= sizes["a"] <= high
        assert all(low <= n <= high for n in sizes["v"])
        assert DEFAULT_BOUNDS[0] <= sizes["b"] <= max(LARGE)


def test_both_bounds_are_met():
    seen = {sizes["a"] for sizes in drawn(120, ("a", "b"), (), {"a": (3, 40)})}
    assert {3, 40} <= seen


def test_arrays_stay_small():
    """No draw multiplies to more than the budget, unless the spec's own smallest sizes do."""
    for sizes in drawn(300, tuple("abcde"), ()):
        assert np.prod(list(sizes.values())) <= ELEMENT_BUDGET


@pytest.mark.parametrize("shape", ["*b t t", "t t u", "*b *c n n"])
def test_an_argument_that_has_a_dimension_twice_stays_moderate(shape):
    shapes = [parse(shape)]
    plain, variadic = dimension_names(shapes)
    drawn = [*itertools.islice(schedule(plain, variadic, {}, np.random.default_rng(0), lambda sizes: True, False, shapes), 200)]
    assert all(np.prod([n for dim in shapes[0] for n in dim.size(sizes)]) <= ARGUMENT_BUDGET for sizes in drawn)
    assert max(max(sizes[name] for name in plain) for sizes in drawn) >= 129  # and one dimension alone is as large as ever


def test_budget_yields_to_the_smallest_sizes_asked_for():
    sizes = drawn(1, ("a", "b"), (), {"a": (500, 600), "b": (500, 600)})[0]
    assert sizes["a"] >= 500 and sizes["b"] >= 500


def test_deterministic_and_seeded():
    names = (("a", "b", "c"), ("v",))
    assert drawn(80, *names, seed=7) == drawn(80, *names, seed=7)
    assert drawn(80, *names, seed=7) != drawn(80, *names, seed=8)


def test_longer_runs_begin_with_shorter_ones():
    assert drawn(200, ("a", "b"))[:30] == drawn(30, ("a", "b"))


def test_a_small_space_is_repeated_rather_than_refused():
    found = drawn(30, ("a",), (), {"a": (1, 3)})
    assert {sizes["a"] for sizes in found} == {1, 2, 3}


def test_nothing_named_is_one_shape_again_and_again():
    assert drawn(5) == [{}] * 5


def test_only_admitted_sizes():
    found = drawn(60, ("a", "b"), admits=lambda sizes: sizes["a"] >= sizes["b"])
    assert all(sizes["a"] >= sizes["b"] for sizes in found)


def test_impossible_domain_is_said_and_ends():
    with pytest.raises(SpecError, match="domain"):
        drawn(1, ("a",), admits=lambda sizes: False)
