"""Do integer, boolean and key arguments behave, when everything is differentiated and when they are batched?

JAX differentiates with respect to all leaves of a pytree of parameters and state, and a custom rule must live with it. What is known of JAX 0.7.2, 0.10.2 and
0.12, by experiment: a backward may return None, `float0` zeros, integer zeros or anything else for an argument without a derivative; `custom_vjp` throws it away
and hands out `float0` zeros, under jit, vmap, scan, remat and a second derivative alike. What JAX refuses, at once and everywhere (see the check structure): a
backward that leaves such an argument out of its tuple, arithmetic with the `float0` cotangent of an integer output, and a `custom_jvp` that returns an integer
tangent for an integer output. For a float argument, None means zero: a forgotten cotangent is a wrong number (see the check gradient).

What slips through, and is looked for here:

- the rule raises, or its cotangents become others, when integer leaves are differentiated too;
- the rule is wrong or raises when integers, masks or keys are batched by `jax.vmap` (the check vmap batches floats only): host code in a callback that does
  not expect a leading axis, a `custom_vmap` that takes a mask for unbatched. All examples have the same integers and masks, as others may not be allowed, and
  keys of their own.

Compared with the reference in float64, or in the dtype that the rule computes in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import engine, programs
from verify.checks.compare import compare, compare_twice, failed
from verify.checks.effort import small
from verify.checks.structure import raised
from verify.observation import Observation, add_seconds
from verify.oracles import autodiff
from verify.oracles.agreement import contradiction
from verify.records import Estimate, Finding, Status
from verify.tolerance import noise_bound
from verify.values import cast

CODE, NAME, TITLE = "V027", "nondifferentiable", "integer, boolean and key arguments do not disturb the derivative"
INDICES = (1, 4, 7, 12)  # several, since an optional argument is None in half of the cases
BATCH = 2

Gradient = Callable[[list[Any], list[Any], list[Any]], list[Any]]  # (diff, rest, cts) -> cotangents of diff
Run = Callable[[Sequence[Any], Sequence[Any]], list[Any]]  # (diff, rest) -> outputs


def applies(observation: Observation) -> bool:
    case = observation.case
    here = case.index == 0 if case.thorough else case.index in INDICES
    return here and small(observation) and bool(observation.rest) and bool(observation.measured) and not contradiction(observation)


def judge(observation: Observation) -> list[Finding]:
    if observation.truth is None or observation.exact_program is None:
        return [_skip(observation, observation.no_truth)]
    found = _with_all_leaves(observation)
    return found if failed(found) else found + _batched(observation)


def _with_all_leaves(observation: Observation) -> list[Finding]:
    inputs = (_user(observation), observation.rest, observation.cts["base"])
    types: list[str] = []
    try:
        program = _program(observation, _every(observation.call.call.run, types), inputs)
    except programs.StageError as error:
        return [_raises(observation, error.cause, "differentiated with respect to all arguments, integers too,", _every, inputs)]
    if types:
        message = f"an integer, boolean or key argument gets a cotangent of {types[0]}; it has none, and JAX writes that as float0. Return None for it"
        return [Finding(check=NAME, status=Status.FAIL, message=message, address=observation.case.address)]
    measured = observation.measured[0]
    what = "differentiated with respect to all arguments, integers too, the cotangent of"
    want = functools.partial(autodiff.gradient, observation, measured)
    return compare_twice(NAME, what, observation.call.names, program(*inputs), want, measured.dtype, observation.case.address)


def _every(run: Run, types: list[str] | None = None) -> Gradient:
    """The cotangents of the floats, when all leaves are differentiated. `types` gets the dtypes of the others that are not float0."""

    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> list[Any]:
        out, pullback = jax.vjp(run, diff, rest)
        floats, others = pullback(programs.as_outputs(cts, out))
        if types is not None:
            types.extend(str(other.dtype) for other in others if other.dtype != jax.dtypes.float0)
        return list(floats)

    return program


def _batched(observation: Observation) -> list[Finding]:
    rest = [_stack(leaf) for leaf in observation.rest]
    cts = [np.stack([ct, -ct]) for ct in observation.cts["base"]]
    inputs = (_user(observation), rest, cts)
    try:
        program = _program(observation, _mapped(observation.call.call.run), inputs)
    except programs.StageError as error:
        return [_raises(observation, error.cause, "with its integer, boolean and key arguments batched by jax.vmap,", _mapped, inputs)]
    exact, measured = observation.exact_program, observation.measured[0]
    assert exact is not None
    examples = [exact(observation.diff, [leaf[b] for leaf in rest], [ct[b] for ct in cts])["reference"] for b in range(BATCH)]
    dtype = autodiff.coarsest(observation, measured)
    value = tuple(np.stack([example[leaf] for example in examples]) for leaf in range(len(observation.diff)))
    error = tuple(
        noise_bound(want, np.full(want.shape, np.max(noise[np.isfinite(noise)], initial=0.0)), observation.scale(leaf), dtype)
        for leaf, (want, noise) in enumerate(zip(value, measured.noise, strict=True))
    )
    if autodiff.at_kink(observation):
        return [_skip(observation, "the inputs lie on a kink, where many gradients are right")]
    what = "with its integer, boolean and key arguments batched by jax.vmap, the cotangent of"
    return compare(
        NAME, what, observation.call.names, program(*inputs), Estimate(value=value, error=error), measured.dtype, observation.case.address
    )


def _mapped(run: Run) -> Gradient:
    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> list[Any]:
        def one(others: list[Any], seeds: list[Any]) -> list[Any]:
            out, pullback = jax.vjp(lambda *leaves: run(leaves, others), *diff)
            return list(pullback(programs.as_outputs(seeds, out)))

        return jax.vmap(one)(rest, cts)

    return program


def _stack(leaf: Any) -> Any:
    """The same integers for each example, or keys of their own."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(leaf, BATCH) if not leaf.shape else jnp.stack([leaf] * BATCH)
    return np.stack([np.asarray(leaf)] * BATCH)


