"""The smallest failing case: the same seed at smaller and smaller sizes, as long as the same check still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from verify.cases import Case, with_sizes
from verify.sizes import DEFAULT_BOUNDS, Sizes, count
from verify.spec import Spec, SpecError

TRIES = 40


def shrink(spec: Spec, case: Case, fails: Callable[[Case], bool]) -> Case:
    """Greedily make one dimension after the other smaller; `fails(case)` says whether the mistake is still there.

    Returns the given case where nothing smaller fails.
    """
    best, tries = case, 0
    improved = True
    while improved:
        improved = False
        for sizes in _smaller(spec, best.sizes):
            if tries >= TRIES:
                return best
            tries += 1
            try:
                candidate = with_sizes(spec, best, sizes)
                failing = fails(candidate)
            except SpecError:  # the smaller sizes are outside the function's domain
                continue
            if failing:
                best, improved = candidate, True
                break
    return best


def _smaller(spec: Spec, sizes: Sizes) -> Iterator[dict[str, int | tuple[int, ...]]]:
    def allowed(candidate: dict[str, int | tuple[int, ...]]) -> bool:
        return spec.domain is None or bool(spec.domain(candidate, {}))

    for name in sorted(sizes, key=lambda name: -count(sizes[name])):
        size = sizes[name]
        low = max(spec.sizes.get(name, DEFAULT_BOUNDS)[0], 1)  # size 0 has nothing to compare
        if isinstance(size, tuple):
            options: list[int | tuple[int, ...]] = [()] if size else []
            options += [(max(number // 2, low), *size[i + 1 :]) for i, number in enumerate(size) if number > low]
            options += [size[1:]] if len(size) > 1 else []
            options += [(*size[:i], low, *size[i + 1 :]) for i, number in enumerate(size) if number > low]
        else:
            steps = (low, low + 1, size // 2, size * 3 // 4, size - 1)
            options = list(dict.fromkeys(step for step in steps if low <= step < size))
        for option in options:
            candidate = {**sizes, name: option}
            try:
                if allowed(candidate):
                    yield candidate
            except KeyError:  # a domain that reads options
                yield candidate
