"""Every wrong rule FAILs, with words that name the mistake, and replays; the right rule beside it, and rules easily accused, PASS in every dtype."""

from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
import pytest

from tests.power.corpus import CORPUS, Entry
from tests.power.right_rules import RIGHT
from tests.power.words import UNTOLD
from verify import Spec, Status, checks, replay, run
from verify.addresses import parse_address
from verify.cases import Case, draw
from verify.judging import Judged, judge
from verify.profiles import case_count
from verify.runner import run_spec

ENOUGH = 20  # cases after which several dtypes have had their turn


def test_the_corpus_is_large_and_a_third_of_it_is_wrong_in_a_small_region_only() -> None:
    assert len(CORPUS) >= 80
    assert sum(entry.trigger for entry in CORPUS) >= len(CORPUS) / 3


def test_names_are_unique() -> None:
    names = Counter([entry.name for entry in CORPUS] + [spec.name for spec in RIGHT])
    assert [name for name, count in names.items() if count > 1] == []


FAILURES = 5  # failing cases, of three shapes, from which the mistake is told; users have eight
TELLING = ("gradient", "linearity")  # that a mistake is told from, beside the checks that must see it; `benchmarks/error_rate.py` makes all
EVERYWHERE = 27  # one entry in so many runs on every JAX version; all on the main one
CAUGHT = 9  # one wrong rule in so many, the others nightly; `benchmarks/error_rate.py` runs all over five seeds
TOLD = 206  # one mistake in so many is told in every run, the others nightly: that takes eight times as long as to catch it
BESIDE, ACCUSED = 206, 19  # one right rule in so many, likewise


def entries(often: int, *rest: pytest.MarkDecorator) -> list[object]:
    """The corpus, slow but for those that run everywhere, and with other marks on all but one entry in `often`."""

    def marks(k: int) -> list[pytest.MarkDecorator]:
        return [*([pytest.mark.slow] if k % EVERYWHERE else []), *(rest if k % often else [])]

    return [pytest.param(entry, id=entry.name, marks=marks(k)) for k, entry in enumerate(CORPUS)]


@pytest.mark.parametrize("entry", entries(CAUGHT, pytest.mark.nightly))
def test_wrong_rule_is_caught(entry: Entry) -> None:
    selected = checks.select(list(entry.checks))
    assert any(judge(entry.wrong, case, selected).failed for case in draw(entry.wrong, 0, range(case_count(entry.cases, 0))))


def until_it_has_failed_a_few_times(spec: Spec, cases: Sequence[Case], selected: Sequence[ModuleType]) -> Iterator[Judged]:
    failures = 0
    for case in cases:
        yield (judged := judge(spec, case, selected))
        failures += judged.failed
        if failures >= FAILURES:
            return


@pytest.mark.slow
@pytest.mark.parametrize("entry", entries(TOLD, pytest.mark.nightly))
def test_mistake_is_told_in_the_right_words_and_its_address_shows_it_again(entry: Entry) -> None:
    np.random.seed(0)  # a rule that rounds by chance may give the same bits twice in all of so few elements
    verdict = run_spec(entry.wrong, entry.cases, checks=[*entry.checks, *TELLING], judges=until_it_has_failed_a_few_times)
    failing = [finding for finding in verdict.findings if finding.status is Status.FAIL]
    assert {finding.check for finding in failing} & set(entry.checks)
    said = "\n".join([verdict.diagnosis, *(finding.message for finding in failing)])
    assert [words for words in entry.words if words not in said] == [], said
    _, seed, index, sizes = parse_address(verdict.address)
    (case,) = draw(entry.wrong, seed, range(index, index + 1), sizes)
    assert judge(entry.wrong, case, checks.ALL).failed


def test_nearly_every_mistake_has_its_words() -> None:
    assert {entry.name for entry in CORPUS if not entry.words} == set(UNTOLD)


def passes_in_its_dtypes(spec: Spec, cases: int) -> None:
    verdict = run(spec, cases=cases)
    assert verdict.status is Status.PASS, str(verdict)
    judged = {finding.dtype for finding in verdict.findings if finding.check in ("gradient", "precision") and finding.status is Status.PASS}
    assert judged & {"float64", "float32"}  # a kernel may know no 64-bit types
    assert judged & set(spec.dtypes) or not spec.dtypes  # which of them depends on the sizes: empty arrays are run in float64 alone


ONCE_ACCUSED = {  # cases of another seed than 0, and what is said of them now, alone
    "recomputed-softmax/2/30": Status.PASS,
    "before-the-activation-right/2/80": Status.PASS,
    "slope-of-a-patched-point-right/2/32": Status.PASS,
    "rms-norm-in-float32/2/94": Status.PASS,
    "one-key-of-many-features/2/65": Status.PASS,
    "weighted-variance/2/0": Status.PASS,
    "smooth-l1-of-signed-right/3/66": Status.PASS,
    "complement-of-an-exponential/2/1": Status.PASS,
    "complement-of-an-exponential/3/54": Status.PASS,
    "causal-off-by-one-right/4/17": Status.INCONCLUSIVE,  # with no feature, its scale is infinite, and nothing is finite
    "complement-of-an-exponential/2/65": Status.INCONCLUSIVE,  # its reference has lost all digits there
}


@pytest.mark.slow
@pytest.mark.parametrize("address", ONCE_ACCUSED)
def test_case_that_once_accused_a_right_rule_does_so_no_more(address: str) -> None:
    specs = {spec.name: spec for spec in (*RIGHT, *(entry.right for entry in CORPUS))}
    verdict = replay(address, spec=specs[parse_address(address)[0]])
    assert verdict.status is ONCE_ACCUSED[address], str(verdict)


def rules(named: Sequence[Entry] | Sequence[Spec], often: int) -> list[object]:
    return [pytest.param(one, id=one.name, marks=[pytest.mark.nightly] if k % often else []) for k, one in enumerate(named)]


@pytest.mark.slow
@pytest.mark.parametrize("entry", rules(CORPUS, BESIDE))
def test_right_rule_beside_it_passes(entry: Entry) -> None:
    passes_in_its_dtypes(entry.right, min(entry.cases or ENOUGH, ENOUGH))


@pytest.mark.slow
@pytest.mark.parametrize("spec", rules(RIGHT, ACCUSED))
def test_right_rule_that_is_easily_accused_passes(spec: Spec) -> None:
    verdict = run(spec, cases=18)
    assert verdict.status is Status.PASS, str(verdict)
