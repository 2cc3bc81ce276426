"""Backpropagation derived from a function's own equations: a tape, the tape backward, and both run.

Every formula is an `Expr` (`expressions`), which NumPy runs and which is written as text or as MathML: what is shown is what was run.
"""
