"""Named dimensions, and which sizes are worth trying.

The grammar is jaxtyping's: `n` a name, `3` a number, `kv*r` arithmetic of names (+ - * // and parentheses), `*batch` any number of
leading dimensions, `...` the same without a name, `_` a dimension of its own, `#n` a dimension that may also be 1, `n=4` a number with a label.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from verify.spec import Arg, SpecError

DEFAULT_BOUNDS = (1, 130)  # reaches past 64 and 128, where blocked kernels have their edges
MAX_RANK = 3  # of a variadic dimension such as `*batch`
MAX_SQUARE = 5  # up to this size, its dimensions are sometimes equal
ELEMENT_BUDGET = 2**14  # product of all named sizes in one draw, so that the largest intermediate stays small
ARGUMENT_BUDGET = 2**17  # elements of one argument, where the spec gives no bounds: `*batch t t` names t once and has it twice
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129)
PRIMES = (2, 3, 5, 7, 11, 13)
BLOCKS = (
    65,
    127,
)  # two dimensions at once, both beyond one block of 64: the second block of one may be wrong only in the second of the other
TOGETHER = 3  # of these pairs in each round
LARGE = (65, 129, 257, 64, 128, 300, 63, 127)  # beyond DEFAULT_BOUNDS only where the spec says nothing about the dimension

Sizes = Mapping[str, "int | tuple[int, ...]"]
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True, kw_only=True)
class Dim:
    """One dimension of a shape: an expression over names, or a variadic name."""

    text: str
    names: tuple[str, ...]
    variadic: bool = False
    may_be_one: bool = False

    def size(self, sizes: Sizes) -> tuple[int, ...]:
        """The dimension's size (one number), or a variadic dimension's sizes."""
        if self.variadic:
            bound = sizes[self.text]
            assert isinstance(bound, tuple)
            return bound
        return (_evaluate(ast.parse(self.text, mode="eval").body, sizes),)


def _evaluate(node: ast.expr, sizes: Sizes) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            size = sizes[name]
            assert isinstance(size, int)
            return size
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, sizes), _evaluate(right, sizes))
    raise SpecError(f"a dimension may hold names, whole numbers and + - * //, got {ast.unparse(node)!r}")


def bounded_by(sizes: Sizes, arg: Arg, path: str) -> Arg:
    """An argument whose bounds are text, such as high="v", with their numbers. Raises SpecError where they name no dimension of the spec."""

    def number(which: str, bound: float | str | None) -> float | None:
        if not isinstance(bound, str):
            return bound
        (dim,) = parse(bound, path) if len(bound.split()) == 1 else (Dim(text=bound, names=("?",), variadic=True),)
        if dim.variadic or not all(isinstance(sizes.get(name), int) for name in dim.names):
            raise SpecError(
                f"argument {path}: {which}={bound!r} must be made of whole numbers and of the sizes {', '.join(map(repr, sizes))}"
            )
        return dim.size(sizes)[0]

    return replace(arg, low=number("low", arg.low), high=number("high", arg.high))


@lru_cache(maxsize=4096)
def parse(dims: str, owner: str = "") -> tuple[Dim, ...]:
    """Parse a shape such as "*batch n kv*r"; `owner` is the argument's name, for messages and for anonymous dimensions.

    >>> [dim.text for dim in parse("*batch d_in")]
    ['batch', 'd_in']
    """
    return tuple(_parse_dim(text, owner, position, dims) for position, text in enumerate(dims.split()))


def _parse_dim(text: str, owner: str, position: int, dims: str) -> Dim:
    broken = SpecError(
        f'argument {owner or "?"}: cannot read {text!r} in dims {dims!r}; write for example "n", "3", "kv*r", "n+m", "*batch", "#n"'
    )
    may_be_one = text.startswith("#") or text.startswith("*#")
    body = text.replace("#", "", 1) if may_be_one else text
    if body == "...":
        body = f"*{owner}_dims"
    if body == "_":
        body = f"{owner}_{position}"
    if "=" in body:
        body = body.split("=", 1)[1]
    if body.startswith("*"):
        if not body[1:].isidentifier():
            raise broken
        return Dim(text=body[1:], names=(), variadic=True, may_be_one=may_be_one)
    try:
        tree = ast.parse(body.strip("{}"), mode="eval").body
        names = tuple(dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))
        with contextlib.suppress(ZeroDivisionError):  # such sizes are not drawn
            _evaluate(tree, dict.fromkeys(names, 1))
    except (SyntaxError, SpecError, ValueError, RecursionError, MemoryError):
        raise broken from None
    return Dim(text=body.strip("{}"), names=names, may_be_one=may_be_one)


def count(size: int | tuple[int, ...]) -> int:
    """The elements along a dimension, or along all dimensions of a variadic one."""
    return math.prod(size) if isinstance(size, tuple) else size


def dimension_names(shapes: Sequence[tuple[Dim, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The plain names and the variadic names in a signature's shapes, in order of appearance."""
    plain = tuple(dict.fromkeys(name for shape in shapes for dim in shape for name in dim.names))
    variadic = tuple(dict.fromkeys(dim.text for shape in shapes for dim in shape if dim.variadic))
    if both := set(plain) & set(variadic):
        raise SpecError(f"dimension {min(both)!r} is used both as {min(both)!r} (one size) and as '*{min(both)}' (any number of sizes)")
    return plain, variadic


