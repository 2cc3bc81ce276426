"""An operation's derivation: the tape of its reference, its pullbacks in reverse order, and the cotangents that come out; all of it run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from verify import _compat, engine, programs
from verify._compat import enable_x64
from verify.cases import Case
from verify.derive import example, naming, notation
from verify.derive.example import Dims
from verify.derive.expressions import Expr, add, leaves, name, substitute
from verify.derive.reverse import Term, backward, run
from verify.derive.steps import Tape
from verify.derive.tape import record
from verify.derive.values import evaluate
from verify.spec import Spec, SpecError
from verify.tolerance import EPS, FLOOR_ULPS, RELATIVE_64

RUNS = 8  # values on which a select must take one branch everywhere to be written as that branch
INLINE = 56  # characters: a cotangent is written into the formula that uses it up to this length


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the derived value is from another one: the largest difference, and the largest that rounding explains."""

    of: str
    against: str
    error: float
    limit: float

    @property
    def agrees(self) -> bool:
        return self.error <= self.limit


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """`finals`: each argument's cotangent as one formula; `definitions`: the cotangents that it uses. `env`: every value, as it was run."""

    spec: Spec
    case: Case
    dims: Dims
    tape: Tape
    terms: list[Term]
    finals: dict[str, Expr]
    definitions: dict[str, Expr]
    env: Mapping[str, Any]
    moving: tuple[str, ...]
    comparisons: list[Comparison]
    precision: str

    @property
    def agrees(self) -> bool:
        """Whether the formulas, the operation's own rule and JAX's autodiff give the same cotangents."""
        return all(comparison.agrees for comparison in self.comparisons)


def derive(spec: Spec) -> Derivation:
    """The derivation of an operation from its reference (or, without one, from its own primal), run in float64. Raises SpecError where it cannot be run."""
    drawn = [example.example(spec, turn) for turn in range(RUNS)]
    (case, dims), call, runs = drawn[0], None, []
    for other, _ in drawn:
        bound = programs.bind(spec, other)
        call = call or bound[0]
        runs.append([*bound[1], *bound[2]])
    assert call is not None
    if call.pairs:
        raise SpecError(f"{spec.name}: no derivation is written for complex arguments yet")
    count = len(call.names)
    diff, rest = runs[0][:count], runs[0][count:]
    try:
        with enable_x64(True), programs.stage("reference"):
            jaxpr, shapes = jax.make_jaxpr(call.run_reference, return_shape=True)(diff, rest)
        with enable_x64(True):
            traced = programs.trace(call, diff, rest)
        rng = case.rng("derivation")
        cts = [rng.integers(-9, 10, size=s.shape) / 4 for s in shapes]
        truth = engine.exact(programs.core(traced), diff, rest, cts)(diff, rest, cts)
    except programs.StageError as error:
        raise SpecError(f"{spec.name}: the {error.stage} cannot be run on an example ({case.describe()}): {error}") from error
    precision = _precision(spec, jaxpr)
    inputs = [name(text, np.shape(value)) for text, value in zip([*call.names, *rest_names(case, call)], runs[0], strict=True)]
    with np.errstate(all="ignore"):
        tape = naming.finish(record(jaxpr, inputs, runs, count), len(shapes))
        return _run(spec, case, dims, tape, call.names, runs[0], cts, truth, precision)


