"""`verify` with an executor that computes nothing: hundreds of units in a second, the journal and everything around it as ever.

python -m tests.verify._campaign_fake campaign FILE.toml ...
"""

import contextlib
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verify import cli
from verify.campaign import command
from verify.campaign.executors import Place
from verify.campaign.journal import Journal
from verify.records import Finding, Status, Verdict
from verify.report.json import verdict_record

VERSION = "VERIFY_TEST_VERSION"  # of the imagined sources
ACKED = "VERIFY_TEST_ACKED"  # a file that gets a line for each unit after it is in the journal
SECONDS = "VERIFY_TEST_SECONDS"  # that a unit takes


def verdict(request):
    """Another one for each unit, always the same: mostly PASS."""
    spec, seed, start, stop = (request[key] for key in ("spec", "seed", "start", "stop"))
    number = int(hashlib.sha256(repr((spec, seed, start)).encode()).hexdigest(), 16)
    status = Status.FAIL if number % 11 == 0 and spec.endswith("wrong") else Status.PASS
    finding = Finding(
        check="gradient", status=status, message="so it is", comparisons=number % 97 + 1, address=f"{spec}/{seed}/{start}", dtype="float64"
    )
    return Verdict(
        name=spec, status=status, findings=(finding,), comparisons=finding.comparisons, cases=stop - start, shapes=1, seconds=0.5
    )


def answer(request):
    if request["want"] == "environment":
        return {"kind": "done", "checks": ["structure", "gradient"], "environment": {"verify": "0"}}
    digest = f"{os.environ.get(VERSION, '1')} {request['spec']}"
    if request["want"] == "digest":
        return (
            {"kind": "refused", "text": f"there is no {request['spec']}"}
            if "nothing" in request["spec"]
            else {"kind": "done", "digest": digest}
        )
    time.sleep(float(os.environ.get(SECONDS, "0")))
    if request["spec"].endswith("lost"):
        return {"kind": "lost", "what": "the process died (signal SIGSEGV)", "address": f"{request['spec']}/0/{request['start']}"}
    return {"kind": "done", "digest": digest, "verdict": verdict_record(verdict(request))}


@contextlib.contextmanager
def open_place(name, workers):
    with ThreadPoolExecutor(workers) as pool:
        yield Place(submit=lambda request: pool.submit(answer, request), slots=workers)


class Acking(Journal):
    def add(self, *rows):
        super().add(*rows)
        if ACKED in os.environ:
            with Path(os.environ[ACKED]).open("a") as stream:
                stream.write("".join(f"{row.unit}\n" for row in rows))


def install(replace=setattr):
    """Put it in place of the real executors."""
    replace(command, "open_place", open_place)
    replace(command, "Journal", Acking)


if __name__ == "__main__":
    install()
    cli.main(prog_name="verify")
