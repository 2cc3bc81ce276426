"""NumPy against XLA, operation by operation: the same jaxpr must give the same float64 numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verify import _compat, engine, interpreter
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
HALVES = np.array([0.5, -0.5, 1.5, 2.5, -2.5, 0.49999999999999994, -0.49999999999999994, 2.0**52 + 1])
INTS = np.array([[0, 1, -3], [7, -8, 2]], np.int32)
BITS = np.array([0, 1, 5, 2**31], np.uint32)
YES = np.array([[True, False, True], [False, False, True]])
NO_ROWS = np.zeros((0, 3), bool)
SQUARE = np.array([[2.0, -0.5, 1.0], [0.25, 3.0, -1.5], [4.0, 0.75, 0.5]])
GRAM = SQUARE @ SQUARE.T
NO_MATRIX = np.zeros((0, 0))
KEEP = (((1,), (0,)), ((), ()))


def dot(contract, batch=((), ())):
    return lambda x, y: lax.dot_general(x, y, (contract, batch))


def each(function, *values):
    return [(function, value) for value in values]


def reduction(function, *values):
    """Over no axis, one axis, all axes."""
    return [(functools.partial(function, axes=axes), x) for x in values for axes in ((), (0,), tuple(range(x.ndim))) if x.ndim >= len(axes)]


def _signless(values, vectors):
    """An eigenvector has no sign."""
    return values, vectors * jnp.sign(vectors[..., :1, :])


def _product(u, s, vt):
    return (u * s) @ vt


def conv(seed, width=None):
    """A convolution of random sizes, strides, paddings, dilations, groups and layouts."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 3))
    some = lambda low, high: tuple(int(n) for n in rng.integers(low, high, rank))
    groups, batches = [(1, 1), (2, 1), (1, 2)][seed % 3]
    image = [batches * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3)), *some(1, 7)]
    kernel = [batches * groups * int(rng.integers(1, 3)), image[1] // groups, *some(1, 4)]
    if width is not None:
        image[2] = width
    orders = [rng.permutation(rank + 2) for _ in range(3)]
    numbers = lax.ConvDimensionNumbers(*(tuple(int(n) for n in order) for order in orders))
    x, w = (
        rng.standard_normal([shape[list(order).index(axis)] for axis in range(rank + 2)])
        for shape, order in zip((image, kernel), orders, strict=False)
    )
    padding = [tuple(int(n) for n in rng.integers(-1 if width is None else 0, 3, 2)) for _ in range(rank)]
    return functools.partial(
        lax.conv_general_dilated, window_strides=some(1, 3), padding=padding, lhs_dilation=some(1, 3), rhs_dilation=some(1, 3), dimension_numbers=numbers,
        feature_group_count=groups, batch_group_count=batches,
    ), x, w  # fmt: skip


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
    "div": [(lax.div, x, y) for x, y in ((A, B), (ODD, ODD[::-1].copy()), (B, A), (EMPTY, EMPTY), (INTS, INTS[::-1].copy()), (INTS, np.full_like(INTS, -3)), (BITS, BITS + 1))],
    "rem": [(lax.rem, x, y) for x, y in ((A, B), (B, A), (ODD, ODD[::-1].copy()), (EMPTY, EMPTY), (INTS, INTS[::-1].copy()), (INTS, np.full_like(INTS, -3)))],
    "round": [(functools.partial(lax.round, rounding_method=method), x) for method in lax.RoundingMethod for x in (A, ODD, HALVES, EMPTY)],
    "clamp": [(lax.clamp, SCALAR, A, np.array(2.0)), (lax.clamp, -np.abs(B), A, np.abs(B)), (lax.clamp, np.array(-1.0), ODD, np.array(1.0)), (lax.clamp, np.int32(-1), INTS, np.int32(5))],
    "erf": each(lax.erf, A, ODD, EMPTY), "erfc": each(lax.erfc, A, ODD[:10], EMPTY), "erf_inv": each(lax.erf_inv, UNIT, np.array([-1.0, 1.0, 2.0, NAN]), EMPTY),
    "lgamma": each(lax.lgamma, POSITIVE, -POSITIVE[:2], ODD, EMPTY), "digamma": each(lax.digamma, POSITIVE, -POSITIVE[:2], ODD[2:], EMPTY),
    "sort": [(functools.partial(lax.sort, dimension=axis), x) for axis in (0, 1) for x in (A, INTS, EMPTY, np.array([[0.0, NAN], [-0.0, INF], [0.0, -INF]]))]
    + [(lambda x, y, z: lax.sort((x, y, z), dimension=1, num_keys=2), *np.random.default_rng(0).integers(0, 3, (3, 4, 9)).astype(np.float64)), (lambda x: jnp.argsort(x, axis=0), INTS), (lambda x: jnp.sort(x, descending=True), A)],
    "argmax": [(functools.partial(lax.argmax, axis=axis, index_dtype=jnp.int32), x) for axis in (0, 1) for x in (A, INTS, np.ones((2, 2)), np.array([[1.0, NAN], [NAN, 2.0]]))],
    "argmin": [(functools.partial(lax.argmin, axis=axis, index_dtype=jnp.int64), x) for axis in (0, 1) for x in (A, INTS, np.ones((2, 2)), np.array([[1.0, NAN], [NAN, 2.0]]))],
    "split": [(lambda x: lax.split(x, (1, 0, 2), 1), A), (lambda x: lax.split(x, (2,), 0), A)],
    "stack": [(lambda x, y: jnp.stack((x, y), 1), A, B), (lambda x: jnp.stack((x,)), A)],
    "unstack": [(lambda x: jnp.unstack(x, axis=1), A)],
    "empty2": [(lambda x: lax.scan(lambda c, e: (c + e, c * e), x[0], x), A)],
    "dynamic_slice": [(lambda x, i, j: lax.dynamic_slice(x, (i, j), (1, 2)), A, np.int32(i), np.int32(j)) for i, j in ((0, 0), (1, 1), (5, 5), (-7, -1))] + [(lambda x, i: lax.dynamic_slice(x, (i, i), (0, 3)), EMPTY, np.int32(1))],
    "dynamic_update_slice": [(lambda x, y, i: lax.dynamic_update_slice(x, y[:1, :2], (i, i)), A, B, np.int32(i)) for i in (0, 1, 9, -9)],
    "gather": [
        (lambda x, i: x[i], A, np.array([0, 1, 1, -1, 5, -5])), (lambda x, i: x[:, i], A, np.array([[0, 2], [2, 1]])), (lambda x, i: x[i, i], A, np.array([0, 1])), (lambda x, i: x[i, i[::-1]], A, np.array([0, 1])),
        (lambda x, i: jnp.take(x, i, axis=1, mode="clip"), A, np.array([-3, 0, 9])), (lambda x, i: jnp.take(x, i, axis=0, fill_value=7.0), A, np.array([-3, 0, 9])), (lambda x, i: jnp.take(x, i, axis=0, mode="fill"), INTS, np.array([9, 1])),
        (lambda x, i: jnp.take_along_axis(x, i, 1), A, np.array([[0, 2, 2, 1], [1, 1, 0, 7]])), (lambda x, i: jnp.take_along_axis(x, i, 0), A, np.array([[1, 0, 1]])),
        (jax.vmap(lambda x, i: lax.dynamic_slice(x, (i,), (2,))), A, np.array([1, 7])), (jax.vmap(lambda x, i: x[i], in_axes=(1, 0)), A, np.array([[1, 0], [0, 0], [1, 9]])), 
    ],
    **{
        f"scatter{'-' * bool(kind)}{kind}": [
            (lambda x, i, kind=kind: getattr(x.at[i], kind or "set")(x[:1] * 3 + 1), A, np.array([1, 0, -1])), (lambda x, i, y, kind=kind: getattr(x.at[i], kind or "set")(y), A, np.array([1]), B[0]), (lambda x, i, kind=kind: getattr(x.at[:, i], kind or "set")(2.5), A, np.array([[0, 5], [2, -9]])),
            (lambda x, i, kind=kind: getattr(x.at[i], kind or "set")(2, mode="clip"), INTS, np.array([0, 7])), (jax.vmap(lambda x, i, kind=kind: getattr(x.at[i], kind or "set")(-0.5)), A, np.array([[0, 1], [2, 8]])),
            (lambda x, i, kind=kind: getattr(x.at[i], kind or "set")(1.0), EMPTY, np.array([0])), (lambda x, i, kind=kind: getattr(x.at[i, 1], kind or "set")(-1.0), A, np.int32(1)),
        ] + [(lambda x, i, y, kind=kind: getattr(x.at[i], kind)(y), A, np.array([1, 0, 1, 1]), np.arange(12.0).reshape(4, 3))] * bool(kind)
        for kind in ("", "add", "mul", "min", "max")
    },
    "conv_general_dilated": [conv(seed) for seed in range(40)] + [conv(seed, width=0) for seed in range(3)],
    "pow": [(lax.pow, x, y) for x, y in ((POSITIVE, UNIT), (A, B), (np.array([0.0, -0.0, 0.0, -2.0, INF, NAN, 1.0]), np.array([0.0, 3.0, -1.0, 3.0, -1.0, 0.0, NAN])))],
    "atan2": [(lax.atan2, A, B), (lax.atan2, np.array([0.0, -0.0, 0.0, -0.0, INF, NAN]), np.array([0.0, 0.0, -0.0, -0.0, -INF, 1.0]))],
    "integer_pow": [
        (functools.partial(lax.integer_pow, y=power), x) for power in (-3, -2, -1, 2, 3, 7) for x in (A, np.array([0.0, -0.0, INF, -INF, NAN, 1e200, 1e-200]), EMPTY)
    ] + [(functools.partial(lax.integer_pow, y=3), INTS)],
    "reduce_sum": reduction(lax.reduce_sum, A, EMPTY, SCALAR, INTS, ODD),
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
    **{
        name: [(functools.partial(getattr(lax, name), axis=axis, reverse=back), x) for axis in (0, 1) for back in (False, True) for x in (A, EMPTY, *([INTS] * (name != "cumlogsumexp")))] + [(getattr(lax, name), ODD[:6])]
        for name in ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
    },
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
    "cholesky": [(jnp.linalg.cholesky, x) for x in (GRAM, -GRAM, np.stack([GRAM, -GRAM]), np.full((2, 2), NAN), NO_MATRIX, np.zeros((0, 2, 2)))],
    "triangular_solve": [
        (functools.partial(lax.linalg.triangular_solve, left_side=left, lower=lower, transpose_a=transposed, unit_diagonal=unit), SQUARE, x)
        for left, x in ((True, A[0][:, None] * A[:1]), (True, np.zeros((3, 0))), (False, A)) for lower in (True, False) for transposed in (True, False) for unit in (True, False)
    ] + [(lax.linalg.triangular_solve, np.stack([SQUARE, 2 * SQUARE.T]), np.stack([SQUARE.T, SQUARE])), (lax.linalg.triangular_solve, np.zeros((1, 1)), np.ones((1, 1)))],
    "lu": [(lax.linalg.lu, x) for x in (SQUARE, A, A.T.copy(), np.stack([GRAM, SQUARE]), np.zeros((2, 2)), NO_MATRIX, np.zeros((0, 2, 2)))],
    "qr": [(functools.partial(jnp.linalg.qr, mode=mode), x) for mode in ("reduced", "complete") for x in (SQUARE, A, A.T.copy(), np.stack([A, B]))],
    "eigh": [(jnp.linalg.eigvalsh, GRAM), (lambda x: _signless(*jnp.linalg.eigh(x)), GRAM), (lambda x: _signless(*jnp.linalg.eigh(x, UPLO="U", symmetrize_input=False)), SQUARE), (jnp.linalg.eigvalsh, np.stack([GRAM, 2 * GRAM])), (jnp.linalg.eigvalsh, np.full((2, 2), NAN))],
    "svd": [(jnp.linalg.svdvals, A), (jnp.linalg.svdvals, np.stack([A, B])), (lambda x: _product(*jnp.linalg.svd(x, full_matrices=False)), A), (lambda x: _product(*jnp.linalg.svd(x.T, full_matrices=False)), A), (lambda x: jnp.abs(jnp.linalg.svd(x)[2]), A)],
    "iota": [(lambda x: x + lax.broadcasted_iota(jnp.float64, (2, 3), 0), A), (lambda x: x + lax.broadcasted_iota(jnp.int32, (2, 3), 1), INTS), (lambda x: x + lax.iota(jnp.float64, 0), EMPTY[:, 0])],
    "slice": [(lambda x: lax.slice(x, (0, 1), (2, 3)), A), (lambda x: lax.slice(x, (0, 0), (2, 3), (1, 2)), A), (lambda x: lax.slice(x, (1, 1), (1, 3)), A), (lambda x: lax.slice(x, (1,), (11,), (3,)), ODD)],
    "pad": [
        (lambda x, v: lax.pad(x, v, ((1, 2, 0), (0, 1, 0))), A, SCALAR), (lambda x, v: lax.pad(x, v, ((1, 2, 1), (0, 1, 3))), A, SCALAR),
        (lambda x, v: lax.pad(x, v, ((2, 1, 5), (1, 1, 2))), EMPTY, SCALAR), (lambda x, v: lax.pad(x, v, ((0, 0, 4), (0, 0, 0))), A[:1], SCALAR),
        (lambda x, v: lax.pad(x, v, ((-1, 2, 0), (1, -2, 0))), A, SCALAR), (lambda x, v: lax.pad(x, v, ((-1, -1, 2), (-2, 1, 1))), A, SCALAR), (lambda x, v: lax.pad(x, v, ((-1, 0, 0), (0, 0, 0))), A[:1], SCALAR),
        (lambda x, v: lax.pad(x, v, ()), SCALAR, np.array(2.0)), (lambda x, v: lax.pad(x, v, ((0, 0, 0), (0, 0, 0))), A, np.array(NAN)),
    ],
    "convert_element_type": [
        (lambda x: lax.convert_element_type(x, jnp.float64), INTS), (lambda x: lax.convert_element_type(x, jnp.float64), YES), (lambda x: lax.convert_element_type(x, jnp.bool_), ODD),
        (lambda x: lax.convert_element_type(x, jnp.int64), INTS), (lambda x: lax.convert_element_type(x, jnp.int32), YES), (lambda x: lax.convert_element_type(x, jnp.uint32), INTS),
        (lambda x: lax.convert_element_type(x, jnp.int32), BITS), *[(functools.partial(lax.convert_element_type, new_dtype=dtype), x) for dtype in (jnp.int32, jnp.int64, jnp.uint32) for x in (A, ODD)],
    ],
    "stop_gradient": [(lax.stop_gradient, A)],
    "copy": [(lambda x: jnp.array(x, copy=True), A)],
    "add_any": [(jax.grad(lambda x: jnp.sum(jnp.sin(x) * x)), A)],
    "expand_dims": [(lambda x: lax.expand_dims(x, (0, 2)), A)],
    "copy_p": [(lambda x: jnp.array(x, copy=True), A)],
}  # fmt: skip
SYNONYMS = {
    "stop_gradient",
    "copy",
    "copy_p",
    "add_any",
    "expand_dims",
    "stack",
    "unstack",
    "empty2",
}  # JAX may write these as something else, or as nothing
SUMS = {
    "dot_general",
    "reduce_sum",
    "cumsum",
    "conv_general_dilated",
    "scatter-add",
    "cummax",
    "cummin",
}  # begin with +0, or not: the sign of a zero sum, and which of two zeros is larger, is nobody's promise
CASES = [
    pytest.param(name, program[0], program[1:], id=f"{name}-{i}")
    for name, programs in PROGRAMS.items()
    for i, program in enumerate(programs)
]


