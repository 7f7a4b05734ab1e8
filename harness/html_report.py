"""Judgements as one page that needs nothing beside it and can be read in light and dark."""

import json
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from typing import Any

from podproof.harness.judgement import Judgement
from podproof.harness.questions import QUESTIONS
from podproof.harness.verdict import Outcome


def html_report(judgements: Sequence[Judgement]) -> str:
    """Return the page: how many were refused, by which gates, then each with its problems."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["as_json"] = _as_json
    page = resources.files("podproof.harness") / "report_page.html"
    return environment.from_string(page.read_text(encoding="utf-8")).render(
        judgements=judgements,
        refused=[item for item in judgements if not item.is_cleared],
        cleared=[item for item in judgements if item.is_cleared],
        gates=_gates(judgements),
        seconds=sum(item.seconds for item in judgements),
        version=version("podproof"),
    )


def _gates(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    counts = {
        gate: {outcome.value: 0 for outcome in Outcome} | {"name": gate, "question": question}
        for gate, question in QUESTIONS.items()
    }
    asked = set()
    for verdict in (verdict for item in judgements for verdict in item.verdicts):
        count = counts[verdict.gate]
        count[verdict.outcome.value] = int(count[verdict.outcome.value]) + 1
        asked.add(verdict.gate)
    return [count for gate, count in counts.items() if gate in asked]


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, default=str)
