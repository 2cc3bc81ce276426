"""Does the rule leave the world as it found it: no tracer kept, no input changed in place, no setting changed?

JAX calls a rule when it traces, and may call it once, twice or in another order than the user wrote. Looked for:

- a tracer that is still reachable from the rule (a global, a closure, an attribute, a `functools.lru_cache`) when its trace has ended. It is dead: the next
  `scan`, `remat` or call that reads it raises UnexpectedTracerError. Cure: return residuals, do not store them; cache NumPy arrays, not JAX ones.
- a pullback that another call of the function disturbs, one of the same shapes or of others: what is kept outside of the residuals is the last call's.
- an argument or an upstream cotangent that changes when the rule runs without jit on NumPy arrays (`x -= mean`, `ct *= 2`), or a dict or list of the caller that
  gets another entry (`params["w"] = ...`). Compiled, the same line does nothing to them. Cure: `x = x - mean`, `params = {**params, "w": ...}`.
- a setting of JAX that is another one afterwards (`jax.config.update` inside a rule). Cure: a context such as `jax.default_matmul_precision`.

Run once. What a function keeps in C extensions, threads or files is not seen.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from verify import engine, programs
from verify._compat import enable_x64
from verify.cases import Case, draw
from verify.checks.compare import subscript
from verify.checks.effort import small
from verify.checks.reach import tracers
from verify.observation import Observation
from verify.oracles.autodiff import coarsest
from verify.printable import short
from verify.records import Finding, Status
from verify.tolerance import noise_bound
from verify.values import cast, wide

CODE, NAME, TITLE = "V024", "purity", "no tracer is kept, no input or setting is changed"
PATIENCE, LOOKS = 0.02, 8  # another thread may be in the middle of a trace: a kept tracer is there every time
NEXT = 16  # cases looked at for one of other sizes
ASIDE = 1 - 2.0**-8  # the disturbing call's arguments are these times the arguments
_settings_lock = threading.Lock()


def applies(observation: Observation) -> bool:
    case = observation.case
    return (bool(observation.measured) or _dead(observation)) and case.index == (0 if case.thorough else 1) and small(observation)


def _dead(observation: Observation) -> bool:
    """Whether the rule could not even be run, as it reads a tracer of another trace."""
    return observation.raised is not None and isinstance(observation.raised.cause, jax.errors.UnexpectedTracerError)


def judge(observation: Observation) -> list[Finding]:
    address = observation.case.address
    if _dead(observation):
        assert observation.raised is not None
        problems = [f"{kept}" for kept in _kept(observation)] or [str(observation.raised.cause)]
        return [Finding(check=NAME, status=Status.FAIL, message=problem, address=address) for problem in problems]
    with _settings_lock, _settings() as changes, enable_x64(not observation.no_float64), jax.default_device(engine.host()):
        problems = [*_leaks(observation), *_changed_inputs(observation), *_disturbed(observation)]
    problems += [
        f"jax.config: {name} is {new!r} after the rule ran{'' if old == new else f', and was {old!r} before'}; everything in the process computes "
        f"with it from then on. Use a context manager (with jax.default_matmul_precision(...):), or leave it to the caller"
        for name, old, new in changes
    ]
    if problems:
        return [Finding(check=NAME, status=Status.FAIL, message=problem, address=address) for problem in problems]
    return [Finding(check=NAME, status=Status.PASS, comparisons=4, address=address)]


# Kept tracers


def _leaks(observation: Observation) -> Iterator[str]:
    call = observation.call.call
    inputs = (_user(observation), observation.rest, observation.cts["base"])
    try:
        jax.make_jaxpr(programs.rule(call))(*inputs)
    except Exception as error:  # a rule that raises is the check structure's; a dead tracer that it reads is told here
        if isinstance(error, jax.errors.UnexpectedTracerError):
            yield f"the second trace raises UnexpectedTracerError: the rule reads what it kept from the first. {short(error)}"
            return
    yield from _kept(observation)


def _kept(observation: Observation) -> Iterator[str]:
    fn = observation.call.call.fn
    found: dict[str, Any] = {}
    for look in range(LOOKS):
        found = tracers(fn) if not look else {path: kept for path, kept in tracers(fn).items() if path in found}
        if not found:
            return
        time.sleep(PATIENCE)
    for path, kept in list(found.items())[:2]:
        shape = f"{kept.aval.str_short()}"
        yield (
            f"a tracer ({shape}) is still held by {path} after its trace ended. It is dead: whoever reads it in another trace gets an UnexpectedTracerError. "
            f"Return it as a residual, or keep a NumPy array"
        )


# Changed inputs


def _changed_inputs(observation: Observation) -> Iterator[str]:
    call, user = observation.call.call, _user(observation)
    leaves = list(call.statics)
    for slot, leaf in zip((*call.diff_slots, *call.rest_slots), (*user, *observation.rest), strict=True):
        leaves[slot] = leaf.copy() if isinstance(leaf, np.ndarray) else leaf
    args = jax.tree.unflatten(call.tree, leaves)
    paths = _paths(args)
    copies = {path: leaf.copy() for path, leaf in paths.items() if isinstance(leaf, np.ndarray)}
    try:
        call.fn(*args, **call.options)
    except Exception:  # a function of JAX arrays only: nothing of the caller's was given to it
        return
    after = _paths(args)
    names = observation.case.argument_names
    for path in dict.fromkeys([*paths, *after]):
        if path not in paths or path not in after or paths[path] is not after[path]:
            yield (
                f"called without jit, the function changes its caller's containers: {_name(path, names)} is another object afterwards. A dict or list that is "
                f"an argument belongs to the caller; make a new one: {{**params, ...}}"
            )
            break
    for path, copy in copies.items():
        yield from _mutated(_name(path, names), paths[path], copy, "called without jit on NumPy arrays, the function changes its argument")
    cts = [
        np.array(ct, dtype=out.dtype) for ct, out in zip(observation.cts["base"], observation.measured[0].runs["base"]["out"], strict=True)
    ]
    kept = [ct.copy() for ct in cts]
    arrays = [array.copy() for array in user]
    try:
        _, pullback = jax.vjp(lambda *leaves: call.run(leaves, observation.rest), *arrays)
        pullback(cts)
    except Exception:
        return
    for k, (ct, copy) in enumerate(zip(cts, kept, strict=True)):
        yield from _mutated(
            "y_ct" if len(cts) == 1 else f"y{k}_ct", ct, copy, "the backward, without jit on NumPy arrays, changes the upstream cotangent"
        )
    for name, array, copy in zip(call.names, arrays, user, strict=True):
        yield from _mutated(name, array, copy, "differentiated without jit on NumPy arrays, the rule changes the argument")


Path = tuple[Any, ...]


def _paths(args: tuple[Any, ...]) -> dict[Path, Any]:
    return {tuple(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(args)[0]}


def _name(path: Path, names: Sequence[str]) -> str:
    """Of a leaf of the arguments: "x", "params['w']"."""
    return names[path[0].idx] + jax.tree_util.keystr(path[1:])


def _mutated(name: str, now: np.ndarray, before: np.ndarray, what: str) -> Iterator[str]:
    a, b = wide(now), wide(before)
    differs = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if differs.any():
        index = tuple(int(i) for i in np.argwhere(differs)[0])
        yield (
            f"{what} {name} in place: {name}{subscript(index)} was {before[index]} and is {now[index]} ({int(differs.sum())} of {now.size} elements). "
            f"Under jit the same line changes nothing. Write {name} = {name} - ... instead of {name} -= ..."
        )


# Disturbed pullbacks


def _disturbed(observation: Observation) -> Iterator[str]:
    """The cotangents of one call, alone and with another call between its forward and its backward, operation by operation."""
    call, measured = observation.call.call, observation.measured[0]

    def forward(arrays: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        out, pullback = jax.vjp(lambda *leaves: call.run(leaves, observation.rest), *(jax.numpy.asarray(a) for a in arrays))
        cts = [jax.numpy.asarray(ct).astype(o.dtype) for ct, o in zip(observation.cts["base"], out, strict=True)]
        return lambda: [wide(gradient) for gradient in pullback(cts)]

    user = _user(observation)
    others = [("called once more", lambda: forward(cast([ASIDE * values for values in observation.diff], measured.dtypes)))]
    others += [(f"called at {case.describe()}", functools.partial(_forward_of, observation, case)) for case in _of_other_sizes(observation)]
    for how, disturb in others:
        try:
            alone = forward(user)()
            first = forward(user)
            disturb()
            disturbed = first()
        except Exception:  # jit says so: the check structure or jit
            continue
        for leaf, (name, want, got) in enumerate(zip(call.names, alone, disturbed, strict=True)):
            bound = noise_bound(want, measured.noise[leaf], observation.scale(leaf), coarsest(observation, measured))
            wrong = np.isfinite(want) & np.isfinite(bound) & ~(np.abs(got - want) <= bound)
            if wrong.any():
                index = tuple(int(i) for i in np.argwhere(wrong)[0])
                yield (
                    f"the cotangent of {name} is {want[index]:.10g} at {name}{subscript(index)}, but {got[index]:.10g} if the function is {how} before its "
                    f"backward runs: the rule reads what the last call left behind. Return residuals from the forward instead of storing them"
                )
                return


def _of_other_sizes(observation: Observation) -> list[Case]:
    """The next case of other sizes, if sizes are drawn at all."""
    case = observation.case
    if not case.sizes:
        return []
    following = draw(observation.spec, case.seed, range(case.index + 1, case.index + 1 + NEXT))
    found = (other for other in following if other.sizes != case.sizes and other.dtype == case.dtype and not other.beyond)
    return list(itertools.islice(found, 1))


def _forward_of(observation: Observation, case: Case) -> None:
    call, diff, rest = programs.bind(observation.spec, case)
    dtypes = [dtype for dtype in case.dtypes if dtype is not None]
    jax.vjp(lambda *leaves: call.run(leaves, rest), *(jax.numpy.asarray(array) for array in cast(diff, dtypes)))


def _user(observation: Observation) -> list[np.ndarray]:
    return cast(observation.diff, observation.measured[0].dtypes)


# Settings


@contextmanager
def _settings() -> Iterator[list[tuple[str, Any, Any]]]:
    """Collects (name, before, after) of the settings of JAX that this thread changes or sets again, and puts them back."""
    changes: list[tuple[str, Any, Any]] = []
    calls: dict[str, list[Any]] = {}
    before, update, thread = dict(jax.config.values), jax.config.update, threading.get_ident()

    def recorded(name: str, value: Any, *more: Any, **options: Any) -> None:
        if threading.get_ident() == thread:
            calls.setdefault(name, []).append(value)
        update(name, value, *more, **options)

    jax.config.update = recorded  # type: ignore[assignment]
    try:
        yield changes
    finally:
        del jax.config.update
        after = dict(jax.config.values)
        for name, values in calls.items():
            old, new = before.get(name), after.get(name)
            if old != new:
                update(name, old)
            if old != new or all(value == new for value in values):
                changes.append((name, old, new))
