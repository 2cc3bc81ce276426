"""(spec, seed, index) -> Case: the same address gives the same bits on any machine.

Values are whole numbers drawn from a counter-based generator and divided by a power of ten, so that no library's rounding enters,
and failures are readable. Indices below say which dtype and which extra work a case carries, so that every few cases see all of them.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import ml_dtypes
import numpy as np

from verify.signature import arguments
from verify.sizes import Dim, Sizes, dimension_names, parse, schedule
from verify.spec import FLOAT_DTYPES, USER_DTYPES, Arg, Spec, SpecError

PERIOD = 48
LOW_PRECISION = (2, 6, 10, 14)  # index modulo PERIOD: a case that is also run in one of the spec's dtypes, in turn
STYLES = ("decimals", "decimals", "fine", "positive", "edges", "small", "large", "fine")
KINK_DISTANCE = 2.0**-4  # ordinary draws stay this far from a declared kink


@dataclass(frozen=True)
class Key:
    """A PRNG key, by its seed."""

    seed: int


@dataclass(frozen=True)
class Static:
    """A value passed to the function as it is, outside of the traced arrays."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """Concrete inputs. `args` holds, per positional argument, a pytree of float64 or integer numpy arrays, Key, Static or None.

    dtype is the users' dtype that the case is also run in ("mixed": another one for each argument); float64 means in float64 alone.
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
    resized: bool = False
    thorough: bool = False

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
        sizes = ", ".join(f"{name}={_size_text(size)}" for name, size in self.sizes.items())
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        absent = ", ".join(f"{name}=None" for name, arg in zip(self.argument_names, self.args, strict=True) if arg is None)
        return "; ".join(part for part in (sizes, options, absent) if part)


def generator(name: str, seed: int, index: int, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, (index << 32) | zlib.crc32(f"{name}:{purpose}".encode())]))


def draw(spec: Spec, seed: int, indices: range, sizes: Mapping[str, Any] | None = None) -> Iterator[Case]:
    """The cases with these indices. `sizes` replaces the drawn sizes (for replaying a shrunken case).

    Raises SpecError where the spec does not describe drawable arguments.
    """
    described = arguments(spec)
    shapes = {path: parse(arg.dims, path) for path, arg in _arg_leaves(described)}
    plain, variadic = dimension_names(list(shapes.values()))
    for name in spec.sizes:
        if name not in plain and name not in variadic:
            from verify.signature import nearest

            raise SpecError(
                f"{spec.name}: sizes names {name!r}, which is no dimension of its arguments.{nearest(name, [*plain, *variadic])}"
            )
    if not any(arg.dtype == "float" or arg.dtype in FLOAT_DTYPES for _, arg in _arg_leaves(described)):
        raise SpecError(f"{spec.name}: no argument is floating-point, so there is no derivative to verify; got " + _dtypes_text(described))
    combinations = _combinations(spec, described)
    drawn = schedule(plain, variadic, spec.sizes, generator(spec.name, seed, 0, "sizes"), lambda s: _admits(spec, shapes, s))
    for index in range(indices.stop):
        chosen = next(drawn)
        if index < indices.start:
            continue
        block, place = divmod(index, len(combinations))
        order = generator(spec.name, seed, block, "options").permutation(len(combinations))
        options, absent = combinations[order[place]]
        if sizes is not None:
            chosen = _override(spec, {**chosen}, sizes, plain, variadic)
        yield _draw_case(spec, described, seed, index, chosen, options, absent, resized=sizes is not None)


def _draw_case(
    spec: Spec,
    described: Mapping[str, Any],
    seed: int,
    index: int,
    sizes: Sizes,
    options: Mapping[str, Any],
    absent: frozenset[str],
    resized: bool,
) -> Case:
    rng = generator(spec.name, seed, index, "values")
    dtype = _case_dtype(spec, index)
    style = STYLES[int(rng.integers(len(STYLES)))] if dtype == "float64" else "unit"  # low precision: as activations are
    dtypes: list[str | None] = []

    def leaf(path: str, arg: Arg) -> Any:
        user = _user_dtype(arg, dtype, len(dtypes))
        dtypes.append(user)
        shape = tuple(size for dim in parse(arg.dims, path) for size in _broadcast(dim, sizes, rng))
        return draw_values(
            rng, arg, shape, sizes, style, user or arg.dtype, spec.kinks.get(path.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0], ())
        )

    args = tuple(None if name in absent else _map_args(name, arg, leaf) for name, arg in described.items())
    return Case(
        name=spec.name, seed=seed, index=index, args=args, argument_names=tuple(described), dtypes=tuple(dtypes), dtype=dtype,
        sizes=sizes, options=options, resized=resized,
    )  # fmt: skip


