"""Matrix functions, recurrences and implicit functions: transposes, symmetry, and chains cut short."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.numpy.linalg import inv, slogdet, solve
from jax.scipy.linalg import solve_triangular

from tests.power.entry import entry, pair, rule
from verify import Arg

SQUARE = Arg(dims="d d")


def inverse_backward(y, ct):
    return (-y.T @ ct @ y.T,)


def inverse_not_transposed(y, ct):
    return (-y @ ct @ y,)


def solve_forward(a, b):
    x = solve(a, b)
    return x, (a, x)


def solve_backward(residuals, ct):
    a, x = residuals
    b_ct = solve(a.T, ct)
    return -jnp.outer(b_ct, x), b_ct


def solved_not_transposed(residuals, ct):
    a, x = residuals
    b_ct = solve(a, ct)
    return -jnp.outer(b_ct, x), b_ct


def log_det(a):
    return slogdet(a)[1]


def cholesky(a):
    """Of the symmetric part."""
    return jnp.linalg.cholesky(a)


def cholesky_backward(factor, ct, symmetric=True):
    inner = jnp.tril(factor.T @ ct)
    inner -= 0.5 * jnp.diag(jnp.diag(inner))
    inverse = inv(factor)
    a_ct = inverse.T @ inner @ inverse
    return ((a_ct + a_ct.T) / 2 if symmetric else a_ct,)


def cholesky_not_symmetrised(factor, ct):
    return cholesky_backward(factor, ct, symmetric=False)


def quadratic(x, a):
    return x @ a @ x


def quadratic_forward(x, a):
    return quadratic(x, a), (x, a)


def quadratic_backward(residuals, ct):
    x, a = residuals
    return ct * (a @ x + a.T @ x), ct * jnp.outer(x, x)


def as_if_symmetric(residuals, ct):
    x, a = residuals
    return ct * 2 * (a @ x), ct * jnp.outer(x, x)


def trace_of_product(a, b):
    return jnp.trace(a @ b)


def trace_forward(a, b):
    return trace_of_product(a, b), (a, b)


def trace_backward(residuals, ct):
    a, b = residuals
    return ct * b.T, ct * a.T


def trace_not_transposed(residuals, ct):
    a, b = residuals
    return ct * b, ct * a


def square(a):
    return a @ a


def square_backward(a, ct):
    return (ct @ a.T + a.T @ ct,)


def as_if_commuting(a, ct):
    return (2 * ct @ a.T,)


# h[t] = a[t] h[t-1] + x[t], from h0.


def recurrence(a, x, h0):
    def step(h, inputs):
        h = inputs[0] * h + inputs[1]
        return h, h

    return jax.lax.scan(step, h0, (a, x))[1]


def recurrence_forward(a, x, h0):
    h = recurrence(a, x, h0)
    return h, (a, jnp.concatenate([h0[None], h])[:-1])


def through_time(a, ct, cut=0):
    """The cotangent of every x[t]; with `cut`, nothing is carried over the borders of chunks of that length."""

    def step(carry, inputs):
        g, decay, index = inputs
        g = g + carry
        kept = jnp.where(index % cut == 0, 0, g) if cut else g
        return decay * kept, g

    return jax.lax.scan(step, jnp.zeros_like(ct[0]), (ct, a, jnp.arange(ct.shape[0])), reverse=True)


def recurrence_backward(residuals, ct, cut=0):
    a, before = residuals
    _, x_ct = through_time(a, ct, cut)
    return x_ct * before, x_ct, a[0] * x_ct[0]


def cut_at_16(residuals, ct):
    return recurrence_backward(residuals, ct, cut=16)


def without_time(residuals, ct):
    a, before = residuals
    return ct * before, ct, a[0] * ct[0]


def from_zero(residuals, ct):
    """As if the state before the first step were 0."""
    a_ct, x_ct, h0_ct = recurrence_backward(residuals, ct)
    return a_ct.at[0].set(0), x_ct, h0_ct


def state_after(residuals, ct):
    a, before = residuals
    _, x_ct, h0_ct = recurrence_backward(residuals, ct)
    return x_ct * jnp.concatenate([before[1:], before[-1:]]), x_ct, h0_ct


def fixed_point(w, x):
    """y = tanh(w y + x), by iteration."""
    return jax.lax.scan(lambda y, _: (jnp.tanh(w * y + x), None), jnp.zeros_like(x), length=60)[0]


def fixed_point_forward(w, x):
    y = fixed_point(w, x)
    return y, (w, y)


def fixed_point_backward(residuals, ct):
    w, y = residuals
    slope = 1 - y * y
    x_ct = ct * slope / (1 - w * slope)
    return x_ct * y, x_ct


def last_iteration_only(residuals, ct):
    w, y = residuals
    x_ct = ct * (1 - y * y)
    return x_ct * y, x_ct


def substituted(a, b, lower=True, unit_diagonal=False):
    """a x = b of a triangular a, whose diagonal is not read where it is all ones."""
    return solve_triangular(a, b, lower=lower, unit_diagonal=unit_diagonal)


def substituted_rule(reads_diagonal):
    def backward(lower, unit_diagonal, residuals, ct):
        a, x = residuals
        b_ct = solve_triangular(a, ct, lower=lower, trans=1, unit_diagonal=unit_diagonal)
        below, above = (0, 0) if reads_diagonal or not unit_diagonal else (-1, 1)
        a_ct = -jnp.outer(b_ct, x)
        return jnp.tril(a_ct, below) if lower else jnp.triu(a_ct, above), b_ct

    def forward(a, b, lower, unit_diagonal):
        x = substituted(a, b, lower, unit_diagonal)
        return x, (a, x)

    made = rule(substituted, forward, backward, static=(2, 3))
    return lambda a, b, lower=True, unit_diagonal=False: made(a, b, lower, unit_diagonal)


def bisected_root(a, y):
    """x + a x^3 = y."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = middle + a * middle**3 > y
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    return sum(jax.lax.fori_loop(0, 70, halve, (-jnp.abs(y), jnp.abs(y)))) / 2


