"""`verify explain`: an operation's worked example and derivation, computed now; or what a check looks for."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from verify import checks, engine, programs
from verify._compat import enable_x64
from verify.cases import Case
from verify.derive import transcript
from verify.derive.derivation import derive
from verify.derive.example import SMALLEST, example
from verify.diagnosis.evidence import Evidence
from verify.diagnosis.intermediates import lettered
from verify.diagnosis.patterns import sums
from verify.diagnosis.products import known_arrays, products
from verify.observation import Observation
from verify.oracles.finite_difference import slope
from verify.registry import installed, named, resolve
from verify.signature import arguments, nearest
from verify.slopes import slopes_along
from verify.spec import Arg, Spec, SpecError


@dataclass(frozen=True)
class Explained:
    """What there is to say; for an operation also as a page. `agrees`: whether the derivation, run, gives what the rule gives."""

    text: str
    page: str | None = None
    agrees: bool = True


def explain(name: str) -> str:
    """Text about an operation (by name or `pkg.mod:function`) or a check (by name or code). Raises SpecError for anything else."""
    return explained(name).text


def explained(name: str, html: bool = False) -> Explained:
    """The same, and (with `html`) an operation's derivation as a page. Raises SpecError for a page of a check."""
    if name in checks.BY_NAME or name in checks.BY_CODE:
        if html:
            raise SpecError(f"{name} is a check; --html shows the derivation of an operation")
        return Explained(_explain_check(checks.BY_NAME.get(name) or checks.BY_CODE[name]))
    found = named([name])
    if len(found) > 1:
        raise SpecError(f"{name} holds several; choose one of {', '.join(found)}")
    if found == (name,) and ":" not in name and name not in installed():
        known = [*installed(), *checks.BY_NAME, *checks.BY_CODE]
        raise SpecError(f'there is no operation or check "{name}".{nearest(name, known)}')
    return _explain_spec(resolve(found[0]), html)


WIDTH = 80
TURNS = 8  # drawings of the worked example's values, until no gradient is 0


def _explain_check(check: ModuleType) -> str:
    return f"{check.CODE} {check.NAME}: {check.TITLE}\n\n{inspect.cleandoc(check.__doc__ or '')}\n"


