"""Sentences for rules whose plain gradient is right: which use of them is wrong, and what such a mistake usually is."""

from __future__ import annotations

import math
import re

from verify.checks.tangent import CONSTANT
from verify.checks.transformed import PLAIN
from verify.records import Finding
from verify.tolerance import EPS

USUALLY = {
    "linearity": "something in the backward clips, rounds, squares, normalises or takes a sign",
    "zero-cotangent": "it has a term that is not multiplied by the upstream cotangent",
    "repeatability": "it keeps state between calls, or draws a random number that is no argument",
    "second-order": "the backward treats a residual as a constant (stop_gradient, rounding), or the forward computes one by a program without a derivative (a solver, in the place of the rule itself)",
    "arguments": "it takes another path when only some arguments are differentiated or some outputs used (`perturbed`, SymbolicZero, a zero cotangent)",
    "sharing": "it compares its arguments by identity, or keeps residuals under it",
    "reuse": "it keeps a residual outside of JAX (a global, an attribute, a cache), which belongs to another call",
    "jit": "it reads values in Python, or keeps state between calls",
    "vmap": "it counts axes from the front, sums over all but the last, or reads a size of the batch",
    "scan": "it keeps state in Python from step to step, or returns a cotangent in another dtype",
    "remat": "its forward rule does not give the same residuals when it runs again",
    "kinks": "the shares of tied entries must sum to one, and a value at a kink must lie between the one-sided derivatives",
}
NOT_FINITE = (
    "a where in the backward chooses between values of which the other is infinite: make its argument safe before, not its result after; "
    "or something in it has no derivative here: eigh or svd of equal values, a root or a norm of 0"
)
OVERFLOWS = "an exp without a shift, a square that overflows, or a division by 0 that a where hides in the forward only"
NOT_SCALED = "a power or an exponential of the cotangent overflows, or it goes through an algorithm that gives up at large numbers (scale it before, and the result back)"
ONE_SIDED = "the backward holds an abs, a sign, a max or a where that has another derivative at this very point than beside it"
IN_PLAIN_USE_RIGHT = ("arguments", "sharing", "reuse", "jit", "vmap", "scan", "remat")


def elsewhere(finding: Finding, at_points: bool = False) -> list[str]:
    """What a failing finding of another check than the gradient's says about the mistake. at_points: of second derivatives, only those at zeros, equal or special values."""
    finite = finding.got is None or math.isfinite(finding.got)
    if finding.check == "precision":
        return [_rounding(finding)]
    if finding.check == "tangent":
        return [_tangent(finding)]
    if finding.check == "extremes":
        return [_extremes(finding)]
    if finding.check == "linearity" and (power := re.search(r"bwd\((2\^-?\d+) a\)", finding.message)):
        if not finite:
            return [f"it is linear for cotangents of ordinary size, and not finite when they are scaled by {power[1]}: {NOT_SCALED}"]
        return [
            f"it is linear for cotangents of ordinary size and not when they are scaled by {power[1]}: a threshold, a clip or an added constant"
        ]
    if finding.check == "linearity" and finding.dtype not in (None, "float64"):
        return [
            f"it is linear in float64 and not in {finding.dtype}: it rounds where it should not, as a long sum does that is accumulated in {finding.dtype}"
        ]
    if finding.check == "zero-cotangent" and not finite:
        where = f" in {finding.dtype}" if finding.dtype not in (None, "float64") else ""
        return [f"what the cotangent is multiplied by is itself NaN or infinite{where}: {OVERFLOWS}"]
    usual = USUALLY.get(finding.check)
    if usual is None:
        return []
    if finding.check == "second-order":
        usual = (ONE_SIDED if at_points else usual) if finite else NOT_FINITE
        return [f"in a plain call the rule is right; {'wrong' if finite else 'not finite'} is its own derivative. Usually {usual}"]
    if PLAIN in finding.message:
        return ["it is wrong in a plain call, too, with the values of one of the examples compared here, which no other case held"]
    if finding.check in IN_PLAIN_USE_RIGHT:
        where = finding.message.split(",", maxsplit=1)[0].split(" the cotangent")[0].split(" the rule raises")[0]
        return [f"in a plain call the rule is right; it is wrong {where if len(where) < 120 else 'here'}. Usually {usual}"]
    return [usual]


def _rounding(finding: Finding) -> str:
    """Which precision an error in low precision looks like."""
    if finding.got is None or finding.want is None or not math.isfinite(finding.got) or not finding.want:
        return "it loses precision that autodiff keeps"
    relative = abs(finding.got / finding.want - 1)
    coarser = [name for name in ("bfloat16", "float16") if finding.dtype == "float32" and EPS[name] / 16 < relative < EPS[name]]
    few = finding.wrong * 10 < finding.comparisons
    if coarser and not few:
        return f"its error is what rounding to {coarser[0]} makes: a residual, a product or a sum is kept in {coarser[0]}"
    if relative > 0.1:
        return (
            "it is wrong altogether in this dtype, not only less exact: something overflows or vanishes in it on the way, as a square may"
        )
    if few:
        return "it rounds where autodiff does not, in few elements: there numbers are subtracted that nearly cancel, and each was rounded before"
    return "it rounds where autodiff does not: a long sum is accumulated in this dtype, or rounded numbers are subtracted"


def _tangent(finding: Finding) -> str:
    by = re.match(r"when (.+?) moves?,", finding.message)
    moved = by[1] if by else "an argument"
    if CONSTANT in finding.message:
        return "the rule has a term that is not multiplied by a tangent: where nothing moves, its tangent is not 0"
    if "jvp(a - 2 b)" in finding.message:
        return "the rule is not linear in the tangents, as every derivative is"
    if finding.got == 0:
        return f"the rule leaves out the tangent of {moved}"
    if finding.got is not None and finding.want and math.isfinite(finding.got):
        return f"with {moved} moving, the tangent is {finding.got / finding.want:.6g} times the right one at the worst element"
    return f"the tangent is not finite when {moved} moves"


def _extremes(finding: Finding) -> str:
    if "scaled by" in finding.message:
        return "it overflows or divides 0 by 0 for very large or small upstream cotangents"
    return f"it is NaN or infinite where the derivative is finite: {OVERFLOWS}"
