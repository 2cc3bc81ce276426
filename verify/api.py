"""What users call from Python: `check`, `assert_vjp`, `run`, `replay`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verify.addresses import parse_address
from verify.cases import Case, Static, draw
from verify.errors import VjpMismatch
from verify.evidence import without_addresses
from verify.given import from_arrays
from verify.records import Status, Verdict
from verify.registry import installed, resolve
from verify.runner import run_cases, run_spec
from verify.signature import argument_names, nearest
from verify.spec import Spec, SpecError

DRAWS = 3  # besides the given values, so many cases with other values of the same shapes
LARGE = 2**18  # elements of all arguments together: beyond, one more draw, and only the checks that reuse one compiled program


def check(
    fn: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    checks: Sequence[str] | None = None,
) -> Verdict:
    """Verify the derivative of one call, `fn(*args, **options)`.

    Judged in float64 and in the arguments' own dtypes, at the given values and at others of the same shapes and range, since values with a
    structure (all equal, symmetric) hide mistakes.

    Args:
        fn: a `jax.custom_vjp`, or any function that calls custom rules.
        *args: pytrees of arrays or of `jax.ShapeDtypeStruct` (then values are drawn). Python numbers, strings and None are passed as they are.
        reference: the plain formula to differentiate, called like `fn`; without it, `fn` with its custom rules replaced by their primals.
        options: static arguments, passed by keyword.
        seed: of the values, cotangents and directions that are drawn.
        checks: names or codes of the checks to make; all by default.

    Returns:
        A Verdict; `bool(verdict)` is True for PASS only, and `print(verdict)` says everything.

    Raises:
        SpecError: the call cannot be verified as given (no floating-point argument, the function itself raises, another arity).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> square = jax.custom_vjp(lambda x: x * x)
        >>> square.defvjp(lambda x: (x * x, x), lambda x, ct: (x * ct,))
        >>> verdict = check(square, jnp.array([1.0, 2.0, 3.0]))
        >>> str(verdict.status), verdict.diagnosis
        ('FAIL', 'The cotangent of x: it is the right one times 0.5')
    """
    if not callable(fn):
        raise SpecError(f"check: fn must be callable, got {type(fn).__name__}")
    if not 0 <= seed < 2**63:
        raise SpecError(f"seed must be between 0 and 2**63 - 1, got {seed}")
    options = dict(options or {})
    if not args:
        raise SpecError("check: give the example arrays after the function: verify.check(fn, x, w, ...)")
    names = argument_names(fn, len(args))
    _check_options(fn, options)
    static = set(getattr(fn, "nondiff_argnums", ()))
    name = _name(fn)
    wrapped = tuple(Static(arg) if i in static else _leaves(arg, names[i]) for i, arg in enumerate(args))
    spec = Spec(name=name, fn=fn, reference=reference, dtypes=())  # the arrays have theirs
    given = from_arrays(name, wrapped, names, options, seed, 0, "given")
    for arg, path in zip(given.args, names, strict=True):
        for leaf in jax.tree.leaves(arg):
            if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc" and leaf.size and np.isnan(leaf).all():
                raise SpecError(f"check: {path} is NaN everywhere, so nothing can be compared; give ordinary values")
    large = sum(leaf.size for leaf in jax.tree.leaves(given.args) if isinstance(leaf, np.ndarray)) > LARGE
    cases = [given] + [from_arrays(name, wrapped, names, options, seed, index, "given") for index in range(1, 2 if large else DRAWS + 1)]
    verdict = run_cases(spec, [replace(case, thorough=not large, dtype=_label(case)) for case in cases], checks)
    if large:
        verdict = replace(verdict, notes=(*verdict.notes, "large arrays: second order, vmap and jit were left out; check smaller ones too"))
    errors = [finding.message for finding in verdict.findings if finding.status is Status.ERROR]
    if errors:
        raise SpecError(f"{name}: {errors[0]}")
    return replace(verdict, address=None, shapes=1, evidence=without_addresses(verdict.evidence))


def assert_vjp(
    fn: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    checks: Sequence[str] | None = None,
) -> Verdict:
    """Like `check`, but raises unless the verdict is PASS; for tests.

    Raises:
        VjpMismatch: an AssertionError with the report as its text and the verdict as `.verdict`. INCONCLUSIVE raises too: what was not
            judged is not known to be right.
        SpecError: as `check`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> square = jax.custom_vjp(lambda x: x * x)
        >>> square.defvjp(lambda x: (x * x, x), lambda x, ct: (2 * x * ct,))
        >>> bool(assert_vjp(square, jnp.array([1.0, 2.0, 3.0])))
        True
    """
    __tracebackhide__ = True  # of pytest
    verdict = check(fn, *args, reference=reference, options=options, seed=seed, checks=checks)
    if not verdict:
        raise VjpMismatch(verdict)
    return verdict


def run(
    spec: Spec | str | Callable[..., Any],
    cases: int | None = None,
    seed: int = 0,
    checks: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    profile: str = "default",
) -> Verdict:
    """Verify an operation on random sizes, dtypes, options and values, with every check.

    Args:
        spec: a Spec, the name of an installed one, "pkg.mod:function", or a function whose arguments have jaxtyping annotations.
        cases: how many, two of each shape; what `profile` says by default.
        seed: the same seed gives the same cases on any machine.
        checks: names or codes; all by default.
        progress: called as `progress(done, total)` after each case.

    Raises:
        SpecError: the spec cannot be drawn from.

    Example:
        >>> from verify import Arg, Spec
        >>> import jax, jax.numpy as jnp
        >>> double = jax.custom_vjp(lambda x: 2 * x)
        >>> double.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))
        >>> bool(run(Spec(name="double", fn=double, args={"x": Arg(dims="n")}), cases=4))
        True
    """
    verdict = run_spec(as_spec(spec), cases, seed, checks, progress, profile=profile)
    return replace(verdict, installed=not isinstance(spec, Spec) or _installed(spec))


def _installed(spec: Spec) -> bool:
    """Whether the command line finds the spec by its name."""
    try:
        return (resolve(spec.name) if ":" in spec.name else installed().get(spec.name)) is spec
    except SpecError:
        return False


def replay(address: str, checks: Sequence[str] | None = None, spec: Spec | None = None) -> Verdict:
    """Run one case again, bit for bit.

    Args:
        address: as a report prints it: "layer_norm/0/7" (name, seed, index), or with sizes: "layer_norm/0/7@D=3,batch=2x1".
        checks: names of checks; all, if None.
        spec: what the address is about, where its name is not installed and not `pkg.mod:attribute`: a Spec made in a script.

    Raises:
        SpecError: the address does not name a case.
    """
    name, seed, index, sizes = parse_address(address)
    spec = spec or resolve(name)
    return run_cases(spec, list(draw(spec, seed, range(index, index + 1), sizes)), checks)


def as_spec(spec: Spec | str | Callable[..., Any]) -> Spec:
    """A Spec from whatever names one."""
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, str):
        return resolve(spec)
    if not callable(spec):
        raise SpecError(f"run: wanted a Spec, a name or a function, got {type(spec).__name__}")
    return Spec(name=_name(spec), fn=spec)


def _name(fn: Any) -> str:
    name = getattr(fn, "__name__", None) or getattr(getattr(fn, "func", None), "__name__", None) or type(fn).__name__
    return "".join(c if c.isprintable() and not c.isspace() and c not in "/@" else "_" for c in name)


def _check_options(fn: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(fn).parameters
    except (ValueError, TypeError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise SpecError(f"check: option {option!r} is no parameter of {_name(fn)}.{nearest(option, parameters)}")


def _leaves(arg: Any, name: str) -> Any:
    """Arrays as numpy, keys by their seed, everything else as it is."""

    def leaf(value: Any) -> Any:
        if isinstance(value, jax.ShapeDtypeStruct):
            return value
        if isinstance(value, (np.ndarray, np.generic, jax.Array)):
            if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                return Static(value)
            return np.asarray(value)
        return np.asarray(value) if isinstance(value, (float, complex)) else Static(value)

    return jax.tree.map(leaf, arg)


def _label(case: Case) -> str:
    """The dtype that a case on given arrays is run in besides float64: theirs."""
    own = {dtype for dtype in case.dtypes if dtype is not None}
    lowest = own - {"float64"}
    return "float64" if not lowest else lowest.pop() if len(own) == 1 else "mixed"
