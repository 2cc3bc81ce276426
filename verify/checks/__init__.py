"""The checks, in the order in which they are reported. Each is one file with a code, a doc page (its docstring) and `judge`."""

from __future__ import annotations

from types import ModuleType

from verify.checks import (
    adjoint,
    arguments,
    complex_step,
    extremes,
    finite_difference,
    gradient,
    jit,
    kinks,
    linearity,
    nondifferentiable,
    portability,
    precision,
    primal,
    purity,
    remat,
    repeatability,
    residuals,
    reuse,
    scan,
    second_order,
    sharding,
    sharing,
    structure,
    tangent,
    taylor,
    vmap,
    zero_cotangent,
)
from verify.merging import JUDGES as JUDGES
from verify.signature import nearest
from verify.spec import SpecError

ALL: tuple[ModuleType, ...] = (
    structure,
    primal,
    gradient,
    finite_difference,
    adjoint,
    taylor,
    complex_step,
    tangent,
    linearity,
    zero_cotangent,
    repeatability,
    precision,
    extremes,
    kinks,
    second_order,
    arguments,
    sharing,
    reuse,
    jit,
    vmap,
    scan,
    remat,
    sharding,
    nondifferentiable,
    portability,
    purity,
    residuals,
)
BY_NAME = {check.NAME: check for check in ALL}
BY_CODE = {check.CODE: check for check in ALL}


def select(names: list[str] | tuple[str, ...] | None) -> tuple[ModuleType, ...]:
    """The checks with these names or codes, all for None. Raises SpecError for an unknown one."""
    if names is None:
        return ALL
    for name in names:
        if name not in BY_NAME and name not in BY_CODE:
            raise SpecError(f"there is no check {name!r}.{nearest(name, [*BY_NAME, *BY_CODE])} Known: {', '.join(BY_NAME)}")
    return tuple(check for check in ALL if check.NAME in names or check.CODE in names)
