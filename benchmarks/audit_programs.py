"""Small real programs of released packages, for `benchmarks/audit_packages.py`: each returns a loss, not yet differentiated, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Program = Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]
PROGRAMS: dict[str, dict[str, Program]] = {}


def program(package: str) -> Callable[[Program], Program]:
    """Register a program of a package, under the name of the function."""

    def register(make: Program) -> Program:
        PROGRAMS.setdefault(package, {})[make.__name__.removeprefix(f"{package.replace('-', '_')}_")] = make
        return make

    return register


def array(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> jax.Array:
    """Values in [low, high], the same ones each time."""
    return jnp.asarray(np.random.default_rng([seed, *shape]).uniform(low, high, shape), jnp.float32)


def total(*outputs: Any) -> jax.Array:
    """The sum of squares of all floating-point outputs: a loss that depends on each."""
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum((jnp.sum(jnp.abs(leaf) ** 2) for leaf in leaves), jnp.zeros(()))


@program("jax")
def jax_nn() -> Any:
    def loss(x: jax.Array) -> jax.Array:
        return total(jax.nn.relu(x), jax.nn.relu6(4 * x), jax.nn.softmax(x), jax.nn.log1mexp(jnp.abs(x) + 0.1), jax.nn.elu(x))

    return loss, (array(4, 6),)


@program("jax")
def jax_softmax_jvp() -> Any:
    def loss(x: jax.Array) -> jax.Array:
        with jax.softmax_custom_jvp(True):
            return total(jax.nn.softmax(x), jax.nn.logsumexp(x), jax.nn.gelu(x), jax.nn.silu(x))

    return loss, (array(4, 6),)


@program("jax")
def jax_numpy() -> Any:
    def loss(x: jax.Array) -> jax.Array:
        y = x[::-1]
        return total(jnp.i0(x), jnp.sinc(x), jnp.frexp(x)[0], jnp.logaddexp(x, y), jnp.logaddexp2(x, y))

    return loss, (array(5, 3),)


@program("jax")
def jax_linalg() -> Any:
    def loss(square: jax.Array, tall: jax.Array) -> jax.Array:
        slogdet, det, small = jnp.linalg.slogdet, jnp.linalg.det(square), square[:3, :3]
        return total(slogdet(square), slogdet(square, method="qr"), slogdet(small), det, jnp.linalg.det(small), jnp.linalg.pinv(tall))

    return loss, (array(5, 5), array(6, 4))


@program("jax")
def jax_special() -> Any:
    import jax.scipy.special as jsp

    def loss(x: jax.Array) -> jax.Array:
        unit, positive = x / 4.5 + 0.5, jnp.abs(x) + 0.5
        return total(
            jsp.logit(unit), jsp.xlogy(positive, unit), jsp.xlog1py(positive, unit), jsp.entr(positive), jsp.rel_entr(positive, unit),
            jsp.kl_div(positive, unit), jsp.zeta(positive + 1, positive), jsp.log_ndtr(x),
        )  # fmt: skip

    return loss, (array(3, 5),)


@program("jax")
def jax_special_integrals() -> Any:
    import jax.scipy.special as jsp

    def loss(x: jax.Array) -> jax.Array:
        positive = jnp.abs(x) + 0.5
        integrals = jsp.expi(x), jsp.exp1(positive), jsp.expn(jnp.array(3), positive), jsp.sici(x), jsp.fresnel(x)
        return total(integrals, jsp.erfcx(x), jsp.dawsn(x), jsp.owens_t(x, positive))

    return loss, (array(5),)


@program("jax")
def jax_special_complex() -> Any:
    import jax.scipy.special as jsp

    return lambda x: total(jsp.wofz(x + 0.5j * x**2)), (array(5),)


@program("jax")
def jax_special_hypergeometric() -> Any:
    import jax.scipy.special as jsp

    def loss(x: jax.Array) -> jax.Array:
        positive = jnp.abs(x) + 0.5
        return total(jsp.poch(positive, x), jsp.hyp1f1(positive, positive + 1, x), jsp.hyp2f1(positive, x, positive + 1, x / 4))

    return loss, (array(4),)


@program("jax")
def jax_root() -> Any:
    def cube_root(x: jax.Array) -> jax.Array:
        def newton(f: Any, guess: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, 40, lambda _, y: y - f(y) / (3 * y**2), guess)

        def tangent_solve(g: Any, y: jax.Array) -> jax.Array:
            return y / g(jnp.ones_like(y))

        return jax.lax.custom_root(lambda y: y**3 - x, jnp.ones_like(x), newton, tangent_solve)

    return lambda x: total(jax.vmap(cube_root)(x)), (array(4, low=1, high=3),)


@program("jax")
def jax_odeint() -> Any:
    from jax.experimental.ode import odeint

    def loss(y: jax.Array, rate: jax.Array) -> jax.Array:
        return total(odeint(lambda y, t, rate: jnp.array([y[1], -rate * y[0]]) * jnp.cos(t), y, jnp.linspace(0.0, 1.0, 4), rate))

    return loss, (jnp.array([1.0, 0.5]), jnp.array(1.5))


@program("jax")
def jax_transformer() -> Any:
    def block(x: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
        heads = [(x @ p[name]).reshape(*x.shape[:2], 2, -1) for name in "qkv"]
        x = x + jax.nn.dot_product_attention(*heads, is_causal=True).reshape(x.shape)
        return x + jax.nn.relu(jax.nn.standardize(x) @ p["up"]) @ p["down"]

    def loss(x: jax.Array, layers: dict[str, jax.Array]) -> jax.Array:
        return total(jax.lax.scan(lambda x, p: (jax.checkpoint(block)(x, p), None), x, layers)[0])

    shapes = {"q": (8, 8), "k": (8, 8), "v": (8, 8), "up": (8, 16), "down": (16, 8)}
    return loss, (array(2, 5, 8), {name: array(3, *shape, low=-0.5, high=0.5, seed=ord(name[0])) for name, shape in shapes.items()})


@program("jax")
def jax_random() -> Any:
    def loss(x: jax.Array) -> jax.Array:
        key, positive = jax.random.key(0), jnp.abs(x) + 0.5
        return total(jax.random.gamma(key, positive), jax.random.dirichlet(key, positive), jax.random.t(key, positive))

    return loss, (array(4),)


@program("jax")
def jax_stats() -> Any:
    import jax.scipy.stats as stats
    from jax.scipy.stats import multinomial

    def loss(x: jax.Array) -> jax.Array:
        positive, unit = jnp.abs(x) + 0.5, x / 4.5 + 0.5
        logs = stats.norm.logcdf(x), stats.beta.logpdf(unit, positive, positive), stats.gamma.logpdf(positive, positive), stats.t.logpdf(x, positive)
        counts = jnp.arange(x.size)
        return total(
            logs, stats.bernoulli.logpmf(counts % 2, unit), stats.nbinom.logpmf(counts, positive, unit), stats.poisson.logpmf(counts, positive),
            stats.binom.logpmf(counts, 10, unit), stats.truncnorm.logpdf(unit, -1.0, 1.5), stats.vonmises.logpdf(x, positive),
            multinomial.logpmf(jnp.array([1, 2]), 3, jnp.stack([unit[0], 1 - unit[0]])),
        )  # fmt: skip

    return loss, (array(4),)


@program("optax")
def optax_losses() -> Any:
    import optax

    def loss(x: jax.Array, labels: jax.Array) -> jax.Array:
        target = jax.nn.softmax(x[::-1])
        return total(
            optax.softmax_cross_entropy(x, target), optax.safe_softmax_cross_entropy(x, target), optax.softmax_cross_entropy_with_integer_labels(x, labels),
            optax.poly_loss_cross_entropy(x, target), optax.sigmoid_binary_cross_entropy(x, target), optax.sigmoid_focal_loss(x, target),
            optax.kl_divergence(jax.nn.log_softmax(x), target), optax.huber_loss(x, target), optax.log_cosh(x, target), optax.cosine_distance(x, target),
            optax.ntxent(x, labels), optax.hinge_loss(x, 2 * target - 1), optax.multiclass_sparsemax_loss(x, labels), optax.sparsemax_loss(x, target),
            optax.triplet_margin_loss(x, x[::-1], target), optax.multiclass_perceptron_loss(x, labels), optax.make_fenchel_young_loss(jax.nn.logsumexp)(x, target),
        )  # fmt: skip

    return loss, (array(4, 5), jnp.array([1, 0, 4, 1]))


@program("optax")
def optax_ctc() -> Any:
    import optax

    def loss(logits: jax.Array) -> jax.Array:
        return total(optax.ctc_loss(logits, jnp.zeros((2, 6)), jnp.array([[1, 2, 1], [3, 1, 0]]), jnp.array([[0, 0, 0], [0, 0, 1.0]])))

    return loss, (array(2, 6, 4),)


@program("optax")
def optax_projections() -> Any:
    import optax

    def loss(x: jax.Array) -> jax.Array:
        p = optax.projections
        balls = p.projection_l1_ball(x, 1.5), p.projection_l2_ball(x, 1.5), p.projection_linf_ball(x, 1.5), p.projection_l1_sphere(x, 1.5)
        return total(balls, p.projection_simplex(x), p.projection_non_negative(x), p.projection_hypercube(x), p.projection_l2_sphere(x))

    return loss, (array(7),)


@program("optax")
def optax_perturbations() -> Any:
    import optax

    def loss(x: jax.Array) -> jax.Array:
        one_hot = lambda x: jax.nn.one_hot(jnp.argmax(x, -1), x.shape[-1])  # noqa: E731
        return total(optax.perturbations.make_perturbed_fun(one_hot, num_samples=10, sigma=0.5)(jax.random.key(0), x))

    return loss, (array(6),)


@program("optax")
def optax_step() -> Any:
    import optax

    def loss(x: jax.Array) -> jax.Array:
        """Two steps of Adam on a clipped gradient, differentiated through."""
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 10)))
        state = optimizer.init(x)
        for _ in range(2):
            updates, state = optimizer.update(jax.grad(lambda x: jax.nn.relu(x).sum() ** 2)(x), state, x)
            x = optax.apply_updates(x, updates)
        return total(optax.scale_gradient(x, 0.5))

    return loss, (array(6),)


@program("flax")
def flax_linen() -> Any:
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.Conv(4, (3, 3))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x)).reshape(x.shape[0], -1, 4)
            x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(2)(x))
            x = nn.RNN(nn.OptimizedLSTMCell(5))(x)
            return nn.Dense(3)(nn.gelu(nn.hard_swish(nn.Dense(6)(x))))

    x, model = array(2, 4, 4, 3), Model()
    variables = model.init(jax.random.key(0), x)
    return lambda params, x: total(model.apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]), (variables["params"], x)


@program("flax")
def flax_nnx() -> Any:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.first, self.second = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.attention(self.second(nnx.relu6(nnx.relu(self.first(x)))))

    graph, state = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
    return lambda state, x: total(nnx.merge(graph, state)(x)), (state, array(2, 3, 4))


@program("flax")
def flax_fp8() -> Any:
    import flax.linen as nn
    from flax.linen import fp8_ops

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(4, dot_general_cls=fp8_ops.Fp8DotGeneralOp)(nn.Dense(8, dot_general_cls=fp8_ops.Fp8DirectDotGeneralOp)(x))

    x, model = array(16, 4), Model()
    variables = model.init(jax.random.key(0), x)
    rest = {name: value for name, value in variables.items() if name != "params"}
    return lambda params, x: total(model.apply({"params": params, **rest}, x)), (variables["params"], x)


@program("flax")
def flax_custom_vjp() -> Any:
    import flax.linen as nn
    from flax import nnx

    class Clipped(nn.Module):
        """The example of `flax.linen.custom_vjp`, with the true gradient."""

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            def f(module: Any, x: jax.Array) -> jax.Array:
                return module(x)

            def backward(pullback: Any, ct: jax.Array) -> Any:
                return pullback(ct)

            return nn.custom_vjp(f, forward_fn=lambda module, x: nn.vjp(f, module, x), backward_fn=backward)(nn.Dense(3), x)

    @nnx.custom_vjp
    def square(x: jax.Array) -> jax.Array:
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, ct: (2 * x * ct,))
    x, model = array(2, 4), Clipped()
    variables = model.init(jax.random.key(0), x)
    return lambda variables, x: total(square(model.apply(variables, x))), (variables, x)


@program("equinox")
def equinox_layers() -> Any:
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), 4)
    mlp, gru = eqx.nn.MLP(4, 3, 8, 2, key=keys[0]), eqx.nn.GRUCell(4, 4, key=keys[1])
    attention, norm = eqx.nn.MultiheadAttention(2, 4, key=keys[2]), eqx.nn.LayerNorm(4)
    params, static = eqx.partition((mlp, gru, attention, norm), eqx.is_inexact_array)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        mlp, gru, attention, norm = eqx.combine(params, static)
        x = jax.vmap(norm)(attention(x, x, x))
        return total(jax.vmap(mlp)(x), jax.lax.scan(lambda h, x: (gru(x, h), None), jnp.zeros(4), x)[0])

    return loss, (params, array(5, 4))


@program("equinox")
def equinox_errors() -> Any:
    import equinox as eqx

    def loss(x: jax.Array) -> jax.Array:
        x = eqx.error_if(x, jnp.any(x > 100), "too large")
        x = eqx.debug.backward_nan(x)
        return total(eqx.branched_error_if(x * 2, jnp.any(x < -100), 0, ["too small"]))

    return loss, (array(4),)


@program("equinox")
def equinox_loops() -> Any:
    import equinox.internal as eqxi

    def loss(x: jax.Array) -> jax.Array:
        def body(carry: Any) -> Any:
            step, x = carry
            return step + 1, jnp.sin(x) + x

        checkpointed = eqxi.while_loop(lambda carry: carry[0] < 5, body, (0, x), kind="checkpointed", max_steps=8, checkpoints=3)[1]
        bounded = eqxi.while_loop(lambda carry: carry[0] < 5, body, (0, x), kind="bounded", max_steps=8)[1]
        scanned = eqxi.scan(lambda carry, y: (carry * y, carry), x, jnp.stack([x, x + 1]), kind="checkpointed", checkpoints=2)
        return total(checkpointed, bounded, scanned)

    return loss, (array(3),)


@program("equinox")
def equinox_internal() -> Any:
    import equinox as eqx
    import equinox.internal as eqxi

    @eqx.filter_custom_vjp
    def scaled(x: jax.Array, factor: float) -> jax.Array:
        return jnp.sin(x) * factor

    @scaled.def_fwd
    def forward(perturbed: Any, x: jax.Array, factor: float) -> Any:
        return jnp.sin(x) * factor, jnp.cos(x)

    @scaled.def_bwd
    def backward(cos: Any, ct: jax.Array, perturbed: Any, x: jax.Array, factor: float) -> Any:
        return ct * cos * factor

    @eqx.filter_custom_jvp
    def cubed(x: jax.Array) -> jax.Array:
        return x**3

    @cubed.def_jvp
    def tangent(primals: Any, tangents: Any) -> Any:
        return primals[0] ** 3, 3 * primals[0] ** 2 * tangents[0]

    return lambda x: total(eqxi.nextafter(x), eqxi.prevbefore(x), scaled(x, 2.0), cubed(x)), (array(3),)
