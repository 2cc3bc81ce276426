"""Five lines of Python that show a failure again, to paste into a session or an issue."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from verify._compat import enable_x64
from verify.cases import Case
from verify.observe import observe
from verify.records import Finding
from verify.registry import installed
from verify.spec import Spec

WRITTEN_OUT = 48  # numbers, of all arrays together


def reproduce(spec: Spec, case: Case, shown: Finding | None) -> str:
    """Lines that call the function alone, on arrays written out, where the failure is one element of a plain gradient and everything can be written; else
    lines that replay the case. "" where neither can be, as the spec has no name that another session would find."""
    return _plain(spec, case, shown) or _replayed(spec, case)


def _plain(spec: Spec, case: Case, shown: Finding | None) -> str:
    where = _where(spec)
    if where is None or shown is None or shown.check != "gradient" or shown.dtype != "float64" or shown.argument not in case.argument_names:
        return ""
    observation = observe(spec, case)
    cts = observation.cts["base"]
    arrays = [arg for arg in case.args if arg is not None]
    if not all(isinstance(arg, np.ndarray) and not np.iscomplexobj(arg) for arg in arrays) or len(cts) != 1 or not _literal(case.options):
        return ""
    if sum(array.size for array in (*arrays, *cts)) > WRITTEN_OUT or not all(
        np.isfinite(array).all() and array.size for array in (*arrays, *cts)
    ):
        return ""
    statement, function = where
    options = "".join(f", {name}={value!r}" for name, value in case.options.items())
    call = f"lambda *args: {function}(*args{options})" if options else function
    index = f"[{', '.join(map(str, shown.index))}]" if shown.index else ""
    return "\n".join(
        [
            'import jax, jax.numpy as jnp; jax.config.update("jax_enable_x64", True)',
            statement,
            f"args = ({', '.join('None' if arg is None else _written(arg) for arg in case.args)},)  # {', '.join(case.argument_names)}",
            f"out, pullback = jax.vjp({call}, *args)",
            f"print(pullback({_cotangent(observation, cts[0])}))  # the cotangent of {shown.argument}{index}: got {shown.got!r}, want {shown.want!r}",
        ]
    )


def _cotangent(observation: Any, ct: np.ndarray) -> str:
    """The cotangent as the output's structure, a bare array or a container of one."""
    call, case = observation.call.call, observation.case
    with enable_x64(True):
        shaped = jax.eval_shape(lambda *args: call.fn(*args, **case.options), *case.args)
    return _written(ct) if isinstance(shaped, jax.ShapeDtypeStruct) else f"jax.tree.unflatten(jax.tree.structure(out), [{_written(ct)}])"


def _replayed(spec: Spec, case: Case) -> str:
    if not case.sizes or (":" not in spec.name and getattr(installed().get(spec.name), "fn", None) is not spec.fn):
        return ""
    return "\n".join(
        [
            "import verify",
            f"verdict = verify.replay({case.address!r})",
            "print(verdict)",
            "worst = verdict.findings[0]",
            "print(worst.check, worst.argument, worst.index, worst.got, worst.want, worst.bound)",
        ]
    )


def _where(spec: Spec) -> tuple[str, str] | None:
    """How to import the function, and what it is called then; None where no module has it under a name."""
    named = tuple(spec.name.split(":", 1)) if ":" in spec.name else ("", "")
    home = str(getattr(spec.fn, "__module__", ""))
    held = next((name for name, value in vars(sys.modules.get(home, object)).items() if value is spec.fn), "")  # made by another function
    for module, path in ((home, str(getattr(spec.fn, "__qualname__", ""))), (home, held), named):
        found: Any = sys.modules.get(module)
        if found is None or not all(part.isidentifier() for part in path.split(".")):
            continue
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is spec.fn:
            return f"from {module} import {path.split('.', maxsplit=1)[0]}", path
        if isinstance(found, Spec) and found.fn is spec.fn:
            return f"from {module} import {path.split('.', maxsplit=1)[0]}", f"{path}.fn"
    return None


def _written(array: np.ndarray) -> str:
    dtype = "" if array.dtype in (np.float64, np.bool_) else f', "{array.dtype}"'
    return f"jnp.array({array.tolist()!r}{dtype})"


def _literal(options: Mapping[str, Any] | Sequence[Any]) -> bool:
    try:
        return bool(ast.literal_eval(repr(dict(options))) == dict(options))
    except (ValueError, SyntaxError):
        return False