def unknown(jaxpr):
    return (
        sorted({equation.primitive.name for equation in _compat.walk(jaxpr)} - {*interpreter.RULES, *interpreter.CONTROL, *_compat.CALLS})
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
        (lambda x: x.astype(jnp.float32) * 2, A),
        (lambda x: x.astype(jnp.bfloat16), A),
        (lambda x: jnp.broadcast_to(x, (200, 300)), np.array(1.0)),
        (lambda x: lax.while_loop(lambda c: c < 3, lambda c: c + 1, x), SCALAR),
        (lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.i0, x), A),
        (lambda x: lax.scan(lambda c, _: (c * 0.5, None), x, length=10_000)[0], A),
        (lambda x: lax.scan(lambda c, e: (c, e.astype(jnp.float32)), 0.0, x), A),
        (lambda x: jax.jit(jnp.i0)(x), A),
        (lambda x: jax.scipy.linalg.qr(x, pivoting=True)[1], A),
        (lambda x: x.at[jnp.array([0, 1])].apply(jnp.sin), A),
    ],
)
def test_what_it_does_not_know_goes_to_xla(function, arg):
    with enable_x64(True):
        jaxpr = jax.make_jaxpr(function)(arg)
    assert not interpreter.knows(jaxpr)


def test_a_loop_of_many_turns_is_compiled_for_many_runs_and_not_for_a_few():
    def newton(turns):
        return lambda x: lax.fori_loop(0, turns, lambda _, c: c - (c * c * c - x) / (3 * c * c + 1), x)

    with enable_x64(True):
        short, long = (jax.make_jaxpr(newton(turns))(A) for turns in (8, 64))
    assert interpreter.knows(short, engine.MANY)
    assert not interpreter.knows(long, engine.MANY)
    assert interpreter.knows(long, engine.FEW)
    assert interpreter.continues(long)


