"""Differentiable operations for JAX whose backward passes are derived by hand."""

from importlib.metadata import PackageNotFoundError, version

from manual_vjp.adapters import flax_attention as flax_attention
from manual_vjp.ops.attention import attention as attention
from manual_vjp.ops.avg_pool import avg_pool as avg_pool
from manual_vjp.ops.batch_norm import batch_norm as batch_norm
from manual_vjp.ops.conv import conv as conv
from manual_vjp.ops.dropout import dropout as dropout
from manual_vjp.ops.embedding import embedding as embedding
from manual_vjp.ops.gelu import gelu as gelu
from manual_vjp.ops.gru import gru as gru
from manual_vjp.ops.huber import huber as huber
from manual_vjp.ops.layer_norm import layer_norm as layer_norm
from manual_vjp.ops.least_squares import least_squares as least_squares
from manual_vjp.ops.linear import linear as linear
from manual_vjp.ops.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from manual_vjp.ops.log_softmax import log_softmax as log_softmax
from manual_vjp.ops.logsumexp import logsumexp as logsumexp
from manual_vjp.ops.low_rank_linear import low_rank_linear as low_rank_linear
from manual_vjp.ops.lstm import lstm as lstm
from manual_vjp.ops.max_pool import max_pool as max_pool
from manual_vjp.ops.mlp import mlp as mlp
from manual_vjp.ops.project import project as project
from manual_vjp.ops.relu import relu as relu
from manual_vjp.ops.residual import residual as residual
from manual_vjp.ops.rms_norm import rms_norm as rms_norm
from manual_vjp.ops.rnn import rnn as rnn
from manual_vjp.ops.silu import silu as silu
from manual_vjp.ops.softmax import softmax as softmax
from manual_vjp.ops.softmax_cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from manual_vjp.ops.sparse_linear import sparse_linear as sparse_linear
from manual_vjp.ops.squared_error import squared_error as squared_error

try:
    __version__ = version("manual-vjp")
except PackageNotFoundError:  # used from a source tree
    __version__ = "0+unknown"
