"""Right alone, wrong under a transformation: vmap, a second derivative, shards, another platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from tests.power.entry import argument, entry, pair, rule
from verify import Arg


def cube(x):
    return x**3


def cube_forward(x):
    return x**3, x


def cube_backward(x, ct):
    return (ct * 3 * x**2,)


def stopped_backward(x, ct):
    return (ct * 3 * jax.lax.stop_gradient(x) ** 2,)


def stopped_cotangent(x, ct):
    return (jax.lax.stop_gradient(ct) * 3 * x**2,)


def stopped_residual(x):
    return jnp.exp(x), jax.lax.stop_gradient(jnp.exp(x))


def exp_forward(x):
    y = jnp.exp(x)
    return y, y


def exp_backward(y, ct):
    return (ct * y,)


def softmax(x):
    return jax.nn.softmax(x)


def softmax_forward(x):
    p = jax.nn.softmax(x)
    return p, p


def softmax_on_host(total):
    """The backward in NumPy, which sees all examples of a vmap at once."""

    def host(p, ct):
        p, ct = np.asarray(p), np.asarray(ct)
        return np.asarray(p * (ct - total(p * ct)), ct.dtype)

    def backward(p, ct):
        return (jax.pure_callback(host, jax.ShapeDtypeStruct(ct.shape, ct.dtype), p, ct, vmap_method="broadcast_all"),)

    return backward


def through(batch_rule):
    """A backward ct -> w^T ct with a vmap rule of its own."""

    def backward(residuals, ct):
        x, w = residuals
        pull = custom_vmap(lambda w, ct: w.T @ ct)
        pull.def_vmap(batch_rule)
        return pull(w, ct), jnp.outer(ct, x)

    return backward


def one_weight_for_all(axis_size, batched, w, ct):
    """A weight is shared by the batch, thinks the author."""
    w = w[0] if batched[0] else w
    return (ct @ w if batched[1] else jnp.broadcast_to(ct @ w, (axis_size, w.shape[1]))), True


def weight_of_each(axis_size, batched, w, ct):
    w = w if batched[0] else jnp.broadcast_to(w, (axis_size, *w.shape))
    ct = ct if batched[1] else jnp.broadcast_to(ct, (axis_size, *ct.shape))
    return jnp.einsum("bij,bi->bj", w, ct), True


def apply(x, w):
    return w @ x


def apply_forward(x, w):
    return w @ x, (x, w)


# Inside shard_map, a parameter that all devices share gets the sum of their cotangents, and the rule itself must take it.


def linear(x, w):
    return x @ w


def linear_forward(x, w):
    return x @ w, (x, w)


def varying(array):
    aval = jax.typeof(array)
    return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying


def axes_beyond(ct, argument):
    """The mesh axes over which ct differs between devices and the argument does not."""
    return tuple(sorted(varying(ct) - varying(argument)))


def reduced(reduce):
    def backward(residuals, ct):
        x, w = residuals
        x_ct, w_ct = ct @ w.T, x.T @ ct
        return reduce(x_ct, axes_beyond(x_ct, x)), reduce(w_ct, axes_beyond(w_ct, w))

    return backward


def summed(ct, axes):
    return jax.lax.psum(ct, axes) if axes else ct


def averaged(ct, axes):
    return jax.lax.pmean(ct, axes) if axes else ct


def log_det(a):
    return jnp.linalg.slogdet(a)[1]


def log_det_by_eigenvectors(a, ct):
    """Right, but only CPUs have a general eigendecomposition."""
    values, vectors = jnp.linalg.eig(a)
    return (ct * ((vectors / values) @ jnp.linalg.inv(vectors)).real.T.astype(a.dtype),)


def regular(rng, sizes, dtype):
    d = sizes["d"]
    return 2 * np.eye(d) + rng.uniform(-1, 1, (d, d)) / d


SHARED = {"x": Arg(dims="n d"), "w": Arg(dims="d k")}
SOFTMAX = (softmax, softmax_forward)
LINEAR = (linear, linear_forward)
ENTRIES = (
    entry("stale-at-second-order", "second order", cube, cube_forward, stopped_backward, cube_backward, argument("*shape"), "second-order", trigger=True),
    entry("cotangent-stopped", "second order", cube, cube_forward, stopped_cotangent, cube_backward, argument("*shape"), "second-order", trigger=True),
    pair("residual-stopped", "second order", rule(jnp.exp, stopped_residual, exp_backward), rule(jnp.exp, exp_forward, exp_backward), argument("*shape"),
         "second-order", trigger=True),
    entry("host-sums-the-batch", "vmap", *SOFTMAX, softmax_on_host(np.sum), softmax_on_host(lambda z: z.sum(-1, keepdims=True)), argument(), "vmap",
          trigger=True),
    entry("one-weight-for-all", "vmap", apply, apply_forward, through(one_weight_for_all), through(weight_of_each),
          {"x": Arg(dims="d"), "w": Arg(dims="k d")}, "vmap", trigger=True),
    entry("shards-averaged", "sharding", *LINEAR, reduced(averaged), reduced(summed), SHARED, "sharding", trigger=True),
    entry("for-cpu-alone", "portability", log_det, lambda a: (log_det(a), a), log_det_by_eigenvectors, lambda a, ct: (ct * jnp.linalg.inv(a).T,),
          {"a": Arg(dims="d d", sample=regular)}, "portability", sizes={"d": (1, 12)}, dtypes=("float32",), trigger=True),
)  # fmt: skip