def powers(x, length=4, reverse=False, unroll=1):
    return lax.scan(lambda c, e: (c * e + 1, {"sum": c + e, "none": None}), x[0], x[:length], reverse=reverse, unroll=unroll)


@pytest.mark.parametrize(
    "function",
    [
        powers,
        functools.partial(powers, reverse=True),
        functools.partial(powers, length=0),
        lambda x: lax.scan(lambda c, _: (c * 0.5, None), x, length=3),
        lambda x: lax.fori_loop(0, 3, lambda i, c: c + x[i], x[0]),
        lambda x: jax.grad(lambda x: powers(x)[0].sum())(x),
        lambda x: jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(x) ** 2)(x).sum())(x),
        lambda x: [lax.cond(x[0, 0] > at, jnp.sin, jnp.cos, x) for at in (0.0, 9.0)],
        lambda x: [lax.switch(jnp.int32(k), [jnp.sin, jnp.cos, jnp.tanh], x) for k in (-3, 0, 1, 2, 8)],
        lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
        lambda x: lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos),
        lambda x: jax.grad(lambda x: jnp.sum(x[jnp.array([0, 1, 1])] ** 2 * jnp.arange(1.0, 4.0)[:, None]))(x),
        lambda x: jax.grad(lambda x: jnp.sum(jnp.sort(x, 1)[:, -2:] ** 2))(x),
        lambda x: jax.grad(lambda x: jnp.sum(jnp.cumprod(x, 1) ** 2))(x),
        lambda x: jax.grad(lambda x: jnp.linalg.inv(x.T @ x + jnp.eye(3)).sum())(x),
        lambda x: jax.grad(lambda x: jnp.linalg.slogdet(x[:3])[1])(x),
        lambda x: jax.grad(lambda x: jnp.linalg.lstsq(x, jnp.ones((4, 1)))[0].sum())(x),
        lambda x: jax.vmap(lambda y: jnp.linalg.solve(x[:3] * y, y))(x),
        lambda x: jax.grad(lambda x: (jnp.linalg.qr(x)[1] * jnp.arange(3.0)).sum())(x),
    ],
)
def test_branches_and_loops(function):
    x = np.array([[0.5, -1.25, 2.0], [3.0, 0.25, -0.75], [1.5, 2.25, -2.0], [0.3, -0.5, 4.0]])
    _, got, want = both(function, x)
    assert_same(got, want, 1e-13, signs=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: powers(x)[0],
        lambda x: x[jnp.array([0, 1, 1])] ** 2,
        lambda x: x.at[jnp.array([0, 0])].add(x[1:3] ** 2),
        lambda x: x.at[1].set(jnp.exp(x[0])),
        lambda x: lax.dynamic_update_slice(x, x[:1] ** 2, (1, 0)),
        lambda x: lax.conv_general_dilated(x[None, None], x[None, None, :2], (1, 1), "SAME"),
        lambda x: lax.pad(x**2, 0.0, ((-1, 1, 1), (1, 0, 0))),
        lambda x: jnp.cumprod(x, 0),
        lambda x: lax.erf(x) * lax.erfc(x / 2),
        lambda x: lax.clamp(-0.5, x, 1.0) ** 2,
        lambda x: x[jnp.argmax(x, 0), jnp.arange(3)] * jnp.round(x[0]),
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        lambda x: jnp.stack(jnp.split(x, 2)),
        lambda x: x * (jnp.arange(3).astype(float) / (jnp.argmax(x, 0) + 2).astype(float)),
        lambda x: x / lax.div(jnp.arange(3) + 5, 2),
        lambda x: jax.scipy.linalg.solve_triangular(x[:3], x[3], trans=1, lower=True),
    ],
)
def test_complex_steps_through_them_are_derivatives(function):
    x, v = np.random.default_rng(0).standard_normal((2, 4, 3))
    with enable_x64(True):
        jaxpr = jax.make_jaxpr(function)(x)
        want = jax.device_get(jax.jvp(function, (x,), (v,))[1])
    assert interpreter.continues(jaxpr)
    (got,) = interpreter.run(jaxpr, [x + 1e-30j * v], interpreter.CONTINUED)
    np.testing.assert_allclose(np.imag(got) / 1e-30, want, rtol=1e-12, atol=1e-14)


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


