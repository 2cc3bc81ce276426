"""Every operation's claim about itself, by name. `verify` finds them here."""

from manual_vjp.ops import (
    attention,
    batch_norm,
    gelu,
    huber,
    layer_norm,
    linear,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    mlp,
    relu,
    rms_norm,
    silu,
    softmax,
    softmax_cross_entropy,
    squared_error,
)
from verify.spec import Spec

MODULES = (
    attention,
    batch_norm,
    gelu,
    huber,
    layer_norm,
    linear,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    mlp,
    relu,
    rms_norm,
    silu,
    softmax,
    softmax_cross_entropy,
    squared_error,
)
SPECS: dict[str, Spec] = {module.SPEC.name: module.SPEC for module in MODULES}
