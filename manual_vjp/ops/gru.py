r"""Gated recurrent unit, with the reset gate after the product with w_h, as torch, flax and cuDNN have it.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014), arXiv:1406.1078 (its first version; later ones reset h before the product).

Forward, for t = 1 to T from the state h_0 in R^H, with rows x_t in R^D; u, v and b have three parts of H numbers, r, z and n:
    u_t = x_t w_x + b     v_t = h_(t-1) w_h + b_h
    r = sigmoid(u_r + v_r)     z = sigmoid(u_z + v_z)     n = tanh(u_n + r v_n)     h_t = (1 - z) n + z h_(t-1)
Derivation.  For a step, with q = u_n + r v_n:
    dh_t = (1 - z) dn + (h_(t-1) - n) dz + z dh_(t-1)
    dn = (1 - n^2) dq     dq = du_n + r dv_n + v_n dr     dz = z (1 - z) (du_z + dv_z)     dr = r (1 - r) (du_r + dv_r)
    so with N = (1 - z)(1 - n^2)     Z = (h_(t-1) - n) z (1 - z)     R = N v_n r (1 - r)
    dh_t = R (du_r + dv_r) + Z (du_z + dv_z) + N (du_n + r dv_n) + z dh_(t-1)
Backward, with h_ct_t given for each output and that of the last state, from t = T to 1; H_ct_t is the whole cotangent of h_t:
    u_ct_t = (R, Z, N) H_ct_t     v_ct_t = (R, Z, r N) H_ct_t     H_ct_(t-1) = h_ct_(t-1) + z H_ct_t + v_ct_t w_h^T
    x_ct_t = u_ct_t w_x^T     w_x_ct = sum_t x_t^T u_ct_t     w_h_ct = sum_t h_(t-1)^T v_ct_t     b_ct = sum_t u_ct_t     b_h_ct = sum_t v_ct_t
    R, Z, N, r and z come from h_(t-1) and x_t, which are known for all t: they are computed again for a block of steps at once, in two products.
    Only v_ct_t w_h^T waits for the step after it. A sequence that has ended: h_t = h_(t-1) and output 0, so H_ct_(t-1) = H_ct_t.
Validity: everywhere. 16-bit inputs compute in float32, all states between the first and the last included.
Residuals: x, weights and h_0, which the caller holds, and all h_t, which are the output itself (before it is rounded to 16 bits); so no memory of its own.
    Autodiff keeps nine arrays of that size. With `checkpoint` instead of h_t one state for each block of k steps, and the others are computed again.
Cost, forward, backward:  products 6 T N H (D + H), 18 T N H (D + H)     elementary functions 3 T N H, 3 T N H
    for N sequences; a third of the backward computes the gates again.
"""

import functools as ft

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from manual_vjp._recurrent import Cell, Residuals, backward, forward
from manual_vjp._sequences import Arrays, State, Walk, over_batch, plain, require_arrays, some_lengths, walk_of
from verify.spec import Arg, Spec


def gru(
    x: Float[Array, "*batch T D"],
    w_x: Float[Array, "D 3*H"],
    w_h: Float[Array, "H 3*H"],
    b: Float[Array, "3*H"] | None = None,
    b_h: Float[Array, "3*H"] | None = None,
    h0: Float[Array, "*batch H"] | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    *,
    reverse: bool = False,
    checkpoint: bool = False,
    block_size: int | None = None,
) -> tuple[Float[Array, "*batch T H"], Float[Array, "*batch H"]]:
    """A gated recurrent unit over each element of a sequence, as `flax.nnx.RNN(GRUCell)` and `torch.nn.GRU(batch_first=True)`.

    Args:
        x: sequences, `(*batch, T, D)` with any number of batch dimensions, of any floating dtype, as are the others.
        w_x, w_h: weights of the input `(D, 3 H)` and of the state `(H, 3 H)`: columns of the reset gate, of the update gate, of the candidate (torch's are
            transposed).
        b, b_h: biases of the input's and of the state's product, `(3 H,)`, or None for none. They differ in the candidate, where reset multiplies that of the
            state; flax has b only, torch both.
        h0: the first state, `(*batch, H)`, or None for 0.
        lengths: how many elements each sequence has, integers `(*batch,)`; or None for T. What stands in x after them is not looked at; outputs are 0 there,
            and the last state is that after the last element (h0 if there is none), as in packed sequences of torch.
        reverse: begin with the last element of each sequence, and end with the first. Outputs stay in the places of their inputs.
        checkpoint: keep for the backward one state of each block of steps instead of all outputs, and compute the others again. It is of use where outputs are
            not needed, or are rounded to 16 bits.
        block_size: how many steps make a block, for which the products with inputs and weights are taken at once; None for 16 to 32, and for about sqrt(T) with
            `checkpoint`.

    Returns:
        The state after each element, `(*batch, T, H)`, and the last one, `(*batch, H)`; in the dtype that the floating arguments promote to.

    Raises:
        ValueError: a shape does not fit, checkpoint is neither True nor False, or block_size is below 1.
        TypeError: an argument is not floating point, or lengths are not integers.

    Example:
        >>> x, w_x, w_h = jnp.ones((3, 1)), jnp.array([[0.0, 0.0, 50.0]]), jnp.zeros((1, 3))
        >>> hs, h = gru(x, w_x, w_h)  # half of the way to 1 in each step
        >>> hs.ravel(), h
        (Array([0.5  , 0.75 , 0.875], dtype=float32), Array([0.875], dtype=float32))
        >>> jax.grad(lambda h0: gru(x, w_x, w_h, h0=h0)[1].sum())(jnp.zeros(1))
        Array([0.125], dtype=float32)
    """
    arrays = Arrays(x, w_x, w_h, b, b_h, (h0,), lengths)
    require_arrays("gru", arrays, 3, ("h0",))
    hs, (h,) = _compiled(arrays, walk_of("gru", x, reverse, checkpoint, block_size))
    return hs, h


