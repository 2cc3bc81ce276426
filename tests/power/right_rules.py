"""Right rules that are easily accused: other conventions at ties, saturation, other orders of operations, rules of unusual form."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.nn import logsumexp

from tests.power.entry import argument, indices, jvp_rule, rule
from verify import Arg, Spec


def right(name: str, fn: Any, args: dict[str, Arg], **more: Any) -> Spec:
    return Spec(name=name, fn=fn, args=args, **more)


def of_slope(primal, slope):
    return rule(primal, lambda x: (primal(x), x), lambda x, ct: (ct * slope(x),))


def softplus_slope(x):
    """Never overflows: exp of a negative number only."""
    e = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1, e) / (1 + e)


def relu_slope(x):
    """0.5 at 0: a subgradient, though not the one that JAX takes."""
    return jnp.where(x > 0, 1, jnp.where(x == 0, 0.5, 0)).astype(x.dtype)


def abs_slope(x):
    return jnp.where(x >= 0, 1, -1).astype(x.dtype)


def largest(x):
    return x.max(-1)


def first_of_ties(x, ct):
    """JAX shares between tied entries; to give all to the first is as right."""
    return (ct[:, None] * jax.nn.one_hot(x.argmax(-1), x.shape[-1], dtype=x.dtype),)


def largest_three(x):
    return jnp.take_along_axis(x, last_of_largest(x), -1)


def last_of_largest(x):
    """Where they are; of equal ones, the last come first, as no other order of equals would name them."""
    return jnp.argsort(x, axis=-1)[..., :-4:-1]


def largest_three_backward(x, ct):
    rows = jnp.arange(x.shape[0])[:, None]
    return (jnp.zeros_like(x).at[rows, last_of_largest(x)].set(ct),)


def attend(q, k, v):
    return jax.nn.softmax(q @ k.T / q.shape[-1] ** 0.5) @ v


def flash_forward(q, k, v):
    scores = q @ k.T / q.shape[-1] ** 0.5
    total = jax.nn.logsumexp(scores, -1, keepdims=True)
    out = jnp.exp(scores - total) @ v
    return out, (q, k, v, out, total)


def flash_backward(residuals, ct):
    """Probabilities from the stored logsumexp; the sum over p * p_ct from the output."""
    q, k, v, out, total = residuals
    p = jnp.exp(q @ k.T / q.shape[-1] ** 0.5 - total)
    s_ct = p * (ct @ v.T - (out * ct).sum(-1, keepdims=True)) / q.shape[-1] ** 0.5
    return s_ct @ k, s_ct.T @ q, p.T @ ct


def median(x):
    return jnp.median(x, axis=-1)


def median_backward(x, ct):
    """Of equal values, those that sorting puts in the middle get all of it: their derivatives by themselves are 0 or not, as one looks at it."""
    d = x.shape[-1]
    place = jnp.argsort(jnp.argsort(x, axis=-1), axis=-1)
    return (ct[:, None] * ((place == (d - 1) // 2) * 0.5 + (place == d // 2) * 0.5),)


def masked_scores(q, k, mask):
    """The usual -1e9 is far below any score, but for scores of 1e12."""
    return jax.nn.softmax(jnp.where(mask, q @ k.T, -1e9), -1)


def masked_scores_backward(residuals, ct):
    q, k, mask = residuals
    p = masked_scores(q, k, mask)
    s_ct = jnp.where(mask, p * (ct - (p * ct).sum(-1, keepdims=True)), 0)
    return s_ct @ k, s_ct.T @ q, None


def smoothed_loss(x, labels):
    """Computes in float32; of one class the loss is 0, and the terms of its gradient cancel up to rounding."""
    log_p = jax.nn.log_softmax(x.astype(jnp.promote_types(x.dtype, "float32")))
    picked = jnp.take_along_axis(log_p, labels[:, None], -1)[:, 0]
    return (-0.9 * picked - 0.1 * log_p.mean(-1)).astype(x.dtype)


def smoothed_loss_backward(residuals, ct):
    x, labels = residuals
    p = jax.nn.softmax(x.astype(jnp.promote_types(x.dtype, "float32")))
    target = 0.9 * jax.nn.one_hot(labels, x.shape[1], dtype=p.dtype)
    return (ct[:, None] * (p - target - 0.1 / x.shape[1])).astype(x.dtype), None


def rms_in_float32(x):
    """Computes in float32 whatever x is, as kernels do."""
    wide = x.astype("float32")
    return (wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + 1e-6)).astype(x.dtype)


def rms_in_float32_backward(x, ct):
    wide, wide_ct = x.astype("float32"), ct.astype("float32")
    r = jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + 1e-6)
    y = wide * r
    return ((r * (wide_ct - y * (y * wide_ct).mean(-1, keepdims=True))).astype(x.dtype),)


def total_probability(x):
    """1, whatever x is."""
    return jax.nn.softmax(x).sum(-1)


def total_probability_forward(x):
    p = jax.nn.softmax(x)
    return p.sum(-1), p


def total_probability_backward(p, ct):
    """Zero by cancellation, up to rounding."""
    return (p * (ct[:, None] - (p * ct[:, None]).sum(-1, keepdims=True)),)


def scaled_residual_forward(x, w):
    return x.value @ w.value, (x.value if w.perturbed else None, w.value if x.perturbed else None)


def scaled_residual_backward(residuals, ct):
    x, w = residuals
    ct = jnp.zeros(ct.shape, ct.dtype) if isinstance(ct, SymbolicZero) else ct
    return None if w is None else ct @ w.T, None if x is None else x.T @ ct


def symbolic_projection():
    function = jax.custom_vjp(lambda x, w: x @ w)
    function.defvjp(scaled_residual_forward, scaled_residual_backward, symbolic_zeros=True)
    return function


def embed_backward(residuals, ct):
    table, ids = residuals
    return jax.ops.segment_sum(ct, ids, table.shape[0]), None


def embed_backward_float0(residuals, ct):
    table, ids = residuals
    return jnp.zeros_like(table).at[ids].add(ct), np.zeros(ids.shape, jax.dtypes.float0)


def embed_backward_zeros(residuals, ct):
    """JAX takes zeros of any dtype for integers."""
    table, ids = residuals
    return jnp.zeros_like(table).at[ids].add(ct), jnp.zeros(ids.shape, ct.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 2))
def repeated(function, x, times):
    for _ in range(times):
        x = function(x)
    return x


def repeated_forward(function, x, times):
    steps = [x]
    for _ in range(times):
        steps.append(function(steps[-1]))
    return steps[-1], steps[:-1]


def repeated_backward(function, times, steps, ct):
    for x in reversed(steps):
        ct = jax.vjp(function, x)[1](ct)[0]
    return (ct,)


repeated.defvjp(repeated_forward, repeated_backward)


def log_likelihood(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], -1)[:, 0]


def log_likelihood_backward(residuals, ct):
    """In blocks of 8 classes, padded with -inf; the padding has no weight."""
    logits, labels = residuals
    classes = logits.shape[1]
    blocks = jnp.pad(logits, ((0, 0), (0, -classes % 8)), constant_values=-jnp.inf)
    p = jnp.exp(blocks - jax.nn.logsumexp(logits, -1, keepdims=True))[:, :classes]
    return ct[:, None] * p.at[jnp.arange(labels.size), labels].add(-1), None


def centre(x):
    return x - x.mean(-1, keepdims=True)


def logistic_tangent(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    y = jax.nn.sigmoid(x)
    return y, y * jax.nn.sigmoid(-x) * x_dot


def without_influence_backward(residuals, ct):
    """y does not matter: JAX takes None for zeros."""
    return ct * jnp.cos(residuals), None


def sum_by_pairs(x):
    return (x * x).sum(0)


def sum_from_the_end(x, ct):
    return ((2 * x[::-1] * ct)[::-1],)


QKV = {"q": Arg(dims="T H"), "k": Arg(dims="S H"), "v": Arg(dims="S E")}
TABLE = {"table": Arg(dims="v d"), "ids": indices("v")}


def scaled_and_square(x, s):
    return x * s, x * x


def scaled_and_square_backward(residuals, ct):
    """The square is the same for all s: under vmap over s alone JAX counts its cotangent once per example."""
    x, s = residuals
    return ct[0] * s + 2 * x * ct[1], (ct[0] * x).sum()


def log_normal_cdf_slope(x):
    """As in the rule that JAX ships; in float32 it is several times as noisy as autodiff."""
    return jnp.exp(-0.5 * x * x - jax.scipy.special.log_ndtr(x)) / (2 * jnp.pi) ** 0.5


def product_with_log(x, y):
    return jax.scipy.special.xlogy(x, y)  # its branch for x = 0 is that of one point


def product_with_log_backward(residuals, ct):
    x, y = residuals
    return ct * jnp.log(y), ct * x / y


def recomputed_backward(residuals, ct):
    """Where scores of hundreds saturate the softmax, its gradient is a residue of rounding, another one in each formula."""
    q, k, v, out, total = residuals
    scale = q.shape[-1] ** -0.5
    p = jnp.exp(q @ k.T * scale - total)
    scores_ct = p * (ct @ v.T - (ct * out).sum(-1, keepdims=True)) * scale
    return scores_ct @ k, scores_ct.T @ q, p.T @ ct


def score_of_all_paths(scores):
    """The logarithm of the sum, over all sequences of states, of exp of the scores along them (a conditional random field's normaliser)."""
    return logsumexp(forward_scores(scores)[-1])


def forward_scores(scores):
    def step(before, score):
        after = logsumexp(before[:, None] + score, axis=0)
        return after, after

    start = jnp.zeros_like(scores[0, 0])
    return jnp.concatenate([start[None], jax.lax.scan(step, start, scores)[1]])


def marginals(residuals, ct):
    """Forward-backward in logarithms: exp of a difference of large scores."""
    scores, ahead, total = residuals

    def step(after, score):
        return logsumexp(score + after, axis=1), after

    _, behind = jax.lax.scan(step, jnp.zeros_like(scores[0, 0]), scores, reverse=True)
    return (ct * jnp.exp(ahead[:-1, :, None] + scores + behind[:, None, :] - total),)


def score_forward(scores):
    ahead = forward_scores(scores)
    return logsumexp(ahead[-1]), (scores, ahead, logsumexp(ahead[-1]))


def log_of_complement(x):
    """log(1 - exp(-x)): near 0 by expm1, and far from it by log1p, where the textbook's formula rounds 1 - exp(-x)."""
    return jnp.where(x < 0.7, jnp.log(-jnp.expm1(-x)), jnp.log1p(-jnp.exp(-x)))


def reflected(v, x):
    """x reflected at the planes that the rows of v are normal to, one after the other (a product of Householder matrices)."""
    for row in v:
        x = x - 2 * row * (row @ x) / (row @ row)
    return x


def reflected_backward(residuals, ct):
    """The reflections are their own inverses, so the states need not be kept."""
    v, x = residuals
    cotangents = []
    for row in v[::-1]:
        x = x - 2 * row * (row @ x) / (row @ row)
        along, across, square = row @ x, row @ ct, row @ row
        cotangents.append(-2 * (along * ct + across * x) / square + 4 * along * across * row / square**2)
        ct = ct - 2 * row * across / square
    return jnp.stack(cotangents[::-1]), ct


NARROW = {"q": Arg(dims="n d"), "k": Arg(dims="m d"), "v": Arg(dims="m e")}


def seen_plainly(q, k, v):
    mask = jnp.arange(k.shape[0]) <= jnp.arange(q.shape[0])[:, None] + max(k.shape[0] - q.shape[0], 0)
    return jax.nn.softmax(q @ k.T / q.shape[1] ** 0.5, where=mask) @ v


def seen_weights(q, k):
    """Softmax over the keys up to each query's; a product in `exp(scores - largest)` is fused with the difference, and at 1e20 half an ulp of it is 5e12."""
    mask = jnp.arange(k.shape[0]) <= jnp.arange(q.shape[0])[:, None] + max(k.shape[0] - q.shape[0], 0)
    scores = jnp.where(mask, q @ k.T / q.shape[1] ** 0.5, -jnp.inf)
    most = scores.max(-1, keepdims=True)
    e = jnp.where(mask, jnp.exp(scores - jnp.where(jnp.isfinite(most), most, 0)), 0)
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total == 0, 1, total)