def test_results_that_nobody_asks_for_are_not_computed(monkeypatch):
    computed = []
    for name in ("sqrt", "exp", "sin"):
        rule = interpreter.RULES[name]
        monkeypatch.setitem(interpreter.RULES, name, lambda params, x, name=name, rule=rule: (computed.append(name), rule(params, x))[1])

    def program(x):
        root = jnp.sqrt(x)
        return {"root": [root], "both": [jnp.exp(root), jnp.sin(x)], "constant": 2.0 * np.ones(3), "given": x}

    with enable_x64(True):
        jaxpr, out = jax.make_jaxpr(program, return_shape=True)(POSITIVE)
    result = interpreter.in_parts(jaxpr, out)([POSITIVE])
    assert computed == [] and set(result) == {"root", "both", "constant", "given"} and "root" in result and "log" not in result
    np.testing.assert_array_equal(result["root"][0], np.sqrt(POSITIVE))
    assert computed == ["sqrt"]
    np.testing.assert_array_equal(result["both"], [np.exp(np.sqrt(POSITIVE)), np.sin(POSITIVE)])
    assert sorted(computed) == ["exp", "sin", "sqrt", "sqrt"]
    result["root"], result["both"]
    assert len(computed) == 4  # once each
    np.testing.assert_array_equal(result["constant"], [2.0, 2.0, 2.0])
    assert result["given"] is POSITIVE and result.seconds["evaluate"] > 0
    other = interpreter.in_parts(jaxpr, out)([POSITIVE])
    other["both"], other["root"]
    assert sorted(computed[4:]) == ["exp", "sin", "sqrt"]  # the root is on the way to both
