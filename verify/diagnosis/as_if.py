"""Is the rule right for other inputs than it was given: another option, a mask without holes, shifted indices, another upstream cotangent?

The reference is differentiated at inputs that a mistaken backward may have used in the place of the right ones. Each is a way to ignore, exchange or misread
what was given.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from verify import engine, programs
from verify._compat import enable_x64
from verify.diagnosis.comparisons import comparisons
from verify.diagnosis.evidence import Evidence
from verify.programs import PAIR
from verify.spec import SpecError
from verify.values import round_to

Try = tuple[str, str, list[np.ndarray]]  # a mistake, the same in every case; the sentence about this case; the gradient that it would give


def tries(e: Evidence) -> list[Try]:
    """The reference's gradients at other inputs."""
    return list(itertools.chain(_options(e), _masks_and_indices(e), comparisons(e), _adjoint(e), _cotangents(e), _arguments(e)))


def _options(e: Evidence) -> Iterator[Try]:
    observation = e.observation
    case, given = observation.case, observation.case.options
    for name, values in observation.spec.options.items():
        own = given[name]
        turned = [-own] if isinstance(own, int | float) and not isinstance(own, bool) and own and -own not in values else []
        for value in (*values, *turned):
            if repr(value) == repr(own):
                continue
            other = replace(case, options={**given, name: value})
            try:
                with enable_x64(True), jax.default_device(engine.host()):
                    call = programs.trace(programs.bind(observation.spec, other)[0], observation.diff, observation.rest)
                program = engine.exact(programs.core(call, with_rule=False), observation.diff, observation.rest, e.cotangents)
                gradient = program(observation.diff, observation.rest, e.cotangents)["reference"]
            except (programs.StageError, SpecError, TypeError, ValueError):  # outputs of another shape
                continue
            mistake = "takes this option the other way round" if value in turned else "ignores or misreads this option"
            yield (
                f"option {'-' * (value in turned)}{name}",
                f"the gradient is that for {name}={value!r} where {name}={own!r} is given: the rule {mistake}",
                gradient,
            )


def _masks_and_indices(e: Evidence) -> Iterator[Try]:
    """Masks that are not applied, or that are the other way round; indices that are one off."""
    observation = e.observation
    for k, (name, value) in enumerate(e.others):
        if not isinstance(value, np.ndarray):
            continue
        changes: list[tuple[str, np.ndarray]] = []
        if value.dtype == bool:
            changes = [
                (f"as if {name} were True everywhere: it is not applied", np.ones_like(value)),
                (f"as if {name} were False everywhere", np.zeros_like(value)),
                (f"as if {name} were the other way round", ~value),
            ]
        elif value.dtype.kind in "iu":
            changes = [
                (f"as if {name} were {name} - 1: its indices are one off", value - value.dtype.type(1)),
                (f"as if {name} were {name} + 1: its indices are one off", value + value.dtype.type(1)),
            ]
        for words, changed in changes:
            rest = [changed if i == k else other for i, other in enumerate(observation.rest)]
            yield words, f"the gradient is {words}", e.reference(observation.diff, rest, e.cotangents)


def _arguments(e: Evidence) -> Iterator[Try]:
    """One argument transposed, reversed, rounded or with another sign, or another one of the same shape in its place."""
    diff = e.observation.diff
    names = [name.removesuffix(PAIR) for name in e.names]
    for k, (name, x) in enumerate(zip(names, diff, strict=True)):
        changes = {f"-{name}": -x, f"|{name}|": np.abs(x)}
        if k in e.observation.call.call.pair_leaves:
            changes = {f"the complex conjugate of {name}": x * CONJUGATE}
        elif x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1:
            changes[f"{name}^T"] = np.swapaxes(x, -1, -2)
        if x.ndim and x.shape[-1] > 1:
            changes[f"{name} reversed along its last axis"] = x[..., ::-1]
        changes |= {f"rounded to {dtype}": _rounded(dtype)(x) for dtype in COARSE}
        changes |= {other: y for other, y in zip(names, diff, strict=True) if other != name and y.shape == x.shape}
        for words, changed in changes.items():
            if not np.array_equal(changed, x):
                sentence = f"as if {name} were {words}"
                moved = [changed if i == k else y for i, y in enumerate(diff)]
                yield sentence, f"the gradient is {sentence}", e.reference(moved, e.observation.rest, e.cotangents)


def _adjoint(e: Evidence) -> Iterator[Try]:
    """J^H y_ct = conj(J^T conj(y_ct)), of functions of complex numbers, which are pairs here."""
    pairs = e.observation.call.call.pair_leaves
    if pairs:
        cts = [ct * CONJUGATE if ct.shape[-1:] == (2,) else ct for ct in e.cotangents]
        gradient = e.reference(e.observation.diff, e.observation.rest, cts)
        sentence = "the gradient is J^H y_ct, with the Jacobian's adjoint, where J^T y_ct is wanted: JAX's VJPs conjugate nothing"
        yield sentence, sentence, [np.asarray(g) * CONJUGATE if k in pairs else g for k, g in enumerate(gradient)]


def _cotangents(e: Evidence) -> Iterator[Try]:
    def reference(cts: list[np.ndarray]) -> list[np.ndarray]:
        return e.reference(e.observation.diff, e.observation.rest, cts)

    cts = e.cotangents
    shapes = [ct.shape for ct in cts]
    given = [k for k, ct in enumerate(cts) if ct.any()]  # one, where the rule is looked at through one output
    for order in itertools.permutations(range(len(cts))) if 1 < len(cts) <= 4 else ():
        if order != tuple(range(len(cts))) and [shapes[k] for k in order] == shapes:
            words = "the rule takes the upstream cotangents of its outputs in the wrong order"
            if len(given) == 1:
                words = f"the rule takes the upstream cotangent of output {given[0]} for that of output {order.index(given[0])}"
            yield words, words, reference([cts[k] for k in order])
    for k in range(len(cts)) if len(cts) > 1 else ():
        words = f"the rule ignores the upstream cotangent of output {k}"
        yield words, words, reference([np.zeros_like(ct) if i == k else ct for i, ct in enumerate(cts)])
        if all(shape == shapes[0] for shape in shapes):
            words = f"the rule takes the upstream cotangent of output {k} for those of all outputs"
            yield words, words, reference([cts[k]] * len(cts))
    for words, change in CHANGED.items():
        if any(ct.size for ct in cts):
            sentence = f"as if the upstream cotangent were {words}"
            yield sentence, f"the gradient is {sentence}", reference([change(ct) if ct.size else ct for ct in cts])


def _rounded(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: round_to(x, dtype)


def _everywhere(one: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda ct: np.full_like(ct, one(ct))


CONJUGATE = np.array([1.0, -1.0])  # of (real, imaginary)
COARSE = ("float32", "float16", "bfloat16")  # the exactest first: what is right in one is right in the coarser ones for round numbers
CHANGED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "its mean everywhere": _everywhere(np.mean),
    "its sum everywhere": _everywhere(np.sum),
    "its first element everywhere": _everywhere(lambda ct: ct.flat[0]),
    "its last element everywhere": _everywhere(lambda ct: ct.flat[-1]),
    "its largest element everywhere": _everywhere(np.max),
    "0 where it is negative": lambda ct: np.maximum(ct, 0),
    "its magnitude": np.abs,
    "its sign": np.sign,
    **{f"rounded to {dtype}": _rounded(dtype) for dtype in COARSE},
}