def seen_backward(residuals, ct):
    q, k, v = residuals
    p = seen_weights(q, k)
    p_ct = ct @ v.T
    s_ct = p * (p_ct - (p * p_ct).sum(-1, keepdims=True)) / q.shape[1] ** 0.5
    return s_ct @ k, s_ct.T @ q, p.T @ ct


def seen(q, k, v):
    return seen_weights(q, k) @ v


def log_sums(x):
    return jax.lax.cumlogsumexp(x, axis=1)


def log_sums_forward(x):
    return log_sums(x), (x, log_sums(x))


def log_sums_backward(residuals, ct):
    """In logarithms, the positive and the negative parts of the cotangent apart: exact up to an ulp of x, which is 5e-10 at 3e6."""
    x, y = residuals

    def of(part):
        logs = jnp.where(part > 0, jnp.log(jnp.where(part > 0, part, 1)), -jnp.inf)
        return jnp.exp(jax.lax.cumlogsumexp(logs - y, axis=1, reverse=True) + x)

    return (of(ct) - of(-ct),)


def digamma(x):
    """By recurrence, the asymptotic series and reflection. Its derivative is right everywhere, which that of JAX's own is not below -8."""
    down = x < 0
    z, total = jnp.where(down, 1 - x, x), 0.0
    for _ in range(8):
        total, z = total - 1 / z, z + 1
    i = 1 / (z * z)
    total += jnp.log(z) - 0.5 / z - i * (1 / 12 - i * (1 / 120 - i * (1 / 252 - i * (1 / 240 - i * (1 / 132 - i * 691 / 32760)))))
    turned = jnp.tan(jnp.pi * jnp.where(down, x - jnp.round(x), 0.25))
    return jnp.where(down, total - jnp.pi / turned, total)


