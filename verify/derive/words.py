"""The sentences of a derivation, the same in text and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from verify.derive.candidates import Axes, Search, Sum
from verify.derive.derivation import Comparison, Derivation
from verify.derive.example import Dims
from verify.derive.expressions import Expr
from verify.derive.notation import write
from verify.derive.reverse import Term
from verify.derive.steps import Loop, Step

FORWARD = "Forward: one step a line, with the shapes of its factors"
BACKWARD = "Backward: the steps in reverse"
RULES = (
    "{cts} given. Each step hands the cotangent of its result to its operands: v_ct is the "
    "derivative of L = <{first}, {y}> by v, and has the shape of v. What was repeated along an axis is summed over it; what was summed is repeated; "
    "a value used twice adds up (+=)."
)
TOGETHER = "Each cotangent in one piece"
SEARCH = "From shapes alone"
CHECK = "Checked by running it"


COMPARED = "Largest difference between the value of the formulas and that of"


def rules(d: Derivation) -> str:
    cts = [f"{y.data}_ct" for y in d.tape.outputs]
    given = f"{', '.join(cts)} {'is' if len(cts) == 1 else 'are'}"
    return RULES.format(cts=given, first=cts[0], y=d.tape.outputs[0].data)


def setting(d: Derivation) -> str:
    """ "Run with n=5, m=7; axis=-1; where=None."."""
    told = d.case.describe()
    return f"Run with {told}." if told else "Run on scalars."


def held(d: Derivation) -> set[str]:
    """Steps to which no cotangent comes."""
    reached = {term.step.name for term in d.terms} | {term.operand for term in d.terms} | {y.data for y in d.tape.outputs}
    return {step.name for step in d.tape.steps} - reached


def notes(d: Derivation) -> list[str]:
    """What the tape leaves out, or leaves to JAX."""
    found = []
    taken = list(dict.fromkeys(f"{write(e, d.dims)} is {value}" for e, value in d.tape.taken))
    if taken:
        found.append(f"Everywhere in these runs {', '.join(taken)}: of each select only the branch that is taken is shown.")
    left = list(dict.fromkeys(step.value.data[0].primitive.name for step in d.tape.steps if step.value.op == "jax" and step.moves))
    if left:
        found.append(f"{', '.join(left)}: computed by JAX, as is its pullback vjp(...).")
    return found


def forward_loop(loop: Loop, dims: Dims) -> str:
    """What a scan does."""
    first = ", the last first" if loop.equation.params["reverse"] else ""
    parts = []
    if loop.carried:
        parts.append(
            "c1 is carried, and is next_c1 in the step after"
            if loop.carried == 1
            else "c1, c2, ... are carried, and are next_c1, ... in the step after"
        )
    if len(loop.body.inputs) > loop.fixed + loop.carried:
        parts.append("x_t is a slice of x")
    if len(loop.body.outputs) > loop.carried:
        parts.append("out1_t is stacked")
    return f"{dims.of(len(loop.order))} steps{first}; {', '.join(parts)}:"


def backward_loop(loop: Loop) -> str:
    """What its pullback does."""
    parts = []
    if loop.carried:
        parts.append("next_c1_ct is c1_ct of the step after (in the last, the output's or 0)")
    if len(loop.body.outputs) > loop.carried:
        parts.append("out1_t_ct is a slice of the output's")
    return f"vjp(scan, ...): the same steps in reverse, from their values; {', '.join(parts)}; what a constant gets adds up over the steps:"


def loops_of(steps: Sequence[Step]) -> dict[int, Loop]:
    """Number of a step -> its loop, where that comes for the first time."""
    found: dict[int, Loop] = {}
    for number, step in enumerate(steps, 1):
        if step.value.op == "scan" and step.value.data[0] not in found.values():
            found[number] = step.value.data[0]
    return found


def asked(s: Search) -> str:
    (a, a_shape), (b, b_shape) = s.have
    return f"{s.target} must have the shape {s.shape}. Step {s.step} is {s.forward}; we have {a} {a_shape} and {b} {b_shape}."


def answered(s: Search) -> str:
    """What the shapes decide, and what they do not."""
    fits = [c.formula for c in s.candidates if not c.reason]
    wanted = "one product fits" if len(fits) == 1 else f"{len(fits)} products fit"
    others = f"none of the {s.others} products with the operand itself does" if not s.others_fit else f"so do {', '.join(s.others_fit)}"
    chain = "as the chain rule says" if fits == [s.found] and not s.others_fit else f"the chain rule says {s.found}"
    first = f"With all sizes different {wanted}, {', '.join(fits)}; {others}; {chain}."
    if len(s.square) == 1:
        return f"{first} With all sizes equal all {len(s.candidates)} fit, and a number decides: differences of <{s.have[1][0]}, {s.forward}> agree with {s.square[0]} alone."
    return f"{first} With all sizes equal, differences of <{s.have[1][0]}, {s.forward}> agree with {', '.join(s.square) or 'none of them'}."


def contracted(s: Axes) -> str:
    """A product of arrays of several axes, told by the axes' names."""
    (a, a_shape), (b, b_shape) = s.have
    gone = (
        f"{' and '.join(s.summed)} {'is' if len(s.summed) == 1 else 'are'} not wanted, so {'it is' if len(s.summed) == 1 else 'they are'} summed"
        if s.summed
        else "all axes are wanted"
    )
    return f"{s.target} must have {s.shape}; from {a} {a_shape} and {b} {b_shape} of step {s.step}: {gone}: {s.formula}."


def summed(s: Sum) -> str:
    right = [what for what, _, agrees in s.errors if agrees]
    wrong = ", ".join(f"the {what} is off by {error:.2g}" for what, error, agrees in s.errors if not agrees)
    return (
        f"{s.target} must have the shape {s.shape}, and {s.source[0]} has {s.source[1]}: a sum, a mean or a maximum over {s.axes} would fit, so shapes cannot decide. "
        f"The chain rule does: step {s.step} uses {s.target.removesuffix('_ct')} once for each index of {s.axes}, and all uses add up. So do differences of the forward: the {' and the '.join(right)} agrees"
        + (f"; {wrong}." if wrong else ".")
    )


def verdict(d: Derivation) -> str:
    wrong = [c for c in d.comparisons if not c.agrees]
    if not wrong:
        within = "" if d.precision == "float64" else f", within the precision of {d.precision}, which the reference goes through"
        return f"The formulas shown here, run in float64 by NumPy, agree with the rule and with JAX's autodiff{within}."
    own = [c for c in wrong if c.against != "rule"]
    if own:
        return "THE FORMULAS SHOWN HERE DIFFER from JAX's autodiff of the reference: they are wrong; please report it."
    return f"THE RULE DIFFERS from the formulas shown here and from JAX's autodiff, in {', '.join(c.of for c in wrong)}: see verify run {d.spec.name}."


def without(d: Derivation) -> str:
    """Arguments on which the output does not depend."""
    zero = [f"{v}_ct" for v in d.moving if f"{v}_ct" not in d.finals]
    return f"{', '.join(zero)} = 0: the output does not depend on {'it' if len(zero) == 1 else 'them'}." if zero else ""


def signed(term: Term) -> tuple[str, Expr]:
    """ "=", "+=" or "-=", and what follows."""
    if term.first:
        return "=", term.value
    return ("-=", term.value.args[0]) if term.value.op == "neg" else ("+=", term.value)


def cell(c: Comparison | None) -> str:
    return "" if c is None else f"{c.error:.1g}" + ("" if c.agrees else " DIFFERS")
