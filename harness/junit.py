"""Judgements as JUnit XML, which CI systems show: one suite for each subject, one case a gate."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from podproof.harness.judgement import Judgement
from podproof.harness.verdict import GateVerdict, Outcome

# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(judgements: Sequence[Judgement]) -> str:
    """Return the document: refused gates are failures, with every problem; skipped ones skipped.

    Times are in seconds.
    """
    root = ET.Element("testsuites", _counts([v for item in judgements for v in item.verdicts]))
    root.set("name", "podproof")
    for item in judgements:
        suite = ET.SubElement(root, "testsuite", _counts(item.verdicts))
        suite.set("name", _xml_text(item.subject))
        for verdict in item.verdicts:
            suite.append(_case(item, verdict))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(verdicts: Sequence[GateVerdict]) -> dict[str, str]:
    outcomes = [verdict.outcome for verdict in verdicts]
    return {
        "tests": str(len(verdicts)),
        "failures": str(outcomes.count(Outcome.REFUSED)),
        "errors": "0",
        "skipped": str(outcomes.count(Outcome.SKIPPED)),
        "time": f"{sum(verdict.seconds for verdict in verdicts):.3f}",
    }


def _case(item: Judgement, verdict: GateVerdict) -> ET.Element:
    case = ET.Element(
        "testcase",
        {
            "classname": _xml_text(f"podproof.{item.subject}"),
            "name": verdict.gate,
            "file": _xml_text(item.file),
            "time": f"{verdict.seconds:.3f}",
        },
    )
    if verdict.outcome is Outcome.REFUSED:
        heads = "; ".join(f"{problem.where}: {problem.what}" for problem in verdict.problems)
        failure = ET.SubElement(case, "failure", {"type": verdict.gate})
        failure.set("message", _xml_text(heads))
        failure.text = _xml_text("\n".join(map(str, verdict.problems)))
    elif verdict.outcome is Outcome.SKIPPED:
        ET.SubElement(case, "skipped", {"message": _xml_text(verdict.summary)})
    else:
        ET.SubElement(case, "system-out").text = _xml_text(verdict.summary)
    return case


def _xml_text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