def _user(observation: Observation) -> list[np.ndarray]:
    return cast(observation.diff, observation.measured[0].dtypes)


def _program(observation: Observation, function: Gradient, inputs: tuple[list[Any], list[Any], list[Any]]) -> engine.Program:
    def staged(diff: list[Any], rest: list[Any], cts: list[Any]) -> list[Any]:
        with programs.stage("rule"):
            return function(diff, rest, cts)

    with programs.stage("rule"):
        if observation.measured[0].dtype == "float64":
            program = engine.exact(staged, *inputs)
        else:
            program = engine.full(staged, *inputs, x64=not observation.no_float64)
    add_seconds(observation.seconds, program.seconds)
    return program


def _raises(
    observation: Observation,
    cause: BaseException,
    when: str,
    how: Callable[[Run], Gradient],
    inputs: tuple[list[Any], list[Any], list[Any]],
) -> Finding:
    """FAIL, unless the reference cannot do it either."""
    text = raised(cause, 400)
    call = observation.call.call

    def reference(diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        return (
            call.run_reference(diff, rest) if call.has_reference else programs.trace(call, list(diff), list(rest)).run_reference(diff, rest)
        )

    try:
        _program(observation, how(reference), inputs)
    except programs.StageError as other:
        return _skip(observation, f"{when} neither the rule nor the reference runs: {str(other)[:300]}")
    message = (
        f"{when} the rule raises {text}, and the reference does not. Treat these arguments as arrays without a derivative, of any batch"
    )
    return Finding(check=NAME, status=Status.FAIL, message=message, address=observation.case.address)


def _skip(observation: Observation, reason: str) -> Finding:
    return Finding(check=NAME, status=Status.SKIP, message=reason, address=observation.case.address)
