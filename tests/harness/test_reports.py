"""Judgements for machines and people: JUnit, SARIF, a page and a table, whole and readable."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from podproof.compiler.places import LocatedProblem
from podproof.compiler.schema import GATE_IDS
from podproof.harness.html_report import html_report
from podproof.harness.judgement import Judgement
from podproof.harness.junit import junit_xml
from podproof.harness.questions import QUESTIONS, page_of
from podproof.harness.report import batch_table, judgement_to_dict
from podproof.harness.sarif import sarif
from podproof.harness.verdict import GateVerdict, Level, Outcome
from podproof.runtime.errors import Problem

HOSTILE = "<script>alert('&')</script> \x00\x1b[31m ünï"

KEY = LocatedProblem("trainer.lr", "no such key", "did you mean?", file="mine/a.yaml", line=7)
SHIPPED = LocatedProblem("pod.gpu", "is odd", file="/elsewhere/conf/pod/local.yaml", line=2)
TYPED = LocatedProblem("seed", "is odd", override=2, override_text="seed=-1")
ROW = Problem("mine/a b.jsonl:3", HOSTILE)
SCRIPT = Problem("pod_script.py:99", "imports torch", "pin it")


def verdict(gate: str, *problems: Problem, outcome: Outcome = Outcome.PASSED) -> GateVerdict:
    outcome = Outcome.REFUSED if problems else outcome
    return GateVerdict(gate, Level.STATIC, outcome, f"looked at {gate}", problems, 0.25)


REFUSED = Judgement(
    "bad",
    "mine/experiment/bad.yaml",
    "bad",
    "0" * 64,
    is_cleared=False,
    verdicts=(
        verdict("config", KEY, SHIPPED, TYPED),
        verdict("artefact", SCRIPT),
        verdict("data", ROW),
        verdict("scorer", outcome=Outcome.SKIPPED),
    ),
)
CLEARED = Judgement(
    "good", "mine/experiment/good.yaml", "good", "1" * 64, True, (verdict("config"),)
)
BOTH = (REFUSED, CLEARED)


@pytest.fixture
def log() -> dict[str, Any]:
    """Return the SARIF log, having gone through JSON as it does on disk."""
    log: dict[str, Any] = json.loads(json.dumps(sarif(BOTH)))
    return log


def test_sarif_has_what_its_standard_asks_of_every_log(log: dict[str, Any]) -> None:
    (run,) = log["runs"]
    driver = run["tool"]["driver"]

    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert {"name", "version", "rules"} <= driver.keys()
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    assert all(rule["shortDescription"]["text"].endswith("?") for rule in driver["rules"])


def test_each_result_of_sarif_is_of_a_rule_and_on_a_line(log: dict[str, Any]) -> None:
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]

    for result in run["results"]:
        (location,) = result["locations"]
        assert result["level"] == "error"
        assert result["message"]["text"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1


def test_sarif_points_at_the_line_a_person_can_change(log: dict[str, Any]) -> None:
    places = [
        (found["artifactLocation"]["uri"], found["region"]["startLine"])
        for result in log["runs"][0]["results"]
        for found in (result["locations"][0]["physicalLocation"],)
    ]

    own = ("mine/experiment/bad.yaml", 1)
    assert places == [("mine/a.yaml", 7), own, own, own, ("mine/a%20b.jsonl", 3)]


def test_every_gate_has_a_rule_with_its_page(log: dict[str, Any]) -> None:
    rules = log["runs"][0]["tool"]["driver"]["rules"]

    assert [rule["id"] for rule in rules] == list(GATE_IDS)
    assert [page_of(rule["id"]) in rule["help"]["text"] for rule in rules] == [True] * len(GATE_IDS)


def test_every_gate_has_its_question() -> None:
    assert set(GATE_IDS) <= set(QUESTIONS)


def test_junit_has_a_suite_for_each_subject_and_a_case_for_each_gate() -> None:
    root = ET.fromstring(junit_xml(BOTH))  # noqa: S314 - we wrote it a moment ago

    suites = {suite.get("name"): [case.get("name") for case in suite] for suite in root}
    assert suites == {"bad": ["config", "artefact", "data", "scorer"], "good": ["config"]}
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("5", "3", "1")
    assert all(float(case.get("time", "")) >= 0 for case in root.iter("testcase"))


def test_junit_tells_every_problem_and_every_reason() -> None:
    root = ET.fromstring(junit_xml(BOTH))  # noqa: S314

    data = root.find(".//testcase[@name='data']/failure")
    skipped = root.find(".//skipped")
    assert skipped is not None
    assert skipped.get("message") == "looked at scorer"
    assert data is not None
    assert "<script>alert('&')</script> \ufffd\ufffd[31m ünï" in str(data.text)


class Page(HTMLParser):
    """What a page loads and holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for key, value in attrs if key in {"src", "href", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_beside_it_and_runs_nothing() -> None:
    text = html_report(BOTH)
    page = Page(text)

    assert page.links == []
    assert {"script", "link", "img", "iframe"} & set(page.tags) == set()
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_has_colours_for_light_and_dark() -> None:
    text = html_report(BOTH)

    assert "color-scheme: light dark" in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_tells_every_problem_with_place_and_way_out() -> None:
    text = Page(html_report(BOTH)).text

    assert "1 of 2 refused" in text
    assert "set in mine/a.yaml:7" in text
    assert 'set by override 2: "seed=-1"' in text
    assert "Way out: did you mean?" in text
    assert "<script>alert('&')</script>" in text


def test_json_has_the_place_in_parts_and_the_details_of_a_gate() -> None:
    told = judgement_to_dict(REFUSED)

    first = told["verdicts"][0]["problems"][0]
    assert (first["file"], first["line"], first["override"]) == ("mine/a.yaml", 7, None)
    assert told["verdicts"][0]["problems"][2]["override"] == 2
    assert told["verdicts"][0]["details"] == {}
    assert json.dumps(told)


def test_the_table_of_a_batch_has_a_row_for_each_and_ends_with_the_count() -> None:
    console = Console(width=200)

    with console.capture() as printed:
        console.print(batch_table(BOTH))

    lines = printed.get().rstrip().splitlines()
    assert lines[1].split()[:4] == ["bad", "refused", "config,", "artefact,"]
    assert lines[2].split()[:2] == ["good", "cleared"]
    assert lines[-1] == "1 of 2 refused"
