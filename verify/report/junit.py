"""The report as JUnit XML: one test suite per operation, one test case per check and dtype."""

from __future__ import annotations

from xml.etree import ElementTree

from verify.printable import clean
from verify.records import Finding, Report, Status
from verify.report.words import replay


def render(report: Report) -> str:
    """XML text. FAIL is a failure; ERROR and INCONCLUSIVE are errors; SKIP is skipped."""
    root = ElementTree.Element("testsuites", name="verify")
    for verdict in report.verdicts:
        suite = ElementTree.SubElement(root, "testsuite", name=clean(verdict.name), time=f"{verdict.seconds:.3f}")
        counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        for finding in verdict.findings or (Finding(check="verdict", status=Status.ERROR, message="nothing was checked"),):
            label = " ".join(part for part in (finding.check, finding.dtype, finding.argument) if part)
            case = ElementTree.SubElement(suite, "testcase", classname=clean(verdict.name), name=clean(label))
            counts["tests"] += 1
            if finding.status is Status.PASS:
                continue
            kind, counter = {
                Status.FAIL: ("failure", "failures"),
                Status.SKIP: ("skipped", "skipped"),
            }.get(finding.status, ("error", "errors"))
            counts[counter] += 1
            text = finding.message + (f"\n{verdict.diagnosis}" if finding.status is Status.FAIL and verdict.diagnosis else "")
            entry = ElementTree.SubElement(case, kind, message=clean(finding.message), type=str(finding.status))
            if finding.status is not Status.SKIP:
                entry.text = clean(text + (f"\n{replay(verdict.address, verdict.installed)}" if verdict.address else ""))
        for key, count in counts.items():
            suite.set(key, str(count))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
