"""A second evaluator: NumPy runs a float64 jaxpr, operation by operation, with no lowering and no compilation.

For the small arrays of a verification, lowering and compiling cost ten times more than the arithmetic. It knows the operations that most derivatives
are made of, their branches and short loops; a program with any other goes to XLA. It is also independent of XLA: an error of either shows where the two are compared.
"""

from verify.interpreter.continued import CONTINUED, RULES, BoundaryError
from verify.interpreter.evaluate import CONTROL, Rules, apply, continues, knows, knows_equation, prepared, run
from verify.interpreter.parts import Parts, in_parts

__all__ = [
    "CONTINUED",
    "CONTROL",
    "RULES",
    "BoundaryError",
    "Parts",
    "Rules",
    "apply",
    "continues",
    "in_parts",
    "knows",
    "knows_equation",
    "prepared",
    "run",
]