@ft.partial(jax.jit, static_argnums=1)
def _compiled(arrays: Arrays, walk: Walk):
    return over_batch(lambda flat: _gru(flat, walk), arrays)


@ft.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gru(arrays: Arrays, walk: Walk) -> tuple[Array, State]:
    return _forward(arrays, walk)[0]


def _forward(arrays: Arrays, walk: Walk) -> tuple[tuple[Array, State], Residuals]:
    return forward(CELL, walk, arrays)


def _backward(walk: Walk, residuals: Residuals, cts: tuple[Array, State]) -> tuple[Arrays]:
    return backward(CELL, walk, residuals, cts)


_gru.defvjp(_forward, _backward)


def _gates(u, v):
    (u_r, u_z, u_n), (v_r, v_z, v_n) = u, v
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    return r, z, jnp.tanh(u_n + r * v_n), v_n


def _step(u, v, state):
    _, z, n, _ = _gates(u, v)
    return ((1 - z) * n + z * state[0],)


def _slopes(products, start, before, after, alive):
    r, z, n, v_n = _gates(*products())
    of_n = (1 - z) * (1 - n) * (1 + n)
    return of_n * v_n * r * (1 - r), (before - n) * z * (1 - z), of_n, r, z


def _pull(slopes, state_ct):
    of_r, of_z, of_n, r, z = slopes
    (h_ct,) = state_ct
    r_ct, z_ct, n_ct = of_r * h_ct, of_z * h_ct, of_n * h_ct
    return [r_ct, z_ct, n_ct], [r_ct, z_ct, r * n_ct], (z * h_ct,)


CELL = Cell(gates=3, step=_step, slopes=_slopes, pull=_pull)


def reference(x, w_x, w_h, b=None, b_h=None, h0=None, lengths=None, *, reverse=False, checkpoint=False, block_size=None):
    """The textbook formula."""
    del checkpoint, block_size  # they change no value
    size = w_h.shape[0]
    result = jnp.result_type(*(a for a in (x, w_x, w_h, b, b_h, h0) if a is not None))

    def step(x, h):
        u, v = x @ w_x + (0 if b is None else b), h @ w_h + (0 if b_h is None else b_h)
        r = jax.nn.sigmoid(u[..., :size] + v[..., :size])
        z = jax.nn.sigmoid(u[..., size : 2 * size] + v[..., size : 2 * size])
        n = jnp.tanh(u[..., 2 * size :] + r * v[..., 2 * size :])
        return ((1 - z) * n + z * h,)

    hs, (h,) = plain(step, (h0,), x, size, lengths, reverse, result)
    return hs, h


SPEC = Spec(
    name="gru",
    fn=gru,
    reference=reference,
    dtypes=("float32", "bfloat16", "float16", "mixed"),
    args={
        "x": Arg(dims="*batch T D"),
        "w_x": Arg(dims="D 3*H", low=-0.5, high=0.5),
        "w_h": Arg(dims="H 3*H", low=-0.3, high=0.3),
        "b": Arg(dims="3*H", optional=True),
        "b_h": Arg(dims="3*H", optional=True),
        "h0": Arg(dims="*batch H", optional=True, low=-1.0, high=1.0),
        "lengths": Arg(dims="*batch", dtype="int32", optional=True, sample=some_lengths),
    },
    sizes={"batch": (0, 3), "T": (0, 70), "D": (0, 33), "H": (0, 33)},
    options={"reverse": (False, True), "checkpoint": (False, True), "block_size": (None, 3)},
    source="arXiv:1406.1078",
)