def _case_dtype(spec: Spec, index: int) -> str:
    block, place = divmod(index, PERIOD)
    if place not in LOW_PRECISION or not spec.dtypes:
        return "float64"
    return spec.dtypes[(len(LOW_PRECISION) * block + LOW_PRECISION.index(place)) % len(spec.dtypes)]


def _user_dtype(arg: Arg, dtype: str, position: int) -> str | None:
    """The dtype a float argument has in users' hands in this case; None for arguments that are not floats."""
    if arg.dtype in FLOAT_DTYPES:
        return arg.dtype
    if arg.dtype != "float":
        return None
    return USER_DTYPES[position % len(USER_DTYPES)] if dtype == "mixed" else dtype


def draw_values(
    rng: np.random.Generator, arg: Arg, shape: tuple[int, ...], sizes: Sizes, style: str, dtype: str, kinks: tuple[float, ...] = ()
) -> Any:
    """Values for one array argument: float64 (rounded to `dtype`), integers, booleans or a Key."""
    if arg.sample is not None:
        values = np.asarray(arg.sample(rng, sizes, dtype))
        if values.shape != shape:
            raise SpecError(f"Arg.sample returned an array of shape {values.shape}, wanted {shape} for dims {arg.dims!r}")
        return round_to(values, dtype) if dtype in FLOAT_DTYPES else values
    if arg.dtype == "key":
        return Key(int(rng.integers(2**31)))
    if arg.dtype == "bool":
        chance = (0.5, 0.8, 0.2, 1.0)[int(rng.integers(4))]
        values = rng.integers(1000, size=shape) < 1000 * chance
        if values.ndim and values.size and rng.integers(3) == 0:
            values[..., 0, :] = False  # a whole row off: a mask with nothing left
        return values
    if dtype not in FLOAT_DTYPES:
        low, high = (0 if arg.low is None else int(arg.low)), (10 if arg.high is None else int(arg.high))
        return rng.integers(low, max(high, low + 1), size=shape).astype(arg.dtype)
    values = _floats(rng, arg, shape, style)
    for kink in kinks:
        away = values - kink
        values = np.where(np.abs(away) < KINK_DISTANCE, kink + np.where(away < 0, -1, 1) * (KINK_DISTANCE + np.abs(away)), values)
    if style == "edges":
        inside = [edge for edge in (0.0,) if (arg.low is None or arg.low < edge) and (arg.high is None or edge < arg.high)]
        edges = np.array([*arg.special, *kinks, *inside, *(values.reshape(-1)[:1])])
        if edges.size:
            values = np.where(rng.integers(8, size=shape) == 0, edges[rng.integers(edges.size, size=shape)], values)
    return round_to(values, dtype)


