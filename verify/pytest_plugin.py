"""pytest fixtures `assert_vjp` and `verify_run`, `@verify.parametrize(specs)`, and `--verify-audit`. Loading this plugin does not import JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from verify.spec import Spec


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("verify")
    group.addoption(
        "--verify-audit",
        action="store_true",
        help="verify every jax.custom_vjp and custom_jvp rule that the tests call, after the last test",
    )
    group.addoption("--verify-budget", type=float, default=600.0, metavar="SECONDS", help="begin no further rule after this time (600)")
    group.addoption("--verify-baseline", metavar="FILE", help="differences that are meant, as verify audit --write-baseline lists them")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("verify_audit"):
        return
    from verify.auditing.suite import Suite
    from verify.errors import SpecError

    try:
        suite = Suite(config)
    except SpecError as error:
        raise pytest.UsageError(str(error)) from None
    suite.start()
    config.pluginmanager.register(suite, "verify-audit")


@pytest.fixture
def assert_vjp() -> Callable[..., Any]:
    """`assert_vjp(fn, *arrays, reference=..., options=...)`: fails the test with the report unless the rule is right."""
    from verify.api import assert_vjp

    return assert_vjp


@pytest.fixture
def verify_run() -> Callable[..., Any]:
    """`verify_run(spec, cases=..., seed=...)`: the verdict over random cases; fails the test with the report unless it is PASS."""
    from verify.api import run
    from verify.errors import VjpMismatch

    def run_or_fail(spec: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        verdict = run(spec, **options)
        if not verdict:
            raise VjpMismatch(verdict)
        return verdict

    return run_or_fail


def parametrize(specs: Iterable[Spec] | Mapping[str, Spec]) -> Any:
    """A decorator that runs a test once for each spec, as its argument `spec`.

    >>> from verify import Arg, Spec
    >>> mark = parametrize([Spec(name="twice", fn=lambda x: 2 * x, args={"x": Arg(dims="n")})])
    >>> mark.name
    'parametrize'
    """
    listed = list(specs.values()) if isinstance(specs, Mapping) else list(specs)
    return pytest.mark.parametrize("spec", listed, ids=[spec.name for spec in listed])
