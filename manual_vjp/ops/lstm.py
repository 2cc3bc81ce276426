r"""Long short-term memory.

Source: Hochreiter & Schmidhuber, "Long short-term memory" (Neural Computation 9, 1997); forget gate: Gers, Schmidhuber & Cummins (Neural Computation 12, 2000).

Forward, for t = 1 to T from the state h_0, c_0 in R^H, with rows x_t in R^D; a has four parts of H numbers, i, f, g and o:
    a_t = x_t w_x + h_(t-1) w_h + b     i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)     g = tanh(a_g)
    c_t = f c_(t-1) + i g     h_t = o tanh(c_t)
Derivation.  For a step, with y = tanh(c_t):
    dh_t = y do + o (1 - y^2) dc_t     dc_t = f dc_(t-1) + c_(t-1) df + g di + i dg     ds = s (1 - s) da_s for s = i, f, o     dg = (1 - g^2) da_g
Backward, with h_ct_t given for each output and those of the last state, from t = T to 1; H_ct_t and C_ct_t are the whole cotangents of h_t and c_t:
    C_ct_t = (that of c_t from the step after it) + o (1 - y^2) H_ct_t     C_ct_(t-1) from this step: f C_ct_t
    a_ct_t = (g i (1 - i) C_ct_t, c_(t-1) f (1 - f) C_ct_t, i (1 - g^2) C_ct_t, y o (1 - o) H_ct_t)     H_ct_(t-1) = h_ct_(t-1) + a_ct_t w_h^T
    x_ct_t = a_ct_t w_x^T     w_x_ct = sum_t x_t^T a_ct_t     w_h_ct = sum_t h_(t-1)^T a_ct_t     b_ct = sum_t a_ct_t
    The gates come from h_(t-1) and x_t, which are known for all t: they are computed again for a block of steps at once, in two products, and c_t
    from them and c at the start of the block, without a product.
    Only a_ct_t w_h^T waits for the step after it. A sequence that has ended: h_t, c_t = h_(t-1), c_(t-1) and output 0, and so for their cotangents.
Validity: everywhere. 16-bit inputs compute in float32, all states between the first and the last included.
Residuals: x, weights and the first state, which the caller holds; all h_t, which are the output itself (before it is rounded to 16 bits); and one c for
    each block of 16 to 32 steps. Autodiff keeps twelve arrays of that size. With `checkpoint` instead of all h_t
    one h and one c for each block of k steps, and the others are computed again.
Cost, forward, backward:  products 8 T N H (D + H), 24 T N H (D + H)     elementary functions 5 T N H, 5 T N H
    for N sequences; a third of the backward computes the gates again.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from manual_vjp._recurrent import Cell, Residuals, backward, forward, where
from manual_vjp._sequences import Arrays, State, Walk, over_batch, plain, require_arrays, some_lengths, walk_of
from verify.spec import Arg, Spec


def lstm(
    x: Float[Array, "*batch T D"],
    w_x: Float[Array, "D 4*H"],
    w_h: Float[Array, "H 4*H"],
    b: Float[Array, "4*H"] | None = None,
    h0: Float[Array, "*batch H"] | None = None,
    c0: Float[Array, "*batch H"] | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    *,
    reverse: bool = False,
    checkpoint: bool = False,
    block_size: int | None = None,
) -> tuple[Float[Array, "*batch T H"], tuple[Float[Array, "*batch H"], Float[Array, "*batch H"]]]:
    """Long short-term memory over each element of a sequence, as `flax.nnx.RNN(OptimizedLSTMCell)` and `torch.nn.LSTM(batch_first=True)`.

    Args:
        x: sequences, `(*batch, T, D)` with any number of batch dimensions, of any floating dtype, as are the others.
        w_x, w_h: weights of the input `(D, 4 H)` and of the state `(H, 4 H)`: columns of the input gate, the forget gate, the candidate, the output gate
            (torch's are transposed).
        b: bias, `(4 H,)`, or None for none. (torch has two, which are added.)
        h0, c0: the first state, `(*batch, H)`, or None for 0.
        lengths: how many elements each sequence has, integers `(*batch,)`; or None for T. What stands in x after them is not looked at; outputs are 0 there,
            and the last state is that after the last element (the first one if there is none), as in packed sequences of torch.
        reverse: begin with the last element of each sequence, and end with the first. Outputs stay in the places of their inputs.
        checkpoint: keep for the backward one state of each block of steps instead of all outputs, and compute the others again. It is of use where outputs are
            not needed, or are rounded to 16 bits.
        block_size: how many steps make a block, for which the products with inputs and weights are taken at once; None for 16 to 32, and for about sqrt(T) with
            `checkpoint`.

    Returns:
        h after each element, `(*batch, T, H)`, and the last state (h, c), `(*batch, H)` each; in the dtype that the floating arguments promote to.

    Raises:
        ValueError: a shape does not fit, checkpoint is neither True nor False, or block_size is below 1.
        TypeError: an argument is not floating point, or lengths are not integers.

    Example:
        >>> x, w_x, w_h = jnp.ones((3, 1)), jnp.array([[50.0, 50.0, 50.0, 50.0]]), jnp.zeros((1, 4))
        >>> hs, (h, c) = lstm(x, w_x, w_h)  # all gates open: c counts the elements
        >>> c, hs.ravel().round(2)  # tanh of 1, 2 and 3
        (Array([3.], dtype=float32), Array([0.76, 0.96, 1.  ], dtype=float32))
        >>> jax.grad(lambda c0: lstm(x, w_x, w_h, c0=c0)[1][1].sum())(jnp.zeros(1))
        Array([1.], dtype=float32)
    """
    arrays = Arrays(x, w_x, w_h, b, None, (h0, c0), lengths)
    require_arrays("lstm", arrays, 4, ("h0", "c0"))
    hs, (h, c) = _compiled(arrays, walk_of("lstm", x, reverse, checkpoint, block_size))
    return hs, (h, c)


@ft.partial(jax.jit, static_argnums=1)
def _compiled(arrays: Arrays, walk: Walk):
    return over_batch(lambda flat: _lstm(flat, walk), arrays)


@ft.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _lstm(arrays: Arrays, walk: Walk) -> tuple[Array, State]:
    return _forward(arrays, walk)[0]


def _forward(arrays: Arrays, walk: Walk) -> tuple[tuple[Array, State], Residuals]:
    return forward(CELL, walk, arrays)


def _backward(walk: Walk, residuals: Residuals, cts: tuple[Array, State]) -> tuple[Arrays]:
    return backward(CELL, walk, residuals, cts)


_lstm.defvjp(_forward, _backward)


def _gates(u, v):
    i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _step(u, v, state):
    i, f, g, o = _gates(u, v)
    c = f * state[1] + i * g
    return o * jnp.tanh(c), c


def _slopes(products, start, before, after, alive):
    i, f, g, o = _gates(*products())
    c = _memory(where(alive, f, 1), where(alive, i * g, 0), start[0])
    y, c_before = jnp.tanh(c), jnp.concatenate([start[0][None], c[:-1]])
    return g * i * (1 - i), c_before * f * (1 - f), i * (1 - g) * (1 + g), y * o * (1 - o), o * (1 - y) * (1 + y), f


def _memory(keep, add, c):
    """c after each step."""

    def step(c, at):
        c = at[0] * c + at[1]
        return c, c

    return jax.lax.scan(step, c, (keep, add))[1]


def _pull(slopes, state_ct):
    of_i, of_f, of_g, of_o, of_c, f = slopes
    h_ct, c_ct = state_ct
    c_ct = c_ct + of_c * h_ct
    a_ct = [of_i * c_ct, of_f * c_ct, of_g * c_ct, of_o * h_ct]
    return a_ct, a_ct, (0, f * c_ct)


CELL = Cell(gates=4, step=_step, slopes=_slopes, pull=_pull)


def reference(x, w_x, w_h, b=None, h0=None, c0=None, lengths=None, *, reverse=False, checkpoint=False, block_size=None):
    """The textbook formula."""
    del checkpoint, block_size  # they change no value
    size = w_h.shape[0]
    result = jnp.result_type(*(a for a in (x, w_x, w_h, b, h0, c0) if a is not None))

    def step(x, h, c):
        a = x @ w_x + h @ w_h + (0 if b is None else b)
        i, f, g, o = (a[..., k * size : (k + 1) * size] for k in range(4))
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return plain(step, (h0, c0), x, size, lengths, reverse, result)


SPEC = Spec(
    name="lstm",
    fn=lstm,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={
        "x": Arg(dims="*batch T D"),
        "w_x": Arg(dims="D 4*H", low=-0.5, high=0.5),
        "w_h": Arg(dims="H 4*H", low=-0.3, high=0.3),
        "b": Arg(dims="4*H", optional=True),
        "h0": Arg(dims="*batch H", optional=True, low=-1.0, high=1.0),
        "c0": Arg(dims="*batch H", optional=True, low=-2.0, high=2.0),
        "lengths": Arg(dims="*batch", dtype="int32", optional=True, sample=some_lengths),
    },
    sizes={"batch": (0, 3), "T": (0, 70), "D": (0, 33), "H": (0, 33)},
    options={"reverse": (False, True), "checkpoint": (False, True), "block_size": (None, 3)},
    source="Hochreiter & Schmidhuber (Neural Computation 9, 1997); Gers et al. (Neural Computation 12, 2000)",
)
