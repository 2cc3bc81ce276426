"""The values that the reference computes on the way, each named by the line that makes it."""

from __future__ import annotations

import linecache
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify import engine
from verify._compat import source_line
from verify.observation import Observation
from verify.strip import evaluate

Named = tuple[str, np.ndarray]


def of_reference(observation: Observation) -> list[Named]:
    """Every number or array of numbers that an equation of the reference gives, as "[reduce_sum in `mask.sum()`, rules.py:12]"."""
    call = observation.call
    names: list[str] = []

    def program(diff: list[Any], rest: list[Any]) -> list[Any]:
        found: list[Any] = []
        names.clear()

        def keep(equation: Any, _: list[Any], outputs: list[Any]) -> list[Any]:
            for value in outputs:
                if jnp.issubdtype(value.dtype, jnp.number):
                    found.append(value)
                    names.append("[" + describe(equation).replace("[", "(").replace("]", ")") + "]")
            return outputs

        jaxpr = jax.make_jaxpr(call.run_reference)(diff, rest)
        evaluate(jaxpr, jax.tree.leaves((diff, rest)), keep)
        return found

    values = engine.exact(program, observation.diff, observation.rest)(observation.diff, observation.rest)
    return list(zip(names, values, strict=True))


def lettered(sentence: str) -> str:
    """Intermediates by letter, explained at the end: "h^T @ y_ct, where h is the reference's tanh in `...`"."""
    found = list(dict.fromkeys(re.findall(r"\[[^]]*\]", sentence)))
    free = next(
        letter for letter in ("h", "u", "v", "mid") if not re.search(rf"\b{letter}\b", re.sub(r"\[[^]]*\]", "", sentence))
    )  # no size's
    letters = [free, *(f"{free}{k}" for k in range(2, len(found) + 1))]
    for name, letter in zip(found, letters, strict=False):
        sentence = sentence.replace(name, letter)
    meanings = [f"{letter} is the reference's {name[1:-1]}" for name, letter in zip(found, letters, strict=False)]
    return ", where ".join([sentence, *meanings])


def describe(equation: Any) -> str:
    """An equation in words: its primitive and the user's source line."""
    line = source_line(equation)
    text = _code(line)
    place = line.rsplit("/", 1)[-1].split(" ")[0]
    return f"{equation.primitive.name} in `{text}`, {place}" if text else f"{equation.primitive.name}" + (f", {place}" if place else "")


def _code(line: str) -> str:
    path, _, rest = line.partition(".py:")
    number = rest.split(":")[0].split(" ")[0]
    return linecache.getline(path + ".py", int(number)).strip()[:120] if number.isdigit() else ""
