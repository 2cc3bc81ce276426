"""Every operation's claim about itself, by name. `verify` finds them here."""

from manual_vjp.ops import attention, layer_norm, linear, mlp, relu
from verify.spec import Spec

SPECS: dict[str, Spec] = {module.SPEC.name: module.SPEC for module in (attention, layer_norm, linear, mlp, relu)}
