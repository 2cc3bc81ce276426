r"""Recurrent network of Elman: a linear layer of the input and the last state, then tanh or ReLU, for each element of a sequence.

Source: Elman, "Finding structure in time" (Cognitive Science 14, 1990); Werbos, "Backpropagation through time" (Proceedings of the IEEE 78, 1990).

Forward, for t = 1 to T from the state h_0 in R^H, with rows x_t in R^D:
    z_t = x_t w_x + h_(t-1) w_h + b     h_t = tanh(z_t), or max(z_t, 0)
Derivation.  dh_t = s_t dz_t     dz_t = dx_t w_x + x_t dw_x + dh_(t-1) w_h + h_(t-1) dw_h + db
    s_t = (1 - h_t)(1 + h_t) for tanh, [h_t > 0] for ReLU: h_t alone tells. h_t is an output, and goes on to z_(t+1) and, at t = T, to the last state.
Backward, with h_ct_t given for each output and that of the last state, from t = T to 1:
    H_ct_T = h_ct_T + (that of the last state)     H_ct_t = h_ct_t + z_ct_(t+1) w_h^T     z_ct_t = s_t H_ct_t     that of h_0: z_ct_1 w_h^T
    x_ct_t = z_ct_t w_x^T     w_x_ct = sum_t x_t^T z_ct_t     w_h_ct = sum_t h_(t-1)^T z_ct_t     b_ct = sum_t z_ct_t     (and over the batch)
    Only z_ct_(t+1) w_h^T waits for the step after it. The other products are taken for a block of steps at once, while it is in the caches.
    A sequence that has ended: h_t = h_(t-1) and output 0, so H_ct_(t-1) = H_ct_t, and x_t takes part in nothing.
Validity: tanh everywhere; z_t = 0 is a kink of ReLU, where the derivative is 0 by convention. Overflow of ReLU's states is the caller's affair. 16-bit inputs
    compute in float32, all states between the first and the last included.
Residuals: x, weights and h_0, which the caller holds, and all h_t, which are the output itself (before it is rounded to 16 bits); so no memory of its own.
    Autodiff keeps three arrays of that size. With `checkpoint` instead of h_t one state for each block of k steps, and the others are computed again.
Cost, forward, backward:  products 2 T N H (D + H), 4 T N H (D + H)     elementary functions T N H, none
    for N sequences; with ReLU no elementary functions.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from manual_vjp._recurrent import Cell, Residuals, backward, forward
from manual_vjp._sequences import Arrays, State, Walk, over_batch, plain, require_arrays, some_lengths, walk_of
from verify.spec import Arg, Spec


def rnn(
    x: Float[Array, "*batch T D"],
    w_x: Float[Array, "D H"],
    w_h: Float[Array, "H H"],
    b: Float[Array, "H"] | None = None,
    h0: Float[Array, "*batch H"] | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    *,
    activation: str = "tanh",
    reverse: bool = False,
    checkpoint: bool = False,
    block_size: int | None = None,
) -> tuple[Float[Array, "*batch T H"], Float[Array, "*batch H"]]:
    """`h = activation(x[t] @ w_x + h @ w_h + b)` for each element of a sequence, as `flax.nnx.RNN(SimpleCell)` and `torch.nn.RNN(batch_first=True)`.

    Args:
        x: sequences, `(*batch, T, D)` with any number of batch dimensions, of any floating dtype, as are the others.
        w_x, w_h: weights of the input `(D, H)` and of the state `(H, H)`.
        b: bias, `(H,)`, or None for none. (torch has two, which are added.)
        h0: the first state, `(*batch, H)`, or None for 0.
        lengths: how many elements each sequence has, integers `(*batch,)`; or None for T. What stands in x after them is not looked at; outputs are 0 there,
            and the last state is that after the last element (h0 if there is none), as in packed sequences of torch.
        activation: "tanh" or "relu".
        reverse: begin with the last element of each sequence, and end with the first. Outputs stay in the places of their inputs.
        checkpoint: keep for the backward one state of each block of steps instead of all outputs, and compute the others again. It is of use where outputs are
            not needed, or are rounded to 16 bits.
        block_size: how many steps make a block, for which the products with inputs and weights are taken at once; None for 16 to 32, and for about sqrt(T) with
            `checkpoint`.

    Returns:
        The state after each element, `(*batch, T, H)`, and the last one, `(*batch, H)`; in the dtype that the floating arguments promote to.

    Raises:
        ValueError: a shape does not fit, activation has another name, checkpoint is neither True nor False, or block_size is below 1.
        TypeError: an argument is not floating point, or lengths are not integers.

    Example:
        >>> x, w_x, w_h = jnp.array([[1.0], [2.0], [3.0]]), jnp.ones((1, 1)), jnp.array([[0.5]])
        >>> hs, h = rnn(x, w_x, w_h, activation="relu")
        >>> hs.ravel(), h
        (Array([1.  , 2.5 , 4.25], dtype=float32), Array([4.25], dtype=float32))
        >>> jax.grad(lambda x: rnn(x, w_x, w_h, activation="relu")[1].sum())(x).ravel()
        Array([0.25, 0.5 , 1.  ], dtype=float32)
    """
    arrays = Arrays(x, w_x, w_h, b, None, (h0,), lengths)
    require_arrays("rnn", arrays, 1, ("h0",))
    if activation not in ("tanh", "relu"):
        raise ValueError(f"rnn: activation is {activation!r}, wanted 'tanh' or 'relu'")
    hs, (h,) = _compiled(arrays, walk_of("rnn", x, reverse, checkpoint, block_size), activation)
    return hs, h


@ft.partial(jax.jit, static_argnums=(1, 2))
def _compiled(arrays: Arrays, walk: Walk, activation: str):
    return over_batch(lambda flat: _rnn(flat, walk, activation), arrays)


@ft.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _rnn(arrays: Arrays, walk: Walk, activation: str) -> tuple[Array, State]:
    return _forward(arrays, walk, activation)[0]


def _forward(arrays: Arrays, walk: Walk, activation: str) -> tuple[tuple[Array, State], Residuals]:
    return forward(CELLS[activation], walk, arrays)


def _backward(walk: Walk, activation: str, residuals: Residuals, cts: tuple[Array, State]) -> tuple[Arrays]:
    return backward(CELLS[activation], walk, residuals, cts)


_rnn.defvjp(_forward, _backward)


def _pull(slope, state_ct):
    z_ct = [slope * state_ct[0]]
    return z_ct, z_ct, (0,)


def _tanh_step(u, v, state):
    return (jnp.tanh(u[0] + v[0]),)


def _tanh_slopes(products, start, before, after, alive):
    return (1 - after) * (1 + after)


def _relu_step(u, v, state):
    return (jnp.maximum(u[0] + v[0], 0),)


def _relu_slopes(products, start, before, after, alive):
    return (after != 0).astype(after.dtype)


CELLS = {
    "tanh": Cell(gates=1, step=_tanh_step, slopes=_tanh_slopes, pull=_pull),
    "relu": Cell(gates=1, step=_relu_step, slopes=_relu_slopes, pull=_pull),
}


def reference(x, w_x, w_h, b=None, h0=None, lengths=None, *, activation="tanh", reverse=False, checkpoint=False, block_size=None):
    """The textbook formula; relu written with `z <= 0` so that NaN, which compares false, stays NaN."""
    del checkpoint, block_size  # they change no value
    result = jnp.result_type(*(a for a in (x, w_x, w_h, b, h0) if a is not None))

    def step(x, h):
        z = x @ w_x + h @ w_h + (0 if b is None else b)
        return (jnp.tanh(z) if activation == "tanh" else jnp.where(z <= 0, 0, z),)

    hs, (h,) = plain(step, (h0,), x, w_h.shape[0], lengths, reverse, result)
    return hs, h


SPEC = Spec(
    name="rnn",
    fn=rnn,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={
        "x": Arg(dims="*batch T D"),
        "w_x": Arg(dims="D H", low=-0.5, high=0.5),
        "w_h": Arg(dims="H H", low=-0.3, high=0.3),  # of H = 33 such columns the largest eigenvalue is about 1: no state explodes
        "b": Arg(dims="H", optional=True),
        "h0": Arg(dims="*batch H", optional=True, low=-1.0, high=1.0),
        "lengths": Arg(dims="*batch", dtype="int32", optional=True, sample=some_lengths),
    },
    sizes={"batch": (0, 3), "T": (0, 70), "D": (0, 33), "H": (0, 33)},
    options={"activation": ("tanh", "relu"), "reverse": (False, True), "checkpoint": (False, True), "block_size": (None, 3)},
    source="Elman (Cognitive Science 14, 1990); Werbos (Proceedings of the IEEE 78, 1990)",
)
