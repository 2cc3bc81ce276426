"""Specs for campaigns, good and bad ones; the worker processes of the tests import them by name."""

import os
import sys
import time

import jax
import jax.numpy as jnp

from verify import Arg, Spec

ARGS = {"x": Arg(dims="n")}


def _sine(factor):
    sine = jax.custom_vjp(jnp.sin)
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: ((factor * ct * jnp.cos(x)).astype(x.dtype),))
    return sine


class Strange(BaseException):
    """No Exception, as SystemExit is none."""


def crash(x):
    import ctypes

    return ctypes.string_at(0)


def abort(x):
    os.write(2, b"LLVM ERROR: Cannot select: intrinsic\n")
    os.abort()


def leave(x):
    sys.exit(3)


def vanish(x):
    os._exit(0)


def raise_strange(x):
    raise Strange("<script>\x1b[2J")


def sleep(x):
    time.sleep(3600)


def eat(x):
    held = []
    while True:
        held.append(b"x" * 2**24)
        time.sleep(0.001)


HELD = []


def hoard(x):
    """Keeps memory for ever, as a cache does."""
    if not HELD:
        HELD.append(b"x" * (300 * 2**20))
    return _sine(1.0)(x)


FUNCTIONS = {
    "HOARD": hoard,
    "RIGHT": _sine(1.0), "WRONG": _sine(1.5), "CRASH": crash, "ABORT": abort, "LEAVE": leave, "VANISH": vanish, "STRANGE": raise_strange, "SLEEP": sleep, "EAT": eat,
}  # fmt: skip
for _name, _fn in FUNCTIONS.items():
    globals()[_name] = Spec(name=f"{__name__}:{_name}", fn=_fn, args=ARGS)
