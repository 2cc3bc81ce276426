"""Every wrong rule FAILs, with the right words, and replays; the right rule beside it, and rules easily accused, PASS in every dtype."""

from collections import Counter

import pytest

from tests.power.corpus import CORPUS, Entry
from tests.power.right_rules import RIGHT
from verify import Spec, Status, checks, run
from verify.addresses import parse_address
from verify.cases import draw
from verify.runner import case_count, judge, run_cases

ENOUGH = 20  # cases after which several dtypes have had their turn


def test_the_corpus_is_large_and_a_third_of_it_is_wrong_in_a_small_region_only() -> None:
    assert len(CORPUS) >= 80
    assert sum(entry.trigger for entry in CORPUS) >= len(CORPUS) / 3


def test_names_are_unique() -> None:
    names = Counter([entry.name for entry in CORPUS] + [spec.name for spec in RIGHT])
    assert [name for name, count in names.items() if count > 1] == []


THIRD = 5  # of right rules every third; `benchmarks/error_rate.py` runs all, over more cases and seeds
SOME = 12  # one entry in so many runs on every JAX version; all on the main one
MISSED = {
    "hypot-of-squares": "squares overflow beyond 1e154 only, and no draw is as large: products of such arguments overflow in right rules, too"
}


def marks(position: int, entry: Entry) -> list[pytest.MarkDecorator]:
    missed = [pytest.mark.xfail(reason=MISSED[entry.name])] if entry.name in MISSED else []
    return missed + ([pytest.mark.slow] if position % SOME else [])


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name, marks=marks(k, entry)) for k, entry in enumerate(CORPUS)])
def test_wrong_rule_is_caught_and_its_address_shows_it_again(entry: Entry) -> None:
    for case in draw(entry.wrong, 0, range(entry.cases or case_count(None, 0))):
        failing = [f for f in judge(entry.wrong, case, checks.ALL).findings if f.status is Status.FAIL]
        if failing:
            break
    assert failing
    _, seed, index, sizes = parse_address(case.address)
    again = run_cases(entry.wrong, list(draw(entry.wrong, seed, range(index, index + 1), sizes)))
    assert again.status is Status.FAIL


TOLD = [entry for entry in CORPUS if entry.words]


@pytest.mark.slow
@pytest.mark.parametrize("entry", TOLD, ids=[entry.name for entry in TOLD])
def test_wrong_rule_is_told_in_the_right_words(entry: Entry) -> None:
    verdict = run(entry.wrong, cases=entry.cases)
    failing = [finding for finding in verdict.findings if finding.status is Status.FAIL]
    assert {finding.check for finding in failing} & set(entry.checks)
    said = "\n".join([verdict.diagnosis, *(finding.message for finding in failing)])
    assert [words for words in entry.words if words not in said] == [], said


def passes_in_its_dtypes(spec: Spec, cases: int) -> None:
    verdict = run(spec, cases=cases)
    assert verdict.status is Status.PASS, str(verdict)
    judged = {finding.dtype for finding in verdict.findings if finding.check in ("gradient", "precision") and finding.status is Status.PASS}
    assert "float64" in judged
    assert judged & set(spec.dtypes) or not spec.dtypes  # which of them depends on the sizes: empty arrays are run in float64 alone


@pytest.mark.slow
@pytest.mark.parametrize("entry", CORPUS[::THIRD], ids=[entry.name for entry in CORPUS[::THIRD]])
def test_right_rule_beside_it_passes(entry: Entry) -> None:
    passes_in_its_dtypes(entry.right, min(entry.cases or ENOUGH, ENOUGH))


@pytest.mark.slow
@pytest.mark.parametrize("spec", RIGHT, ids=[spec.name for spec in RIGHT])
def test_right_rule_that_is_easily_accused_passes(spec: Spec) -> None:
    verdict = run(spec, cases=24)
    assert verdict.status is Status.PASS, str(verdict)