def root_in_closed_form(a, y):
    return 2 / jnp.sqrt(3 * a) * jnp.sinh(jnp.arcsinh(1.5 * y * jnp.sqrt(3 * a)) / 3)


def root_rule(through_solver):
    """In the forward the solver itself has no derivative to speak of, and the rule that it belongs to has one."""

    def forward(a, y):
        x = bisected_root(a, y) if through_solver else made(a, y)
        return x, (a, x)

    def backward(residuals, ct):
        a, x = residuals
        y_ct = ct / (1 + 3 * a * x**2)
        return -y_ct * x**3, y_ct

    made = rule(bisected_root, forward, backward)
    return made


def regular(rng, sizes, dtype):
    """Far from singular, not symmetric."""
    d = sizes["d"]
    return 2 * np.eye(d) + rng.uniform(-1, 1, (d, d)) / d


def definite(rng, sizes, dtype):
    half = regular(rng, sizes, dtype)
    return half @ half.T


REGULAR = Arg(dims="d d", sample=regular)
FEW = {"sizes": {"d": (1, 12)}, "dtypes": ("float32",)}  # JAX's LAPACK knows no half precision
TIME = {"a": Arg(dims="T d", low=0.5, high=1.0), "x": Arg(dims="T d"), "h0": Arg(dims="d")}


def recurrence_entry(name, wrong, **more):
    return entry(name, "recurrence", recurrence, recurrence_forward, wrong, recurrence_backward, TIME, "gradient", **more)


ENTRIES = (
    entry("inverse-not-transposed", "transpose", inv, lambda a: (inv(a), inv(a)), inverse_not_transposed, inverse_backward, {"a": REGULAR}, "gradient", **FEW),
    entry("solve-not-transposed", "transpose", solve, solve_forward, solved_not_transposed, solve_backward, {"a": REGULAR, "b": Arg(dims="d")}, "gradient",
          **FEW),
    pair("log-det-not-transposed", "transpose", rule(log_det, lambda a: (log_det(a), a), lambda a, ct: (ct * inv(a),)),
         rule(log_det, lambda a: (log_det(a), a), lambda a, ct: (ct * inv(a).T,)), {"a": REGULAR}, "gradient", **FEW),
    entry("cholesky-not-symmetrised", "symmetry", cholesky, lambda a: (cholesky(a), cholesky(a)), cholesky_not_symmetrised, cholesky_backward,
          {"a": Arg(dims="d d", sample=definite)}, "gradient", **FEW),
    entry("quadratic-as-if-symmetric", "symmetry", quadratic, quadratic_forward, as_if_symmetric, quadratic_backward, {"x": Arg(dims="d"), "a": SQUARE},
          "gradient"),
    entry("trace-not-transposed", "transpose", trace_of_product, trace_forward, trace_not_transposed, trace_backward, {"a": SQUARE, "b": SQUARE}, "gradient"),
    entry("square-as-if-commuting", "symmetry", square, lambda a: (a @ a, a), as_if_commuting, square_backward, {"a": SQUARE}, "gradient"),
    recurrence_entry("gradient-not-through-time", without_time),
    recurrence_entry("gradient-cut-at-16", cut_at_16, trigger=True),
    recurrence_entry("initial-state-forgotten", from_zero),
    recurrence_entry("state-after-for-before", state_after),
    entry("last-iteration-only", "dropped term", fixed_point, fixed_point_forward, last_iteration_only, fixed_point_backward,
          {"w": Arg(dims="n", low=0.0, high=0.5), "x": Arg(dims="n")}, "gradient"),
    pair("cotangent-of-a-diagonal-of-ones", "option", substituted_rule(True), substituted_rule(False), {"a": REGULAR, "b": Arg(dims="d")}, "gradient",
         trigger=True, options={"lower": (True, False), "unit_diagonal": (False, True)}, **FEW),
    pair("solver-in-the-forward", "second order", root_rule(True), root_rule(False), {"a": Arg(dims="n", low=0.1, high=2.0), "y": Arg(dims="n")},
         "second-order", trigger=True, reference=root_in_closed_form, sizes={"n": (1, 8)}, dtypes=("float32",)),
)  # fmt: skip
