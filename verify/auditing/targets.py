"""What the command line names: a program with its arguments, or a script."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from verify.auditing.listen import Listener, listening
from verify.auditing.rules import Rule
from verify.errors import SpecError
from verify.registry import load_attribute
from verify.signature import nearest, parameters

DTYPES = {
    "f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64", "bool": "bool", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
SMALL_VALUES = 2**14  # elements of a call in a script whose values are sent to the host, at every call of a compiled program


def program_and_args(target: str, maker: str | None, given: Sequence[str]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """`pkg.mod:program`, and its arguments from `pkg.mod:make_args` or from texts such as "x=f32[8,128]". Raises SpecError."""
    program = load_attribute(target)
    if not callable(program):
        raise SpecError(f"{target} is of type {type(program).__name__}, not a function")
    if maker and given:
        raise SpecError("--args and --arg exclude each other: --args names a function that makes all arguments")
    if maker:
        made = load_attribute(maker)
        made = made() if callable(made) else made
        return program, tuple(made) if isinstance(made, tuple | list) else (made,)
    named: dict[str, Any] = {}
    args: list[Any] = []
    for text in given:
        name, equals, value = text.partition("=")
        if equals and name.isidentifier():
            named[name] = parse_argument(value, text)
        else:
            args.append(parse_argument(text, text))
    return program, _by_position(program, target, args, named)


def _by_position(program: Callable[..., Any], target: str, args: list[Any], named: dict[str, Any]) -> tuple[Any, ...]:
    try:
        signature = inspect.signature(program)
    except (ValueError, TypeError):
        if named:
            raise SpecError(f"{target}: its parameters have no names that can be read; give --arg without a name, in order") from None
        return tuple(args)
    for name in named:
        if name not in signature.parameters:
            raise SpecError(
                f"{target} has no parameter {name!r}.{nearest(name, signature.parameters)} Its parameters: {parameters(signature)}"
            )
    try:
        bound = signature.bind(*args, **named)
    except TypeError as error:
        raise SpecError(
            f"{target}{parameters(signature)}: {error}; give each array with --arg name=f32[8,128], or all with --args pkg.mod:make_args"
        ) from None
    bound.apply_defaults()
    if bound.kwargs:
        raise SpecError(
            f"{target}{parameters(signature)} takes {', '.join(bound.kwargs)} by keyword only; name a function that passes them"
        )
    return bound.args


def parse_argument(text: str, whole: str) -> Any:
    """ "f32[8,128]" (an array of that dtype and shape), or a Python literal.

    >>> parse_argument("bf16[2,3]", "")
    ShapeDtypeStruct(shape=(2, 3), dtype=bfloat16)
    >>> parse_argument("0.5", "")
    0.5
    """
    if match := re.fullmatch(r"([a-z0-9]+)\[([\d,\s]*)\]", text):
        dtype, numbers = match[1], [size for size in match[2].split(",") if size.strip()]
        if dtype == "key":
            return jax.eval_shape(jax.random.key, 0)
        if dtype not in DTYPES and dtype not in DTYPES.values():
            raise SpecError(
                f"--arg {whole}: there is no dtype {dtype!r}.{nearest(dtype, [*DTYPES, *DTYPES.values()])} Known: {', '.join([*DTYPES, 'key'])}"
            )
        return jax.ShapeDtypeStruct(tuple(map(int, numbers)), DTYPES.get(dtype, dtype))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise SpecError(
            f"--arg {whole}: wanted name=dtype[sizes] such as x=f32[8,128], or name=value with a Python number or text"
        ) from None


def run_script(path: str, arguments: Sequence[str]) -> tuple[list[Rule], list[str]]:
    """Run a script as `python script.py arguments` would, and hear every rule that it calls. What it raises ends it, not the audit.

    Returns the rules, and notes. Raises SpecError where nothing can be run.
    """
    if not Path(path).is_file():
        raise SpecError(f"there is no file {path} here ({Path.cwd()})")
    notes: list[str] = []
    with listening(Listener(SMALL_VALUES)) as listener, _as_main(path, arguments):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if end.code not in (None, 0):
                notes.append(f"the script ended with exit status {end.code}")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            line = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else f"{last.filename}:{last.lineno}"
            notes.append(f"the script raised {type(error).__name__} at {line}: {str(error)[:200]}; the rules heard before it are here")
        with contextlib.suppress(Exception):
            jax.effects_barrier()
    jax.clear_caches()
    if notes and not listener.rules:
        raise SpecError(f"{path}: {notes[0].removesuffix('; the rules heard before it are here')}; it had called no custom rule before")
    return list(listener.rules.values()), notes


@contextlib.contextmanager
def _as_main(path: str, arguments: Sequence[str]) -> Iterator[None]:
    argv, where = list(sys.argv), list(sys.path)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path = argv, where