def schedule(
    plain: Sequence[str],
    variadic: Sequence[str],
    bounds: Mapping[str, tuple[int, int]],
    rng: np.random.Generator,
    admits: Callable[[Sizes], bool],
    zeros: bool = False,
    shapes: Sequence[tuple[Dim, ...]] = (),
    many: bool = False,
) -> Iterator[dict[str, int | tuple[int, ...]]]:
    """Endless sizes, each distinct while the bounds allow it: edges first, then random ones.

    First all 1, primes, equal sizes, each dimension 0 (if its bounds allow), 1, and large in turn while the others stay small, each pair
    equal, some pairs large together; then the same again with other numbers, mixed with random draws. A size outside its bounds is moved to the nearest bound. With `zeros`,
    a dimension without bounds is 0 once, too. With `many` combinations of options, more sizes are large, to meet more of them.
    None of the `shapes` gets more than ARGUMENT_BUDGET elements, as far as the bounds allow.
    """
    names = [*plain, *variadic]
    seen: set[tuple[tuple[str, int | tuple[int, ...]], ...]] = set()
    stale = 0
    for base in _patterns(names, bounds, rng, zeros, many):
        sizes: dict[str, int | tuple[int, ...]] = {}
        for name, size in base.items():
            low, high = bounds.get(name, (0, max(LARGE)))
            sizes[name] = min(max(size, low), high)
        _shrink_to_budget(sizes, bounds, lambda sizes: math.prod(max(int(size), 1) for size in sizes.values()) <= ELEMENT_BUDGET)  # type: ignore[arg-type]
        for name in variadic:
            low, high = bounds.get(name, DEFAULT_BOUNDS)
            last: int = sizes[name]  # type: ignore[assignment]
            rank, square = int(rng.choice((1, 1, 2, 0, MAX_RANK))), rng.integers(4) == 0
            if len(set(base.values())) == 1 and base[name] > 1:  # all sizes equal: exchanged operands fit, and a transpose does
                rank, square = 1 + base[name] % 2 if len(names) == 1 else 1, True
            others = [last if square and last <= MAX_SQUARE else int(rng.integers(1, 4)) for _ in range(max(rank - 1, 0))]
            rest = [min(max(other, low), high) for other in others]
            sizes[name] = tuple([*rest, last] if rank else ())
        _shrink_to_budget(sizes, bounds, lambda sizes: moderate(shapes, sizes))
        key = tuple(sizes.items())
        fresh = key not in seen and admits(sizes)
        stale = 0 if fresh else stale + 1
        if stale > 200 and not seen:
            raise SpecError("domain= accepts no sizes with any combination of options (200 draws refused); widen sizes= or the domain")
        if fresh or (stale > 200 and key in seen):  # a small space is exhausted: repeat sizes with new values
            seen.add(key)
            yield sizes


