"""Every operation's claim about itself, by name. `verify` finds them here."""

from importlib import import_module

from verify.spec import Spec

NAMES = (
    "attention",
    "avg_pool",
    "batch_norm",
    "conv",
    "dropout",
    "embedding",
    "gelu",
    "gru",
    "huber",
    "layer_norm",
    "least_squares",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "low_rank_linear",
    "lstm",
    "max_pool",
    "mlp",
    "project",
    "relu",
    "residual",
    "rms_norm",
    "rnn",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "sparse_linear",
    "squared_error",
)
SPECS: dict[str, Spec] = {name: import_module(f"manual_vjp.ops.{name}").SPEC for name in NAMES}