def _floats(rng: np.random.Generator, arg: Arg, shape: tuple[int, ...], style: str) -> np.ndarray:
    if arg.low is not None or arg.high is not None:
        low = arg.low if arg.low is not None else min(arg.high - 4.0, -arg.high)  # type: ignore[operator]
        high = arg.high if arg.high is not None else low + 4.0
        return low + (high - low) * (rng.integers(1, 10**6, size=shape) / 10**6)
    if style == "positive":
        return rng.integers(1, 300_000, size=shape) / 1e5
    if style in ("decimals", "edges") and np.prod(shape) <= 64:
        return rng.integers(-300, 301, size=shape) / 100
    scale = {"small": 0.05, "unit": 1 / 3, "large": 10.0}.get(style, 1.0)
    return scale * (rng.integers(-300_000, 300_001, size=shape) / 1e5)


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` rounded to a float dtype, kept as float64."""
    wide = np.asarray(values, np.float64)
    if dtype == "bfloat16":
        return wide.astype(ml_dtypes.bfloat16).astype(np.float64)
    return wide.astype(dtype).astype(np.float64)


def _combinations(spec: Spec, described: Mapping[str, Any]) -> list[tuple[dict[str, Any], frozenset[str]]]:
    """Every combination of option values and of optional arguments being None."""
    options = [dict(zip(spec.options, values, strict=True)) for values in itertools.product(*spec.options.values())]
    optional = [name for name, arg in described.items() if isinstance(arg, Arg) and arg.optional]
    absent = [
        frozenset(name for name, off in zip(optional, bits, strict=True) if off)
        for bits in itertools.product((False, True), repeat=len(optional))
    ]
    return list(itertools.product(options, absent))


def _admits(spec: Spec, shapes: Mapping[str, tuple[Dim, ...]], sizes: Sizes) -> bool:
    if any(size < 0 for shape in shapes.values() for dim in shape for size in dim.size(sizes)):
        return False
    if spec.domain is None:
        return True
    options = [dict(zip(spec.options, values, strict=True)) for values in itertools.product(*spec.options.values())]
    return all(spec.domain(sizes, combination) for combination in options)


def _broadcast(dim: Dim, sizes: Sizes, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(1 if dim.may_be_one and rng.integers(3) == 0 else size for size in dim.size(sizes))


def _arg_leaves(described: Mapping[str, Any]) -> list[tuple[str, Arg]]:
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
    return ", ".join(f"{path}: {arg.dtype}" for path, arg in _arg_leaves(described))


def from_arrays(
    name: str, args: tuple[Any, ...], argument_names: tuple[str, ...], options: Mapping[str, Any], seed: int, index: int, dtype: str
) -> Case:
    """A case on the user's own example arrays: index 0 holds them as they are, later ones other values in the range of the given ones."""
    rng = generator(name, seed, index, "values")
    dtypes: list[str | None] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, (Static, Key)):
            dtypes.append(None)
            return value
        array = np.asarray(value) if hasattr(value, "__array__") else value
        is_float = jax.numpy.issubdtype(array.dtype, np.floating)
        own = str(array.dtype) if is_float else None
        user = None if own is None else own if dtype == "given" else dtype
        dtypes.append(user)
        if isinstance(array, jax.ShapeDtypeStruct):
            if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
                return Key(int(rng.integers(2**31)))
            kind = own or str(array.dtype)
            return draw_values(rng, Arg(dtype=kind), array.shape, {}, "fine", kind)
        if not is_float or index == 0:
            return array if not is_float else round_to(array, own)  # type: ignore[arg-type]
        return round_to(_alike(rng, np.asarray(array, np.float64)), own)  # type: ignore[arg-type]

    drawn = jax.tree.map(leaf, args, is_leaf=lambda node: isinstance(node, (Static, Key)))
    label = "given" if dtype == "given" else dtype
    return Case(
        name=name, seed=seed, index=index, args=drawn, argument_names=argument_names, dtypes=tuple(dtypes), dtype=label, options=options
    )


def _alike(rng: np.random.Generator, given: np.ndarray) -> np.ndarray:
    """Values within the range of the given ones, without their structure (a symmetric or constant example hides mistakes)."""
    finite = given[np.isfinite(given)]
    if not finite.size:
        return given
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        low, high = (low - 1.0, high + 1.0) if low == 0 else sorted((0.5 * low, 1.5 * low))
    drawn = low + (high - low) * (rng.integers(0, 10**6 + 1, size=given.shape) / 10**6)
    return np.where(np.isfinite(given), drawn, given)


def format_sizes(sizes: Sizes) -> str:
    """Sizes as in an address: "n=3,batch=2x1"."""
    return ",".join(f"{name}={_size_text(size)}" for name, size in sizes.items())


def _size_text(size: int | tuple[int, ...]) -> str:
    return "x".join(map(str, size)) or "()" if isinstance(size, tuple) else str(size)


def parse_address(address: str) -> tuple[str, int, int, dict[str, str] | None]:
    """Split "name/seed/index@n=3,batch=2x1" into name, seed, index, and sizes as text (or None). Raises SpecError."""
    match = re.fullmatch(r"(?P<name>[^@]+)/(?P<seed>\d{1,20})/(?P<index>\d{1,9})(?:@(?P<sizes>.*))?", address)
    if match is None or int(match["seed"]) >= 2**63:
        raise SpecError(f"address {address!r} is not NAME/SEED/INDEX, such as layer_norm/0/7 or linear/0/7@d_in=2,d_out=3")
    sizes = None
    if match["sizes"] is not None:
        pairs = [pair.partition("=") for pair in match["sizes"].split(",") if pair]
        if any(not re.fullmatch(r"\(\)|\d{1,9}(x\d{1,9})*", size) for _, _, size in pairs):
            raise SpecError(f"address {address!r}: sizes after @ must look like n=3,batch=2x1")
        sizes = {name: size for name, _, size in pairs}
    return match["name"], int(match["seed"]), int(match["index"]), sizes


def _override(
    spec: Spec, drawn: dict[str, Any], sizes: Mapping[str, Any], plain: tuple[str, ...], variadic: tuple[str, ...]
) -> dict[str, Any]:
    for name, size in sizes.items():
        if name in variadic:
            numbers = () if size == "()" else size.split("x") if isinstance(size, str) else size
            drawn[name] = tuple(int(number) for number in numbers)
        elif name in plain and not (isinstance(size, str) and not size.isdigit()):
            drawn[name] = int(size)
        else:
            raise SpecError(
                f"{spec.name}: {name}={size} is no size of its dimensions ({', '.join([*plain, *('*' + v for v in variadic)])})"
            )
    return drawn


def with_sizes(spec: Spec, case: Case, sizes: Sizes) -> Case:
    """The same case at other sizes: the shrinker's step."""
    return next(draw(spec, case.seed, range(case.index, case.index + 1), sizes=sizes))


def as_float64(case: Case) -> Case:
    """The same inputs, to be judged in float64 alone."""
    return replace(case, dtype="float64")