def _patterns(
    names: Sequence[str], bounds: Mapping[str, tuple[int, int]], rng: np.random.Generator, zeros: bool, many: bool
) -> Iterator[dict[str, int]]:
    def small() -> dict[str, int]:
        return {name: int(rng.integers(2, 8)) for name in names}

    def any_large(name: str) -> int:
        low, high = bounds.get(name, DEFAULT_BOUNDS)
        return int(rng.integers(max(low, (low + high) // 4), high + 1))

    def any_size(name: str) -> int:
        return any_large(name) if many and rng.integers(2) else _random_size(bounds.get(name, DEFAULT_BOUNDS), rng)

    turn, pairs = 0, list(itertools.combinations(names, 2))
    while True:
        yield dict.fromkeys(names, 1)
        yield dict(zip(names, rng.permutation(np.resize(PRIMES, len(names))).tolist(), strict=True))
        yield dict.fromkeys(names, 3 + turn)
        for name in names:
            for size in (*([any_large(name)] if many else []), LARGE[turn % len(LARGE)], 1, 0):
                if size or (bounds[name][0] == 0 if name in bounds else zeros and turn == 0):
                    yield {**{other: int(rng.integers(1, 6)) for other in names}, name: size}
        for first, second in pairs:
            same = int(rng.integers(2, 9))
            sizes = {**small(), first: same, second: same}
            if many and (others := [name for name in names if name not in (first, second)]):
                other = others[rng.integers(len(others))]
                sizes[other] = any_size(other)
            yield sizes
        for k in range(min(TOGETHER, len(pairs))):
            first, second = pairs[(TOGETHER * turn + k) % len(pairs)]
            yield {**dict.fromkeys(names, 1), first: int(rng.integers(*BLOCKS)), second: int(rng.integers(*BLOCKS))}
        for _ in range(len(names) + 4):
            yield {name: any_size(name) for name in names}
        turn += 1


def _random_size(bounds: tuple[int, int], rng: np.random.Generator) -> int:
    low, high = bounds
    edges = [edge for edge in (*EDGES, low, high) if low <= edge <= high]
    if rng.integers(3) == 0:
        return int(rng.choice(edges))
    return int(np.exp(rng.uniform(np.log(max(low, 1)), np.log(max(high, 1) + 1))))


def moderate(shapes: Sequence[tuple[Dim, ...]], sizes: Sizes) -> bool:
    """Whether no argument has more elements than ARGUMENT_BUDGET."""
    try:
        return all(math.prod(size for dim in shape for size in dim.size(sizes)) <= ARGUMENT_BUDGET for shape in shapes)
    except ZeroDivisionError:  # n//m at m = 0: not admitted
        return True


def _shrink_to_budget(
    sizes: dict[str, int | tuple[int, ...]], bounds: Mapping[str, tuple[int, int]], fits: Callable[[Sizes], bool]
) -> None:
    """Halve the second largest size until all is within a budget, so that the one large dimension stays large."""

    def lowest(name: str) -> int:
        return max(bounds.get(name, DEFAULT_BOUNDS)[0], 1)

    while not fits(sizes):
        ranked = sorted((name for name in sizes if _most(sizes[name]) > lowest(name)), key=lambda name: _most(sizes[name]))
        if not ranked:
            return
        name = ranked[-2] if len(ranked) > 1 else ranked[-1]
        halved, low = sizes[name], bounds.get(name, DEFAULT_BOUNDS)[0]
        sizes[name] = tuple(max(size // 2, low) for size in halved) if isinstance(halved, tuple) else max(halved // 2, low)


def _most(size: int | tuple[int, ...]) -> int:
    return max(size, default=0) if isinstance(size, tuple) else size
