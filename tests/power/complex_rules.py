"""Conjugation. JAX's cotangents are those of a transposed, not of a Hermitian, Jacobian: holomorphic functions need no conjugate.

`COMPLEX` is empty where verify does not judge complex numbers.
"""

from __future__ import annotations

import jax.numpy as jnp

from tests.power.entry import Entry, argument, entry
from verify import Arg
from verify.spec import ARG_DTYPES


def multiply(x, y):
    return x * y


def multiply_forward(x, y):
    return x * y, (x, y)


def multiply_backward(residuals, ct):
    x, y = residuals
    return ct * y, ct * x


def multiply_conjugated(residuals, ct):
    """Other frameworks' convention."""
    x, y = residuals
    return ct * y.conj(), ct * x.conj()


def intensity(x):
    return x.real**2 + x.imag**2


def intensity_forward(x):
    return intensity(x), x


def intensity_backward(x, ct):
    return (2 * ct * x.conj(),)


def intensity_not_conjugated(x, ct):
    return (2 * ct * x,)


def project(x, w):
    return x @ w


def project_forward(x, w):
    return x @ w, (x, w)


def project_backward(residuals, ct):
    x, w = residuals
    return ct @ w.T, x.T @ ct


def project_hermitian(residuals, ct):
    x, w = residuals
    return ct @ w.conj().T, x.T @ ct


def transform(x):
    return jnp.fft.fft(x)


def transform_forward(x):
    return transform(x), None


def transform_backward(_, ct):
    return (jnp.fft.fft(ct),)


def transform_adjoint(_, ct):
    """The adjoint, where the transpose is wanted."""
    return (jnp.fft.ifft(ct) * ct.shape[-1],)


def modulus(x):
    return jnp.abs(x)


def modulus_forward(x):
    return jnp.abs(x), x


def modulus_backward(x, ct):
    r = jnp.abs(x)
    return (ct * jnp.where(r > 0, x.conj() / jnp.where(r > 0, r, 1), 0),)


def modulus_at_zero(x, ct):
    return (ct * x.conj() / jnp.abs(x),)


def entries() -> tuple[Entry, ...]:
    x, y = Arg(dims="n", dtype="complex"), Arg(dims="n", dtype="complex")
    matrices = {"x": Arg(dims="n d", dtype="complex"), "w": Arg(dims="d k", dtype="complex")}
    z = argument(dtype="complex")
    return (
        entry("product-conjugated", "complex", multiply, multiply_forward, multiply_conjugated, multiply_backward, {"x": x, "y": y}, "gradient"),
        entry("intensity-not-conjugated", "complex", intensity, intensity_forward, intensity_not_conjugated, intensity_backward, z, "gradient"),
        entry("hermitian-for-transposed", "complex", project, project_forward, project_hermitian, project_backward, matrices, "gradient"),
        entry("inverse-transform-for-transform", "complex", transform, transform_forward, transform_adjoint, transform_backward, z, "gradient"),
        entry("modulus-at-zero", "complex", modulus, modulus_forward, modulus_at_zero, modulus_backward, z, ("gradient", "kinks", "extremes"), trigger=True),
    )  # fmt: skip


COMPLEX = entries() if "complex" in ARG_DTYPES else ()
