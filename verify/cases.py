"""(spec, seed, index) -> Case: the same address gives the same bits on any machine.

Sizes, options and absent arguments are drawn here (which ones, `verify.domains` says), values in `verify.values`. The index says in which dtype a case is run besides float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from verify.addresses import format_sizes, size_text
from verify.domains import LONG, Meeting, admits, along_long_axes, argument_of, belong, override
from verify.signature import arguments, nearest
from verify.sizes import DEFAULT_BOUNDS, Dim, Sizes, bounded_by, count, dimension_names, moderate, parse, schedule
from verify.spec import COMPLEX_DTYPES, FLOAT_DTYPES, USER_DTYPES, Arg, Spec, SpecError
from verify.styles import LOW_STRESS, STRESS, STYLES, magnitude
from verify.turns import SHAPE_CASES, Turns
from verify.values import draw_values, generator, is_complex

MOST_INDICES = 10  # integers of an argument without bounds are below it
LARGEST = 2**28  # elements of one argument: 2 GiB in float64
LONGEST, LONG_UNSAID = 2048, 512  # a long sum in low precision: as long as the spec allows up to this, or where it says nothing
FEW = 4  # along the other dimensions of such a case: a sum may run over them, too
LOW_EVERY, LOW_FIRST = 7, 2  # indices that are also run in one of the spec's dtypes, in turn


@dataclass(frozen=True)
class Static:
    """A value passed to the function as it is, outside of the traced arrays."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """Concrete inputs. `args` holds, per positional argument, a pytree of float64 or integer numpy arrays, Key, Static or None.

    dtype is the users' dtype that the case is also run in ("mixed": another one for each argument); float64 means in float64 alone.
    domains: per leaf, what its values may be; leaves with equal domains may stand for one another (None: no other).
    style: what kind of numbers it holds (`verify.styles`), "given" for the user's own arrays.
    long: whether it is one with a dimension as long as allowed, for sums in low precision: values and cotangents are of one sign, so that nothing cancels.
    residuals: the spec's limit, see `Spec.residuals`.
    beyond: whether a size lies outside of what the spec declares (0, where nothing is said about it).
    """

    name: str
    seed: int
    index: int
    args: tuple[Any, ...]
    argument_names: tuple[str, ...]
    dtypes: tuple[str | None, ...]
    dtype: str = "float64"
    sizes: Sizes = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    domains: tuple[Any, ...] = ()
    style: str = "given"
    beyond: bool = False
    long: bool = False
    residuals: float | None = None
    resized: bool = False
    thorough: bool = False

    @property
    def stress(self) -> bool:
        """Whether the inputs are such that a function may rightly have no finite value there, or no derivative."""
        return self.beyond or self.style in STRESS

    @property
    def address(self) -> str:
        """What `verify replay` takes."""
        suffix = "@" + format_sizes(self.sizes) if self.resized else ""
        return f"{self.name}/{self.seed}/{self.index}{suffix}"

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of this case alone, one for each purpose."""
        return generator(self.name, self.seed, self.index, purpose)

    def describe(self) -> str:
        """Sizes and options in words: "n=3, d_in=2; is_causal=True"."""
        sizes = ", ".join(f"{name}={size_text(size)}" for name, size in self.sizes.items())
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        absent = ", ".join(f"{name}=None" for name, arg in zip(self.argument_names, self.args, strict=True) if arg is None)
        return "; ".join(part for part in (sizes, options, absent) if part)


