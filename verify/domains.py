"""Which sizes, options and absent arguments a spec allows, and which of them together (`domain=`)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from verify.sizes import Dim, Sizes
from verify.spec import Spec, SpecError

LONG = 64  # beyond it an axis is long: kernels have their edges there


def combinations_of(spec: Spec, optional: Sequence[str]) -> list[tuple[dict[str, Any], frozenset[str]]]:
    """Every combination of option values and of optional arguments being None."""
    options = [dict(zip(spec.options, values, strict=True)) for values in itertools.product(*spec.options.values())]
    absent = [
        frozenset(name for name, off in zip(optional, bits, strict=True) if off)
        for bits in itertools.product((False, True), repeat=len(optional))
    ]
    return list(itertools.product(options, absent))


class Meeting:
    """Which sizes to draw: those that the spec's domain= accepts with the options of the turn, or if that takes long, with any."""

    PATIENCE = 100

    def __init__(self, spec: Spec, shapes: Mapping[str, tuple[Dim, ...]]) -> None:
        self.spec, self.shapes = spec, shapes
        self.begin({})

    def begin(self, options: Mapping[str, Any]) -> None:
        self.options, self.refused = options, 0

    def admits(self, sizes: Sizes) -> bool:
        if not admits(self.spec, self.shapes, sizes):
            return False
        self.refused += 1
        return self.refused > self.PATIENCE or belong(self.spec, sizes, self.options)


def admits(spec: Spec, shapes: Mapping[str, tuple[Dim, ...]], sizes: Sizes) -> bool:
    """Whether these sizes give shapes, and the spec's domain= accepts them with some combination of options."""
    try:
        if any(size < 0 for shape in shapes.values() for dim in shape for size in dim.size(sizes)):
            return False
    except ZeroDivisionError:  # n//m at m = 0
        return False
    if spec.domain is None:
        return True
    options = (dict(zip(spec.options, values, strict=True)) for values in itertools.product(*spec.options.values()))
    return any(belong(spec, sizes, combination) for combination in options)


def belong(spec: Spec, sizes: Sizes, options: Mapping[str, Any]) -> bool:
    """What the spec's domain= says of sizes and options."""
    if spec.domain is None:
        return True
    try:
        return bool(spec.domain(sizes, options))
    except Exception as error:
        raise SpecError(
            f"{spec.name}: domain= raised {type(error).__name__}: {error}; it is called with the sizes {dict(sizes)} and the options {dict(options)}"
        ) from error


def along_long_axes(shapes: Mapping[str, Sequence[Dim]], sizes: Sizes) -> frozenset[str]:
    """Arguments that may be stretched along an axis that is long here, such as a bias or a mask: in every other case they are given, and in full."""
    return frozenset(
        argument_of(path)
        for path, dims in shapes.items()
        if any(dim.may_be_one and size > LONG for dim in dims for size in dim.size(sizes))
    )


def argument_of(path: str) -> str:
    """The argument that a leaf belongs to: "params" of "params['w']"."""
    return path.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]


def override(
    spec: Spec, drawn: dict[str, Any], sizes: Mapping[str, Any], plain: tuple[str, ...], variadic: tuple[str, ...]
) -> dict[str, Any]:
    """The drawn sizes with others in the place of some. Raises SpecError where one is none of these dimensions."""
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
