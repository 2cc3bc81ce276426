"""What is traced: the rule and the reference side by side, as functions of flat lists of arrays.

`diff` are the floating-point leaves of the arguments, `rest` the other arrays (integers, booleans, keys): all are arguments, as XLA
would fold a constant. Each stage runs under its own name, so that an exception is blamed on the function that raised it.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import _compat
from verify.cases import Case, Static
from verify.errors import InternalError
from verify.signature import parameters
from verify.spec import FLOAT_DTYPES, Spec, SpecError
from verify.strip import count_custom_rules, evaluate
from verify.values import Key

PAIR = " (as real, imaginary)"  # after the names of complex arguments, which are pairs here
RULE_PART, REFERENCE_PART = "verify_rule", "verify_reference"  # name scopes in the core program


class StageError(Exception):
    """A user's function raised; `stage` says which: "primal", "rule" (its forward or backward) or "reference"."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.stage, self.cause = stage, cause


@contextmanager
def stage(name: str) -> Iterator[None]:
    try:
        yield
    except (StageError, SpecError, InternalError):
        raise
    except SystemExit as error:
        raise StageError(name, error) from error
    except Exception as error:
        if _ours(error):
            raise InternalError(f"verify failed while it traced the {name}: {type(error).__name__}: {error}") from error
        raise StageError(name, error) from error


def _ours(error: Exception) -> bool:
    """Whether verify's own code raised, rather than code that it called. JAX hides its own frames, and says so in a note."""
    if any("JAX has removed" in note for note in getattr(error, "__notes__", ())):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent == Path(__file__).parent