def covariance(rng, sizes, dtype):
    a = rng.standard_normal((sizes["n"], sizes["n"]))
    return a @ a.T / sizes["n"] + np.eye(sizes["n"])


def likelihood(k, y):
    """Of a Gaussian, whose covariance is taken for symmetric and positive: another matrix has no Cholesky factor."""
    return likelihood_forward(k, y)[0]


def likelihood_of_any(k, y):
    k = (k + k.T) / 2  # as jnp.linalg.cholesky takes it
    return -(y @ jnp.linalg.solve(k, y) + jnp.linalg.slogdet(k)[1]) / 2


def likelihood_forward(k, y):
    factor = jnp.linalg.cholesky(k)
    solved = jax.scipy.linalg.cho_solve((factor, True), y)
    return -y @ solved / 2 - jnp.log(jnp.diagonal(factor)).sum(), (factor, solved)


def likelihood_backward(residuals, ct):
    factor, solved = residuals
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(solved), dtype=solved.dtype))
    return ct * (jnp.outer(solved, solved) - (inverse + inverse.T) / 2) / 2, -ct * solved


SEEN = Arg(
    dims="t s", dtype="bool", sample=lambda rng, sizes, dtype: (rng.random((sizes["t"], sizes["s"])) < 0.1) | (np.arange(sizes["s"]) == 0)
)


