"""What every operation promises, over the whole catalog: right in every dtype, and under every transformation of JAX.

The oracle is always JAX's autodiff of the reference in float64, on one device, without vmap, scan, remat or export.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from manual_vjp.catalog import SPECS
from tests.ops._helpers import CALLS, ROUNDS_BETWEEN, Call, assert_close, cast, truth, vjp_of
from verify._compat import enable_x64

F64 = 1e-12  # sums of tens of terms in float64: rounding is below 100 * 1.1e-16, a wrong formula is above 1e-8
FIRST = {call.name: call for call in reversed(CALLS)}  # of each operation


def marks(call: Call) -> list[pytest.MarkDecorator]:
    """The first call of each operation runs always; with other options at night, and `verify run` beside the tests takes some of them through these transformations,
    too. One process runs all tests of an operation: its truth is compiled once.
    """
    return [pytest.mark.xdist_group(call.name), *([] if call is FIRST[call.name] else [pytest.mark.nightly])]


each_operation = pytest.mark.parametrize("call", [pytest.param(call, id=str(call), marks=marks(call)) for call in CALLS])


def test_every_operation_is_in_the_table():
    assert {call.name for call in CALLS} == set(SPECS)


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param("float64", marks=pytest.mark.slow),
        "float32",
        pytest.param("bfloat16", marks=pytest.mark.slow),
        pytest.param("float16", marks=pytest.mark.nightly),
    ],
)
@each_operation
def test_each_dtype_against_float64(call, dtype):
    want_value, want_cts = truth(call)
    with enable_x64(dtype == "float64"):
        args = cast(call.values(), dtype)
        value, cts = vjp_of(call.fn, call.floating())(args, jnp.asarray(call.cotangent(), dtype))
    assert value.dtype == dtype
    assert [ct.dtype for ct in cts] == [dtype] * len(cts)
    # Computed in `wide` and rounded once at the end: half a unit of `dtype` in each element, and the sums' rounding in `wide`.
    # Some round in between (mlp: h and its cotangent): up to 7 terms of half a unit each in a sum.
    eps, wide = float(jnp.finfo(dtype).eps), float(jnp.finfo("float64" if dtype == "float64" else "float32").eps)
    for got, want in zip((value, *cts), (want_value, *want_cts), strict=True):
        bound = eps / 2 * np.abs(want) + (64 * wide + (4 * eps if call.name in ROUNDS_BETWEEN else 0)) * np.max(np.abs(want))
        error = np.abs(np.asarray(got, np.float64) - want)
        assert (error <= bound).all(), f"largest error {np.max(error / bound)} bounds"


@each_operation
@pytest.mark.slow
def test_mixed_dtypes(call):
    """Each cotangent comes in the dtype of its own argument, and the value in the dtype that the reference gives."""
    names = itertools.cycle(["bfloat16", "float32", "float16"])
    args = [None if a is None else cast([a], next(names))[0] for a in call.values()]
    value, cts = vjp_of(call.fn, call.floating())(args, jnp.asarray(call.cotangent()))
    assert value.dtype == jax.eval_shape(call.reference, *args).dtype
    assert [ct.dtype for ct in cts] == [args[p].dtype for p in call.floating()]
    want = truth(call)
    assert_close((value, cts), want, rtol=8 * float(jnp.finfo("bfloat16").eps))


@each_operation
def test_weak_types_follow_the_reference(call):
    """A weakly typed argument (from Python numbers) does not decide the dtype."""
    args = cast(call.values(), "bfloat16")
    last = call.floating()[-1]
    args[last] = jnp.full(args[last].shape, 0.5)  # weak float32
    assert args[last].weak_type
    value, cts = vjp_of(call.fn, call.floating())(args, jnp.asarray(call.cotangent()))
    assert value.dtype == jax.eval_shape(call.reference, *args).dtype
    assert cts[-1].dtype == args[last].dtype


@each_operation
@pytest.mark.slow
def test_vmap_over_one_argument_and_over_all(call):
    """vmap of the VJP over these, mask included, equals a loop over the reference. The check `vmap` tries the others."""
    here = [i for i, shape in enumerate(call.shapes.values()) if shape is not None]
    subsets = sorted({s for size in (1, len(here)) for s in itertools.combinations(here, size)})
    copies = [call.values(seed) for seed in (1, 2)]
    cts = np.stack([call.cotangent(seed) for seed in (101, 102)])
    run = vjp_of(call.fn, call.floating())
    oracle = vjp_of(call.reference, call.floating())

    @jax.jit
    def over_subsets(stacked, cts):
        out = []
        for subset in subsets:
            axes = [0 if i in subset else None for i in range(len(stacked))]
            args = [a if a is None or i in subset else a[0] for i, a in enumerate(stacked)]
            out.append(jax.vmap(run, in_axes=(axes, 0))(args, cts))
        return out

    with enable_x64(True):
        stacked = [None if a[0] is None else cast([np.stack(a)], "float64")[0] for a in zip(*copies, strict=True)]
        results = over_subsets(stacked, jnp.asarray(cts))
        for subset, got in zip(subsets, results, strict=True):
            looped = [
                oracle([a if a is None else a[n if i in subset else 0] for i, a in enumerate(stacked)], jnp.asarray(cts[n])) for n in (0, 1)
            ]
            assert_close(got, jax.tree.map(lambda *rows: np.stack(rows), *looped), F64, f"vmap over {subset}")


@each_operation
def test_scan_and_remat(call):
    """The gradient of a sum over steps of a scan, each recomputed in the backward pass, is the sum of the gradients."""
    steps = [call.values(seed) for seed in (1, 2, 3)]
    ct = call.cotangent()
    positions = call.floating()

    def loss(floats, first, others, ct):
        def step(total, x):
            args = list(others)
            for position, value in zip(positions[1:], floats, strict=True):
                args[position] = value
            args[0] = x
            return total + jnp.sum(jax.checkpoint(call.fn)(*args) * ct), None

        return jax.lax.scan(step, jnp.zeros((), ct.dtype), first)[0]

    with enable_x64(True):
        others = cast(steps[0], "float64")
        first = jnp.asarray(np.stack([step[0] for step in steps]))
        floats = [others[p] for p in positions[1:]]
        rest_ct, first_ct = jax.jit(jax.grad(loss, argnums=(0, 1)))(floats, first, others, jnp.asarray(ct))
        oracle = vjp_of(call.reference, positions)
        want = [oracle(cast([step[0], *steps[0][1:]], "float64"), jnp.asarray(ct))[1] for step in steps]
        assert_close([first_ct, *rest_ct], [np.stack([cts[0] for cts in want]), *map(sum, list(zip(*want, strict=True))[1:])], F64)


@each_operation
@pytest.mark.slow
def test_reverse_over_reverse(call):
    positions = call.floating()
    rng = np.random.default_rng(7)
    weights = [rng.normal(size=list(call.shapes.values())[p]) for p in positions]

    def second_order(fn):
        run = vjp_of(fn, positions)

        def of_cotangents(floats, args, ct, weights):
            args = list(args)
            for position, value in zip(positions, floats, strict=True):
                args[position] = value
            value, cts = run(args, ct)
            return jnp.sum(jnp.sin(value)) + sum(jnp.sum(w * c * c) for w, c in zip(weights, cts, strict=True))

        return jax.jit(jax.grad(of_cotangents, argnums=(0, 2)))

    with enable_x64(True):
        args = cast(call.values(), "float64")
        inputs = [args[p] for p in positions], args, jnp.asarray(call.cotangent()), [jnp.asarray(w) for w in weights]
        assert_close(second_order(call.fn)(*inputs), second_order(call.reference)(*inputs), 1e-11)  # two rounds of rounding


@pytest.mark.parametrize("grad_is", ["outside", pytest.param("inside", marks=pytest.mark.slow)])
@each_operation
def test_shard_map_with_replicated_parameters(call, grad_is):
    """Data parallel on 4 devices: gradients equal those on one device, whether the loss or its gradient is what runs on each device."""
    if not call.split:
        pytest.skip(
            "rows depend on one another: a result over all of them is no sum of the devices' results; or one key gives each device the same mask"
        )
    positions = call.floating()
    specs = [P("d") if name in call.split else P() for name in call.shapes]
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    ct = call.cotangent()
    with enable_x64(True):
        args = cast(call.values(), "float64")
        given = [i for i, a in enumerate(args) if a is not None]

        def loss(*given_args):
            *given_args, ct = given_args
            full = [None] * len(args)
            for i, value in zip(given, given_args, strict=True):
                full[i] = value
            return jnp.sum(call.fn(*full) * ct)

        argnums = tuple(given.index(p) for p in positions)
        in_specs = (*(specs[i] for i in given), P("d"))
        inputs = (*(args[i] for i in given), jnp.asarray(ct))
        if grad_is == "inside":
            out_specs = tuple(specs[p] for p in positions)
            program = jax.shard_map(jax.grad(loss, argnums), mesh=mesh, in_specs=in_specs, out_specs=out_specs)
        else:
            total = jax.shard_map(lambda *a: jax.lax.psum(loss(*a), "d"), mesh=mesh, in_specs=in_specs, out_specs=P())
            program = jax.grad(total, argnums)
        cts = jax.jit(program)(*inputs)
    assert_close(cts, truth(call)[1], F64)


@each_operation
def test_exports_to_four_platforms(call):
    """The VJP lowers for all platforms on this machine, and the exported program is right where it can run."""
    platforms = ("cpu", "cuda", "rocm", "tpu")
    args, ct = cast(call.values(), "float32"), jnp.asarray(call.cotangent(), "float32")
    exported = export.export(vjp_of(call.fn, call.floating()), platforms=platforms)(args, ct)
    assert exported.platforms == platforms
    assert_close(jax.jit(exported.call)(args, ct), truth(call), 64 * float(jnp.finfo("float32").eps))


SMALL = [
    ("linear", {"x": (0, 3), "w": (3, 2), "b": (2,)}),
    ("linear", {"x": (2, 0), "w": (0, 3), "b": (3,)}),
    ("linear", {"x": (1,), "w": (1, 0), "b": (0,)}),
    ("relu", {"x": ()}),
    ("relu", {"x": (0, 2)}),
    ("mlp", {"x": (2, 3), "w1": (3, 0), "b1": (0,), "w2": (0, 2), "b2": (2,)}),
    ("mlp", {"x": (0,), "w1": (0, 1), "b1": (1,), "w2": (1, 1), "b2": (1,)}),
    ("layer_norm", {"x": (2, 0), "scale": (0,), "bias": (0,)}),
    ("layer_norm", {"x": (3, 1), "scale": (1,), "bias": (1,)}),
    ("layer_norm", {"x": (0, 4), "scale": (4,), "bias": (4,)}),
    ("attention", {"query": (2, 3, 2, 2), "key": (2, 0, 1, 2), "value": (2, 0, 1, 2), "bias": (1, 2, 3, 1), "mask": None}),
    ("attention", {"query": (1, 0, 1, 2), "key": (1, 2, 1, 2), "value": (1, 2, 1, 2), "bias": None, "mask": (1, 1, 1, 2)}),
    ("attention", {"query": (0, 1, 1, 1), "key": (0, 1, 1, 1), "value": (0, 1, 1, 1), "bias": (1, 1, 1, 1), "mask": None}),
    ("attention", {"query": (1, 1, 0, 2), "key": (1, 2, 0, 2), "value": (1, 2, 0, 2), "bias": None, "mask": None}),
    ("attention", {"query": (3, 2, 0), "key": (2, 1, 0), "value": (2, 1, 0), "bias": None, "mask": None}),
    ("attention", {"query": (1, 1, 1), "key": (1, 1, 1), "value": (1, 1, 1), "bias": (), "mask": (1,)}),
    ("low_rank_linear", {"x": (2, 3), "u": (3, 0), "v": (2, 0), "b": (2,)}),
    ("low_rank_linear", {"x": (0, 0), "u": (0, 1), "v": (0, 1), "b": (0,)}),
    ("sparse_linear", {"x": (2, 3), "data": (0,), "indices": (0, 2), "b": (2,)}),
    ("sparse_linear", {"x": (2, 0), "data": (3,), "indices": (3, 2), "b": (2,)}),
    ("sparse_linear", {"x": (0, 1), "data": (3,), "indices": (3, 2), "b": (1,)}),
    ("embedding", {"table": (3, 0), "indices": (2,)}),
    ("embedding", {"table": (3, 1), "indices": (0,)}),
    ("embedding", {"table": (3, 2), "indices": ()}),
    ("project", {"x": (3,), "a": (3, 0)}),
    ("project", {"x": (0, 2), "a": (2, 1)}),
    ("project", {"x": (2, 1), "a": (1, 1)}),
    ("least_squares", {"x": (3, 0), "y": (3, 2)}),
    ("least_squares", {"x": (0, 3), "y": (0, 2)}),
    ("least_squares", {"x": (1, 1), "y": (1,)}),
    ("least_squares", {"x": (3, 2), "y": (3, 0)}),
    ("residual", {"x": (0, 2), "w": (2, 2), "scale": (1,)}),
    ("residual", {"x": (0,), "w": (0, 0), "scale": ()}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shapes"), SMALL, ids=lambda v: v if isinstance(v, str) else "".join(map(str, v.values())))
def test_sizes_zero_and_one(name, shapes):
    call = Call(name=name, shapes=shapes)
    with enable_x64(True):
        got = vjp_of(call.fn, call.floating())(cast(call.values(), "float64"), jnp.asarray(call.cotangent()))
    want = truth(call)
    assert not any(np.isnan(w).any() for w in jax.tree.leaves(want))
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=F64, atol=F64)  # layer_norm of one number has cotangent 0, where relative means nothing


@each_operation
@pytest.mark.slow
def test_jit_is_not_needed(call):
    """Called without jit, and differentiated without jit."""
    args, positions = cast(call.values(), "float32"), call.floating()
    loss = jax.grad(lambda first: jnp.sum(call.fn(first, *args[1:]) * call.cotangent().astype("float32")))
    assert_close(loss(args[positions[0]]), truth(call)[1][0], 64 * float(jnp.finfo("float32").eps))


@each_operation
def test_reference_has_no_custom_rule_and_the_operation_has_one(call):
    args = cast(call.values(), "float32")
    assert "custom_" not in str(jax.make_jaxpr(call.reference)(*args))
    assert "custom_vjp_call" in str(jax.make_jaxpr(call.fn)(*args))


@pytest.mark.parametrize("name", SPECS)
def test_docstrings_hold_derivation_and_interface(name):
    module = __import__(f"manual_vjp.ops.{name}", fromlist=["SPEC"])
    order = [module.__doc__.index(word) for word in ("Source:", "Forward", "Derivation.", "Backward", "Validity:", "Residuals:", "Cost,")]
    assert order == sorted(order)
    public = getattr(module, name).__doc__
    assert all(word in public for word in ("Args:", "Returns:", "Raises:", "Example:"))
    assert SPECS[name].source
