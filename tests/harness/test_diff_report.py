"""A difference as a page: the report of the upgrade podproof grew from, word for word."""

from pathlib import Path

from podproof.compiler.changes import Aspect, Change, Difference, Risk, Verb
from podproof.compiler.diff import diff
from podproof.compiler.sides import side_of_text
from podproof.harness.diff_report import (
    conclusion,
    difference_as_markdown,
    difference_to_dict,
)
from tests.blessing import golden

ROOT = Path(__file__).parents[2]
UPGRADE = ROOT / "tests" / "compiler" / "seed_upgrade"


def upgrade() -> Difference:
    sides = (
        side_of_text((UPGRADE / name).read_text(encoding="utf-8"), name)
        for name in ("before.py", "after.py")
    )
    return diff(*sides)


def change(detail: str, risk: Risk = Risk.LOW) -> Change:
    return Change(Aspect.CODE, Verb.CHANGED, "f", detail, risk, "none", needs_approval=False)


def test_the_report_of_the_upgrade_is_the_golden_one() -> None:
    text = difference_as_markdown(upgrade())

    assert text == golden(UPGRADE / "report.md", text)


def test_the_how_to_shows_the_golden_report() -> None:
    page = (ROOT / "docs" / "how-to" / "review-a-change.md").read_text(encoding="utf-8")

    assert (UPGRADE / "report.md").read_text(encoding="utf-8") in page


def test_text_of_a_script_stays_in_its_cell() -> None:
    report = Difference("a", "b", (change("x | y\n<b>"),), (), ())

    assert "| x \\| y &lt;b> |" in difference_as_markdown(report)


def test_the_conclusion_counts_by_risk() -> None:
    changes = (change("a", Risk.CRITICAL), change("b"), change("c"))

    assert conclusion(Difference("a", "b", changes, (), ())) == (
        "1 CRITICAL, 2 LOW: none needs an approval"
    )


def test_machines_get_the_same_as_plain_values() -> None:
    report = difference_to_dict(upgrade())

    assert report["needs_approval"] is True
    assert {item["risk"] for item in report["changes"]} == {"MEDIUM", "LOW"}
    assert [item["subject"] for item in report["verdicts"]] == ["environment", "schema", "API"]
