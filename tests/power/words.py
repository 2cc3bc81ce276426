"""What diagnosis or message must say of each wrong rule: the words with which its author would know what to mend.

Short, and without numbers that depend on the case. A rule without words is in `UNTOLD`, with the reason.
"""

WORDS: dict[str, tuple[str, ...]] = {
    # linear_rules
    "published-slip": ("y_ct @ w where y_ct @ w^T is wanted", "a transpose is forgotten"),
    "forgotten-transpose-rectangular": ("raises TypeError", "return ct @ w, x.T @ ct"),
    "transposed-weight": ("of w: it is the transpose of the right cotangent",),
    "bias-over-wrong-axis": ("sums the upstream cotangent over axis 1 where axis 0 is wanted",),
    "bias-mean": ("of b: it is the right one times 1/n",),
    "elementwise-product": ("an elementwise product instead of a matrix product",),
    "all-ones-cotangent": ("ignores the upstream cotangent", "all ones"),
    "wrong-sign": ("of w: it has the wrong sign",),
    "wrong-at-size-1": ("of x: it is the right one times 2", "only when n is 1"),
    "wrong-past-64": ("of b: it sums only the first 64", "only when n is 65"),
    "forgotten-argument": ("of w: it is zero everywhere",),
    "clipped-cotangent": ("not linear in the upstream cotangent",),
    "constant-added": ("not multiplied by the upstream cotangent",),
    "cotangents-swapped": ("equals the cotangent of w", "wrong order"),
    "forward-times-3": ("returns 3 times what the primal returns",),
    "off-by-1e-9": ("of x: it is right up to 1e-09 of its size",),
    "input-for-activation": ("x^T @ y_ct where", "wrong or stale residual", "tanh"),
    "before-the-activation": ("of w2", "wrong or stale residual", "dot_general in `return jax.nn.relu(x @ w1) @ w2`"),
    "bias-of-empty-batch": ("of b: it is NaN or infinite", "only when n is 0"),
    "layout-guessed": ("of w: it is the transpose of the right cotangent",),
    "only-first-100-rows": ("of x: it is wrong only from index 100 of axis 0 on",),
    "only-128-lanes": ("of w: it is wrong only from index 128 of axis 1 on",),
    # norm_rules
    "constant-variance": ("treats the reference's", "variance = (centred * centred).mean", "as a constant"),
    "constant-mean": ("treats the reference's reduce_sum in `centred = x - x.mean", "as a constant"),
    "gain-over-first-axis": ("output[1] the bwd rule produced an output of type",),
    "batch-norm-as-in-inference": ("`centred = x - x.mean(0)`", "rsqrt((centred * centred).mean(0)", "as constants"),
    "constant-rms": ("rsqrt((x * x).mean", "as a constant"),
    "rms-term-summed": ("the path through the reference's", "rsqrt((x * x).mean", "times d"),
    "eps-outside-the-root": ("an eps stands in the wrong place",),
    "unit-vector-at-zero": ("is 0, and not finite there",),
    "cosine-of-fixed-norm": ("(x * x).sum(-1) * (y * y).sum(-1)", "as a constant"),
    "weight-norm-direction": ("jnp.sqrt((v * v).sum(0)", "as a constant"),
    "norm-at-zero": ("where the whole row of x is 0, and not finite there",),
}
UNTOLD: dict[str, str] = {}
