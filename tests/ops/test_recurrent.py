"""Recurrent layers beside flax and torch, and what they say of lengths, direction, checkpoints, missing steps and memory.

Gradients are those of every floating argument, under random cotangents of all outputs, the last state included.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import manual_vjp as mv
from verify._compat import enable_x64
from verify.checks.residuals import saved_bytes

TIGHT = 1e-11  # float64, other orders of summation over some tens of steps; a wrong formula differs by 1e-8 and more
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
B, D, H = 3, 4, 5
every_layer = pytest.mark.parametrize("name", GATES)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def arguments(name, t, batch=(B,)):
    """Arguments by name, with weights at which states neither explode nor die."""
    columns = GATES[name] * H
    args = {"x": normal(*batch, t, D), "w_x": normal(D, columns, seed=1) / 2, "w_h": normal(H, columns, seed=2) / H**0.5}
    args |= {"b": normal(columns, seed=3), "h0": normal(*batch, H, seed=4)}
    if name == "gru":
        args["b_h"] = normal(columns, seed=6)
    if name == "lstm":
        args["c0"] = normal(*batch, H, seed=5)
    return args


def layer(name, **options):
    return lambda args: getattr(mv, name)(**args, **options)


def run(fn, args, cts=None):
    """Outputs and the gradient of each argument, in float64."""
    with enable_x64(True):
        args = jax.tree.map(lambda a: jnp.asarray(a, "float64"), args)
        leaves, tree = jax.tree.flatten(jax.eval_shape(fn, args))
        cts = cts or [normal(*leaf.shape, seed=50 + k) for k, leaf in enumerate(leaves)]

        @jax.jit
        def value_and_gradient(args, cts):
            out, pullback = jax.vjp(fn, args)
            return out, *pullback(jax.tree.unflatten(tree, cts))

        return jax.tree.map(np.asarray, value_and_gradient(args, [jnp.asarray(ct) for ct in cts]))


def agree(got, want):
    """Elementwise, relative to the largest element of each array."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=TIGHT, atol=TIGHT * np.max(np.abs(w), initial=0))


def in_parts(array, names):
    return dict(zip(names, jnp.split(array, len(names), axis=-1), strict=True))


def flax(name, lengths, reverse, activation):
    """flax.linen.RNN of the cell, with our arguments; outputs after a sequence's end are not defined there, and 0 here."""
    cells = {"rnn": linen.SimpleCell(H, activation_fn=activation), "gru": linen.GRUCell(H), "lstm": linen.OptimizedLSTMCell(H)}
    network = linen.RNN(cells[name], return_carry=True, reverse=reverse, keep_order=True)

    def apply(args):
        if name == "rnn":
            params = {"i": {"kernel": args["w_x"], "bias": args["b"]}, "h": {"kernel": args["w_h"]}}
        elif name == "gru":
            own, of_h, bias = (in_parts(args[k], "rzn") for k in ("w_x", "w_h", "b"))
            params = {f"i{k}": {"kernel": own[k], "bias": bias[k]} for k in "rzn"} | {f"h{k}": {"kernel": of_h[k]} for k in "rzn"}
            params["hn"]["bias"] = args["b_h"][2 * H :]  # it has no other
        else:
            own, of_h, bias = (in_parts(args[k], "ifgo") for k in ("w_x", "w_h", "b"))
            params = {f"i{k}": {"kernel": own[k]} for k in "ifgo"} | {f"h{k}": {"kernel": of_h[k], "bias": bias[k]} for k in "ifgo"}
        first = (args["c0"], args["h0"]) if name == "lstm" else args["h0"]
        last, hs = network.apply({"params": {"cell": params}}, args["x"], initial_carry=first, seq_lengths=lengths)
        if lengths is not None:
            hs = jnp.where(jnp.arange(hs.shape[1])[:, None] < lengths[:, None, None], hs, 0)
        return hs, last[::-1] if name == "lstm" else last

    return apply


def only_bias_of_the_candidate(args):
    if "b_h" not in args:
        return args
    return args | {"b_h": np.where(np.arange(3 * H) < 2 * H, 0, args["b_h"])}


@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.nightly), True])
@pytest.mark.parametrize("lengths", [pytest.param(None, marks=pytest.mark.nightly), (7, 37, 1)], ids=["all", "lengths"])
@every_layer
def test_flax(name, lengths, reverse):
    """T = 37: a short block and two full ones."""
    lengths = None if lengths is None else np.array(lengths)
    args = only_bias_of_the_candidate(arguments(name, 37))
    options = {"activation": "relu"} if name == "rnn" and reverse else {}
    (out, gradient), (want_out, want_gradient) = (
        run(fn, args)
        for fn in (
            layer(name, lengths=lengths, reverse=reverse, **options),
            flax(name, lengths, reverse, jax.nn.relu if options else jnp.tanh),
        )
    )
    agree((out, only_bias_of_the_candidate(gradient)), (want_out, want_gradient))


