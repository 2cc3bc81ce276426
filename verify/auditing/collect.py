"""All custom rules of one program: those that are heard while it is traced, and those that only its equations show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import _compat
from verify.auditing.listen import Listener, Tracing, listening
from verify.auditing.rules import Rule, Signature, near
from verify.cases import Static
from verify.errors import SpecError
from verify.printable import short

LARGEST_VALUES = 2**22  # elements of a call whose values are kept


def collect(program: Callable[..., Any], args: Sequence[Any]) -> tuple[list[Rule], list[str]]:
    """The rules that `program(*args)` calls, with the values that it calls them with where `args` are concrete; and notes.

    JAX's caches are emptied first: what was traced before would not be heard.

    Raises SpecError where the program itself cannot be traced.
    """
    leaves, tree = jax.tree.flatten(tuple(args))
    traced = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)]

    def flat(*arrays: Any) -> Any:
        filled = list(leaves)
        for i, array in zip(traced, arrays, strict=True):
            filled[i] = array
        return [leaf for leaf in jax.tree.leaves(program(*jax.tree.unflatten(tree, filled))) if hasattr(leaf, "dtype")]

    arrays = [leaves[i] for i in traced]
    standing = functools.cache(lambda: _standing(flat, arrays))
    notes: list[str] = []
    concrete = not any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays)
    jax.clear_caches()
    with listening(Listener()) as listener:
        try:
            jaxpr = jax.make_jaxpr(flat)(*arrays)
        except Exception as error:
            raise SpecError(f"audit: the program raises {type(error).__name__}: {short(error, 500)}") from error
    if concrete and listener.rules:
        jax.clear_caches()
        with listening(Listener(LARGEST_VALUES)) as told:
            try:
                jax.block_until_ready(jax.jit(flat)(*arrays))
                jax.effects_barrier()
            except Exception as error:
                notes.append(f"the program's own values are not known ({type(error).__name__} when it ran to tell them); values were drawn")
        _take_values(listener, told)
        jax.clear_caches()  # programs that tell their values are nobody's business any more
    rules = [*listener.rules.values(), *_unheard(jaxpr, listener)]
    wide = functools.cache(lambda: _in_float64(program, args))
    for rule in rules:
        rule.in_float64 = lambda rule=rule: wide().get((rule.name, rule.place))
        rule.standing = lambda rule=rule: standing().get(rule.place)
    return rules, notes


def _in_float64(program: Callable[..., Any], args: Sequence[Any]) -> dict[Any, Rule]:
    """The rules that the program calls when all of its numbers are float64; none if it cannot be."""

    def widened(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, np.float64) if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf, np.float64)

    with _compat.enable_x64(True):
        try:
            rules, _ = collect(program, jax.tree.map(widened, tuple(args)))
        except SpecError:
            return {}
    return {(rule.name, rule.place): rule for rule in rules}


def _standing(flat: Callable[..., Any], arrays: Sequence[Any]) -> dict[str, Rule]:
    """By place the rules that the program calls, each as it stands at its first call, with all that the program holds open for it there."""
    jax.clear_caches()
    with listening(Tracing()) as tracing:
        try:
            jax.make_jaxpr(flat)(*arrays)
        except Exception:  # that a rule is called twice where the program calls it once may be too much for it
            return {}
    rules = [_as_it_stands(equation) for equation in tracing.equations]
    return {rule.place: rule for rule in reversed(rules)}


def _take_values(listener: Listener, told: Listener) -> None:
    """Values go to the same call of the same rule, or to one of the same shapes: static arguments may differ from run to run, as stacks do."""
    for who, rule in told.rules.items():
        wanting = listener.rules[who].signatures if who in listener.rules else {}
        by_shape = {_shapes(signature): signature.values for signature in rule.signatures.values() if signature.values}
        for key, signature in wanting.items():
            same = rule.signatures.get(key)
            signature.values = (same.values if same else []) or signature.values or by_shape.get(_shapes(signature), [])


def _shapes(signature: Signature) -> tuple[Any, ...]:
    leaves = jax.tree.leaves(signature.args, is_leaf=lambda node: isinstance(node, Static))
    return tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves if not isinstance(leaf, Static))


def _unheard(jaxpr: Any, listener: Listener) -> list[Rule]:
    """Rules of equations that nobody called through their object: verified as they stand in the program, at its shapes."""
    heard = {rule.place for rule in listener.rules.values()}
    found: dict[Any, Rule] = {}
    for equation in _compat.walk(jaxpr):
        if equation.primitive.name not in _compat.CUSTOM_RULES:
            continue
        rule = _as_it_stands(equation)
        if rule.place in heard:  # under vmap with other shapes than it was called with
            continue
        (shapes,) = rule.signatures
        rule = found.setdefault((rule.place, rule.name, shapes), rule)
        signature = rule.signatures[shapes]
        signature.calls += 1
        if (site := _compat.source_line(equation)) and site not in signature.sites:
            signature.sites.append(site)
    return list(found.values())


def _as_it_stands(equation: Any) -> Rule:
    """The rule of one equation, at its shapes; called by nobody yet."""
    name, (path, _, line) = _compat.rule_source(equation)[0], _compat.rule_source(equation)[1].rpartition(":")
    place = f"{near(path)}:{line}" if path else ""
    kind = "custom_jvp" if "jvp" in equation.primitive.name else "custom_vjp"
    shapes = tuple(f"{v.aval.dtype}{tuple(v.aval.shape)}" for v in equation.invars)
    signature = Signature(args=tuple(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars))
    bound = functools.partial(_call, equation)
    return Rule(name=name, location=place, place=place, kind=kind, function=bound, whole=False, signatures={shapes: signature})


def _call(equation: Any, *leaves: Any) -> list[Any]:
    return _compat.bind(equation, leaves, equation.params)
