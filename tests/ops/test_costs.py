"""What an operation's docstring says of its cost is what its traced programs do: products and elementary functions, counted."""

import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from manual_vjp.catalog import SPECS
from verify import programs
from verify.cases import draw

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_extensions"))
import costs

ELEMENTARY = {"exp", "exp2", "log", "log1p", "expm1", "tanh", "erf", "erfc", "logistic", "rsqrt", "sqrt", "pow", "sin", "cos"}
SEQUENCE = {"T": 256, "D": 5, "H": 7, "batch": (3,)}
SIZES = {  # no two sizes of one product alike; long where a log or a rescaled sum for each row must not count
    "attention": {"B": 2, "T": 256, "S": 512, "K": 2, "G": 3, "H": 8},
    "avg_pool": {"B": 2, "H": 9, "W": 7, "C": 3},
    "batch_norm": {"n": 5, "m": 7, "C": 3},
    "conv": {"B": 2, "H": 17, "W": 11, "G": 2, "C": 3, "O": 7, "K": 3, "L": 5},
    "dropout": {"n": 5, "m": 7},
    "embedding": {"V": 11, "D": 7, "batch": (5,)},
    "gelu": {"shape": (5, 7)},
    "gru": SEQUENCE,
    "huber": {"shape": (5, 7)},
    "layer_norm": {"D": 7, "batch": (5,)},
    "least_squares": {"m": 11, "n": 7, "k": 3},
    "linear": {"d_in": 11, "d_out": 13, "batch": (5,)},
    "linear_cross_entropy": {"n": 8, "D": 5, "V": 130},
    "log_softmax": {"n": 5, "m": 130},
    "logsumexp": {"n": 5, "m": 130},
    "low_rank_linear": {"d_in": 11, "r": 3, "d_out": 13, "batch": (5,)},
    "lstm": SEQUENCE,
    "max_pool": {"B": 2, "H": 9, "W": 7, "C": 3},
    "mlp": {"d_in": 11, "d_hidden": 13, "d_out": 17, "batch": (5,)},
    "project": {"rows": 5, "m": 11, "n": 7},
    "relu": {"shape": (5, 7)},
    "residual": {"d": 7, "batch": (5,)},
    "rms_norm": {"D": 7, "batch": (5,)},
    "rnn": SEQUENCE,
    "silu": {"shape": (5, 7)},
    "softmax": {"n": 5, "m": 130},
    "softmax_cross_entropy": {"n": 5, "m": 7, "V": 130},
    "sparse_linear": {"d_in": 11, "nse": 6, "d_out": 13, "batch": (5,)},
    "squared_error": {"shape": (5, 7)},
}
OPTIONS = {
    "conv": {"feature_group_count": 2, "padding": "SAME"},
    "dropout": {"rate": 0.5},
    "avg_pool": {"window_shape": (2, 3)},
    "max_pool": {"window_shape": (2, 3)},
}
MEANINGS = {  # the letters of the docstring that are not sizes of the spec
    "attention": {"N": 6},
    "conv": {"N": 2, "P": 17 * 11, "K": 3 * 5, "O": 2 * 7},
    "gelu": {"E": 35},
    "layer_norm": {"R": 5},
    "linear": {"R": 5},
    "linear_cross_entropy": {"N": 8},
    "log_softmax": {"E": 5 * 130},
    "logsumexp": {"E": 5 * 130},
    "low_rank_linear": {"R": 5},
    "mlp": {"R": 5},
    "project": {"R": 5},
    "residual": {"F": 2 * 5 * 7 * 7, "E": 35},
    "rms_norm": {"R": 5},
    "silu": {"E": 35},
    "softmax": {"E": 5 * 130},
    "softmax_cross_entropy": {"R": 35},
    "gru": {"N": 3},
    "lstm": {"N": 3},
    "rnn": {"N": 3},
}
FEW = 0.02  # of the elementary functions: what is done once a row, not once an element