@pytest.mark.parametrize("lengths", [None, (7, 37, 1)], ids=["all", "lengths"])
@every_layer
def test_torch_with_packed_sequences(name, lengths):
    torch = pytest.importorskip("torch")
    args = arguments(name, 37)
    modules = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    module = modules[name](D, H, batch_first=True).double()
    tensors = {k: torch.tensor(a, requires_grad=True) for k, a in args.items()}
    weights = {"weight_ih_l0": tensors["w_x"].T, "weight_hh_l0": tensors["w_h"].T, "bias_ih_l0": tensors["b"]}
    weights["bias_hh_l0"] = tensors.get("b_h", torch.zeros_like(tensors["b"]))
    first = tensors["h0"][None]
    first = (first, tensors["c0"][None]) if name == "lstm" else first
    x = tensors["x"]
    pad, pack = torch.nn.utils.rnn.pad_packed_sequence, torch.nn.utils.rnn.pack_padded_sequence
    given = x if lengths is None else pack(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    hs, last = torch.func.functional_call(module, weights, (given, first))
    hs = hs if lengths is None else pad(hs, batch_first=True)[0]
    outputs = [hs, *(part[0] for part in (last if name == "lstm" else (last,)))]
    cts = [normal(*out.shape, seed=50 + k) for k, out in enumerate(outputs)]
    want = dict(zip(tensors, torch.autograd.grad(outputs, list(tensors.values()), [torch.tensor(ct) for ct in cts]), strict=True))
    out, gradient = run(layer(name, lengths=None if lengths is None else np.array(lengths)), args, cts)
    agree(jax.tree.leaves(out), [a.detach().numpy() for a in outputs])
    agree(gradient, {k: a.numpy() for k, a in want.items()})


@pytest.mark.parametrize(
    ("name", "t", "block_size", "reverse"),
    [
        ("lstm", 1, None, False),
        ("lstm", 17, 1, False),
        ("lstm", 33, None, True),
        pytest.param("lstm", 7, 100, True, marks=pytest.mark.nightly),
        pytest.param("gru", 16, 5, False, marks=pytest.mark.nightly),
        ("rnn", 34, 16, True),
    ],
)
def test_checkpoints_and_blocks_change_nothing(name, t, block_size, reverse):
    options = {"reverse": reverse, "lengths": np.array([t // 2, 0, t]) if t > 16 else None}
    args = arguments(name, t)
    want = run(layer(name, **options), args)
    agree(run(layer(name, checkpoint=True, block_size=block_size, **options), args), want)
    agree(run(layer(name, block_size=block_size, **options), args), want)


@pytest.mark.parametrize(("name", "reverse"), [("rnn", False), ("gru", True), ("lstm", True)])
def test_a_sequence_ends_at_its_length(name, reverse):
    """Each is a run of its own on what exists of it; what stands behind, NaN here, takes part in nothing."""
    lengths, t = [0, 2, 34], 34
    args, cts = arguments(name, t), [normal(B, t, H, seed=60), *(normal(B, H, seed=61 + k) for k in range(2))][: 3 if name == "lstm" else 2]
    for k, n in enumerate(lengths):
        args["x"][k, n:] = np.nan
    out, gradient = run(layer(name, lengths=np.array(lengths), reverse=reverse), args, cts)
    hs, last = out
    total = dict.fromkeys(set(args) - {"x", "h0", "c0"}, 0.0)
    for k, n in enumerate(lengths):
        one = {key: a[k] if key in ("x", "h0", "c0") else a for key, a in args.items()} | {"x": args["x"][k, :n]}
        (want_hs, want_last), want = run(layer(name, reverse=reverse), one, [cts[0][k, :n], *(ct[k] for ct in cts[1:])])
        agree((hs[k, :n], jax.tree.map(lambda a, k=k: a[k], last)), (want_hs, want_last))
        assert not hs[k, n:].any() and not gradient["x"][k, n:].any()
        agree({key: gradient[key][k] for key in want if key in ("h0", "c0")}, {key: want[key] for key in want if key in ("h0", "c0")})
        agree(gradient["x"][k, :n], want["x"])
        total = {key: value + want[key] for key, value in total.items()}
    agree({key: gradient[key] for key in total}, total)


def test_reverse_is_a_flipped_sequence():
    def flipped(args):
        hs, last = layer("gru")(args | {"x": jnp.flip(args["x"], axis=-2)})
        return jnp.flip(hs, axis=-2), last

    args = arguments("gru", 34)
    agree(run(layer("gru", reverse=True), args), run(flipped, args))


@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
def test_any_number_of_batch_dimensions(batch):
    def flat(args):
        n = int(np.prod(batch))
        reshaped = {k: a.reshape(n, *a.shape[len(batch) :]) if k in ("x", "h0", "c0") else a for k, a in args.items()}
        return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), layer("lstm")(reshaped))

    args = arguments("lstm", 3, batch)
    agree(run(layer("lstm"), args), run(flat, args))


@every_layer
def test_without_a_step_the_first_state_is_the_last(name):
    args = arguments(name, 0)
    (hs, last), gradient = run(layer(name), args)
    assert hs.shape == (B, 0, H)
    agree(jax.tree.leaves(last), [args[k] for k in ("h0", "c0") if k in args])
    agree([gradient[k] for k in ("h0", "c0") if k in args], [normal(B, H, seed=51 + k) for k in range(2 if name == "lstm" else 1)])
    assert not any(gradient[k].any() for k in args if k not in ("h0", "c0"))


@pytest.mark.parametrize(
    ("checkpoint", "states"), [(False, {"rnn": 100, "gru": 100, "lstm": 100 + 5}), (True, {"rnn": 10, "gru": 10, "lstm": 20})]
)
@every_layer
def test_what_is_kept(name, checkpoint, states):
    """All outputs, of c one in 20; or with checkpoints one state for each 10 of 100 steps."""

    class Call:
        @staticmethod
        def run(floats, rest):
            return layer(name, checkpoint=checkpoint)(dict(zip(keys, floats, strict=True)))[0]

    args = {k: jnp.asarray(a, "float32") for k, a in arguments(name, 100).items()}
    keys = list(args)
    assert saved_bytes(Call, list(args.values()), []) == 4 * B * H * states[name]


def test_sixteen_bits_are_rounded_once():
    """A state is not rounded from step to step: 200 steps in bfloat16 are as good as one."""
    args = {k: jnp.asarray(a, "bfloat16") for k, a in arguments("lstm", 200).items()}
    (hs, _), gradient = jax.vjp(layer("lstm"), args)
    exact, _ = run(layer("lstm"), {k: np.asarray(a, np.float64) for k, a in args.items()})
    assert hs.dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(hs, np.float64), exact[0], rtol=2.0**-8, atol=1e-5)  # half a unit, and float32's rounding


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"x": np.ones(4)}, {}, ValueError, r"gru: x has shape \(4,\), wanted \(\*batch, T, D\)"),
        ({"w_h": np.ones((5, 5))}, {}, ValueError, r"gru: w_h has shape \(5, 5\), wanted \(5, 15\) because it has 5 rows"),
        ({"w_x": np.ones((3, 15))}, {}, ValueError, r"gru: w_x has shape \(3, 15\), wanted \(4, 15\) because x has shape"),
        ({"b": np.ones(5)}, {}, ValueError, r"gru: b has shape \(5,\), wanted \(15,\) because w_h"),
        ({"h0": np.ones(5)}, {}, ValueError, r"gru: h0 has shape \(5,\), wanted \(3, 5\) because x"),
        ({"h0": np.ones((3, 5), int)}, {}, TypeError, "gru: h0 has dtype int"),
        ({"lengths": np.ones(2, int)}, {}, ValueError, r"gru: lengths has shape \(2,\), wanted \(3,\)"),
        ({"lengths": np.ones(3)}, {}, TypeError, r"gru: lengths has dtype float\d\d, wanted integers"),
        (
            {},
            {"checkpoint": 3},
            ValueError,
            "gru: checkpoint is 3, wanted True or False; the number of steps between checkpoints is block_size",
        ),
        ({}, {"block_size": 0}, ValueError, "gru: block_size is 0, wanted a number of steps of at least 1, or None"),
        ({}, {"block_size": 2.5}, ValueError, "gru: block_size is 2.5, wanted"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_messages(change, options, error, message):
    with pytest.raises(error, match=message):
        layer("gru", **options)(arguments("gru", 3) | change)


def test_activation_is_named():
    with pytest.raises(ValueError, match="rnn: activation is 'sin', wanted 'tanh' or 'relu'"):
        layer("rnn", activation="sin")(arguments("rnn", 3))
