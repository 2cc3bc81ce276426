"""Is the rule right under `jax.vmap`, for any subset of batched arguments?

A backward that sums over "all but the last axis", counts axes from the front or reads a size from a shape meets one more axis here. Patterns of batched and
unbatched arguments and cotangent follow one another from case to case. The batch is compared with the reference, one example at a time.
"""

from __future__ import annotations

import numpy as np

from verify import engine, programs
from verify.checks.compare import compare
from verify.observe import Observation, add_seconds
from verify.oracles.agreement import contradiction
from verify.oracles.autodiff import at_kink, coarsest
from verify.records import Estimate, Finding, Status
from verify.tolerance import noise_bound

CODE, NAME, TITLE = "V010", "vmap", "the rule is right under vmap"
BATCH = 2


def applies(observation: Observation) -> bool:
    case = observation.case
    return bool(observation.measured) and (case.thorough or case.index % 8 == 4) and not contradiction(observation)


def judge(observation: Observation) -> list[Finding]:
    call, address = observation.call, observation.case.address
    measured = observation.measured[0]
    if observation.truth is None or observation.exact_program is None:
        return [Finding(check=NAME, status=Status.SKIP, message=observation.no_truth, address=address)]
    if at_kink(observation):
        return [
            Finding(check=NAME, status=Status.SKIP, message="the inputs lie on a kink, where many gradients are right", address=address)
        ]
    rng = observation.case.rng("vmap")
    count = len(observation.diff) + 1
    pattern = (1 + observation.case.index // 8) % 2**count or 2**count - 1
    batched = [bool(pattern >> bit & 1) for bit in range(count)]
    stacks = [
        np.stack([values, *(_another(rng, values) for _ in range(BATCH - 1))]) if on else values
        for values, on in zip(observation.diff, batched[:-1], strict=True)
    ]
    ct_stacks = [np.stack([ct, *(_another(rng, ct) for _ in range(BATCH - 1))]) if batched[-1] else ct for ct in observation.cts["base"]]
    axes = [0 if on else None for on in batched[:-1]]
    try:
        program = engine.exact(programs.batched(call, axes, 0 if batched[-1] else None), stacks, observation.rest, ct_stacks)
    except programs.StageError as error:
        message = f"under vmap the rule raises {error}"
        return [Finding(check=NAME, status=Status.FAIL, message=message[:600], address=address)]
    got = program(stacks, observation.rest, ct_stacks)
    examples = [
        observation.exact_program(
            [s[b] if on else s for s, on in zip(stacks, batched[:-1], strict=True)],
            observation.rest,
            [c[b] if batched[-1] else c for c in ct_stacks],
        )["reference"]
        for b in range(BATCH)
    ]
    want = tuple(np.stack([example[leaf] for example in examples]) for leaf in range(len(observation.diff)))
    error = tuple(
        noise_bound(
            value,
            np.full(noise.shape, np.max(noise[np.isfinite(noise)], initial=0.0)),
            observation.scale(leaf),
            coarsest(observation, measured),
        )
        for leaf, (value, noise) in enumerate(zip(want, measured.noise, strict=True))
    )
    add_seconds(observation.seconds, program.seconds)
    on = [name for name, is_on in zip([*call.names, "cotangent"], batched, strict=True) if is_on]
    what = f"under vmap over {', '.join(on)}, the cotangent of"
    return compare(NAME, what, call.names, got, Estimate(value=want, error=error), measured.dtype, address)


def _another(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Another example with the same set of values, so that it stays in the function's domain."""
    return rng.permutation(values.reshape(-1)).reshape(values.shape)