@dataclass(frozen=True)
class Call:
    """A spec's function and reference bound to one case's structure and options.

    names: the path of each floating-point leaf ("x", "params['w']"), rest_names: of each other array; slots: the positions of `diff` and `rest`
        among all leaves.
    A complex argument or output is an array of (real, imaginary) pairs here, so that every oracle and check deals with real numbers; `pairs` are the
    slots of such arguments.
    """

    fn: Callable[..., Any]
    reference: Callable[..., Any]
    has_reference: bool
    names: tuple[str, ...]
    diff_slots: tuple[int, ...]
    rest_slots: tuple[int, ...]
    statics: tuple[Any, ...]
    tree: Any
    options: dict[str, Any]
    pairs: frozenset[int] = frozenset()
    rest_names: tuple[str, ...] = ()

    @property
    def pair_leaves(self) -> frozenset[int]:
        """Which of `diff` are pairs."""
        return frozenset(k for k, slot in enumerate(self.diff_slots) if slot in self.pairs)

    def _args(self, diff: Sequence[Any], rest: Sequence[Any]) -> tuple[Any, ...]:
        leaves = list(self.statics)
        for slot, leaf in zip((*self.diff_slots, *self.rest_slots), (*diff, *rest), strict=True):
            leaves[slot] = _complex(leaf) if slot in self.pairs else leaf
        return jax.tree.unflatten(self.tree, leaves)

    def run(self, diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        """The floating-point outputs of fn, in order."""
        return _float_leaves(self.fn(*self._args(diff, rest), **self.options))

    def run_reference(self, diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        """The same of the given reference."""
        return _float_leaves(self.reference(*self._args(diff, rest), **self.options), "the reference")


@dataclass(frozen=True)
class Traced:
    """A call traced once, for arguments of certain shapes and dtypes: from here on no Python of the user's function runs again.

    shapes: of the floating-point outputs; rules: how many custom rules the function calls.
    """

    call: Call
    jaxpr: Any
    shapes: list[Any]

    @property
    def names(self) -> tuple[str, ...]:
        return self.call.names

    @property
    def has_reference(self) -> bool:
        return self.call.has_reference

    @property
    def rules(self) -> int:
        return count_custom_rules(self.jaxpr)

    @property
    def forward_rules(self) -> bool:
        """Whether the function calls custom_jvp rules and no custom_vjp, which would have no forward mode."""
        names = {equation.primitive.name for equation in _compat.walk(self.jaxpr)}
        return "custom_jvp_call" in names and not names & (set(_compat.CUSTOM_RULES) - {"custom_jvp_call"})

    def run(self, diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        """fn, with its custom rules."""
        return evaluate(self.jaxpr, [*diff, *rest], keep_rules=True)

    def run_reference(self, diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        """The given reference, or fn without its custom rules."""
        if not self.has_reference:
            return evaluate(self.jaxpr, [*diff, *rest])
        shaped = [[jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves] for leaves in (diff, rest)]
        return evaluate(jax.make_jaxpr(self.call.run_reference)(*shaped), [*diff, *rest], keep_rules=True)


def trace(call: Call, diff: list[Any], rest: list[Any]) -> Traced:
    """Trace fn. What it raises is a StageError of "primal"."""
    with stage("primal"):
        jaxpr, shapes = jax.make_jaxpr(call.run, return_shape=True)(diff, rest)
    if strange := {str(shape.dtype) for shape in shapes} - set(FLOAT_DTYPES):
        raise SpecError(
            f"the function returns {', '.join(sorted(strange))}, in which no derivative can be verified; known: {', '.join(FLOAT_DTYPES)}"
        )
    return Traced(call=call, jaxpr=jaxpr, shapes=shapes)


def _float_leaves(output: Any, whose: str = "the function") -> list[Any]:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(output) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    if not leaves:
        raise SpecError(f"{whose} returns no floating-point array, so there is no derivative to verify")
    return [jnp.stack([leaf.real, leaf.imag], -1) if jnp.iscomplexobj(leaf) else leaf for leaf in leaves]


def _complex(pairs: Any) -> Any:
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def is_leaf(node: Any) -> bool:
    """Whether a node of a case's arguments is one of its own leaves."""
    return isinstance(node, (Key, Static))


def bind(spec: Spec, case: Case) -> tuple[Call, list[np.ndarray], list[Any]]:
    """The call, and the case's values for `diff` (float64) and `rest`."""
    leaves, tree = jax.tree.flatten(case.args, is_leaf=is_leaf)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(case.args, is_leaf=is_leaf)[0]]
    names = [case.argument_names[path[0].idx] + jax.tree_util.keystr(path[1:]) for path in paths]
    pairs = frozenset(i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype == np.complex128)
    for i in pairs:
        leaves[i], names[i] = np.stack([leaves[i].real, leaves[i].imag], -1), f"{names[i]}{PAIR}"
    floats = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype == np.float64]
    rest = [i for i, leaf in enumerate(leaves) if i not in floats and not isinstance(leaf, Static)]
    if not floats:
        given = ", ".join(f"{name}: {getattr(leaf, 'dtype', type(leaf).__name__)}" for name, leaf in zip(names, leaves, strict=True))
        raise SpecError(f"{spec.name}: no argument is a floating-point array, so there is no derivative to verify; got {given}")
    statics = tuple(leaf.value if isinstance(leaf, Static) else None for leaf in leaves)
    call = Call(
        fn=spec.fn, reference=spec.reference or spec.fn, has_reference=spec.reference is not None, names=tuple(names[i] for i in floats),
        diff_slots=tuple(floats), rest_slots=tuple(rest), statics=statics, tree=tree, options=dict(case.options), pairs=pairs, rest_names=tuple(names[i] for i in rest),
    )  # fmt: skip
    _check_arity(spec, case)
    values = [jax.random.key(leaves[i].seed) if isinstance(leaves[i], Key) else leaves[i] for i in rest]
    return call, [np.asarray(leaves[i]) for i in floats], values


def _check_arity(spec: Spec, case: Case) -> None:
    for role, function in (("fn", spec.fn), ("reference", spec.reference)):
        if function is None:
            continue
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError):
            continue
        try:
            signature.bind(*case.args, **case.options)
        except TypeError as error:
            options = f" and options {sorted(case.options)} by keyword" if case.options else ""
            raise SpecError(
                f"{spec.name}: {role}{parameters(signature)} cannot be called with the arguments {', '.join(case.argument_names)} by position{options}: {error}"
            ) from None


def core(call: Traced, with_rule: bool = True, with_reference: bool = True) -> Callable[..., dict[str, Any]]:
    """Primal, forward and backward of the rule, and value and gradient of the reference, for one cotangent.

    The two parts are traced under scopes of their own, so that their equations can be told apart.
    """

    def rule_part(diff: list[Any], rest: list[Any], cts: list[Any]) -> dict[str, Any]:
        with stage("primal"):
            primal = call.run(diff, rest)
        with stage("rule"):
            out, gradient = rule(call)(diff, rest, cts)
        return {"primal": primal, "out": out, "rule": gradient}

    def reference_part(diff: list[Any], rest: list[Any], cts: list[Any]) -> dict[str, Any]:
        with stage("reference"):
            out, gradient = reference(call)(diff, rest, cts)
        return {"reference_out": out, "reference": gradient}

    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if with_rule:
            with jax.named_scope(RULE_PART):
                result |= rule_part(diff, rest, cts)
        if with_reference:
            with jax.named_scope(REFERENCE_PART):
                result |= reference_part(diff, rest, cts)
        return result

    return program


def rule(call: Traced | Call) -> Callable[..., tuple[list[Any], list[Any]]]:
    """(diff, rest, cts) -> outputs and cotangents of the arguments, by the hand-written rule."""

    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> tuple[list[Any], list[Any]]:
        out, pullback = jax.vjp(lambda *leaves: call.run(leaves, rest), *diff)
        return out, list(pullback(as_outputs(cts, out)))

    return program


def reference(call: Traced) -> Callable[..., tuple[list[Any], list[Any]]]:
    """The same by JAX's autodiff of the reference."""

    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> tuple[list[Any], list[Any]]:
        out, pullback = jax.vjp(lambda *leaves: call.run_reference(leaves, rest), *diff)
        _same_shapes(call.shapes, out)
        return out, list(pullback(as_outputs(cts, out)))

    return program


def second_order(call: Traced) -> Callable[..., dict[str, Any]]:
    """Gradients of <weights, cotangents of the arguments> with respect to arguments and cotangent: reverse over reverse."""

    def over(first: Callable[..., Any], name: str) -> Callable[..., Any]:
        def program(diff: list[Any], rest: list[Any], cts: list[Any], weights: list[Any]) -> Any:
            def scalar(leaves: list[Any], seeds: list[Any]) -> Any:
                gradient = first(call)(leaves, rest, seeds)[1]
                return sum(jnp.vdot(w, g) for w, g in zip(weights, gradient, strict=True))

            with stage(name):
                by_argument, by_cotangent = jax.grad(scalar, argnums=(0, 1))(diff, cts)
            return [*by_argument, *by_cotangent]

        return program

    def both(diff: list[Any], rest: list[Any], cts: list[Any], weights: list[Any]) -> dict[str, Any]:
        return {
            "rule": over(rule, "rule")(diff, rest, cts, weights),
            "reference": over(reference, "reference")(diff, rest, cts, weights),
        }

    return both


def as_outputs(cts: Sequence[Any], out: Sequence[Any]) -> list[Any]:
    return [jnp.asarray(ct).astype(o.dtype) for ct, o in zip(cts, out, strict=True)]


def _same_shapes(out: list[Any], reference_out: list[Any]) -> None:
    function, reference = (", ".join(str(tuple(leaf.shape)) for leaf in leaves) for leaves in (out, reference_out))
    if function != reference:
        raise SpecError(f"the reference returns floating-point outputs of shape {reference}, the function {function}; they must agree")
