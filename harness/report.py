"""The gates' answers for people (a table and each problem with its way out) and for machines."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podproof.compiler.places import LocatedProblem, problem_to_dict
from podproof.harness.judgement import Judgement
from podproof.harness.verdict import Cleared, GateVerdict, Outcome, Refused
from podproof.runtime.errors import Problem

_STYLES = {Outcome.PASSED: "green", Outcome.REFUSED: "bold red", Outcome.SKIPPED: "yellow"}


def verdict_table(result: Cleared | Refused | Judgement) -> RenderableType:
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
    return Group(table, *problems, _conclusion(result.verdicts))


def problem_text(gate: str, problem: Problem) -> RenderableType:
    """Return one problem as lines: where, what, and the way out."""
    text = Text(f"\n{gate}  ", style="bold")
    text.append(f"{problem.where}: ", style="bold").append(problem.what, style="not bold")
    if isinstance(problem, LocatedProblem):
        text.append(f"\n  {problem.place}", style="not bold")
    if problem.way_out:
        text.append(f"\n  way out: {problem.way_out}", style="not bold cyan")
    return text


def verdicts_to_dicts(verdicts: tuple[GateVerdict, ...]) -> tuple[dict[str, Any], ...]:
    """Return the verdicts as JSON values, without times.

    The same script, judged in the same surroundings, gives the same bytes.
    """
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


def judgement_to_dict(item: Judgement) -> dict[str, Any]:
    """Return one judgement as JSON values: cleared or not, which script, every verdict.

    Problems have `file` and `line`, or the number of the `override`, where these are known.
    """
    return {
        "cleared": item.is_cleared,
        "subject": item.subject,
        "file": item.file,
        "name": item.name,
        "sha256": item.sha256,
        "verdicts": [
            {
                **plain,
                "problems": [problem_to_dict(problem) for problem in verdict.problems],
                "details": dict(verdict.details),
                "seconds": round(verdict.seconds, 3),
            }
            for plain, verdict in zip(verdicts_to_dicts(item.verdicts), item.verdicts, strict=True)
        ],
    }


def batch_table(judgements: Sequence[Judgement]) -> RenderableType:
    """Return a row for each judgement, then every problem of the refused ones, then the count."""
    table = Table(box=None, pad_edge=False)
    for title in ("experiment", "verdict", "refused by"):
        table.add_column(title)
    table.add_column("seconds", justify="right")
    for item in judgements:
        outcome = Outcome.PASSED if item.is_cleared else Outcome.REFUSED
        word = Text("cleared" if item.is_cleared else "refused", style=_STYLES[outcome])
        gates = ", ".join(item.refusing)
        table.add_row(Text(item.subject), word, gates, f"{item.seconds:.2f}")
    problems = [
        problem_text(f"{item.subject}  {verdict.gate}", problem)
        for item in judgements
        for verdict in item.verdicts
        for problem in verdict.problems
    ]
    refused = sum(not item.is_cleared for item in judgements)
    if refused:
        end = Text(f"\n{refused} of {len(judgements)} refused", style="bold red")
    else:
        end = Text(f"\n{len(judgements)} of {len(judgements)} cleared", style="bold green")
    return Group(table, *problems, end)


def _conclusion(verdicts: Sequence[GateVerdict]) -> Text:
    refusals = [item.gate for item in verdicts if item.outcome is Outcome.REFUSED]
    if refusals:
        return Text(f"\nrefused by {', '.join(refusals)}", style="bold red")
    return Text("\ncleared for launch", style="bold green")
