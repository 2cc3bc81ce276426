"""NumPy against XLA, operation by operation: the same jaxpr must give the same float64 numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verify import _compat, interpreter
from verify._compat import enable_x64

NAN, INF = float("nan"), float("inf")
A = np.array([[0.5, -1.25, 2.0], [3.0, 0.0, -0.75]])
B = np.array([[1.5, 2.25, -2.0], [0.25, -0.5, 4.0]])
UNIT = np.array([-0.9, -0.25, 0.0, 0.3, 0.8])
POSITIVE = np.array([1e-3, 0.5, 1.0, 2.5, 40.0])
ABOVE_ONE = np.array([1.0, 1.5, 7.0])
ODD = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e300, -1e300, 1e-300, 710.0, -750.0])
EMPTY = np.zeros((0, 3))
SCALAR = np.array(0.75)
INTS = np.array([[0, 1, -3], [7, -8, 2]], np.int32)
BITS = np.array([0, 1, 5, 2**31], np.uint32)
YES = np.array([[True, False, True], [False, False, True]])
NO_ROWS = np.zeros((0, 3), bool)
KEEP = (((1,), (0,)), ((), ()))


def dot(contract, batch=((), ())):
    return lambda x, y: lax.dot_general(x, y, (contract, batch))


def each(function, *values):
    return [(function, value) for value in values]


def reduction(function, *values):
    """Over no axis, one axis, all axes."""
    return [(functools.partial(function, axes=axes), x) for x in values for axes in ((), (0,), tuple(range(x.ndim))) if x.ndim >= len(axes)]


SMOOTH = {
    name: each(getattr(lax, name), A, ODD, EMPTY, SCALAR)
    for name in ("neg", "exp", "exp2", "expm1", "tanh", "sinh", "cosh", "logistic", "square")
}
ANGLES = {name: each(getattr(lax, name), A, EMPTY, SCALAR, np.array([INF, NAN, -0.0])) for name in ("sin", "cos", "tan")}
CLOSED = {name: each(getattr(lax, name), UNIT, EMPTY, SCALAR, np.array([-1.0, 1.0, -2.0, NAN, -0.0])) for name in ("asin", "acos", "atanh")}
ROOTS = {
    name: each(getattr(lax, name), POSITIVE, EMPTY, SCALAR, np.array([0.0, -0.0, INF, NAN, -1.0]))
    for name in ("log", "log1p", "sqrt", "rsqrt")
}
ROUND = {name: each(getattr(lax, name), A, ODD, EMPTY, SCALAR) for name in ("abs", "sign", "floor", "ceil", "is_finite")}
PAIRS = ((A, B), (ODD, ODD[::-1].copy()), (ODD, ODD), (EMPTY, EMPTY), (SCALAR, SCALAR), (INTS, INTS.T.reshape(2, 3).copy()))
ARITHMETIC = {
    name: [(getattr(lax, name), x, y) for x, y in PAIRS] for name in ("add", "sub", "mul", "max", "min", "eq", "ne", "lt", "le", "gt", "ge")
}
LOGIC = {
    name: [
        (getattr(lax, f"bitwise_{name}"), x, y) for x, y in ((YES, ~YES), (INTS, INTS + 1), (BITS, BITS[::-1].copy()), (NO_ROWS, NO_ROWS))
    ]
    for name in ("and", "or", "xor")
}

PROGRAMS = {
    **SMOOTH, **ANGLES, **CLOSED, **ROOTS, **ROUND, **ARITHMETIC, **LOGIC,
    "acosh": each(lax.acosh, ABOVE_ONE, np.array([0.5, NAN, INF])),
    "atan": each(lax.atan, A, ODD, EMPTY),
    "asinh": each(lax.asinh, A, np.array([-0.0, INF, NAN, 1e-300])),
    "cbrt": each(lax.cbrt, A, ODD, EMPTY),
    "not": each(lax.bitwise_not, YES, INTS, BITS),
    "div": [(lax.div, x, y) for x, y in ((A, B), (ODD, ODD[::-1].copy()), (B, A), (EMPTY, EMPTY))],
    "pow": [(lax.pow, x, y) for x, y in ((POSITIVE, UNIT), (A, B), (np.array([0.0, -0.0, 0.0, -2.0, INF, NAN, 1.0]), np.array([0.0, 3.0, -1.0, 3.0, -1.0, 0.0, NAN])))],
    "atan2": [(lax.atan2, A, B), (lax.atan2, np.array([0.0, -0.0, 0.0, -0.0, INF, NAN]), np.array([0.0, 0.0, -0.0, -0.0, -INF, 1.0]))],
    "integer_pow": [
        (functools.partial(lax.integer_pow, y=power), x) for power in (-3, -2, -1, 2, 3, 7) for x in (A, np.array([0.0, -0.0, INF, -INF, NAN, 1e200, 1e-200]), EMPTY)
    ] + [(functools.partial(lax.integer_pow, y=3), INTS)],
    "reduce_sum": reduction(lambda x, axes: lax.reduce_sum_p.bind(x, axes=axes, out_sharding=None), A, EMPTY, SCALAR, INTS, ODD)
    if hasattr(lax, "reduce_sum_p") else [(lambda x: jnp.sum(x, axis=0), A)],
    "reduce_prod": [(lambda x: jnp.prod(x, axis=0), A), (jnp.prod, EMPTY), (jnp.prod, ODD), (lambda x: jnp.prod(x, axis=0), INTS)],
    "reduce_max": [(lambda x: jnp.max(x, axis=1), A), (jnp.max, ODD), (jnp.max, INTS), (lambda x: jnp.max(x, axis=1), EMPTY), (lambda x: jnp.max(x, axis=0, initial=-INF), EMPTY)],
    "reduce_min": [(lambda x: jnp.min(x, axis=1), A), (jnp.min, ODD), (jnp.min, INTS), (lambda x: jnp.min(x, axis=1), EMPTY), (lambda x: jnp.min(x, axis=0, initial=INF), EMPTY)],
    "reduce_and": [(lambda x: jnp.all(x, axis=0), YES), (jnp.all, YES), (lambda x: jnp.all(x, axis=0), NO_ROWS)],
    "reduce_or": [(lambda x: jnp.any(x, axis=0), YES), (jnp.any, YES), (lambda x: jnp.any(x, axis=0), NO_ROWS)],
    "broadcast_in_dim": [
        (lambda x: lax.broadcast_in_dim(x, (4, 2, 3), (1, 2)), A), (lambda x: lax.broadcast_in_dim(x, (2, 3), ()), SCALAR),
        (lambda x: lax.broadcast_in_dim(x, (5, 1, 3), (1, 2)), A[:1]), (lambda x: lax.broadcast_in_dim(x, (2, 0, 3), (1, 2)), EMPTY),
        (lambda x: lax.broadcast_in_dim(x, (4, 3), (0, 1)), A[:1]), (lambda x: lax.broadcast_in_dim(x, (2, 3), (0, 1)), A[:, :1]),
    ],
    "reshape": [(lambda x: lax.reshape(x, (3, 2)), A), (lambda x: lax.reshape(x, (1, 1)), SCALAR), (lambda x: lax.reshape(x, (5, 0)), EMPTY), (lambda x: lax.reshape(x, (3, 2), (1, 0)), A)],
    "squeeze": [(lambda x: lax.squeeze(x, (0,)), A[:1]), (lambda x: lax.squeeze(x, (0, 2)), A.reshape(1, 6, 1))],
    "transpose": [(lambda x: lax.transpose(x, (1, 0)), A), (lambda x: lax.transpose(x, (2, 0, 1)), np.arange(24.0).reshape(2, 3, 4)), (lambda x: lax.transpose(x, (1, 0)), EMPTY)],
    "concatenate": [(lambda x, y: lax.concatenate((x, y), 0), A, B), (lambda x, y: lax.concatenate((x, y, x), 1), A, B), (lambda x, y: lax.concatenate((x, y), 0), A, EMPTY)],
    "rev": [(lambda x: lax.rev(x, (0,)), A), (lambda x: lax.rev(x, (0, 1)), A), (lambda x: lax.rev(x, ()), A), (lambda x: lax.rev(x, (0,)), EMPTY)],
    "cumsum": [(functools.partial(lax.cumsum, axis=axis, reverse=back), x) for axis in (0, 1) for back in (False, True) for x in (A, INTS, EMPTY)] + [(lax.cumsum, ODD[:6])],
    "select_n": [
        (lax.select_n, YES, A, B), (lax.select_n, np.array(True), A, B), (lax.select_n, np.array(False), A, B), (lax.select_n, np.array(2, np.int32), A, B, A + B),
        (lax.select_n, np.array([[0, 1, 2], [2, 1, 0]], np.int32), A, B, A + B), (lax.select_n, np.array([0, 1, 1, 0], np.int32), *np.arange(8.0).reshape(2, 4)),
        (lax.select_n, YES, A), (lax.select_n, NO_ROWS, EMPTY, EMPTY), (lax.select_n, YES, INTS, INTS + 1), (lax.select_n, YES, np.full((2, 3), NAN), B),
    ],
    "dot_general": [
        (dot(((1,), (0,))), A, B.T.copy()), (dot(((0,), (0,))), A, B), (dot(((), ())), A, B), (dot(((0, 1), (0, 1))), A, B), (dot(((0, 1), (1, 0))), A, B.T.copy()),
        (dot(((2,), (1,)), ((0,), (0,))), np.arange(24.0).reshape(2, 3, 4), np.arange(16.0).reshape(2, 4, 2)),
        (dot(((1,), (0,)), ((2,), (1,))), np.arange(24.0).reshape(2, 3, 4), np.arange(12.0).reshape(3, 4)),
        (dot(((), ()), ((0, 1), (1, 0))), A, B.T.copy()), (dot(((0,), (0,))), EMPTY, EMPTY), (dot(((1,), (0,))), EMPTY, B.T.copy()), (dot(((0,), (0,))), EMPTY, np.zeros((0, 2))),
        (dot(((0,), (0,))), np.array([INF, 0.0]), np.array([0.0, 1.0])), (dot(((1,), (0,))), INTS, INTS.T.copy()), (dot(((), ())), SCALAR, A),
    ],
    "iota": [(lambda x: x + lax.broadcasted_iota(jnp.float64, (2, 3), 0), A), (lambda x: x + lax.broadcasted_iota(jnp.int32, (2, 3), 1), INTS), (lambda x: x + lax.iota(jnp.float64, 0), EMPTY[:, 0])],
    "slice": [(lambda x: lax.slice(x, (0, 1), (2, 3)), A), (lambda x: lax.slice(x, (0, 0), (2, 3), (1, 2)), A), (lambda x: lax.slice(x, (1, 1), (1, 3)), A), (lambda x: lax.slice(x, (1,), (11,), (3,)), ODD)],
    "pad": [
        (lambda x, v: lax.pad(x, v, ((1, 2, 0), (0, 1, 0))), A, SCALAR), (lambda x, v: lax.pad(x, v, ((1, 2, 1), (0, 1, 3))), A, SCALAR),
        (lambda x, v: lax.pad(x, v, ((2, 1, 5), (1, 1, 2))), EMPTY, SCALAR), (lambda x, v: lax.pad(x, v, ((0, 0, 4), (0, 0, 0))), A[:1], SCALAR),
        (lambda x, v: lax.pad(x, v, ()), SCALAR, np.array(2.0)), (lambda x, v: lax.pad(x, v, ((0, 0, 0), (0, 0, 0))), A, np.array(NAN)),
    ],
    "convert_element_type": [
        (lambda x: lax.convert_element_type(x, jnp.float64), INTS), (lambda x: lax.convert_element_type(x, jnp.float64), YES), (lambda x: lax.convert_element_type(x, jnp.bool_), ODD),
        (lambda x: lax.convert_element_type(x, jnp.int64), INTS), (lambda x: lax.convert_element_type(x, jnp.int32), YES), (lambda x: lax.convert_element_type(x, jnp.uint32), INTS),
        (lambda x: lax.convert_element_type(x, jnp.int32), BITS),
    ],
    "stop_gradient": [(lax.stop_gradient, A)],
    "copy": [(lambda x: jnp.array(x, copy=True), A)],
    "add_any": [(jax.grad(lambda x: jnp.sum(jnp.sin(x) * x)), A)],
    "expand_dims": [(lambda x: lax.expand_dims(x, (0, 2)), A)],
    "copy_p": [(lambda x: jnp.array(x, copy=True), A)],
}  # fmt: skip
SYNONYMS = {"stop_gradient", "copy", "copy_p", "add_any", "expand_dims"}  # JAX may write these as something else, or as nothing
SUMS = {"dot_general", "reduce_sum", "cumsum"}  # begin with +0, or not: the sign of a zero sum is nobody's promise
CASES = [
    pytest.param(name, program[0], program[1:], id=f"{name}-{i}")
    for name, programs in PROGRAMS.items()
    for i, program in enumerate(programs)
]


def unknown(jaxpr):
    return (
        sorted({equation.primitive.name for equation in _compat.walk(jaxpr)} - {*interpreter.RULES, *interpreter.CALLS})
        or "a dtype, size or parameter"
    )


def both(function, *args):
    """The jaxpr, NumPy's results, and XLA's."""
    with enable_x64(True):
        jaxpr = jax.make_jaxpr(function)(*args)
        want = jax.tree.leaves(jax.device_get(jax.jit(function)(*args)))
    assert interpreter.knows(jaxpr), f"unknown: {unknown(jaxpr)}"
    with np.errstate(all="ignore"):
        got = interpreter.run(jaxpr, [np.asarray(arg) for arg in args])
    return jaxpr, got, want


def assert_same(got, want, tolerance=1e-14, signs=True):
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        w = np.asarray(w)
        assert g.shape == w.shape and g.dtype == w.dtype
        if w.dtype == np.float64:
            np.testing.assert_allclose(
                g, w, rtol=tolerance, atol=tolerance * np.max(np.abs(w[np.isfinite(w)]), initial=0.0) if w.size else 0
            )
            zero = (w == 0) & signs
            np.testing.assert_array_equal(np.signbit(g[zero & (g == 0)]), np.signbit(w[zero & (g == 0)]), err_msg="the sign of zero")
        else:
            np.testing.assert_array_equal(g, w)


def test_every_rule_has_programs():
    assert set(PROGRAMS) >= set(interpreter.RULES)


@pytest.mark.parametrize(("name", "function", "args"), CASES)
def test_numpy_agrees_with_xla(name, function, args):
    jaxpr, got, want = both(function, *args)
    if name not in SYNONYMS:
        assert name in {equation.primitive.name for equation in _compat.walk(jaxpr)}, f"the program does not exercise {name}: {jaxpr}"
    loose = name in ("exp2", "sinh", "cosh")  # XLA's own error at 1e213
    assert_same(got, want, 1e-12 if loose else 1e-14, signs=name not in SUMS)


@pytest.mark.parametrize(
    ("function", "arg"),
    [
        (lambda x: lax.convert_element_type(x, jnp.int32), A),
        (lambda x: lax.pad(x, jnp.float64(0), ((-1, 0, 0), (0, 0, 0))), A),
        (lambda x: lax.div(x, jnp.int32(2)), INTS),
        (lambda x: lax.erf(x), A),
        (lambda x: lax.sort(x), A),
        (lambda x: x.astype(jnp.float32) * 2, A),
        (lambda x: x.astype(jnp.bfloat16), A),
        (lambda x: jnp.broadcast_to(x, (200, 300)), np.array(1.0)),
        (lambda x: lax.while_loop(lambda c: c < 3, lambda c: c + 1, x), SCALAR),
        (lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x), SCALAR),
        (lambda x: lax.scan(lambda c, e: (c + e, c), x[0], x)[0], A),
        (lambda x: jax.jit(lax.erf)(x), A),
    ],
)
def test_what_it_does_not_know_goes_to_xla(function, arg):
    with enable_x64(True):
        jaxpr = jax.make_jaxpr(function)(arg)
    assert not interpreter.knows(jaxpr)


def test_constants_and_literals_and_inputs_as_outputs():
    table = np.arange(3.0)
    _, got, want = both(lambda x, y: (x, table * 2.5 + y, y, 1.5), A, A[0])
    assert [np.shape(g) for g in got] == [np.shape(w) for w in want]
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w)


def test_nested_calls_and_custom_rules():
    @jax.custom_vjp
    def rule(x):
        return jnp.tanh(x)

    rule.defvjp(lambda x: (jnp.tanh(x), x), lambda x, ct: (7.0 * ct * x,))
    _, got, want = both(jax.grad(lambda x: jnp.sum(jax.jit(rule)(x) * jax.nn.relu(x) + jax.nn.logsumexp(x))), A)
    assert_same(got, want)


def test_it_does_not_write_to_its_arguments():
    x = A.copy()
    with enable_x64(True):
        jaxpr = jax.make_jaxpr(lambda x: (lax.pad(x, x[0, 0], ((0, 0, 0), (0, 0, 0))), jnp.cumsum(x), x * 2 - x))(x)
    interpreter.run(jaxpr, [x])
    np.testing.assert_array_equal(x, A)


STEPS = {
    "sin": jnp.sin,
    "softplus": lambda x: jnp.logaddexp(x, 0.0),
    "centre": lambda x: x - jnp.mean(x, axis=-1, keepdims=True),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "gram": lambda x: jnp.einsum("...ij,...kj->...ik", x, x) @ x,
    "turn": lambda x: jnp.swapaxes(x, -1, -2) if x.shape[-1] == x.shape[-2] else x[..., ::-1],
    "norm": lambda x: x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5),
    "relu": jax.nn.relu,
    "cube": lambda x: x**3 / (1 + x**2),
    "running": lambda x: jnp.cumsum(x, axis=-1) / 4,
    "mask": lambda x: jnp.where(jnp.tril(jnp.ones(x.shape[-2:], bool)), x, -0.5),
    "roll": lambda x: jnp.flip(x, -1) - x / 3,
    "silu": jax.nn.silu,
    "clip": lambda x: jnp.clip(x, -0.8, 0.8) + 0.1 * jnp.max(x, axis=-1, keepdims=True),
}


@pytest.mark.parametrize("seed", range(16))
def test_random_compositions_and_their_gradients(seed):
    rng = np.random.default_rng(seed)
    chosen = [list(STEPS)[i] for i in rng.integers(len(STEPS), size=5)]
    x = rng.uniform(-1.5, 1.5, size=[(3, 4), (4, 4), (2, 3, 3), (1, 1), (5, 1)][seed % 5])

    def program(x):
        for name in chosen:
            x = STEPS[name](x)
        return x

    weights = rng.normal(size=x.shape)
    _, got, want = both(lambda x: (program(x), jax.grad(lambda x: jnp.sum(weights * program(x)))(x)), x)
    assert_same(got, want, tolerance=1e-12, signs=False)
