"""`verify doctor`: is this machine fit to verify on, and does the verifier see a wrong rule here?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files


def examine() -> Iterator[tuple[str, bool, str]]:
    """(what, whether it is well, detail), one after the other."""
    from verify.environment import environment

    facts = environment()
    yield "versions", True, ", ".join(f"{key} {facts[key]}" for key in ("verify", "python", "jax", "jaxlib", "numpy"))
    yield "devices", True, ", ".join(facts["devices"])
    for name, value in facts["settings"].items():
        yield "setting", True, f"{name}={value}"
    from verify import engine

    host = engine.host().platform
    yield "float64 host", host == "cpu", f"oracles run on {host}" + ("" if host == "cpu" else "; add cpu to JAX_PLATFORMS")
    known = engine.quick_options() or {}
    yield "quick engine", bool(known), f"{len(known)} of {len(engine.QUICK_OPTIONS)} cheap compiler options known to this XLA"
    from verify.registry import installed

    specs = installed()
    yield "operations", bool(specs), ", ".join(specs) or "none installed"
    schema = files("verify.report") / "schema.json"
    yield "schema of reports", schema.is_file(), str(schema)
    right, wrong = _self_test()
    yield "a right rule passes", right, "sin"
    yield "a wrong rule fails", wrong, "sin with a cotangent 1e-9 too large"


def _self_test() -> tuple[bool, bool]:
    import jax
    import jax.numpy as jnp

    from verify.api import run
    from verify.records import Status
    from verify.spec import Arg, Spec

    def rule(factor: float) -> Spec:
        sine = jax.custom_vjp(jnp.sin)
        sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: ((factor * ct * jnp.cos(x)).astype(x.dtype),))
        return Spec(name="sine", fn=sine, args={"x": Arg(dims="n")})

    return bool(run(rule(1.0), cases=6)), run(rule(1.0 + 1e-9), cases=6).status is Status.FAIL