def _explain_spec(spec: Spec, html: bool) -> Explained:
    written = _written(spec.fn)
    worked = _example(spec)
    try:
        derived, reason = derive(spec), ""
    except SpecError as error:
        if html:
            raise
        derived, reason = None, f"Derivation from shapes\n  none: {error}"
    parts = [
        f"{spec.name}\n{'=' * len(spec.name)}",
        worked,
        _wrapped(written),
        transcript.render(derived) if derived else reason,
        _wrapped(_claims(spec)),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    if not derived:
        return Explained(text)
    from verify.derive import page  # jinja2, for pages alone

    return Explained(text, page.render(derived, written, worked) if html else None, derived.agrees)


def _written(fn: Any) -> str:
    """What its author says of a function: the derivation, where its module is a file of one operation, or its own docstring."""
    module = sys.modules.get(getattr(fn, "__module__", ""))
    derivation = (module and module.__doc__) or ""
    return inspect.cleandoc(derivation if "\nBackward" in derivation else getattr(getattr(fn, "__wrapped__", fn), "__doc__", None) or "")


def _claims(spec: Spec) -> str:
    lines = [f"  {path}: {arg.dims or 'scalar'} ({arg.dtype}{', or None' if arg.optional else ''})" for path, arg in _flat(arguments(spec))]
    lines += [f"  {option} in {', '.join(map(repr, values))}" for option, values in spec.options.items()]
    lines += [f"  {name} has no derivative at {', '.join(map(str, points))}" for name, points in spec.kinks.items()]
    lines += [f"  source: {spec.source}"] if spec.source else []
    return "What the spec claims\n" + "\n".join(lines)


def _flat(described: Mapping[str, Any]) -> Iterator[tuple[str, Arg]]:
    for name, arg in described.items():
        if isinstance(arg, Arg):
            yield name, arg
        else:
            yield from _flat({f"{name}[{k!r}]": v for k, v in (arg.items() if isinstance(arg, Mapping) else enumerate(arg))})


def _example(spec: Spec) -> str:
    """Inputs, output and each cotangent of a scalar loss L: by the rule, by autodiff and by finite differences, with the product that makes it."""
    for turn in range(1 if spec.example else TURNS):
        case = _example_case(spec, turn)
        try:
            call, program, diff, rest, cts = _compiled(spec, case)
        except programs.StageError as error:
            raise SpecError(f"{spec.name}: the {error.stage} cannot be run on an example ({case.describe()}): {error}") from error
        result = program(diff, rest, cts)
        if all(np.any(gradient) for gradient in result["reference"]):  # a mask that leaves nothing shows nothing
            break
    differences = _differences(program, case, diff, rest, cts)
    products_of = _formulas(spec, call, program, case, diff, rest, cts)
    lines = [
        _wrapped(
            "Worked example, L = "
            + ("sum of the output" if spec.example else "<y_ct, output>")
            + (f" ({case.describe()})" if case.sizes else "")
        )
    ]
    lines += [_matrix(f"  {name} {_shape(value)}", value) for name, value in zip(call.names, diff, strict=True)]
    others = [(name, value) for name, value in zip(call.call.rest_names, rest, strict=True) if isinstance(value, np.ndarray)]  # no keys
    lines += [_matrix(f"  {name} {_shape(value)}", value) for name, value in others]
    lines += [_matrix(f"  output {_shape(value)}", value) for value in result["out"]]
    if not spec.example:
        lines += [_matrix(f"  y_ct {_shape(value)}", value) for value in cts]
    for leaf, name in enumerate(call.names):
        how = products_of[leaf]
        lines.append(f"\n  dL/d{name}" + (f" = {how}" if how else ""))
        for source, value in (
            ("rule", result["rule"][leaf]),
            ("autodiff", result["reference"][leaf]),
            ("finite differences", differences[leaf]),
        ):
            with np.printoptions(nanstr="-" if source == "finite differences" else "nan"):  # not taken along every element
                lines.append(_matrix(f"    {source:<18}", value))
    return "\n".join(lines)


def _compiled(spec: Spec, case: Case) -> tuple[programs.Traced, engine.Program, list[np.ndarray], list[Any], list[np.ndarray]]:
    call, diff, rest = programs.bind(spec, case)
    with enable_x64(True):
        traced = programs.trace(call, diff, rest)
    rng = case.rng("explain")
    ones = [np.ones(s.shape) if spec.example else rng.integers(-9, 10, size=s.shape) / 4 for s in traced.shapes]
    return traced, engine.exact(programs.core(traced), diff, rest, ones), diff, rest, ones


def _formulas(
    spec: Spec,
    call: programs.Traced,
    program: engine.Program,
    case: Case,
    diff: list[np.ndarray],
    rest: list[Any],
    ones: list[np.ndarray],
) -> list[str]:
    """The product or sum that each cotangent is, found on random values: in an example of ones and zeros, too many products are equal."""
    rng = case.rng("formulas")
    for low in (-2.0, 0.5):  # of both signs, or positive where the function needs that
        drawn, cts = ([rng.uniform(low, 2.0, size=array.shape) for array in arrays] for arrays in (diff, ones))
        result = program(drawn, rest, cts)
        if all(np.isfinite(gradient).all() for gradient in result["reference"]):
            break
    observation = Observation(spec=spec, case=case, call=call, diff=drawn, rest=rest, cts={"base": cts}, rules=call.rules)
    evidence = Evidence(
        observation=observation,
        got=result["rule"],
        want=result["reference"],
        known=[np.ones(x.shape, bool) for x in drawn],
        loose=1e-9,
        slack=[0.0] * len(drawn),
    )
    with np.errstate(invalid="ignore"):  # a mask of infinities times 0
        return [_how(evidence, value) for value in evidence.want]


def _example_case(spec: Spec, turn: int) -> Case:
    if not spec.example:
        return example(spec, turn, SMALLEST)[0]
    names = tuple(arguments(spec))
    values = tuple(None if spec.example.get(name) is None else np.asarray(spec.example[name], np.float64) for name in names)
    return Case(
        name=spec.name, seed=0, index=0, args=values, argument_names=names, dtypes=tuple("float64" for _ in names), options=_first(spec)
    )


def _first(spec: Spec) -> dict[str, Any]:
    return {option: values[0] for option, values in spec.options.items()}


def _differences(program: engine.Program, case: Case, diff: list[np.ndarray], rest: list[Any], ones: list[np.ndarray]) -> list[np.ndarray]:
    """The gradient by finite differences, element by element (the first elements of large arrays; NaN beyond)."""
    found = [np.full(x.shape, np.nan) for x in diff]
    for measured in slopes_along(program, case, diff, rest, ones, "primal", "float64", every=True)[1:]:
        leaf, index = next((k, tuple(np.argwhere(v)[0])) for k, v in enumerate(measured.direction) if v.any())
        found[leaf][index] = slope(measured)[0] / measured.direction[leaf][index]
    return found


def _how(evidence: Evidence, value: np.ndarray) -> str:
    """The product or sum of known arrays that equals a cotangent, with shapes: "x^T @ y_ct: (2, 3)(3, 2)"."""
    known = known_arrays(evidence)
    for text, factors in products(evidence, value, known):
        shapes = "".join(_shape_of(name, known) for name in factors)
        return lettered(f"{text}: {shapes}")
    for ct in evidence.cotangents:
        for axes, summed in sums(ct, value.shape):
            if evidence.same(summed, value) and axes:
                return f"y_ct summed over axis {', '.join(map(str, axes))}: {_shape(ct)}"
    return ""


def _shape_of(name: str, known: Sequence[tuple[str, np.ndarray]]) -> str:
    value = next(array for label, array in known if label == name.removesuffix("^T"))
    shape = value.shape if value.ndim != 1 else (1, *value.shape)
    return str(shape[::-1] if name.endswith("^T") else shape)


def _shape(value: np.ndarray) -> str:
    return str(tuple(value.shape))


def _matrix(label: str, value: np.ndarray) -> str:
    """An array after its label; of more than two axes the first matrix."""
    if value.ndim > 2 and value.size:
        first = (0,) * (value.ndim - 2)
        label, value = f"{label} at [{', '.join(map(str, first))}]", value[first]
    rounded = np.round(np.asarray(value, np.float64), 5) + 0.0 if value.dtype.kind not in "bi" else value
    text = np.array2string(
        rounded, separator=", ", precision=5, suppress_small=True, threshold=40, edgeitems=2, max_line_width=max(WIDTH - len(label) - 1, 30)
    )
    return f"{label} " + text.replace("\n", "\n" + " " * (len(label) + 1))


def _wrapped(text: str) -> str:
    """Lines that are too long go on below, a little more to the right."""
    return "\n".join(
        textwrap.fill(
            line, WIDTH, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 4), break_long_words=False, break_on_hyphens=False
        )
        if len(line) > WIDTH
        else line
        for line in text.split("\n")
    )
