"""Several outputs, unused outputs, arguments that are not differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from tests.power.entry import argument, entry, pair
from verify import Arg


def sine_cosine(x):
    return jnp.sin(x), jnp.cos(x)


def sine_cosine_forward(x):
    return sine_cosine(x), x


def sine_cosine_backward(x, cts):
    return (cts[0] * jnp.cos(x) - cts[1] * jnp.sin(x),)


def outputs_swapped(x, cts):
    return sine_cosine_backward(x, cts[::-1])


def second_ignored(x, cts):
    return (cts[0] * jnp.cos(x),)


def product_for_sum(x, cts):
    """As if both outputs always had the same cotangent."""
    return (cts[0] * (jnp.cos(x) - jnp.sin(x)),)


def moments(x):
    mean = x.mean(-1)
    return mean, ((x - mean[:, None]) ** 2).mean(-1)


def moments_forward(x):
    return moments(x), x


def moments_backward(x, cts):
    return ((cts[0][:, None] + cts[1][:, None] * 2 * (x - x.mean(-1, keepdims=True))) / x.shape[-1],)


def variance_not_centred(x, cts):
    return ((cts[0][:, None] + cts[1][:, None] * 2 * x) / x.shape[-1],)


def residual_stream(x, stream, s):
    """A block adds its scaled output to the stream, and returns both its norm and itself."""
    z = stream + s[:, None] * x
    return z * jax.lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-3), z


def residual_stream_forward(x, stream, s):
    return residual_stream(x, stream, s), (x, stream, s)


def residual_stream_backward(residuals, cts, scaled=True):
    x, stream, s = residuals
    z = stream + s[:, None] * x
    root = jax.lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-3)
    through_norm = root * cts[0] - z * root**3 * (cts[0] * z).mean(-1, keepdims=True)
    z_ct = through_norm + cts[1]
    return s[:, None] * (z_ct if scaled else through_norm) + (0 if scaled else cts[1]), z_ct, (z_ct * x).sum(-1)


def stream_not_scaled(residuals, cts):
    return residual_stream_backward(residuals, cts, scaled=False)


def with_symbolic_zeros(primal, forward, backward):
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward, symbolic_zeros=True)
    return function


def dense(ct):
    return jnp.zeros(ct.shape, ct.dtype) if isinstance(ct, SymbolicZero) else ct


def right_symbolic(x, cts):
    return sine_cosine_backward(x, [dense(ct) for ct in cts])


def both_or_nothing(x, cts):
    """Nothing to do when an output is not used, thinks the author."""
    if any(isinstance(ct, SymbolicZero) for ct in cts):
        return (None,)
    return sine_cosine_backward(x, cts)


def symbols_multiplied(x, cts):
    return sine_cosine_backward(x, cts)


def symbolic_entry(name, wrong):
    functions = (
        with_symbolic_zeros(sine_cosine, lambda x: (sine_cosine(x.value), x.value), backward) for backward in (wrong, right_symbolic)
    )
    return pair(name, "symbolic zeros", *functions, argument(), "arguments", trigger=True)


def project(x, w):
    return x @ w


def perturbed_forward(x, w):
    return x.value @ w.value, (x.value if w.perturbed else None, w.value if x.perturbed else None)


def perturbed_backward(residuals, ct):
    x, w = residuals
    return None if w is None else dense(ct) @ w.T, None if x is None else x.T @ dense(ct)


def residual_of_its_own(x, w):
    """Kept if the argument itself is differentiated, where the other one needs it."""
    return x.value @ w.value, (x.value if x.perturbed else None, w.value if w.perturbed else None)


def only_with_x(residuals, ct):
    x, w = residuals
    if w is None:  # x is not differentiated
        return None, None
    return perturbed_backward(residuals, ct)


def frozen_forward(x, w):
    return x.value @ w.value, (x.value, w.value, x.perturbed and w.perturbed)


def frozen_backward(residuals, ct):
    """The fast path for a frozen argument forgets the transpose; the weight is square."""
    x, w, both = residuals
    return dense(ct) @ (w.T if both else w), x.T @ dense(ct)


def unfrozen_backward(residuals, ct):
    x, w, _ = residuals
    return dense(ct) @ w.T, x.T @ dense(ct)


def flow(x, log_scale):
    """An affine layer of a normalising flow: y, and the logarithm of its Jacobian's determinant."""
    return x * jnp.exp(log_scale), log_scale.sum(-1)


def flow_forward(x, log_scale):
    return flow(x, log_scale), (x, log_scale)


def flow_backward(residuals, cts):
    x, log_scale = residuals
    y_ct, log_det_ct = cts
    scale = jnp.exp(log_scale)
    return y_ct * scale, (y_ct * x * scale).sum(0) + log_det_ct


def scale_for_its_logarithm(residuals, cts):
    x, log_scale = residuals
    y_ct, log_det_ct = cts
    return y_ct * jnp.exp(log_scale), (y_ct * x).sum(0) + log_det_ct


def project_entry(name, wrong, right, args):
    return pair(
        name, "symbolic zeros", *(with_symbolic_zeros(project, *functions) for functions in (wrong, right)), args, "arguments", trigger=True
    )


RECTANGULAR = {"x": Arg(dims="n d"), "w": Arg(dims="d k")}
PERTURBED = (perturbed_forward, perturbed_backward)
PAIR = (sine_cosine, sine_cosine_forward)
ENTRIES = (
    entry("outputs-swapped", "several outputs", *PAIR, outputs_swapped, sine_cosine_backward, argument(), "gradient"),
    entry("second-output-ignored", "several outputs", *PAIR, second_ignored, sine_cosine_backward, argument(), "gradient"),
    entry("one-cotangent-for-both", "several outputs", *PAIR, product_for_sum, sine_cosine_backward, argument(), "gradient"),
    entry("variance-not-centred", "several outputs", moments, moments_forward, variance_not_centred, moments_backward, argument("n d"), "gradient"),
    entry("stream-not-scaled", "several outputs", residual_stream, residual_stream_forward, stream_not_scaled, residual_stream_backward,
          {"x": Arg(dims="n d"), "stream": Arg(dims="n d"), "s": Arg(dims="n")}, "gradient"),
    entry("scale-for-its-logarithm", "chain rule", flow, flow_forward, scale_for_its_logarithm, flow_backward,
          {"x": Arg(dims="n d"), "log_scale": Arg(dims="d")}, "gradient"),
    symbolic_entry("both-outputs-or-nothing", both_or_nothing),
    symbolic_entry("symbolic-zero-multiplied", symbols_multiplied),
    project_entry("residual-kept-for-the-wrong-one", (residual_of_its_own, perturbed_backward), PERTURBED, RECTANGULAR),
    project_entry("weight-only-with-x", (perturbed_forward, only_with_x), PERTURBED, RECTANGULAR),
    project_entry("frozen-weight-transposed", (frozen_forward, frozen_backward), (frozen_forward, unfrozen_backward),
                  {"x": Arg(dims="n d"), "w": Arg(dims="d d")}),
)  # fmt: skip
