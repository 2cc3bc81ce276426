"""Every operation's claim about itself, by name. `verify` finds them here."""

from importlib import import_module

from verify.spec import Spec

NAMES = (
    "attention",
    "avg_pool",
    "batch_norm",
    "conv",
    "dropout",
    "gelu",
    "huber",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "mlp",
    "relu",
    "rms_norm",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
)
SPECS: dict[str, Spec] = {name: import_module(f"manual_vjp.ops.{name}").SPEC for name in NAMES}
