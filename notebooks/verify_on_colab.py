# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hand-written derivatives, verified on this device
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/manual-vjp/manual-vjp/blob/main/notebooks/verify_on_colab.ipynb)
#
# `verify` tells whether a hand-written JAX derivative is right, wrong, or cannot be judged; `manual_vjp` holds layers with such derivatives. This notebook verifies
# some of the layers on the device at hand, trains with them, and verifies a rule of your own.

# %% [markdown]
# ## Install
#
# Colab has JAX, NumPy, click, rich, jinja2 and matplotlib, matched to its GPU or TPU. `--no-deps` leaves all of that as it is; only what is missing comes with the package.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("verify") is None:
    missing = [package for package in ("jaxtyping", "wadler_lindig", "msgspec") if importlib.util.find_spec(package) is None]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "manual-vjp", *missing], check=True)

# %% [markdown]
# ## The device
#
# The rule runs here in float32 and 16-bit dtypes. The oracles, JAX's autodiff of a plain formula and finite differences, run in float64 on the host's CPU, which has it whatever the device is.
#
# - **TPU**: a float32 matrix product is computed from bfloat16 factors by default; there is no float64 in hardware.
# - **GPU** (Ampere and later): a float32 matrix product may use TF32, with 10 bits of mantissa.
#
# `verify` takes the error that JAX's autodiff makes on the same device as its unit, so a right rule is not accused of its device's rounding. A coarse unit hides coarse mistakes, though: full
# precision is asked for below, while rules are verified. (The authors ran this notebook on CPUs only.)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import verify

kind = jax.default_backend()
precision = "default" if kind == "cpu" else "highest"
jax.config.update("jax_default_matmul_precision", precision)
print(f"{jax.device_count()} x {jax.devices()[0].device_kind} ({kind}), JAX {jax.__version__}, matrix products: {precision}")

# %% [markdown]
# ## Verify some layers
#
# 8 cases each: random sizes, dtypes, options and values, every check. `verify run` in a terminal does all layers with 104 cases.

# %%
verdicts = [verify.run(name, cases=8) for name in ("linear", "layer_norm", "softmax_cross_entropy")]
for verdict in verdicts:
    print(
        f"{verdict.name:<22} {verdict.status}  {verdict.comparisons:,} comparisons, a relative error of {verdict.smallest_detectable:.1e} would have been caught"
    )
    if not verdict:
        print(verdict)

# %% [markdown]
# ## Train with them
#
# Two spirals, one hidden layer; by hand-written rules, and by autodiff of the plain formulas. The curves may differ by rounding only.

# %%
from manual_vjp import layer_norm, linear, silu, softmax_cross_entropy
from manual_vjp.ops import layer_norm as plain_norm
from manual_vjp.ops import linear as plain_linear
from manual_vjp.ops import silu as plain_silu
from manual_vjp.ops import softmax_cross_entropy as plain_loss

by_hand = (linear, layer_norm, silu, softmax_cross_entropy)
by_autodiff = tuple(module.reference for module in (plain_linear, plain_norm, plain_silu, plain_loss))

angle = jnp.linspace(0.5, 6.0, 256)
arm = jnp.stack([angle * jnp.cos(angle), angle * jnp.sin(angle)], axis=1) / 6
points, labels = jnp.concatenate([arm, -arm]), jnp.repeat(jnp.arange(2), 256)
keys = jax.random.split(jax.random.key(0), 3)
start = {
    "w1": jax.random.normal(keys[0], (2, 64)) * 3,
    "b1": jax.random.normal(keys[1], (64,)) * 2,
    "scale": jnp.ones(64),
    "w2": jax.random.normal(keys[2], (64, 2)) / 8,
}


def train(layers, params, steps=400, rate=0.5):
    dense, norm, activation, loss = layers

    def objective(params):
        hidden = activation(norm(dense(points, params["w1"], params["b1"]), params["scale"]))
        return loss(dense(hidden, params["w2"]), labels)

    def step(params, _):
        value, gradient = jax.value_and_grad(objective)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient), value

    return jax.jit(lambda params: jax.lax.scan(step, params, None, length=steps)[1])(params)


losses = {"by hand": train(by_hand, start), "by autodiff": train(by_autodiff, start)}
figure, axes = plt.subplots(figsize=(6, 3))
for (name, values), style in zip(losses.items(), ("-", "--"), strict=True):
    axes.semilogy(values, style, label=name)
axes.set(xlabel="step", ylabel="loss")
axes.legend()
plt.show()
print(
    f"loss {losses['by hand'][0]:.3f} -> {losses['by hand'][-1]:.3f}; largest difference {jnp.abs(losses['by hand'] - losses['by autodiff']).max():.1e}"
)

# %% [markdown]
# ## Your own rule
#
# The root of the mean square of each row, with a mistake in its backward. Run it, read `why`, mend the line, and run it again.


# %%
@jax.custom_vjp
def rms(x):
    return jnp.sqrt((x * x).mean(-1))


def forward(x):
    y = rms(x)
    return y, (x, y)


def backward(residuals, y_ct):
    x, y = residuals
    return (y_ct[:, None] * x / y[:, None],)  # mend: / (x.shape[1] * y[:, None])


rms.defvjp(forward, backward)
verdict = verify.check(rms, jnp.array([[1.0, 2.0, -1.0], [0.5, 3.0, 2.0]]))
print(verdict)

# %% [markdown]
# ## What the report shows
#
# The finite differences of the function against the step: long steps are wrong by truncation, short ones by rounding. The rule's slope is a line that the V never comes near.

# %%
if verdict.evidence and verdict.evidence.curve:
    curve = verdict.evidence.curve
    central = [(ahead - behind) / (2 * step) for step, ahead, behind in zip(curve.steps, curve.ahead, curve.behind, strict=True)]
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.loglog(curve.steps, [abs(slope - curve.want) for slope in central], "o-", label="finite differences")
    axes.axhline(abs(curve.rule - curve.want), color="tab:red", label="the rule")
    axes.set(xlabel="step", ylabel=f"distance from {curve.oracle}")
    axes.legend()
    plt.show()

# %% [markdown]
# And the whole report, as `verify run --html` writes it:

# %%
from html import escape

from IPython.display import display

page = verify.Report(verdicts=(verdict, *verdicts)).to_html()
display({"text/html": f'<iframe srcdoc="{escape(page)}" width="100%" height="600"></iframe>'}, raw=True)
