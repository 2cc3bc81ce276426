"""What an operation claims about itself: its function, the formula it must agree with, and the inputs it accepts.

This module uses the standard library alone, so a package can declare specs without depending on JAX or on the rest of `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FLOAT_DTYPES = ("float64", "float32", "bfloat16", "float16")
USER_DTYPES = ("float32", "bfloat16", "float16")
INT_DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
COMPLEX_DTYPES = ("complex", "complex64", "complex128")
ARG_DTYPES = ("float", *FLOAT_DTYPES, *COMPLEX_DTYPES, *INT_DTYPES, "bool", "key")


class SpecError(ValueError):
    """The spec, the function or the arguments are not usable as given; the message says which and what to do."""


@dataclass(frozen=True, kw_only=True)
class Arg:
    """One array argument: its shape in named dimensions, its dtype, and the values it may take.

    dims: may be given by position; dimensions in jaxtyping syntax, separated by spaces: a name (`n`), a number (`3`), arithmetic of names (`kv*r`, `n-1`),
        `*batch` for any number of leading dimensions, `#n` for a dimension that may also be 1. "" is a scalar.
    dtype: "float" is drawn from the run's dtypes, "complex" is complex128, and complex64 where the others are float32 or coarser; a fixed one
        ("float32", "complex64", "int32", "bool", "key") stays as it is. Masks ("bool") are half full, nearly full or empty, now and then full, and some rows hold no True.
    low, high: bounds of the values, in the argument's own units. Draws touch them and stay inside. Without them numbers are at most 3 in magnitude in most draws, 30 in some,
        and 1e-100 to 1e10 in those of extreme magnitude: bound what a function cannot take. Of complex numbers they bound both parts. Of integers low <= value < high, and each may
        be text in the sizes: high="v" for indices into `v` rows; without bounds integers are taken for indices, which are in range for every dimension of the floating-point
        arguments, and below 10.
    special: edge values (0.0, inf, a label -100 that is ignored, ...) mixed into some draws; low and high need not hold for them.
    sample: `sample(rng, sizes, dtype) -> array` replaces all of the above: no zeros, ties or extreme values are drawn but by it. `rng` is a `numpy.random.Generator`; `sizes` maps
        dimension names to sizes, that of `*batch` to a tuple; `dtype` is text ("bfloat16", "complex64"), to which the result is rounded. What belongs together (sorted bounds, a
        positive definite matrix) is one argument's sample, or computed inside of `fn` and `reference`: it sees no other argument.
    optional: the argument may be None; some draws pass None.

    >>> Arg("*batch D", low=-2.0, high=2.0).dims
    '*batch D'
    """

    dims: str = field(default="", kw_only=False)
    dtype: str = "float"
    low: float | str | None = None
    high: float | str | None = None
    special: tuple[float, ...] = ()
    sample: Callable[[Any, Mapping[str, Any], str], Any] | None = None
    optional: bool = False

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """low and high where they are numbers; what is text has its number in each case."""
        low, high = (None if isinstance(bound, str) else bound for bound in (self.low, self.high))
        return low, high

    def __post_init__(self) -> None:
        if not isinstance(self.dims, str):
            raise SpecError(f'Arg.dims must be text such as "n d_in", got {self.dims!r} ({type(self.dims).__name__})')
        if self.dtype not in ARG_DTYPES:
            raise SpecError(f"Arg.dtype must be one of {', '.join(ARG_DTYPES)}; got {self.dtype!r}")
        if isinstance(self.special, (str, bytes)) or not isinstance(self.special, Sequence):
            raise SpecError(f"Arg.special must be a tuple of values, got {self.special!r}")
        if self.dtype in INT_DTYPES and not all(float(value).is_integer() for value in self.special):
            raise SpecError(f"Arg.special of {self.dtype} must hold whole numbers, got {self.special!r}")
        if self.special and (self.dtype in ("bool", "key") or self.sample is not None):
            raise SpecError(
                "Arg.special is mixed into numbers that are drawn: bool and key arguments have none, and with sample= that function draws them"
            )
        texts = [bound for bound in (self.low, self.high) if isinstance(bound, str)]
        if texts and self.dtype not in INT_DTYPES:
            raise SpecError(f"Arg.low and Arg.high may be text, as {texts[0]!r}, of integers only; the dtype is {self.dtype!r}")
        low, high = self.bounds
        if low is not None and high is not None and not low < high:
            raise SpecError(f"Arg.low must be below Arg.high, got low={self.low!r} and high={self.high!r}")


UNNAMED = (*USER_DTYPES,)  # this very tuple, of a spec that names no dtypes


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The claim of one operation: "the derivative of `fn` is what JAX derives from `reference`", for the inputs described.

    name: how the operation is called on the command line and in addresses; no "/" or white space.
    fn: the function under test; a `jax.custom_vjp` object, or any function that calls custom rules.
    reference: the plain formula, called with the same arguments; JAX differentiates it. Without it, `fn` itself is used with
        every custom rule inside it replaced by its primal.
    args: the arguments passed by position, in order: name -> `Arg`, or a dict, list or tuple of them (a pytree). Without it, they are
        read from jaxtyping annotations of `fn`; with it, named ones override their annotation and the rest are read. The backward may return None for those that are
        no floating-point arrays, and may be a rule with `symbolic_zeros=True`: such rules are also called with some arguments not differentiated.
    sizes: smallest and largest size of a named dimension, both included. Others are mostly 1 to 130, now and then up to 300, and 0 once
        unless the spec has a domain= or any of its arguments a sample=. For `*name`: bounds of its rank are fixed
        at 0 to 3, and the bounds given here hold for each of its dimensions.
    options: static options, which `fn` and `reference` get by keyword: name -> the values to try. Every combination is drawn.
    dtypes: the float dtypes that the operation claims besides float64: of "float32", "bfloat16", "float16", and "mixed", where each
        argument has another one (the output's is whatever `fn` gives). Of those that nobody named, a function may know some only (`jax.numpy.linalg` has no 16 bits): that is a SKIP.
    kinks: argument -> values at which the function has no derivative; draws keep away from them, and edge draws hit them. Undeclared ones are found: there every value between the
        derivatives to both sides is right, and where the reference's is NaN at single points, only these are left out.
    domain: `domain(sizes, options) -> bool`: which sizes and options belong together. Each combination of options is drawn with sizes that it accepts.
    residuals: largest allowed ratio of the bytes that the rule saves between forward and backward (beside its arguments) to those that JAX's
        autodiff of the reference saves; None for no limit.
    known_gaps: check -> reason: checks that do not apply, reported as SKIP with that reason.
    source: where the formula comes from (paper, derivation).
    example: argument -> values of one small worked example, shown by `verify explain`.

    Raises SpecError for a name that cannot be an address, a function that is not callable, or options that are not sequences.

    >>> Spec(name="twice", fn=lambda x: 2 * x, args={"x": Arg(dims="n")}).name
    'twice'
    """

    name: str
    fn: Callable[..., Any]
    reference: Callable[..., Any] | None = None
    args: Mapping[str, Any] | None = None
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    options: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    dtypes: tuple[str, ...] = UNNAMED
    kinks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    domain: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] | None = None
    residuals: float | None = None
    known_gaps: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtypes_named(self) -> bool:
        """Whether the spec's author chose the dtypes."""
        return self.dtypes is not UNNAMED

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise SpecError(f"Spec.name must be text, got {self.name!r} ({type(self.name).__name__})")
        if not callable(self.fn):
            raise SpecError(f"Spec {self.name!r}: fn must be callable, got {type(self.fn).__name__}")
        if not self.name or "/" in self.name or "@" in self.name or any(c.isspace() or not c.isprintable() for c in self.name):
            raise SpecError(f'Spec.name must be printable, without spaces, "/" or "@", got {self.name!r}')
        if self.reference is not None and not callable(self.reference):
            raise SpecError(f"Spec {self.name!r}: reference must be callable, got {type(self.reference).__name__}")
        if isinstance(self.dtypes, str) or not set(self.dtypes) <= {*USER_DTYPES, "mixed"}:
            raise SpecError(f"Spec {self.name!r}: dtypes must be a tuple of {', '.join(USER_DTYPES)}, mixed; got {self.dtypes!r}")
        for argument, points in self.kinks.items():
            if isinstance(points, (str, bytes)) or not isinstance(points, Sequence):
                raise SpecError(
                    f"Spec {self.name!r}: kinks[{argument!r}] must be a tuple of values, got {points!r}; write ({points!r},) for one"
                )
        for option, values in self.options.items():
            if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not values:
                raise SpecError(
                    f"Spec {self.name!r}: option {option!r} needs the values to try as a tuple, got {values!r}; write ({values!r},) for one value"
                )
        for dim, bounds in self.sizes.items():
            whole = isinstance(bounds, Sequence) and len(bounds) == 2 and all(type(b) is int for b in bounds)
            if not whole or not 0 <= bounds[0] <= bounds[1]:
                raise SpecError(
                    f"Spec {self.name!r}: sizes[{dim!r}] must be (smallest, largest) with 0 <= smallest <= largest, got {bounds!r}"
                )
