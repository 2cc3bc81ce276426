"""The inputs on which a derivation is run: small sizes that are all different, so that a size tells which dimension it is."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify.cases import Case, arg_leaves, chosen
from verify.signature import arguments
from verify.sizes import Sizes, dimension_names, parse
from verify.spec import Arg, Spec, SpecError

SIZES = (5, 7, 3, 11, 13, 2, 17, 19, 4, 6, 8, 9)  # few formulas hold 5 or 7 as a number
SMALLEST = (2, 3, 4, 5, 6, 7, 8, 9, 1)  # for numbers that are printed
TRIES = 4000


@dataclass(frozen=True)
class Dims:
    """The names of sizes."""

    names: Mapping[int, str]

    def of(self, size: int) -> str:
        """The name of a size; "K*G" for what only one product of named ones can be; the number itself for others.

        >>> Dims({5: "n", 7: "m"}).of(35)
        'n*m'
        """
        if size in self.names or size < 2:
            return self.names.get(size, str(size))
        single = [n for n, text in self.names.items() if text.isidentifier()]
        products = [found for count in (2, 3) for found in itertools.combinations(single, count) if math.prod(found) == size]
        return "*".join(self.names[n] for n in products[0]) if len(products) == 1 else str(size)

    def shape(self, shape: tuple[int, ...]) -> str:
        return f"({', '.join(map(self.of, shape))})"


def example(spec: Spec, turn: int = 0, sizes: Sequence[int] = SIZES) -> tuple[Case, Dims]:
    """A case of distinct small `sizes`, default options and every floating-point argument; `turn` varies the values."""
    described = arguments(spec)
    shapes = [parse(arg.dims, path) for path, arg in arg_leaves(described)]
    options = _defaults(spec)
    absent = frozenset(
        name for name, arg in described.items() if isinstance(arg, Arg) and arg.optional and arg.dtype in ("bool", "int32", "key")
    )
    error: SpecError | None = None
    for given in _sizes(spec, shapes, sizes):
        try:
            case = chosen(spec, turn, given, options, absent)
        except SpecError as refused:
            error = error or refused
            continue
        texts = {dim.text: dim.size(given)[-1] for shape in shapes for dim in shape}
        plain = {name: size for name, size in given.items() if isinstance(size, int)}
        named: dict[int, str] = {}
        for text, size in {**plain, **texts}.items():
            if size > 1 and not text.isdigit():
                named.setdefault(size, text)
        return case, Dims(named)
    raise error or SpecError(f"{spec.name}: no small sizes are within its sizes= and domain=")


def _sizes(spec: Spec, shapes: list[Any], sizes: Sequence[int]) -> Iterator[Sizes]:
    """Assignments of sizes to names, those first in which all dimensions differ."""
    plain, variadic = dimension_names(shapes)
    bounds = {name: spec.sizes.get(name, (1, max(sizes))) for name in (*plain, *variadic)}
    allowed = {name: [n for n in sizes if low <= n <= high] or [high] for name, (low, high) in bounds.items()}
    fixed = {int(dim.text) for shape in shapes for dim in shape if dim.text.isdigit()}

    def shaped(values: Sequence[int]) -> dict[str, Any]:
        return {name: (n,) if name in variadic else n for name, n in zip(allowed, values, strict=True)}

    for values in itertools.islice(_distinct(list(allowed.values()), fixed), TRIES):
        texts = {dim.text: dim.size(shaped(values))[-1] for shape in shapes for dim in shape}
        if len(set(texts.values())) == len(texts):
            yield shaped(values)
    yield from map(shaped, itertools.islice(itertools.product(*allowed.values()), TRIES))


def _distinct(allowed: list[list[int]], used: set[int]) -> Iterator[tuple[int, ...]]:
    if not allowed:
        yield ()
        return
    for n in allowed[0]:
        if n not in used:
            yield from ((n, *rest) for rest in _distinct(allowed[1:], used | {n}))


def _defaults(spec: Spec) -> dict[str, Any]:
    """Each option at the function's own default if that is among the values to try, else the first of them."""
    try:
        own = {name: parameter.default for name, parameter in inspect.signature(spec.fn).parameters.items()}
    except (TypeError, ValueError):
        own = {}
    return {option: own[option] if option in own and own[option] in values else values[0] for option, values in spec.options.items()}
