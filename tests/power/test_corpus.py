"""Every wrong rule FAILs, with the right words, and replays; the right rule beside it PASSes in every dtype."""

import pytest

from tests.power.corpus import CORPUS, Entry
from verify import Status, run
from verify.addresses import parse_address
from verify.cases import draw
from verify.runner import run_cases


@pytest.mark.parametrize("entry", CORPUS, ids=[entry.name for entry in CORPUS])
def test_wrong_rule_fails_with_the_right_words(entry: Entry) -> None:
    verdict = run(entry.wrong, cases=entry.cases)
    assert verdict.status is Status.FAIL
    failing = [finding for finding in verdict.findings if finding.status is Status.FAIL]
    assert entry.check in {finding.check for finding in failing}
    said = "\n".join([verdict.diagnosis, *(finding.message for finding in failing)])
    assert [words for words in entry.words if words not in said] == [], said
    assert verdict.address is not None
    _, seed, index, sizes = parse_address(verdict.address)
    again = run_cases(entry.wrong, list(draw(entry.wrong, seed, range(index, index + 1), sizes)))
    assert again.status is Status.FAIL


@pytest.mark.slow
@pytest.mark.parametrize("entry", CORPUS, ids=[entry.name for entry in CORPUS])
def test_right_rule_beside_it_passes_in_every_dtype(entry: Entry) -> None:
    verdict = run(entry.right, cases=min(entry.cases, 20))
    assert verdict.status is Status.PASS, str(verdict)
    judged = {finding.dtype for finding in verdict.findings if finding.check == "gradient" and finding.status is Status.PASS}
    assert judged >= ({"float64", "float32", "bfloat16", "float16"} if entry.cases >= 20 else {"float64", "float32"})
