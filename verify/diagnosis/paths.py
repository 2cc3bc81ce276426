"""Which path of the forward does the rule drop, or count too often?

The reference is differentiated again with the derivative of one intermediate cut. A gradient is a sum over paths, so scaling the derivative of an
intermediate by m gives cut + m (right - cut); where some m fits the rule, that intermediate is the mistake: 0 drops the path through it (it is treated
as a constant), 2 counts it twice, -1 flips its sign, and a size of the case means a sum for a mean. Of an elementwise function the derivative may be 1, too: its
factor in the chain rule is forgotten. Where no single one fits, two are cut together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from verify import _compat, engine
from verify.diagnosis.evidence import Evidence, Explained
from verify.diagnosis.factors import fitted, readings
from verify.diagnosis.intermediates import describe
from verify.strip import evaluate
from verify.tolerance import SAME_PATH

NEAR = 1e-4  # relative: autodiff of the reference is what the rule should be
LIMIT = 200  # equations
ELEMENTWISE = (
    "cbrt",
    "cos",
    "cosh",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "integer_pow",
    "log",
    "log1p",
    "logistic",
    "rsqrt",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
)
PAIRS = 24  # intermediates of which pairs are cut
WORDS = {
    0: "treats {} as a constant: its derivative is dropped",
    2: "counts the path through {} twice",
    -1: "has the wrong sign on the path through {}",
}


def paths(e: Evidence, known: Explained | None = None) -> Explained:
    """Sentences that name equations of the reference, by equation and factor; with `known`, those of them that hold here, too."""
    names, smooth, cut = _program(e)
    found: Explained = {}
    if not all(np.allclose(a, b, rtol=NEAR, atol=NEAR * np.max(np.abs(b), initial=0.0)) for a, b in zip(cut(), e.want, strict=True)):
        return found  # autodiff of the reference is wrong itself here, and a cut of it explains nothing
    distinct: list[tuple[int, list[np.ndarray]]] = []  # intermediates whose cuts differ
    for k, name in enumerate(names):
        gradient = cut(k)
        if all(np.array_equal(a, b) for a, b in zip(gradient, e.want, strict=True)):
            continue
        for key, words in _fitting(e, gradient):
            found.setdefault(f"{key} {name}", "the rule " + words.format(f"the reference's {name}"))
        if k in smooth and e.equals_rule(cut(k, instead=1)):
            words = f"the rule passes the cotangent of the reference's {name} on as that of its argument: the factor of its own derivative is forgotten"
            found.setdefault(f"through {name}", words)
        if not any(_equal(gradient, other) for _, other in distinct):
            distinct.append((k, gradient))
    if known is not None:
        pairs = [(a, b) for a, b in itertools.combinations(range(len(names)), 2) if _both(names[a], names[b]) in known]
    else:
        pairs = [(a, b) for (a, _), (b, _) in itertools.combinations(distinct[:PAIRS], 2)] if not found else []
    for a, b in pairs:
        if e.equals_rule(cut(a, b)):
            words = f"the rule treats the reference's {names[a]}, and its {names[b]}, as constants: their derivatives are dropped"
            found.setdefault(_both(names[a], names[b]), words)
    return found


def _both(a: str, b: str) -> str:
    return f"0 {a} and {b}"


def _program(e: Evidence) -> tuple[list[str], set[int], Callable[..., list[np.ndarray]]]:
    """The reference's intermediates in words, which of them are elementwise functions of one array, and its gradient with the derivatives of some of them 0 or 1.

    All share one program, with a factor for each.
    """
    observation = e.observation
    call = observation.call
    names: list[str] = []
    smooth: set[int] = set()

    def program(diff: list[Any], rest: list[Any], cts: list[Any], keep: Any, instead: Any) -> list[Any]:
        def scale(equation: Any, inputs: list[Any], outputs: list[Any]) -> list[Any]:
            if len(names) >= LIMIT - 1 or not any(jnp.issubdtype(value.dtype, jnp.floating) for value in outputs):
                return outputs
            m = keep[len(names)]
            names.append(describe(equation))
            if equation.primitive.name in ELEMENTWISE and inputs[0].dtype == outputs[0].dtype:
                smooth.add(len(names) - 1)
                return [_scaled(outputs[0], m) + _scaled(_no_value(inputs[0]), (1 - m) * instead)]
            if equation.primitive.name == "scan" and _compat.scan_parts(equation.params)[1]:
                outputs = _scan(equation, inputs, keep[len(names)])
                names.append(f"state, carried from step to step in its {names[-1]},")
            return [_scaled(value, m) for value in outputs]

        def cut(*leaves: Any) -> list[Any]:
            names.clear()
            jaxpr = jax.make_jaxpr(call.run_reference)(list(leaves), rest)
            return evaluate(jaxpr, jax.tree.leaves((leaves, rest)), scale)

        _, pullback = jax.vjp(cut, *diff)
        return list(pullback(cts))

    arguments = (observation.diff, observation.rest, e.cotangents)
    compiled = engine.exact(program, *arguments, np.ones(LIMIT), np.zeros(()), runs=engine.MANY)

    def without(*which: int, instead: float = 0) -> list[np.ndarray]:
        keep = np.ones(LIMIT)
        keep[list(which)] = 0
        return [np.asarray(g) for g in compiled(*arguments, keep, np.asarray(float(instead)))]

    return list(names), smooth, without


def _scan(equation: Any, inputs: list[Any], m: Any) -> list[Any]:
    """A loop again, the derivative of its state times m from each step to the next; that of its first state is whole."""
    constants, carried = _compat.scan_parts(equation.params)
    body = core.jaxpr_as_fun(_compat.closed(equation.params["jaxpr"]))

    def step(carry: Any, x: Any) -> Any:
        first, state = carry
        scaled = [_scaled(value, jnp.where(first, 1, m)) for value in state]
        out = body(*inputs[:constants], *scaled, *x)
        return (jnp.zeros_like(first), out[:carried]), out[carried:]

    start = (jnp.ones((), bool), inputs[constants : constants + carried])
    rest = inputs[constants + carried :]
    (_, state), stacked = jax.lax.scan(step, start, rest, length=equation.params["length"], reverse=equation.params["reverse"])
    return [*state, *stacked]


def _scaled(value: Any, m: Any) -> Any:
    """The same value, its derivative times m."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    m = m.astype(value.dtype)
    return m * value + (1 - m) * jax.lax.stop_gradient(value)


