"""Wrong rules, each with the right one beside it, and the words that its diagnosis must hold.

The mistakes are those of public bug reports and of textbooks; the right rule differs from the wrong one in the mistake alone.
"""

from __future__ import annotations

from tests.power import (
    attention_rules,
    block_rules,
    border_rules,
    cancelling_rules,
    convolution_rules,
    cotangent_rules,
    elementwise_rules,
    jvp_rules,
    linear_rules,
    masked_rules,
    matrix_rules,
    norm_rules,
    output_rules,
    precision_rules,
    reduction_rules,
    state_rules,
    tie_rules,
    transform_rules,
)
from tests.power.complex_rules import COMPLEX
from tests.power.entry import Entry

MODULES = (
    linear_rules, norm_rules, attention_rules, elementwise_rules, reduction_rules, masked_rules, block_rules, convolution_rules, matrix_rules, cancelling_rules,
    cotangent_rules, precision_rules, output_rules, state_rules, transform_rules, jvp_rules, tie_rules, border_rules,
)  # fmt: skip
CORPUS: tuple[Entry, ...] = (*(entry for module in MODULES for entry in module.ENTRIES), *COMPLEX)
