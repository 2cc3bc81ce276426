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
        slogdet, det, small = jnp.linalg.slogdet, jnp.linalg.det(square), square[:2, :2]
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
    from jax.scipy import stats
    from jax.scipy.stats import multinomial

    def loss(x: jax.Array) -> jax.Array:
        positive, unit = jnp.abs(x) + 0.5, x / 4.5 + 0.5
        logs = (
            stats.norm.logcdf(x),
            stats.beta.logpdf(unit, positive, positive),
            stats.gamma.logpdf(positive, positive),
            stats.t.logpdf(x, positive),
        )
        counts = jnp.arange(x.size)
        return total(
            logs, stats.bernoulli.logpmf(counts % 2, unit), stats.nbinom.logpmf(counts, positive, unit), stats.poisson.logpmf(counts, positive),
            stats.binom.logpmf(counts, 10, unit), stats.truncnorm.logpdf(unit, -1.0, 1.5), stats.vonmises.logpdf(x, positive),
            multinomial.logpmf(jnp.array([1, 2]), 3, jnp.stack([unit[0], 1 - unit[0]])),
        )  # fmt: skip

    return loss, (array(4),)


@program("jax")
def jax_pallas_norms() -> Any:
    """Kernels for a GPU, interpreted."""
    from jax.experimental.pallas.ops.gpu.layer_norm import layer_norm
    from jax.experimental.pallas.ops.gpu.rms_norm import rms_norm

    def loss(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
        return total(rms_norm(x, scale, shift, interpret=True), layer_norm(x, scale, shift, interpret=True))

    return loss, (array(2, 8, 16), array(16, low=0.5), array(16))


@program("jax")
def jax_pallas_attention() -> Any:
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    blocks = BlockSizes(block_q=16, block_k=16, block_q_dkv=16, block_kv_dkv=16, block_q_dq=16, block_kv_dq=16)
    return lambda q, k, v: total(mha(q, k, v, None, causal=True, block_sizes=blocks, interpret=True)), tuple(
        array(1, 32, 2, 16, seed=seed) for seed in range(3)
    )


@program("jax")
def jax_pallas_grouped_product() -> Any:
    """A kernel for a TPU, interpreted: a product of each group of rows with a matrix of its own."""
    from jax.experimental.pallas.ops.tpu.megablox.ops import gmm

    def loss(rows: jax.Array, matrices: jax.Array, sizes: jax.Array) -> jax.Array:
        return total(gmm(rows, matrices, sizes, preferred_element_type=jnp.float32, tiling=(8, 16, 16), interpret=True))

    return loss, (array(24, 16), array(3, 16, 16), jnp.array([8, 5, 11], jnp.int32))


@program("optax")
def optax_losses() -> Any:
    import optax

    def loss(x: jax.Array, labels: jax.Array) -> jax.Array:
        target = jax.nn.softmax(x[::-1])
        return total(
            optax.softmax_cross_entropy(x, target), optax.safe_softmax_cross_entropy(x, target), optax.softmax_cross_entropy_with_integer_labels(x, labels),
            optax.losses.poly_loss_cross_entropy(x, target), optax.sigmoid_binary_cross_entropy(x, target), optax.sigmoid_focal_loss(x, target),
            optax.kl_divergence(jax.nn.log_softmax(x), target), optax.huber_loss(x, target), optax.log_cosh(x, target), optax.cosine_distance(x, target),
            optax.ntxent(x, labels), optax.hinge_loss(x, 2 * target - 1), optax.losses.multiclass_sparsemax_loss(x, labels), optax.losses.sparsemax_loss(x, target),
            optax.losses.triplet_margin_loss(x, x[::-1], target), optax.losses.multiclass_perceptron_loss(x, labels),
            optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)(x, target),
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

    square.defvjp(lambda x: (x * x, x), lambda x, cts: (2 * x * cts[1],))  # cts[0] is of updated variables: none here
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


@program("lineax")
def lineax_solves() -> Any:
    import lineax as lx

    def loss(matrix: jax.Array, b: jax.Array, tall: jax.Array) -> jax.Array:
        solve = lambda a, b, solver, *tags: lx.linear_solve(lx.MatrixLinearOperator(a, tags), b, solver).value  # noqa: E731
        definite = matrix @ matrix.T + jnp.eye(4)
        square = [
            solve(matrix + 4 * jnp.eye(4), b, solver)
            for solver in (lx.LU(), lx.QR(), lx.SVD(), lx.GMRES(1e-6, 1e-6), lx.BiCGStab(1e-6, 1e-6))
        ]
        symmetric = [solve(definite, b, solver, lx.positive_semidefinite_tag) for solver in (lx.Cholesky(), lx.CG(1e-6, 1e-6))]
        return total(square, symmetric, solve(tall, array(6), lx.QR()), solve(tall, array(6), lx.LSMR(1e-6, 1e-6)))

    return loss, (array(4, 4), array(4), array(6, 4))


@program("lineax")
def lineax_norms() -> Any:
    import lineax as lx

    return lambda x: total(lx.internal.two_norm(x), lx.internal.rms_norm(x), lx.internal.max_norm(x)), (array(3, 4),)


@program("optimistix")
def optimistix_solves() -> Any:
    import optimistix as optx

    def loss(x: jax.Array) -> jax.Array:
        tolerances, start = {"rtol": 1e-6, "atol": 1e-6}, jnp.ones_like(x)
        root = optx.root_find(lambda y, x: y**3 + y - x, optx.Newton(**tolerances), start, x).value
        fixed = optx.fixed_point(lambda y, x: 0.5 * jnp.cos(y) + x, optx.FixedPointIteration(**tolerances), start, x).value
        squares = optx.least_squares(lambda y, x: jnp.exp(y) - jnp.abs(x) - 1, optx.LevenbergMarquardt(**tolerances), start, x).value
        least = optx.minimise(lambda y, x: jnp.sum((y - x) ** 2 + y**4), optx.BFGS(**tolerances), start, x).value
        return total(root, fixed, squares, least, optx.rms_norm(x))

    return loss, (array(3),)


def _decay(t: Any, y: jax.Array, rate: jax.Array) -> jax.Array:
    return -rate * y + jnp.sin(t)


def _diffrax(adjoint: str) -> Any:
    import diffrax as dfx

    def loss(y: jax.Array, rate: jax.Array) -> jax.Array:
        return total(
            dfx.diffeqsolve(
                dfx.ODETerm(_decay), dfx.Tsit5(), 0.0, 1.0, 0.1, y, rate, adjoint=getattr(dfx, adjoint)(), saveat=dfx.SaveAt(ts=jnp.array([0.5, 1.0])),
                stepsize_controller=dfx.PIDController(rtol=1e-5, atol=1e-5), max_steps=64,
            ).ys
        )  # fmt: skip

    return loss, (array(2), jnp.array(1.5))


@program("diffrax")
def diffrax_recursive_checkpoint() -> Any:
    return _diffrax("RecursiveCheckpointAdjoint")


@program("diffrax")
def diffrax_backsolve() -> Any:
    return _diffrax("BacksolveAdjoint")


@program("diffrax")
def diffrax_implicit() -> Any:
    import diffrax as dfx

    def loss(y: jax.Array, rate: jax.Array) -> jax.Array:
        solver = dfx.Kvaerno3()
        controller = dfx.PIDController(rtol=1e-4, atol=1e-4)
        return total(dfx.diffeqsolve(dfx.ODETerm(_decay), solver, 0.0, 1.0, 0.1, y, rate, stepsize_controller=controller, max_steps=64).ys)

    return loss, (array(2), jnp.array(1.5))


@program("jaxopt")
def jaxopt_losses_and_projections() -> Any:
    from jaxopt import loss as losses
    from jaxopt import projection as p

    def loss(x: jax.Array) -> jax.Array:
        sparse = p.projection_sparse_simplex(x, 3)
        balls = p.projection_l1_ball(x, 1.5), p.projection_l1_sphere(x, 1.5), p.projection_l2_ball(x, 1.5)
        other = (
            losses.multiclass_sparsemax_loss(jnp.array(1), x),
            losses.multiclass_logistic_loss(jnp.array(1), x),
            losses.huber_loss(x, x[::-1]),
        )
        return total(
            p.projection_simplex(x), sparse, balls, other, p.projection_box_section(x, (jnp.zeros(6), jnp.ones(6), jnp.ones(6), 2.0))
        )

    return loss, (array(6),)


@program("jaxopt")
def jaxopt_implicit() -> Any:
    import jaxopt

    def ridge(w: jax.Array, strength: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((x @ w - y) ** 2) + strength * jnp.sum(w**2)

    def loss(strength: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        start = jnp.zeros(3)
        descent = jaxopt.GradientDescent(ridge, maxiter=200, tol=1e-6).run(start, strength, x, y).params
        newton = jaxopt.LBFGS(ridge, maxiter=50, tol=1e-6).run(start, strength, x, y).params
        fixed = jaxopt.FixedPointIteration(lambda w, strength: 0.5 * jnp.cos(w) + strength, maxiter=100).run(start, strength).params
        return total(descent, newton, fixed)

    return loss, (jnp.array(0.5), array(8, 3), array(8))


@program("jaxopt")
def jaxopt_perturbed_and_isotonic() -> Any:
    from jaxopt import isotonic, perturbations

    def loss(x: jax.Array) -> jax.Array:
        key = jax.random.key(0)
        one_hot = lambda x: jax.nn.one_hot(jnp.argmax(x), x.size)  # noqa: E731
        argmax = perturbations.make_perturbed_argmax(one_hot, 20, 0.5)(x, key)
        largest = perturbations.make_perturbed_max(one_hot, 20, 0.5)(x, key)
        function = perturbations.make_perturbed_fun(jnp.max, 20, 0.5)(x, key)
        return total(argmax, largest, function, isotonic.isotonic_l2_pav(x))

    return loss, (array(5),)


@program("numpyro")
def numpyro_distributions() -> Any:
    import numpyro.distributions as dist
    from numpyro.distributions import util

    def loss(x: jax.Array) -> jax.Array:
        positive, unit = jnp.abs(x) + 0.5, x / 4.5 + 0.5
        logs = (
            dist.Normal(x, positive).log_prob(x[::-1]), dist.BinomialProbs(unit, 10).log_prob(jnp.arange(4)), dist.GammaPoisson(positive, positive).log_prob(2),
            dist.BetaBinomial(positive, positive, 5).log_prob(2), dist.BernoulliLogits(x).log_prob(1), dist.ZeroInflatedPoisson(unit, positive).log_prob(0),
            dist.LowerTruncatedPowerLaw(-positive - 1, 0.4).log_prob(positive),
            dist.TruncatedNormal(x, positive, low=-1.0).log_prob(positive), dist.VonMises(x, positive).log_prob(x[::-1]), util.log1mexp(-positive),
        )  # fmt: skip
        return total(logs)

    return loss, (array(4),)


@program("numpyro")
def numpyro_power_law() -> Any:
    import numpyro.distributions as dist

    def loss(exponent: jax.Array, low: jax.Array, high: jax.Array, x: jax.Array) -> jax.Array:
        law = dist.DoublyTruncatedPowerLaw(exponent, low, high)
        return total(law.log_prob(x), law.cdf(x), law.icdf(x / 3))

    return loss, (jnp.array([1.3, -1.0, -2.0]), array(3, low=0.3, high=0.6), array(3, low=2.5, high=3), array(3, low=0.8, high=2))


@program("numpyro")
def numpyro_sampling() -> Any:
    import numpyro.distributions as dist

    def loss(x: jax.Array) -> jax.Array:
        key, positive = jax.random.key(0), jnp.abs(x) + 0.5
        return total(
            dist.Gamma(positive, 2.0).sample(key), dist.Beta(positive, 1.5).sample(key), dist.StudentT(positive, x, positive).sample(key)
        )

    return loss, (array(4),)


@program("distrax")
def distrax_distributions() -> Any:
    import distrax

    def loss(x: jax.Array) -> jax.Array:
        positive, key = jnp.abs(x) + 0.5, jax.random.key(0)
        mises = distrax.VonMises(x, positive)
        return total(
            distrax.Categorical(logits=x).log_prob(1), distrax.Categorical(logits=x).entropy(), distrax.Bernoulli(logits=x).log_prob(1),
            distrax.OneHotCategorical(probs=jax.nn.softmax(x)).log_prob(jnp.array([0, 1, 0, 0])), distrax.Gumbel(x, positive).entropy(),
            distrax.MultivariateNormalDiag(x, positive).log_prob(x[::-1]), distrax.Multinomial(4, logits=x).log_prob(jnp.array([1, 2, 0, 1])),
            distrax.Categorical(probs=jax.nn.softmax(x)).kl_divergence(distrax.Categorical(logits=x[::-1])),
            mises.log_prob(x[::-1]), mises.cdf(x[::-1]), mises.sample(seed=key),
        )  # fmt: skip

    return loss, (array(4),)


@program("brax")
def brax_math() -> Any:
    from brax import math

    def loss(x: jax.Array) -> jax.Array:
        unit, q = x / 2.1, math.normalize(array(4))[0]
        return total(
            math.safe_arccos(unit),
            math.safe_arcsin(unit),
            math.safe_norm(x),
            math.quat_to_euler(q + x[0] / 10),
            math.inv_3x3(array(3, 3) + x[0]),
        )

    return loss, (array(5),)


@program("brax")
def brax_networks() -> Any:
    from brax.training.agents.ppo import networks

    made = networks.make_ppo_networks(6, 2, policy_hidden_layer_sizes=(8,), value_hidden_layer_sizes=(8,))
    params = made.policy_network.init(jax.random.key(0)), made.value_network.init(jax.random.key(1))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        logits, values = made.policy_network.apply(None, params[0], x), made.value_network.apply(None, params[1], x)
        action = made.parametric_action_distribution.sample_no_postprocessing(logits, jax.random.key(2))
        return total(made.parametric_action_distribution.log_prob(logits, action), values)

    return loss, (params, array(3, 6))


@program("e3nn-jax")
def e3nn_jax_layers() -> Any:
    import e3nn_jax as e3nn

    def loss(x: jax.Array, features: jax.Array) -> jax.Array:
        harmonics = e3nn.spherical_harmonics("1o + 2e", x, normalize=True)
        product = e3nn.tensor_product(e3nn.IrrepsArray("2x0e + 1o", features), harmonics)
        recursive = e3nn.spherical_harmonics("0e + 3o", x, normalize=False, algorithm=("recursive", "dense", "custom_jvp"))
        return total(product.array, recursive.array, e3nn.norm(product).array, e3nn.bessel(jnp.abs(x[:, 0]), 4))

    return loss, (array(3, 3), array(3, 5))


@program("s2fft")
def s2fft_transforms() -> Any:
    import s2fft

    def loss(f: jax.Array) -> jax.Array:
        flm = s2fft.forward_jax(f, 4, reality=True)
        return total(s2fft.inverse_jax(flm, 4), flm)

    return loss, (array(4, 7),)


@program("tokamax")
def tokamax_ops() -> Any:
    import tokamax

    def loss(x: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        norm = tokamax.layer_norm(x, jnp.ones(8), jnp.zeros(8), implementation="xla")
        attention = tokamax.dot_product_attention(q, k, v, is_causal=True, implementation="xla")
        gated = tokamax.gated_linear_unit(x, w, activation=jax.nn.silu, implementation="xla")
        ragged = tokamax.ragged_dot(x, jnp.stack([w[:, 0], w[:, 1]]), jnp.array([2, 3], jnp.int32), implementation="xla")
        return total(norm, attention, gated, ragged)

    return loss, (array(5, 8), *(array(1, 4, 2, 8, seed=s) for s in range(3)), array(8, 2, 6))


@program("tokamax")
def tokamax_cross_entropy() -> Any:
    import tokamax

    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return tokamax.linear_softmax_cross_entropy_loss(x, jnp.array([1, 0, 3, 2]), w, implementation="xla")

    return loss, (array(4, 8), array(8, 5))


@program("tensorflow-probability")
def tensorflow_probability_special() -> Any:
    from tensorflow_probability.substrates.jax import math

    def loss(x: jax.Array) -> jax.Array:
        positive, unit = jnp.abs(x) + 0.5, jax.nn.sigmoid(x)
        gamma = math.igammainv(positive, unit), math.igammacinv(positive, unit), math.log_gamma_difference(positive, positive + 9)
        beta = math.betainc(positive, positive[::-1], unit), math.betaincinv(positive, positive[::-1], unit), math.lbeta(positive, unit)
        return total(gamma, beta, math.erfcx(x), math.owens_t(x, positive), math.lambertw(positive), math.log_cosh(x), math.dawsn(x))

    return loss, (array(5),)


@program("tensorflow-probability")
def tensorflow_probability_bessel() -> Any:
    from tensorflow_probability.substrates.jax import math

    def loss(x: jax.Array) -> jax.Array:
        order, z = jnp.full(x.shape, 1.5), jnp.abs(x) + 0.5
        return total(
            *(f(order, z) for f in (math.bessel_ive, math.bessel_kve, math.log_bessel_ive, math.log_bessel_kve, math.bessel_iv_ratio))
        )

    return loss, (array(4),)


@program("tensorflow-probability")
def tensorflow_probability_linalg() -> Any:
    from tensorflow_probability.substrates.jax import math

    def loss(a: jax.Array, b: jax.Array) -> jax.Array:
        matrix = a @ a.T + 3 * jnp.eye(len(a))
        solved = math.hpsd_solve(matrix, b), math.hpsd_quadratic_form_solve(matrix, b)
        return total(solved, math.hpsd_logdet(matrix), math.hpsd_quadratic_form_solvevec(matrix, b[:, 0]))

    return loss, (array(4, 4), array(4, 2))
