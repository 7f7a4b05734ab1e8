"""The gates' answers for people (a table and each problem with its way out) and for machines."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podproof.harness.verdict import Cleared, GateVerdict, Outcome, Refused
from podproof.runtime.errors import Problem

_STYLES = {Outcome.PASSED: "green", Outcome.REFUSED: "bold red", Outcome.SKIPPED: "yellow"}


def verdict_table(result: Cleared | Refused) -> RenderableType:
    """Return the whole report: one row per gate, then every problem, then the conclusion."""
    table = Table(box=None, pad_edge=False)
    for title in ("gate", "level", "verdict", "what was checked"):
        table.add_column(title)
    table.add_column("seconds", justify="right")
    for verdict in result.verdicts:
        table.add_row(
            verdict.gate,
            verdict.level.value,
            Text(verdict.outcome.value, style=_STYLES[verdict.outcome]),
            Text(
                f"{verdict.summary}; cached" if verdict.details.get("cached") else verdict.summary
            ),
            f"{verdict.seconds:.2f}",
        )
    problems = [
        problem_text(verdict.gate, problem)
        for verdict in result.verdicts
        for problem in verdict.problems
    ]
    return Group(table, *problems, _conclusion(result))


def problem_text(gate: str, problem: Problem) -> RenderableType:
    """Return one problem as lines: where, what, and the way out."""
    text = Text(f"\n{gate}  ", style="bold")
    text.append(f"{problem.where}: ", style="bold").append(problem.what, style="not bold")
    if problem.way_out:
        text.append(f"\n  way out: {problem.way_out}", style="not bold cyan")
    return text


def verdicts_to_dicts(verdicts: tuple[GateVerdict, ...]) -> tuple[dict[str, Any], ...]:
    """Return the verdicts as JSON values, without times: the same script gives the same bytes."""
    return tuple(
        {
            "gate": verdict.gate,
            "level": verdict.level.value,
            "outcome": verdict.outcome.value,
            "summary": verdict.summary,
            "problems": [
                {"where": problem.where, "what": problem.what, "way_out": problem.way_out}
                for problem in verdict.problems
            ],
        }
        for verdict in verdicts
    )


def result_to_dict(result: Cleared | Refused) -> dict[str, Any]:
    """Return the whole result as JSON values: cleared or not, which script, every verdict.

    A gate that has details beyond its summary has them here, and only here.
    """
    script = result.script
    verdicts = zip(verdicts_to_dicts(result.verdicts), result.verdicts, strict=True)
    return {
        "cleared": isinstance(result, Cleared),
        "name": None if script is None else script.run.plan.name,
        "sha256": None if script is None else script.sha256,
        "verdicts": [
            {**fields, "details": dict(verdict.details)} if verdict.details else fields
            for fields, verdict in verdicts
        ],
    }


def _conclusion(result: Cleared | Refused) -> Text:
    refusals = [item.gate for item in result.verdicts if item.outcome is Outcome.REFUSED]
    if refusals:
        return Text(f"\nrefused by {', '.join(refusals)}", style="bold red")
    return Text("\ncleared for launch", style="bold green")