def _no_value(x: Any) -> Any:
    """0, with the derivative of x."""
    return jnp.where(jnp.isfinite(x), x - jax.lax.stop_gradient(x), 0)


def _fitting(e: Evidence, cut: list[np.ndarray]) -> Iterator[tuple[str, str]]:
    """The factor m that makes the rule's gradient of the right one, and words for it."""
    if not all(np.isfinite(g).all() for g in (*cut, *e.got, *e.want)):
        return
    twice = [2 * (w - c) if e.wrong(leaf) else w for leaf, (c, w) in enumerate(zip(cut, e.want, strict=True))]
    if e.equals_rule(twice) and any(cut[leaf].any() for leaf in range(len(cut)) if e.wrong(leaf)):
        yield "2 alone", "counts the path through {} twice and leaves out the others, as if both were the same"
        return
    if e.equals_rule([c if e.wrong(leaf) else w for leaf, (c, w) in enumerate(zip(cut, e.want, strict=True))]):
        names = [e.names[leaf] for leaf in range(len(cut)) if e.wrong(leaf)]
        elsewhere = any(w.size and not e.wrong(leaf) and not e.same(c, w) for leaf, (c, w) in enumerate(zip(cut, e.want, strict=True)))
        only = f" in the cotangent of {' and of '.join(names)}, and of no other argument" if elsewhere else ""
        yield f"0{only}", f"treats {{}} as a constant{only}: its derivative is dropped"
        return
    m = fitted(e, cut, e.want, e.got)
    if m is None or not e.equals_rule([c + m * (w - c) for c, w in zip(cut, e.want, strict=True)]):
        return
    for whole, words in WORDS.items():
        if abs(m - whole) < 1e-6:
            yield str(whole), words
            return
    several = sum(int(e.wrong_elements(leaf).sum()) for leaf in range(len(e.got))) > 1  # of a single number, some factor makes any other
    if several and abs(m) > 1e-6:
        sign = ", with the wrong sign" if m < 0 else ""
        for name in readings(e, abs(m)):
            yield f"{'-' if m < 0 else ''}{name}", f"has the path through {{}} times {name}{sign}"


def _equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.allclose(x, y, rtol=SAME_PATH, atol=0, equal_nan=True) for x, y in zip(a, b, strict=True))