def nearest_image(x, y, box):
    """Squared distances in a periodic box. Of huge distances in float32, box * round(d / box) is d up to its rounding: compiled it may not be rounded, and then the difference is."""
    d = x - y
    d = d - box * jnp.round(d / box)
    return (d * d).sum(-1)


def nearest_image_backward(residuals, ct):
    x, y, box = residuals
    images = jnp.round((x - y) / box)
    pull = 2 * ct[:, None] * (x - y - box * images)
    return pull, -pull, -(pull * images).sum(0)


def gram(u):
    return jnp.eye(u.shape[1], dtype=u.dtype) + u.T @ u


def volume(u):
    """log det(I + u u^T), of the small one of two matrices with this determinant: of tiny u both forms lose u^2 beside 1, and not alike."""
    return 2 * jnp.log(jnp.diag(jnp.linalg.cholesky(gram(u)))).sum()


def volume_backward(u, ct):
    return (2 * ct * jnp.linalg.solve(gram(u), u.T).T,)


def moments(x, w):
    w = w / w.sum()
    mean = (w[:, None] * x).sum(0)
    return w, mean, (w[:, None] * (x - mean) ** 2).sum(0)


def weighted_variance(x, w):
    return moments(x, w)[2]


def weighted_variance_forward(x, w):
    share, mean, variance = moments(x, w)
    return variance, (x, w, share, mean, variance)


def weighted_variance_backward(saved, ct):
    """The mean's own part vanishes: the sum of w (x - mean) is 0. Of a single row all that is left is rounding."""
    x, w, share, mean, variance = saved
    return 2 * ct * share[:, None] * (x - mean), (((x - mean) ** 2 - variance) * ct).sum(1) / w.sum()


def gated_by_the_step_before(a, x):
    """y[t] = x[t] + a[t] x[t-1]. Of one step it is x itself: under vmap over a alone the output is the same for all examples."""
    return x if x.shape[0] == 1 else jnp.concatenate([x[:1], x[1:] + a[1:] * x[:-1]])


def gated_backward(residuals, ct):
    a, x = residuals
    before = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    return ct * before, ct + jnp.concatenate([(a * ct)[1:], jnp.zeros_like(ct[:1])])