def counted(jaxpr, times=1):
    """Operations of products ("products") and elementary functions ("functions") of a program, loops unrolled."""
    total = Counter()
    for equation in jaxpr.eqns:
        name, params, out = equation.primitive.name, equation.params, equation.outvars[0].aval
        if name == "dot_general":
            ((contracted, _), _) = params["dimension_numbers"]
            total["products"] += 2 * times * out.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            total["products"] += 2 * times * out.size * kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        elif name in ELEMENTARY:
            total["functions"] += times * out.size
        assert name != "while", "a loop of unknown length"
        parts = [counted(inner, times * params.get("length", 1)) for inner in _inner(params)]
        total += max(parts, key=Counter.total, default=Counter()) if name == "cond" else sum(parts, Counter())
    return total


def _inner(params):
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, (core.ClosedJaxpr, core.Jaxpr)):
                yield getattr(part, "jaxpr", part)


def measured(name):
    """What an operation's forward and its backward do, with all its arguments and its own default options."""
    case = next(case for case in draw(SPECS[name], 0, range(200), SIZES[name]) if all(arg is not None for arg in case.args))
    call, diff, rest = programs.bind(SPECS[name], replace(case, options=OPTIONS.get(name, {})))
    diff = [jnp.asarray(leaf, jnp.float32) for leaf in diff]

    def forward(*leaves):
        return call.run(leaves, rest)

    def both(cts, *leaves):
        out, pullback = jax.vjp(forward, *leaves)
        return out, pullback(cts)

    alone, together = jax.make_jaxpr(forward)(*diff), jax.make_jaxpr(both)(jax.eval_shape(forward, *diff), *diff)
    ahead, whole = counted(alone.jaxpr), counted(together.jaxpr)
    return [ahead["products"], whole["products"] - ahead["products"], ahead["functions"], whole["functions"] - ahead["functions"]]


def said(name):
    cost = costs.of(sys.modules[SPECS[name].fn.__module__].__doc__)
    letters = {letter: size for letter, size in SIZES[name].items() if isinstance(size, int)} | MEANINGS.get(name, {})
    return [term(text, letters) for text in cost[:4]]


def term(text, letters):
    """ "2 R (d_in + d_out)" at these sizes."""
    products = re.sub(r"(?<=[\w)]) +(?=[\w(])", "*", text)
    return 0 if text == "none" else eval(products, {"__builtins__": {}}, letters)


@pytest.mark.parametrize("name", SPECS)
def test_the_docstring_tells_what_is_computed(name):
    found, claimed = measured(name), said(name)
    assert found[:2] == claimed[:2]
    for functions, claim in zip(found[2:], claimed[2:], strict=True):
        assert claim <= functions <= claim * (1 + FEW), (found, claimed)


def test_the_count_is_that_of_xla():
    x, w = jnp.ones((11, 7)), jnp.ones((7, 5))
    program = jax.jit(lambda x, w: x @ w).lower(x, w)
    assert (
        counted(jax.make_jaxpr(lambda x, w: x @ w)(x, w).jaxpr)["products"] == program.compile().cost_analysis()["flops"] == 2 * 11 * 7 * 5
    )
    loop = jax.make_jaxpr(lambda x, w: jax.lax.scan(lambda c, _: (jnp.tanh(c @ (w @ w.T)), None), x, None, length=3))(x, w)
    assert counted(loop.jaxpr) == {"products": 3 * (2 * 7 * 5 * 7 + 2 * 11 * 7 * 7), "functions": 3 * 11 * 7}


def test_terms_are_read_as_they_are_written():
    assert term("2 R r (d_in + d_out)", {"R": 3, "r": 2, "d_in": 5, "d_out": 7}) == 144 and term("none", {}) == 0
    with pytest.raises(ValueError, match="no line 'Cost"):
        costs.of("Forward: y = x")
