"""Whether an edit changes any cotangent at all: original and edited backward side by side in float64, on given inputs.

This needs no oracle and no check, so it costs a hundredth of a verification; it tells which cases can notice an edit, and which edits are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from verify import _compat, engine, programs
from verify.backward import edits, surgery
from verify.backward.opened import opened, pulled
from verify.cases import Case
from verify.noise import size_of_terms
from verify.observation import natural_scale
from verify.power import ends
from verify.power.mutant import Edit, changed, numbered, run
from verify.spec import Spec
from verify.tolerance import FLOOR_ULPS, NOISE_FACTOR
from verify.values import cast, largest, wide

EQUIVALENT = 1e-12  # relative to the array's largest: rounding of a sum in another order stays below, every wrong formula lies above
NOISE = 64.0  # the same in ulps, for rules that compute in a coarser dtype


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One case's backward pass, traced, with its residuals, its cotangents and its results.

    sizes: the natural size of each cotangent; fits: the edits that change something in the traced program, with what they are made on:
    equation (or array) and source.
    """

    case: Case
    jaxpr: Any
    residuals: list[np.ndarray]
    cts: list[np.ndarray]
    paths: list[str]
    names: list[str]
    want: list[np.ndarray]
    sizes: list[float]
    fits: dict[Edit, tuple[str, str]]


def prepare(spec: Spec, case: Case) -> Prepared:
    """Trace and run the unedited backward of a case. Raises StageError where the function raises."""
    found: dict[str, Any] = {}

    def spy(*args: Any, **options: Any) -> Any:
        call = opened(spec.fn, args, options)
        out, tree, pullback = call.forward()
        found["residuals"], found["tree"] = jax.tree.flatten(pullback)
        found["paths"] = call.paths
        return jax.tree.unflatten(tree, out)

    call, diff, rest = programs.bind(replace(spec, fn=spy), case)
    dtypes = [dtype or "float64" for dtype in case.dtypes if dtype is not None]
    diff = cast(diff, dtypes) if case.dtype == "float64" else diff

    def forward(diff: list[Any], rest: list[Any]) -> tuple[list[Any], list[Any]]:
        with programs.stage("rule"):
            return call.run(diff, rest), found["residuals"]

    out, residuals = engine.exact(forward, diff, rest)(diff, rest)
    rng = case.rng("power")
    cts = [rng.standard_normal(o.shape).astype(o.dtype) for o in out]  # every bit in use, so that rounding shows
    with _compat.enable_x64(True), programs.stage("rule"):
        jaxpr = jax.make_jaxpr(pulled(found["tree"]))(residuals, cts)
    want = engine.exact(lambda r, c: surgery.run(jaxpr, [*r, *c]), residuals, cts)(residuals, cts)
    fits = dict(_fitting(jaxpr, residuals, cts, found["paths"], list(call.names)))
    outputs = [wide(o) for o in out]
    # few ulps of huge terms that cancel are no mistake, as `noise` says
    ulps = NOISE_FACTOR / FLOOR_ULPS * size_of_terms(cts, outputs, diff) if case.style == "huge" else 0.0
    return Prepared(
        case=case, jaxpr=jaxpr, residuals=residuals, cts=cts, paths=found["paths"], names=list(call.names), want=[np.asarray(w) for w in want],
        sizes=[max(natural_scale(wide(x), cts, outputs), ulps) for x in diff], fits=fits,
    )  # fmt: skip


def _fitting(
    jaxpr: Any, residuals: Sequence[Any], cts: Sequence[Any], paths: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[Edit, tuple[str, str]]]:
    for place in surgery.places(jaxpr):
        for name in edits.edits_of(place.equation):
            yield Edit("equation", place.key, name), (surgery.equation_text(place.equation), place.key[0])
    used = {id(var) for equation in jaxpr.jaxpr.eqns for var in equation.invars} | {id(var) for var in jaxpr.jaxpr.outvars}
    variables = jaxpr.jaxpr.invars
    for i, (number, array) in enumerate(zip(numbered(residuals), residuals, strict=True)):
        for name in _ends(ends.RESIDUAL, array, residuals) if id(variables[i]) in used else ():
            yield Edit("residual", number, name), (f"residual {i}: {_type(array)}", "")
    for i, array in enumerate(cts):
        for name in _ends(ends.UPSTREAM, array, cts):
            yield Edit("upstream", i, name), (f"incoming cotangent{f' {i}' if len(cts) > 1 else ''}: {_type(array)}", "")
    for path, label, var in zip(paths, names, jaxpr.out_avals, strict=True):
        for name in _ends(ends.COTANGENT, var, jaxpr.out_avals):
            yield Edit("cotangent", path, name), (f"cotangent of {label}: {_type(var)}", "")


def _ends(table: Mapping[str, ends.End], array: Any, others: Sequence[Any]) -> list[str]:
    return [name for name, end in table.items() if array.size and end.fits(array, others)]


def _type(array: Any) -> str:
    return f"{array.dtype}[{','.join(str(size) for size in array.shape)}]"


def difference(prepared: Prepared, edit: Edit) -> float:
    """The largest relative change that an edit makes in a cotangent; infinite where it makes or removes a NaN; 0 if it is none."""
    if edit not in prepared.fits:
        return 0.0
    program = engine.exact(
        lambda r, c: run(prepared.jaxpr, r, c, prepared.paths, edit), prepared.residuals, prepared.cts
    )  # fmt: skip
    got, growth = program(prepared.residuals, prepared.cts), _growth(prepared.residuals, edit)
    return max((_relative(g, w, size * growth) for g, w, size in zip(got, prepared.want, prepared.sizes, strict=True)), default=0.0)


def _growth(residuals: Sequence[np.ndarray], edit: Edit) -> float:
    """How much larger a residual is with the edit: what cancels, is rounded by so much more."""
    if edit.where != "residual" or not jax.numpy.issubdtype(residuals[edit.target].dtype, np.floating):
        return 1.0
    with _compat.enable_x64(True):
        edited = changed("residual", residuals, numbered(residuals), edit)[edit.target]
    old, new = largest(wide(residuals[edit.target])), largest(wide(edited))
    return max(new / old, 1.0) if old else 1.0


def _relative(got: Any, want: Any, natural: float) -> float:
    got, want, eps = wide(got), wide(want), float(jax.numpy.finfo(want.dtype).eps)
    with np.errstate(all="ignore"):
        if not (np.isfinite(got) == np.isfinite(want)).all() or not (np.isnan(got) == np.isnan(want)).all():
            return float("inf")
        change, size = largest(np.where(np.isfinite(want), got - want, 0)), largest(want)
    if change <= max(size * max(EQUIVALENT, NOISE * eps), natural * FLOOR_ULPS * eps):  # of what is 0 up to rounding
        return 0.0
    return change / size if size else float("inf")
