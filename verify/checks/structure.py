"""Does the rule run, and does every cotangent have its argument's shape and dtype?

JAX refuses a backward that returns the wrong number or shape of cotangents, and that refusal is reported here with your own line. It does not
look at dtypes: a float32 cotangent for a bfloat16 argument is handed on, and makes a later `scan`, an optimiser or a sharded sum fail far away.
Cure: end the backward with `.astype(argument.dtype)`.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import jax

from verify.observation import Observation
from verify.printable import short
from verify.records import Finding, Status

CODE, NAME, TITLE = "V001", "structure", "the rule runs; every cotangent has its argument's shape and dtype"


def applies(observation: Observation) -> bool:
    return True


def judge(observation: Observation) -> list[Finding]:
    address = observation.case.address
    if observation.raised is not None:
        return [Finding(check=NAME, status=Status.FAIL, message=_raised(observation), address=address)]
    failures, compared = [], 0
    notes = [Finding(check=NAME, status=Status.SKIP, message=observation.no_float64, address=address)] if observation.no_float64 else []
    for measured in observation.measured:
        base = measured.runs["base"]
        for name, cotangent, wanted in zip(observation.call.names, base["rule"], measured.dtypes, strict=True):
            compared += 1
            if str(cotangent.dtype) != wanted:
                message = (
                    f"the cotangent of {name} is {cotangent.dtype} where {name} is {wanted}; JAX does not convert it. "
                    f"Return it as `.astype({name}.dtype)`"
                )
                failures.append(Finding(check=NAME, status=Status.FAIL, message=message, argument=name, dtype=wanted, address=address))
        for k, (forward, primal) in enumerate(zip(base["out"], base["primal"], strict=True)):
            compared += 1
            if forward.dtype != primal.dtype:
                message = f"output {k} is {forward.dtype} when differentiated and {primal.dtype} when not; the forward rule must return the primal's dtype"
                failures.append(Finding(check=NAME, status=Status.FAIL, message=message, dtype=measured.dtype, address=address))
    return notes + (failures or [Finding(check=NAME, status=Status.PASS, comparisons=compared, address=address)])


def _raised(observation: Observation) -> str:
    assert observation.raised is not None
    cause = observation.raised.cause
    line = user_line(cause)
    text = " ".join(str(cause).split())
    if said := _returned(text, observation):
        return said
    where = f" at {line}" if line else ""
    transposing = isinstance(cause, (AssertionError, NotImplementedError)) and observation.call.forward_rules
    cannot = (
        ". Reverse mode transposes the tangents that a custom_jvp rule returns: they must be linear in those it is given"
        if transposing
        else ""
    )
    return f"the rule raises {type(cause).__name__}{where}: {text[:600]}{cannot}"


SHAPES = re.compile(
    r"at output\[(\d+)\](\S*) the bwd rule produced an output of \S+ \w+\[([\d,]*)\] corresponding to an input of \S+ \w+\[([\d,]*)\]"
)
TREES = re.compile(r"bwd output structure PyTreeDef\((.*)\) for primal input structure PyTreeDef\((.*)\)\.")


def _returned(text: str, observation: Observation) -> str:
    """JAX's refusal of what a backward returned (its text is in trees and abstract values) in the words of shapes and arguments; "" for others."""
    if found := SHAPES.search(text):
        position, path, *shapes = found.groups()
        got, want = (tuple(int(n) for n in shape.split(",") if n) for shape in shapes)
        transposed = ": it is transposed" if got == want[::-1] and len(got) == 2 else ""
        return f"the backward returns a cotangent of shape {got} for {_argument(int(position), path, observation)}, whose shape is {want}{transposed}"
    if not (found := TREES.search(text)):
        return ""
    returned, arguments = map(_entries, found.groups())
    if arguments is None or returned == arguments:
        return ""
    what = "one value that is no tuple" if returned is None else f"{returned} cotangent{'s' * (returned != 1)}"
    return f"the backward returns {what} for {arguments} argument{'s' * (arguments != 1)}; wanted a tuple with a cotangent for each, in their order"


def _argument(position: int, path: str, observation: Observation) -> str:
    """The argument that a rule's own call names, where the verified function is that rule."""
    static = getattr(observation.spec.fn, "nondiff_argnums", None)
    names = [name for k, name in enumerate(observation.case.argument_names) if k not in (static or ())]
    return names[position] + path if static is not None and position < len(names) else f"argument {position}{path} of the rule"


def _entries(tree: str) -> int | None:
    """How many entries a tuple has; None for another structure."""
    if not (tree.startswith("(") and tree.endswith(")")):
        return None
    depth, commas = 0, 0
    for character in tree[1:-1].removesuffix(","):
        depth += (character in "([{") - (character in ")]}")
        commas += character == "," and depth == 0
    return commas + 1 if tree[1:-1] else 0


def raised(error: BaseException, most: int = 300) -> str:
    """Kind, place and words of an error: "ValueError at file.py:12 in backward: `...`: shapes differ"."""
    line = user_line(error)
    return f"{type(error).__name__}{' at ' + line if line else ''}: {short(error, most)}"


def user_line(cause: BaseException) -> str:
    """The innermost line outside of JAX and of verify: "file.py:12 in backward: `return g @ w`"."""
    inside = (str(Path(jax.__file__).parent), str(Path(__file__).parents[1]))
    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if not frame.filename.startswith(inside)]
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    if not frames:
        return ""
    frame = frames[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}" + (f": `{frame.line}`" if frame.line else "")
