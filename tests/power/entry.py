"""A wrong rule with the right one beside it, and the helpers that make such pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from tests.power.words import WORDS
from verify import Arg, Spec

Checks = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`right` differs from `wrong` in the mistake alone.

    kind: the sort of mistake, in a word or two.
    trigger: whether the rule is wrong only in a small region: a special value, size, option, dtype, magnitude or transformation.
    check: the check that must fail; of several names, any.
    cases: how many cases it may take to see it; None is the default budget.
    """

    name: str
    wrong: Spec
    right: Spec
    kind: str
    check: Checks
    trigger: bool = False
    cases: int | None = None

    @property
    def checks(self) -> tuple[str, ...]:
        return (self.check,) if isinstance(self.check, str) else self.check

    @property
    def words(self) -> tuple[str, ...]:
        """What diagnosis or message must say."""
        return WORDS.get(self.name, ())


def rule(primal: Callable[..., Any], forward: Callable[..., Any], backward: Callable[..., Any], static: tuple[int, ...] = ()) -> Any:
    """A custom_vjp; `static` are the positions of options (`nondiff_argnums`), which the backward gets first."""
    function = jax.custom_vjp(primal, nondiff_argnums=static)
    function.defvjp(forward, backward)
    return function


def jvp_rule(primal: Callable[..., Any], derivative: Callable[..., Any]) -> Any:
    function = jax.custom_jvp(primal)
    function.defjvp(derivative)
    return function


def pair(
    name: str, kind: str, wrong: Any, right: Any, args: Any, check: Checks, trigger: bool = False, cases: int | None = None, **spec: Any
) -> Entry:  # fmt: skip
    """An entry of two finished functions; `spec` goes to both specs."""
    wrong_spec, right_spec = (Spec(name=f"{name}-{which}", fn=fn, args=args, **spec) for which, fn in (("wrong", wrong), ("right", right)))
    return Entry(name=name, wrong=wrong_spec, right=right_spec, kind=kind, check=check, trigger=trigger, cases=cases)


def entry(
    name: str, kind: str, primal: Any, forward: Any, wrong: Any, right: Any, args: Any, check: Checks, static: tuple[int, ...] = (), **more: Any
) -> Entry:  # fmt: skip
    """An entry of two backward rules, `wrong` and `right`, for the same primal and forward."""
    functions = (rule(primal, forward, backward, static) for backward in (wrong, right))
    return pair(name, kind, *functions, args, check, **more)


def argument(dims: str = "n", **more: Any) -> dict[str, Arg]:
    """The arguments of a function of one array."""
    return {"x": Arg(dims=dims, **more)}


def indices(below: str, dims: str = "n", lowest: int = 0) -> Arg:
    """Indices from `lowest` up to the size of the dimension `below`."""
    shape = dims.split()
    return Arg(
        dims=dims,
        dtype="int32",
        sample=lambda rng, sizes, dtype: rng.integers(lowest, sizes[below], [sizes[dim] for dim in shape], "int32"),
    )
