"""Every operation's claim about itself, by name. `verify` finds them here."""

from importlib import import_module

from verify.spec import Spec

NAMES = (
    "attention",
    "batch_norm",
    "gelu",
    "gru",
    "huber",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "lstm",
    "mlp",
    "relu",
    "rms_norm",
    "rnn",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
)
SPECS: dict[str, Spec] = {name: import_module(f"manual_vjp.ops.{name}").SPEC for name in NAMES}