RIGHT = (
    right("stable-softplus", of_slope(jax.nn.softplus, softplus_slope), argument(special=(800.0, -800.0))),
    right("relu-half-at-zero", of_slope(jax.nn.relu, relu_slope), argument(special=(0.0,))),
    right("abs-one-at-zero", of_slope(jnp.abs, abs_slope), argument()),
    right("max-to-first-of-ties", rule(largest, lambda x: (largest(x), x), first_of_ties), argument("n d")),
    right("last-of-the-largest", rule(largest_three, lambda x: (largest_three(x), x), largest_three_backward), argument("n d"),
          reference=lambda x: jax.lax.top_k(x, 3)[0], sizes={"d": (3, 40)}),
    right("flash-attention", rule(attend, flash_forward, flash_backward), QKV),
    right("rms-norm-in-float32", rule(rms_in_float32, lambda x: (rms_in_float32(x), x), rms_in_float32_backward), argument("*batch d")),
    right("one-key-of-many-features", rule(attend, flash_forward, flash_backward), NARROW, sizes={"d": (1, 4), "n": (1, 4), "m": (1, 1), "e": (600, 900)}, dtypes=("float32",)),
    right("median-by-sorting", rule(median, lambda x: (median(x), x), median_backward), argument("n d"), sizes={"n": (1, 6), "d": (1, 20)}, dtypes=("float32",)),
    right("masked-by-a-large-number", rule(masked_scores, lambda q, k, mask: (masked_scores(q, k, mask), (q, k, mask)), masked_scores_backward),
          {"q": Arg(dims="t d"), "k": Arg(dims="s d"), "mask": SEEN}, reference=lambda q, k, mask: jax.nn.softmax(jnp.where(mask, q @ k.T, -jnp.inf), -1),
          sizes={"t": (1, 6), "s": (1, 6), "d": (1, 4)}, dtypes=("float32",)),
    right("one-class-smoothed", rule(smoothed_loss, lambda x, labels: (smoothed_loss(x, labels), (x, labels)), smoothed_loss_backward),
          {"x": Arg(dims="n classes"), "labels": indices("classes")}, sizes={"n": (1, 9), "classes": (1, 1)}),
    right("zero-by-cancellation", rule(total_probability, total_probability_forward, total_probability_backward), argument("n d")),
    right("centred-twice", rule(centre, lambda x: (centre(x), None), lambda _, ct: (centre(centre(ct)),)), argument("n d")),
    right("symbolic-zeros", symbolic_projection(), {"x": Arg(dims="n d"), "w": Arg(dims="d k")}),
    right("none-for-integers", rule(lambda table, ids: table[ids], lambda table, ids: (table[ids], (table, ids)), embed_backward), TABLE),
    right("float0-for-integers", rule(lambda table, ids: table[ids], lambda table, ids: (table[ids], (table, ids)), embed_backward_float0), TABLE),
    right("zeros-for-integers", rule(lambda table, ids: table[ids], lambda table, ids: (table[ids], (table, ids)), embed_backward_zeros), TABLE),
    right("nondiff-argnums", lambda x: repeated(jnp.sin, x, 3), argument()),
    right("padded-classes", rule(log_likelihood, lambda x, y: (log_likelihood(x, y), (x, y)), log_likelihood_backward),
          {"logits": Arg(dims="n classes"), "labels": indices("classes")}),
    right("logistic-jvp", jvp_rule(jax.nn.sigmoid, logistic_tangent), argument(special=(40.0, -40.0))),
    right("without-influence", rule(lambda x, y: jnp.sin(x), lambda x, y: (jnp.sin(x), x), without_influence_backward),
          {"x": Arg(dims="n"), "y": Arg(dims="n")}),
    right("one-output-shared", rule(scaled_and_square, lambda x, s: (scaled_and_square(x, s), (x, s)), scaled_and_square_backward),
          {"x": Arg(dims="n"), "s": Arg()}, sizes={"n": (1, 20)}),
    right("log-normal-cdf", of_slope(lambda x: jax.scipy.special.log_ndtr(x), log_normal_cdf_slope), argument("n", low=-10.0, high=10.0), dtypes=("float32",)),
    right("nearest-image", rule(nearest_image, lambda x, y, box: (nearest_image(x, y, box), (x, y, box)), nearest_image_backward),
          {"x": Arg(dims="n d"), "y": Arg(dims="n d"), "box": Arg(dims="d", low=1.0, high=4.0)}, sizes={"d": (1, 3)}),
    right("branch-of-one-point", rule(product_with_log, lambda x, y: (product_with_log(x, y), (x, y)), product_with_log_backward),
          {"x": Arg(dims="n", low=0.0, high=1.0, special=(0.0,)), "y": Arg(dims="n", low=0.1, high=1.0)}, reference=lambda x, y: x * jnp.log(y)),
    right("recomputed-softmax", rule(attend, flash_forward, recomputed_backward), NARROW, sizes={"d": (1, 1), "n": (1, 9), "m": (2, 9), "e": (1, 4)}),
    right("marginals-in-logarithms", rule(score_of_all_paths, score_forward, marginals), argument("t k k"), sizes={"t": (1, 40), "k": (1, 8)},
          dtypes=("float32",)),
    right("complement-of-an-exponential", of_slope(log_of_complement, lambda x: 1 / jnp.expm1(x)), argument("n", low=0.0, high=20.0),
          reference=lambda x: jnp.log(1 - jnp.exp(-x)), dtypes=("float32",)),
    right("complement-by-expm1", of_slope(log_of_complement, lambda x: 1 / jnp.expm1(x)), argument("n", low=1e-3, high=40.0),
          reference=lambda x: jnp.log(-jnp.expm1(-x)), dtypes=("float32",)),
    right("likelihood-by-cholesky", rule(likelihood, likelihood_forward, likelihood_backward), {"k": Arg(dims="n n", sample=covariance), "y": Arg(dims="n")},
          reference=likelihood_of_any, sizes={"n": (1, 6)}, dtypes=("float32",)),
    right("reflections", rule(reflected, lambda v, x: (reflected(v, x), (v, reflected(v, x))), reflected_backward),
          {"v": Arg(dims="k n"), "x": Arg(dims="n")}, sizes={"k": (1, 4), "n": (1, 6)}, dtypes=("float32",)),
    right("key-that-nobody-reads", rule(lambda x, key: x + x, lambda x, key: (x + x, None), lambda _, ct: (2 * ct, None)), {"x": Arg(dims="n"), "key": Arg(dtype="key")}),
    right("indices-that-nobody-bounds", rule(lambda table, ids: table[ids], lambda table, ids: (table[ids], (table, ids)), embed_backward),
          {"table": Arg(dims="v d"), "ids": Arg(dims="n", dtype="int32")}),
    right("logarithms-of-sums", rule(log_sums, log_sums_forward, log_sums_backward), argument("n d"), sizes={"n": (1, 8), "d": (1, 30)}, dtypes=("float32",),
          known_gaps={"second-order": "JAX differentiates a logarithm of sums to NaN where all terms are 0"}),
    right("log-gamma", of_slope(jax.lax.lgamma, digamma), argument("n", low=-12.0, high=20.0), kinks={"x": tuple(map(float, range(-13, 1)))}, dtypes=("float32",)),
    right("fused-softmax", rule(seen, lambda q, k, v: (seen(q, k, v), (q, k, v)), seen_backward),
          {"q": Arg(dims="t d"), "k": Arg(dims="s d"), "v": Arg(dims="s d")}, sizes={"t": (1, 30), "s": (1, 30), "d": (1, 8)},
          reference=seen_plainly),
    right("volume-of-few-columns", rule(volume, lambda u: (volume(u), u), volume_backward), argument("n k", low=-1.0, high=1.0),
          reference=lambda u: jnp.linalg.slogdet(jnp.eye(u.shape[0], dtype=u.dtype) + u @ u.T)[1], sizes={"n": (1, 12), "k": (1, 4)}, dtypes=("float32",)),
    right("weighted-variance", rule(weighted_variance, weighted_variance_forward, weighted_variance_backward),
          {"x": Arg(dims="n d", low=-10.0, high=10.0), "w": Arg(dims="n", low=0.2, high=2.0)}, sizes={"n": (1, 60)}),
    right("gate-of-one-step", rule(gated_by_the_step_before, lambda a, x: (gated_by_the_step_before(a, x), (a, x)), gated_backward),
          {"a": Arg(dims="t n"), "x": Arg(dims="t n")}, sizes={"t": (1, 12), "n": (1, 6)}),
    right("summed-from-the-end", rule(sum_by_pairs, lambda x: (sum_by_pairs(x), x), sum_from_the_end), argument("n d")),
)  # fmt: skip
