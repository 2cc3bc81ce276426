"""The rule inside JAX's transformations and in programs that use it in other ways than one plain call.

Each function here makes a program `(diff, rest, cts) -> cotangents of the arguments` of a call. `on` says which differentiable arguments have an axis of
examples in front; the others are shared by all examples, and their cotangent is the sum over the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from verify.programs import as_outputs, rule, stage

Program = Callable[..., list[Any]]


class Runs(Protocol):
    """A function of flat leaves: `programs.Call` runs the user's Python again, `programs.Traced` what was traced, `plain` without custom rules."""

    def run(self, diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]: ...


class plain:  # noqa: N801
    """The reference in the place of the function."""

    def __init__(self, call: Any) -> None:
        self.run = call.run_reference


def vmap_of_gradient(call: Runs, on: Sequence[bool], ct_on: bool) -> Program:
    """`vmap` over the gradient: one cotangent per example, of shared arguments too."""

    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> list[Any]:
        return jax.vmap(lambda d, c: rule(call)(d, rest, c)[1], in_axes=(_axes(on), 0 if ct_on else None))(diff, cts)  # type: ignore[arg-type]

    return _staged(program)


def gradient_of_vmap(call: Runs, on: Sequence[bool]) -> Program:
    """The gradient of `vmap`: JAX batches the backward and sums the cotangents of shared arguments."""
    return _gradient(lambda diff, rest: jax.vmap(lambda *d: call.run(d, rest), in_axes=tuple(_axes(on)))(*diff))


def gradient_of_scan(call: Runs, on: Sequence[bool]) -> Program:
    """One example after the other in `lax.scan`."""

    def forward(diff: list[Any], rest: list[Any]) -> list[Any]:
        def body(carry: Any, examples: list[Any]) -> tuple[Any, list[Any]]:
            given = iter(examples)
            return carry, call.run([next(given) if has else leaf for leaf, has in zip(diff, on, strict=True)], rest)

        return jax.lax.scan(body, (), [leaf for leaf, has in zip(diff, on, strict=True) if has])[1]

    return _gradient(forward)


def gradient_of_checkpoint(call: Runs) -> Program:
    """Under `jax.checkpoint` the forward rule runs again in the backward pass."""
    return _gradient(lambda diff, rest: jax.checkpoint(lambda *d: call.run(d, rest))(*diff))


def gradient_of_some(call: Runs, arguments: Sequence[bool], outputs: Sequence[bool]) -> Program:
    """With respect to some arguments, of a loss that uses some outputs: JAX hands on symbolic zeros for the others."""

    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> list[Any]:
        def loss(some: list[Any]) -> Any:
            given = iter(some)
            out = call.run([next(given) if active else leaf for leaf, active in zip(diff, arguments, strict=True)], rest)
            used = [jnp.vdot(ct, o) for ct, o, use in zip(as_outputs(cts, out), out, outputs, strict=True) if use]
            return sum(used[1:], used[0])

        return jax.grad(loss)([leaf for leaf, active in zip(diff, arguments, strict=True) if active])

    return _staged(program)


def gradient_of_shared(call: Runs, first: int, second: int) -> Program:
    """The same array for two arguments; the cotangent of the second is part of the first's."""

    def forward(diff: list[Any], rest: list[Any]) -> list[Any]:
        return call.run([diff[first] if leaf == second else value for leaf, value in enumerate(diff)], rest)

    return _gradient(forward)


def gradient_of_two_calls(call: Runs) -> Program:
    """Two calls on different examples (along a first axis of 2) in one program; both forwards run before a backward does."""

    def forward(diff: list[Any], rest: list[Any]) -> list[Any]:
        outs = [call.run([leaf[k] for leaf in diff], rest) for k in range(2)]
        return [jnp.stack(pair) for pair in zip(*outs, strict=True)]

    return _gradient(forward)


def tangents(call: Runs, on: Sequence[bool]) -> Callable[..., list[Any]]:
    """(diff, rest, tangents) -> tangents of the outputs, in forward mode, with respect to the arguments that are `on`."""

    def program(diff: list[Any], rest: list[Any], tangent: list[Any]) -> list[Any]:
        def some(*active: Any) -> list[Any]:
            given = iter(active)
            return call.run([next(given) if has else leaf for leaf, has in zip(diff, on, strict=True)], rest)

        def chosen(leaves: list[Any]) -> list[Any]:
            return [leaf for leaf, has in zip(leaves, on, strict=True) if has]

        return jax.jvp(some, chosen(diff), [t.astype(x.dtype) for t, x in zip(chosen(tangent), chosen(diff), strict=True)])[1]

    return _staged(program)


def _axes(on: Sequence[bool]) -> list[int | None]:
    return [0 if has else None for has in on]


def _gradient(forward: Callable[[list[Any], list[Any]], list[Any]]) -> Program:
    def program(diff: list[Any], rest: list[Any], cts: list[Any]) -> list[Any]:
        out, pullback = jax.vjp(lambda *leaves: forward(list(leaves), rest), *[jnp.asarray(leaf) for leaf in diff])
        return list(pullback(as_outputs(cts, out)))

    return _staged(program)


def _staged(program: Callable[..., Any]) -> Callable[..., Any]:
    def staged(*args: Any) -> Any:
        with stage("rule"):
            return program(*args)

    return staged
