"""How many cases: by number, or by the name of a profile."""

from __future__ import annotations

from verify.signature import nearest
from verify.spec import SpecError

PROFILES = {"quick": 28, "default": 104, "deep": 728}  # cases of an operation


def case_count(cases: int | None, seed: int, profile: str = "default") -> int:
    """The number of cases to run: `cases`, or else what the profile says. Raises SpecError for numbers and names that make no sense."""
    if profile not in PROFILES:
        raise SpecError(
            f"there is no profile {profile!r}.{nearest(profile, PROFILES)} Known: {', '.join(f'{k} ({v} cases)' for k, v in PROFILES.items())}"
        )
    if cases is not None and cases < 1:
        raise SpecError(f"cases must be at least 1, got {cases}")
    if not 0 <= seed < 2**63:
        raise SpecError(f"seed must be between 0 and 2**63 - 1, got {seed}")
    return PROFILES[profile] if cases is None else cases