def rest_names(case: Case, call: programs.Call) -> list[str]:
    """The paths of the arguments that are not differentiated."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(case.args, is_leaf=programs.is_leaf)[0]]
    return [case.argument_names[paths[slot][0].idx] + jax.tree_util.keystr(paths[slot][1:]) for slot in call.rest_slots]


def _run(
    spec: Spec, case: Case, dims: Dims, tape: Tape, moving: tuple[str, ...], values: Sequence[Any], cts: Sequence[Any], truth: Mapping[str, Any],
    precision: str,
) -> Derivation:  # fmt: skip
    """Forward, then backward, each formula as it is shown."""
    env: dict[str, Any] = {e.data: value for e, value in zip(tape.inputs, values, strict=True)}
    for step in tape.steps:
        env[step.name] = evaluate(step.value, env)
    seeds = [f"{y.data}_ct" for y in tape.outputs]
    env |= dict(zip(seeds, cts, strict=True))
    terms = backward(tape, moving)
    sums: dict[str, Expr] = {}
    env = run(terms, env)
    for term in terms:
        sums[term.target] = term.value if term.target not in sums else add(sums[term.target], term.value)
    finals, definitions = _together({f"{v}_ct": sums.get(f"{v}_ct") for v in moving}, sums, seeds, dims)
    size = max((float(np.max(np.abs(ct), initial=0.0)) for ct in cts), default=0.0)
    comparisons = [
        compare(y.data, "reference", env[y.data], truth["reference_out"][k], size, precision) for k, y in enumerate(tape.outputs)
    ]
    for k, v in enumerate(moving):
        for against, found in (("rule", truth["rule"][k]), ("jax.grad", truth["reference"][k])):
            comparisons.append(compare(f"{v}_ct", against, env.get(f"{v}_ct", np.zeros(np.shape(found))), found, size, precision))
        if f"{v}_ct" in finals:  # the formula in one piece
            comparisons.append(compare(f"{v}_ct", "one piece", _whole(finals[f"{v}_ct"], definitions, env, seeds), env[f"{v}_ct"], size))
    return Derivation(
        spec=spec, case=case, dims=dims, tape=tape, terms=terms, finals=finals, definitions=definitions, env=env, moving=moving, comparisons=comparisons, precision=precision
    )  # fmt: skip


def _precision(spec: Spec, jaxpr: Any) -> str:
    """float64, or float32 where the reference goes through it. Raises SpecError where it goes through 16 bits: nothing could be compared."""
    dtypes = {str(var.aval.dtype) for equation in _compat.walk(jaxpr) for var in equation.outvars}
    if low := sorted(dtypes & {"bfloat16", "float16"}):
        raise SpecError(f"{spec.name}: the reference rounds to {low[0]} on the way, so a derivation in float64 cannot be compared with it")
    return "float32" if "float32" in dtypes else "float64"


def compare(of: str, against: str, value: Any, want: Any, size: float, precision: str = "float64") -> Comparison:
    """`size` is that of the upstream cotangent: a gradient that is 0 by cancellation leaves some ulps of it."""
    want = np.asarray(want)
    with np.errstate(all="ignore"):
        difference = np.where(np.asarray(value) == want, 0.0, np.abs(value - want))  # equal infinities differ by nothing
    error = float(np.max(difference, initial=0.0)) if np.shape(value) == want.shape else np.inf
    largest = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
    relative = RELATIVE_64 if precision == "float64" else FLOOR_ULPS * EPS[precision]
    limit = relative * largest + FLOOR_ULPS * EPS[precision] * size
    return Comparison(of=of, against=against, error=np.inf if np.isnan(error) else error, limit=limit)


def _together(
    wanted: Mapping[str, Expr | None], sums: Mapping[str, Expr], seeds: Sequence[str], dims: Dims
) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """The arguments' cotangents, and the definitions of what they use. A cotangent that is used once, and is short, is written where it is used."""
    used = [leaf.data for e in sums.values() for leaf in leaves(e)]

    def written(e: Expr) -> Expr:
        tried = set(seeds)
        while todo := [leaf.data for leaf in leaves(e) if leaf.data in sums and leaf.data not in tried]:
            candidate = substitute(e, {todo[0]: sums[todo[0]]})
            alias = not sums[todo[0]].args
            if alias or (used.count(todo[0]) == 1 and len(notation.write(candidate, dims)) <= INLINE):
                e = candidate
            else:
                tried.add(todo[0])
        return e

    finals = {target: written(e) for target, e in wanted.items() if e is not None}
    definitions: dict[str, Expr] = {}
    pending = list(finals.values())
    while pending:
        for leaf in leaves(pending.pop(0)):
            if leaf.data in sums and leaf.data not in (*seeds, *definitions, *finals):
                definitions[leaf.data] = written(sums[leaf.data])
                pending.append(definitions[leaf.data])
    return finals, {target: definitions[target] for target in _sorted(definitions)}


def _whole(e: Expr, definitions: Mapping[str, Expr], env: Mapping[str, Any], seeds: Sequence[str]) -> Any:
    """The value of a final formula from the definitions beside it alone, not from cotangents found on the way."""
    own = {k: v for k, v in env.items() if not k.endswith("_ct") or k in seeds}
    for target, definition in definitions.items():
        own[target] = evaluate(definition, own)
    return evaluate(e, own)


def _sorted(definitions: Mapping[str, Expr]) -> list[str]:
    """Each after those that it uses."""
    order: list[str] = []

    def visit(target: str) -> None:
        if target in order:
            return
        for leaf in leaves(definitions[target]):
            if leaf.data in definitions:
                visit(leaf.data)
        order.append(target)

    for target in definitions:
        visit(target)
    return order
