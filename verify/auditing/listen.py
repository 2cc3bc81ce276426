"""Hear every call of a custom rule while a program is traced or run.

Each call of a `jax.custom_vjp` or `jax.custom_jvp` object goes through its class; while somebody listens, the class tells him first. So rules are heard
at any depth, inside of `jax.grad` too, where no equation of the traced program would show them. What JAX has traced before is not traced again:
start with fresh caches.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util

from verify import _compat
from verify.auditing.closures import freed
from verify.auditing.rules import SITES, Rule, Signature, as_leaf, describe, identity, location, name_of, near, plain, positional, written
from verify.cases import Static

SILENT = (str(Path(jax.__file__).parent), __file__)  # whose lines are nobody's call
source_info_util.register_exclusion(__file__)  # equations keep the user's line, not the one that tells of the call
CALLBACKS = 3  # calls of one signature that tell their values
Heard = TypeVar("Heard", "Listener", "Tracing")


class Listener:
    """Collects rules. `values`: the largest call, in elements, whose traced arguments are sent to the host to be kept; 0 for none."""

    def __init__(self, values: int = 0) -> None:
        self.rules: dict[Any, Rule] = {}
        self._values = values
        self._asked: dict[Any, int] = {}
        self._lock = threading.Lock()

    def hear(self, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]) -> None:
        """One call of a rule, which `call(*args, **kwargs)` makes unheard. A call with the wrong arguments is left to JAX, which says so."""
        try:
            args = positional(rule.fun, args, kwargs)
        except TypeError:
            return
        described, key = describe(rule, args, set(getattr(rule, "nondiff_argnums", ())))
        kind = "custom_vjp" if isinstance(rule, jax.custom_vjp) else "custom_jvp"
        parts = (getattr(rule, part, None) for part in ("fun", "fwd", "bwd", "jvp"))
        who = (kind, *(identity(part) for part in parts if part is not None))
        with self._lock:
            known = self.rules.get(who)
            if known is None:
                known = self.rules[who] = _new_rule(rule, kind)
            signature = known.signatures.setdefault(key, Signature(args=described))
            signature.calls += 1
            if len(signature.sites) < SITES and (site := _caller()) not in signature.sites:
                signature.sites.append(site)
            asked = self._asked[who, key] = self._asked.get((who, key), 0) + 1
        if not signature.values:
            self._keep_values(signature, args, described, asked)

    def _keep_values(self, signature: Signature, args: tuple[Any, ...], described: tuple[Any, ...], asked: int) -> None:
        kept = [arg for arg, shape in zip(args, described, strict=True) if not isinstance(shape, Static)]
        leaves = [leaf for leaf in jax.tree.leaves(kept) if not isinstance(as_leaf(leaf), Static)]
        if any(jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) for leaf in leaves):
            return
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            signature.values = leaves
        elif asked <= CALLBACKS and sum(jnp.size(leaf) for leaf in leaves) <= self._values:

            def store(*values: Any) -> None:
                if not signature.values:
                    signature.values = [np.asarray(value) for value in values]

            jax.debug.callback(store, *leaves)


class Tracing:
    """Traces each rule where it is called: a rule may need what the program holds open for it then, as `flax.nnx.custom_vjp` does."""

    def __init__(self) -> None:
        self.equations: list[Any] = []

    def hear(self, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]) -> None:
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray | np.generic)}

        def flat(arrays: dict[int, Any]) -> Any:
            args, kwargs = jax.tree.unflatten(tree, [arrays.get(i, leaf) for i, leaf in enumerate(leaves)])
            return jax.tree.leaves(call(*args, **kwargs))

        shapes = {i: jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array)) for i, array in arrays.items()}
        jaxpr = jax.make_jaxpr(flat)(shapes)
        if not any(isinstance(const, jax.core.Tracer) for const in jaxpr.consts):
            self.equations += [equation for equation in jaxpr.eqns if equation.primitive.name in _compat.CUSTOM_RULES][:1]


def _new_rule(rule: Any, kind: str) -> Rule:
    return Rule(
        name=name_of(rule.fun), location=location(written(rule.fun)), place=location(plain(rule.fun)), kind=kind, function=freed(rule)
    )


def _caller() -> str:
    """ "file:line" of the call that is being heard: the innermost line outside of JAX."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(SILENT):
        frame = frame.f_back
    return f"{near(frame.f_code.co_filename)}:{frame.f_lineno}"


@contextmanager
def listening(listener: Heard) -> Iterator[Heard]:
    """While inside, `listener` hears every call of a custom rule in this process."""
    originals = {cls: cls.__call__ for cls in (jax.custom_vjp, jax.custom_jvp)}

    def telling(original: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            listener.hear(self, args, kwargs, functools.partial(original, self))
            return original(self, *args, **kwargs)

        return call

    for cls, original in originals.items():
        cls.__call__ = telling(original)  # type: ignore[method-assign]
    try:
        yield listener
    finally:
        for cls, original in originals.items():
            cls.__call__ = original  # type: ignore[method-assign]
