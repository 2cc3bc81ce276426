"""Programs with named results: what nobody asks for is not computed.

A case runs its program some forty times, and most of these runs are about one result: the primal along a direction, the reference's gradient near the inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from verify import _compat
from verify.interpreter.evaluate import needed, prepared

Make = Callable[[Sequence[Any]], dict[str, Any]]


class Parts(Mapping[str, Any]):
    """The results of one run, each computed when it is first asked for; the time goes to `seconds["evaluate"]`."""

    def __init__(self, makers: Mapping[str, Make], args: Sequence[Any]) -> None:
        self._makers, self._args, self._made = makers, args, dict[str, Any]()
        self.seconds: dict[str, float] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            make, start = self._makers[name], time.perf_counter()
            with np.errstate(all="ignore"):
                self._made |= make(self._args)
            self.seconds["evaluate"] = self.seconds.get("evaluate", 0.0) + time.perf_counter() - start
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def in_parts(jaxpr: Any, out: Mapping[str, Any]) -> Callable[[Sequence[Any]], Parts]:
    """A jaxpr that `knows` accepts as a function of arrays, whose outputs are the leaves of `out`."""
    jaxpr = _compat.closed(jaxpr)
    places = jax.tree.unflatten(jax.tree.structure(out), range(len(jaxpr.jaxpr.outvars)))
    flat = {name: jax.tree.leaves(part) for name, part in places.items()}
    steps = {name: set(needed(jaxpr, outputs)) for name, outputs in flat.items()}

    def maker(name: str) -> Make:
        also = [other for other in flat if steps[other] <= steps[name]]  # the reference's output on the way to its gradient
        outputs = [output for other in also for output in flat[other]]
        evaluate = prepared(jaxpr, outputs=outputs)

        def make(args: Sequence[Any]) -> dict[str, Any]:
            values = dict(zip(outputs, evaluate(args), strict=True))
            return {other: jax.tree.map(values.__getitem__, places[other]) for other in also}

        return make

    makers = {name: maker(name) for name in flat}
    return lambda args: Parts(makers, args)
