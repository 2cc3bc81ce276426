"""Differentiable operations for JAX whose backward passes are derived by hand."""

from importlib.metadata import PackageNotFoundError, version

from manual_vjp.adapters import flax_attention as flax_attention
from manual_vjp.ops.attention import attention as attention
from manual_vjp.ops.layer_norm import layer_norm as layer_norm
from manual_vjp.ops.linear import linear as linear
from manual_vjp.ops.mlp import mlp as mlp
from manual_vjp.ops.relu import relu as relu

try:
    __version__ = version("manual-vjp")
except PackageNotFoundError:  # used from a source tree
    __version__ = "0+unknown"
