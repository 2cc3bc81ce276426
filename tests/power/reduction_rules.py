"""Sums, products, extremes and orders along an axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.power.entry import argument, entry
from verify import Arg


def add(x, b):
    return x + b


def add_forward(x, b):
    return x + b, b.shape


def unbroadcast(ct, shape):
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return ct.sum(axes, keepdims=True) if axes else ct


def add_backward(shape, ct):
    return ct, unbroadcast(ct, shape)


def not_reduced(shape, ct):
    return ct, ct


def summed_over_all(shape, ct):
    return ct, ct if shape == ct.shape else jnp.broadcast_to(ct.sum(), shape)


def first_row(shape, ct):
    return ct, ct[: shape[0], : shape[1]]


def mean_of_broadcast(shape, ct):
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return ct, ct.mean(axes, keepdims=True) if axes else ct


def mean_backward(x, ct):
    return (jnp.broadcast_to(ct[:, None] / x.shape[1], x.shape),)


def mean_over_rows(x, ct):
    return (jnp.broadcast_to(ct[:, None] / x.shape[0], x.shape),)


def rows_mean(x):
    return x.mean(1)


def rows_mean_forward(x):
    return x.mean(1), x


def spread(x):
    """The sample variance, 0 for a single value."""
    return ((x - x.mean()) ** 2).sum() / max(x.size - 1, 1)


def spread_forward(x):
    return spread(x), x


def spread_backward(x, ct):
    return (ct * 2 * (x - x.mean()) / max(x.size - 1, 1),)


def spread_of_one(x, ct):
    return (ct * 2 * (x - x.mean()) / (x.size - 1),)


def project(x, w):
    return (x * w).sum(-1)


def project_forward(x, w):
    return project(x, w), (x, w)


def project_backward(residuals, ct):
    x, w = residuals
    return ct[:, None] * w, (ct[:, None] * x).sum(0)


def squeezed(residuals, ct):
    """Every axis of size 1 goes, not the one that was meant."""
    x, w = residuals
    return ct[:, None] * w, jnp.squeeze(ct[:, None] * x).sum(0)


def largest(x):
    return x.max(-1)


def largest_forward(x):
    return x.max(-1), x


def all_that_equal(x, ct):
    return (ct[:, None] * (x == x.max(-1, keepdims=True)),)


def shared_by_equals(x, ct):
    hit = (x == x.max(-1, keepdims=True)).astype(x.dtype)
    return (ct[:, None] * hit / hit.sum(-1, keepdims=True),)


def log_sum_exp(x):
    return jax.nn.logsumexp(x, -1)


def log_sum_exp_forward(x):
    return log_sum_exp(x), x


def log_sum_exp_backward(x, ct):
    return (ct[:, None] * jax.nn.softmax(x),)


def unshifted(x, ct):
    return (ct[:, None] * jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),)


def denominator_constant(p, ct):
    return (p * ct,)


def softmax(x):
    return jax.nn.softmax(x)


def softmax_forward(x):
    p = jax.nn.softmax(x)
    return p, p


def softmax_backward(p, ct):
    return (p * (ct - (p * ct).sum(-1, keepdims=True)),)


def softmax_mean(p, ct):
    return (p * (ct - (p * ct).mean(-1, keepdims=True)),)


def square_sum(x, axis):
    return (x * x).sum(axis)


def square_sum_forward(x, axis):
    return square_sum(x, axis), x


def square_sum_backward(axis, x, ct):
    return (2 * x * jnp.expand_dims(ct, axis),)


def axis_from_the_front(axis, x, ct):
    """-1 is not above 0."""
    return (2 * x * (ct[:, None] if axis > 0 else ct[None, :]),)


def scan_sum(x, reverse):
    return jax.lax.cumsum(x, reverse=reverse)


def scan_sum_forward(x, reverse):
    return scan_sum(x, reverse), None


def scan_sum_backward(reverse, _, ct):
    return (jax.lax.cumsum(ct, reverse=not reverse),)


def always_reversed(reverse, _, ct):
    return (jax.lax.cumsum(ct, reverse=True),)


def never_reversed(reverse, _, ct):
    return (jax.lax.cumsum(ct, reverse=reverse),)


def running(x, reverse, exclusive, averaged):
    total = jax.lax.cumsum(x, reverse=reverse) - (x if exclusive else 0)
    return total / x.size if averaged else total


def running_forward(x, *options):
    return running(x, *options), x


def running_backward(reverse, exclusive, averaged, x, ct):
    ct = ct / x.size if averaged else ct
    return (jax.lax.cumsum(ct, reverse=not reverse) - (ct if exclusive else 0),)


def inclusive_with_the_others(reverse, exclusive, averaged, x, ct):
    """A branch of a branch, which nobody took."""
    return running_backward(reverse, exclusive and not (reverse and averaged), averaged, x, ct)


def product(x):
    return jnp.prod(x)


def product_forward(x):
    return jnp.prod(x), x


def product_backward(x, ct):
    ahead = jnp.cumprod(jnp.concatenate([jnp.ones_like(x[:1]), x[:-1]]))
    behind = jnp.cumprod(jnp.concatenate([jnp.ones_like(x[:1]), x[:0:-1]]))[::-1]
    return (ct * ahead * behind,)


def divided_by_entry(x, ct):
    return (ct * jnp.prod(x) / x,)


def power_sum(x, p):
    return (jnp.abs(x) ** p).sum()


def power_sum_forward(x, p):
    return power_sum(x, p), x


def power_sum_backward(p, x, ct):
    """Not sign(x) |x|^(p - 1) of even p: its own derivative is 0 at 0, where that of 2 x is 2."""
    return (ct * p * x ** (p - 1) * (jnp.sign(x) if p % 2 else 1),)


def sign_forgotten_at_odd(p, x, ct):
    return (ct * p * x ** (p - 1) if p > 1 else ct * jnp.sign(x),)


def ascending(x):
    return jnp.sort(x)


def sort_forward(x):
    order = jnp.argsort(x)
    return x[order], order


def sort_backward(order, ct):
    return (jnp.zeros_like(ct).at[order].set(ct),)


def sorted_once_more(order, ct):
    return (ct[order],)


def middle(x):
    """The median; of an even number, the mean of the middle two."""
    ordered = jnp.sort(x)
    return (ordered[(x.size - 1) // 2] + ordered[x.size // 2]) / 2


def middle_forward(x):
    return middle(x), x


def middle_backward(x, ct):
    order = jnp.argsort(x)
    return (jnp.zeros_like(x).at[order[(x.size - 1) // 2]].add(ct / 2).at[order[x.size // 2]].add(ct / 2),)


def one_middle(x, ct):
    return (jnp.zeros_like(x).at[jnp.argsort(x)[x.size // 2]].add(ct),)


def rolled(x, shift):
    return jnp.roll(x, shift)


def rolled_forward(x, shift):
    return rolled(x, shift), None


def rolled_back(shift, _, ct):
    return (jnp.roll(ct, -shift),)


def rolled_on(shift, _, ct):
    return (jnp.roll(ct, shift),)


MATRIX = argument("n d")
BROADCAST = {"x": Arg(dims="n d"), "b": Arg(dims="#n #d")}
ADD, MEAN = (add, add_forward), (rows_mean, rows_mean_forward)
SCAN = (scan_sum, scan_sum_forward)
ENTRIES = (
    entry("broadcast-not-reduced", "reduction", *ADD, not_reduced, add_backward, BROADCAST, "structure", trigger=True),
    entry("broadcast-first-row", "reduction", *ADD, first_row, add_backward, BROADCAST, "gradient", trigger=True),
    entry("broadcast-summed-over-all", "reduction", *ADD, summed_over_all, add_backward, BROADCAST, "gradient", trigger=True),
    entry("broadcast-averaged", "reduction", *ADD, mean_of_broadcast, add_backward, BROADCAST, "gradient", trigger=True),
    entry("mean-over-other-size", "scale", *MEAN, mean_over_rows, mean_backward, MATRIX, "gradient"),
    entry("sample-variance-of-one", "size", spread, spread_forward, spread_of_one, spread_backward, argument(), ("structure", "gradient"), trigger=True),
    entry("squeezed-at-size-1", "size", project, project_forward, squeezed, project_backward, {"x": Arg(dims="n d"), "w": Arg(dims="d")},
          "structure", trigger=True),
    entry("max-to-every-tie", "tie", largest, largest_forward, all_that_equal, shared_by_equals, MATRIX, ("kinks", "gradient"), trigger=True),
    entry("logsumexp-unshifted", "magnitude", log_sum_exp, log_sum_exp_forward, unshifted, log_sum_exp_backward, MATRIX, "extremes", trigger=True),
    entry("softmax-denominator-constant", "constant statistic", softmax, softmax_forward, denominator_constant, softmax_backward,
          argument("*batch d"), "gradient"),
    entry("softmax-mean-for-sum", "scale", softmax, softmax_forward, softmax_mean, softmax_backward, argument("*batch d"), "gradient"),
    entry("axis-from-the-front", "option", square_sum, square_sum_forward, axis_from_the_front, square_sum_backward, MATRIX,
          ("structure", "gradient"), static=(1,), options={"axis": (0, 1, -1)}, trigger=True),
    entry("rolled-on", "option", rolled, rolled_forward, rolled_on, rolled_back, argument(), "gradient", static=(1,), options={"shift": (1, 2)}),
    entry("cumsum-not-reversed", "order", *SCAN, never_reversed, scan_sum_backward, argument(), "gradient", static=(1,), options={"reverse": (False, True)}),
    entry("cumsum-reverse-ignored", "option", *SCAN, always_reversed, scan_sum_backward, argument(), "gradient", static=(1,),
          options={"reverse": (False, True)}, trigger=True),
    entry("three-options-together", "option", running, running_forward, inclusive_with_the_others, running_backward, argument(), "gradient",
          static=(1, 2, 3), options=dict.fromkeys(("reverse", "exclusive", "averaged"), (False, True)), trigger=True),
    entry("product-divided-by-entry", "special value", product, product_forward, divided_by_entry, product_backward, argument(),
          ("gradient", "extremes"), sizes={"n": (1, 20)}, trigger=True),
    entry("p-norm-of-odd-p", "option", power_sum, power_sum_forward, sign_forgotten_at_odd, power_sum_backward, argument(), "gradient",
          static=(1,), options={"p": (1, 2, 3, 4)}, trigger=True),
    entry("sort-permuted-twice", "order", ascending, sort_forward, sorted_once_more, sort_backward, argument(), "gradient"),
    entry("median-of-even-count", "size", middle, middle_forward, one_middle, middle_backward, argument(), "gradient", trigger=True),
)  # fmt: skip