def elements(case: Case) -> int:
    """Of all arguments together."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(case.args) if isinstance(leaf, np.ndarray))


def draw(spec: Spec, seed: int, indices: range, sizes: Mapping[str, Any] | None = None) -> Iterator[Case]:
    """The cases with these indices. `sizes` replaces the drawn sizes (for replaying a shrunken case).

    Raises SpecError where the spec does not describe drawable arguments.
    """
    described = arguments(spec)
    shapes = {path: parse(arg.dims, path) for path, arg in arg_leaves(described)}
    plain, variadic = dimension_names(list(shapes.values()))
    for name in spec.sizes:
        if name not in plain and name not in variadic:
            known = [*plain, *(f"*{name}" for name in variadic)]
            raise SpecError(
                f"{spec.name}: sizes names {name!r}, which is no dimension of its arguments.{nearest(name, known)} Known: {', '.join(known)}"
            )
    if not any(arg.dtype in ("float", *FLOAT_DTYPES, *COMPLEX_DTYPES) for _, arg in arg_leaves(described)):
        raise SpecError(f"{spec.name}: no argument is floating-point, so there is no derivative to verify; got " + _dtypes_text(described))
    turns = Turns(spec, seed, [name for name, arg in described.items() if isinstance(arg, Arg) and arg.optional])
    meeting = Meeting(spec, shapes)
    zeros = spec.domain is None and not any(arg.sample for _, arg in arg_leaves(described))  # the user's own functions may know no size 0
    drawn = schedule(
        plain,
        variadic,
        spec.sizes,
        generator(spec.name, seed, 0, "sizes"),
        meeting.admits,
        zeros,
        list(shapes.values()),
        many=turns.many,
    )

    shape: Sizes = {}
    for index in range(indices.stop):
        if index % SHAPE_CASES == 0:
            if spec.domain is not None:
                meeting.begin(turns.first(index))
            shape = _next(spec, drawn)
        long = _long(spec, index, plain, shape)
        long = long if long and admits(spec, shapes, long) and moderate(list(shapes.values()), long) else None
        chosen = long or shape
        along = along_long_axes(shapes, chosen) if index % 2 == 0 else frozenset()
        options, absent = turns.choose(index, chosen, _dtype_and_style(spec, seed, index)[0], along)
        if index < indices.start:
            continue
        if sizes is not None:  # a smaller case keeps the options of the one that it comes from
            chosen = override(spec, {**chosen}, sizes, plain, variadic)
            if not admits(spec, shapes, chosen) or not belong(spec, chosen, options):
                raise SpecError(f"{spec.name}: the sizes {format_sizes(chosen)} are outside of its domain, or give a negative size")
        yield _draw_case(spec, described, seed, index, chosen, options, absent, resized=sizes is not None, long=long is not None)


def _next(spec: Spec, drawn: Iterator[Sizes]) -> Sizes:
    try:
        return next(drawn)
    except SpecError as error:
        raise SpecError(str(error) if str(error).startswith(f"{spec.name}:") else f"{spec.name}: {error}") from error


def chosen(spec: Spec, turn: int, sizes: Sizes, options: Mapping[str, Any], absent: frozenset[str]) -> Case:
    """A case of these sizes, options and absent arguments, with ordinary values; `turn` says which values. Raises SpecError outside of the domain."""
    described = arguments(spec)
    if not admits(spec, {path: parse(arg.dims, path) for path, arg in arg_leaves(described)}, sizes):
        raise SpecError(f"{spec.name}: the sizes {format_sizes(sizes)} are outside of its domain")
    plain = (index for index in itertools.count() if _dtype_and_style(spec, 0, index) in (("float64", "decimals"), ("float64", "fine")))
    return _draw_case(spec, described, 0, next(itertools.islice(plain, turn, None)), sizes, options, absent, resized=True)


def _draw_case(
    spec: Spec,
    described: Mapping[str, Any],
    seed: int,
    index: int,
    sizes: Sizes,
    options: Mapping[str, Any],
    absent: frozenset[str],
    resized: bool,
    long: bool = False,
) -> Case:
    rng = generator(spec.name, seed, index, "values")
    dtype, style = _dtype_and_style(spec, seed, index)
    beyond = _beyond(spec, sizes)
    if beyond:  # XLA:CPU leaves the result of an empty float16 product unset
        dtype = "float64"
    held = {"float16" if dtype == "mixed" else dtype, *(arg.dtype for _, arg in arg_leaves(described))}
    scale = magnitude(
        index // len(STYLES), style, next(name for name in reversed(FLOAT_DTYPES) if name in held)
    )  # what the narrowest dtype can hold
    dtypes: list[str | None] = []
    domains: list[Any] = []
    floating = [parse(arg.dims, path) for path, arg in arg_leaves(described) if arg.dtype in ("float", *FLOAT_DTYPES, *COMPLEX_DTYPES)]
    indices = min([MOST_INDICES, *(size for dims in floating for dim in dims for size in dim.size(sizes) if size)])  # in range for each

    def leaf(path: str, arg: Arg) -> Any:
        user = _user_dtype(arg, dtype, len(dtypes))
        dtypes.append(user)
        domains.append(None if user is None else (replace(arg, dims=arg.dims if arg.sample else "", optional=False), kinks_of(path)))
        if "int" in arg.dtype and not arg.sample:
            arg = replace(arg, low=0, high=indices) if arg.low is arg.high is None else bounded_by(sizes, arg, path)
        shape = tuple(size for dim in parse(arg.dims, path) for size in _broadcast(dim, sizes, rng, full=index % 2 == 0))
        if math.prod(shape) > LARGEST:
            raise SpecError(f"{spec.name}: argument {path} would have the shape {shape}, too large to verify with; bound it with sizes=")
        return draw_values(rng, arg, shape, sizes, style, user or arg.dtype, kinks_of(path), scale, one_signed=long)

    def kinks_of(path: str) -> tuple[float, ...]:
        return tuple(spec.kinks.get(argument_of(path), ()))

    args = tuple(None if name in absent else _map_args(name, arg, leaf) for name, arg in described.items())
    return Case(
        name=spec.name, seed=seed, index=index, args=args, argument_names=tuple(described), dtypes=tuple(dtypes), dtype=dtype,
        sizes=sizes, options=options, domains=tuple(domains), style=style, beyond=beyond, long=long, residuals=spec.residuals, resized=resized,
    )  # fmt: skip


def _dtype_and_style(spec: Spec, seed: int, index: int) -> tuple[str, str]:
    """In float64 each style once in every block of cases; in users' dtypes mostly values as activations are, extreme ones in between."""
    turn, place = divmod(index, LOW_EVERY)
    if place == LOW_FIRST and spec.dtypes:
        rounds, which = divmod(turn, len(spec.dtypes))
        dtype = spec.dtypes[which]
        stress = LOW_STRESS[dtype]
        return dtype, "unit" if rounds % 2 == 0 else stress[rounds // 2 % len(stress)]
    block, position = divmod(index, len(STYLES))
    return "float64", STYLES[generator(spec.name, seed, block, "styles").permutation(len(STYLES))[position]]


def _long(spec: Spec, index: int, plain: Sequence[str], shape: Sizes) -> dict[str, Any] | None:
    """Three of four rounds of cases in users' dtypes stretch one dimension, in turn, and the others are 4 or 5: one of these holds ordinary values."""
    turn, place = divmod(index, LOW_EVERY)
    if place != LOW_FIRST or not spec.dtypes or not plain:
        return None
    rounds, which = divmod(turn, len(spec.dtypes))
    if rounds % 4 == 0:
        return None
    name = plain[(rounds - 1 + which) % len(plain)]
    highest = min(spec.sizes[name][1], LONGEST) if name in spec.sizes else LONG_UNSAID
    few = {other: _clipped(spec, other, min(max(size, FEW), FEW + 1)) if isinstance(size, int) else size for other, size in shape.items()}
    return {**few, name: highest}


def _clipped(spec: Spec, name: str, size: int) -> int:
    low, high = spec.sizes.get(name, (1, size))
    return min(max(size, low), high)


def _beyond(spec: Spec, sizes: Sizes) -> bool:
    return any(count(size) == 0 and spec.sizes.get(name, DEFAULT_BOUNDS)[0] > 0 for name, size in sizes.items())


def _user_dtype(arg: Arg, dtype: str, position: int) -> str | None:
    """The dtype a float argument has in users' hands in this case; None for arguments that are not floats."""
    if arg.dtype in FLOAT_DTYPES:
        return arg.dtype
    if is_complex(arg.dtype):  # JAX has two complex dtypes
        return "float32" if arg.dtype == "complex64" or (arg.dtype == "complex" and dtype != "float64") else "float64"
    if arg.dtype != "float":
        return None
    return USER_DTYPES[position % len(USER_DTYPES)] if dtype == "mixed" else dtype


def _broadcast(dim: Dim, sizes: Sizes, rng: np.random.Generator, full: bool) -> tuple[int, ...]:
    """The sizes along a dimension, in a third of the draws 1 where that is allowed. `full`: a long one is never 1."""
    return tuple(1 if dim.may_be_one and rng.integers(3) == 0 and not (full and size > LONG) else size for size in dim.size(sizes))


def arg_leaves(described: Mapping[str, Any]) -> list[tuple[str, Arg]]:
    found: list[tuple[str, Arg]] = []
    for name, arg in described.items():
        _map_args(name, arg, lambda path, leaf: found.append((path, leaf)))
    return found


def _map_args(path: str, arg: Any, leaf: Any) -> Any:
    if isinstance(arg, Arg):
        return leaf(path, arg)
    if isinstance(arg, Mapping):
        return {key: _map_args(f"{path}[{key!r}]", child, leaf) for key, child in arg.items()}
    return type(arg)(_map_args(f"{path}[{i}]", child, leaf) for i, child in enumerate(arg))


def _dtypes_text(described: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}: {arg.dtype}" for path, arg in arg_leaves(described))


def with_sizes(spec: Spec, case: Case, sizes: Sizes) -> Case:
    """The same case at other sizes: the shrinker's step."""
    return next(draw(spec, case.seed, range(case.index, case.index + 1), sizes=sizes))
