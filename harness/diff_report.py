"""A difference for people (a table), for pull requests (markdown) and for machines (JSON)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podproof.compiler.changes import Difference, Risk

_STYLES = {Risk.CRITICAL: "bold red", Risk.MEDIUM: "yellow", Risk.LOW: "green"}


def show_difference(difference: Difference) -> RenderableType:
    """Return the whole report: changes, quantities, verdicts, conclusion."""
    parts: list[RenderableType] = [
        Text(f"{difference.before}  ->  {difference.after}", style="bold"),
    ]
    if difference.changes:
        parts += [Text(), _changes(difference)]
    if difference.quantities:
        parts += [Text(), _quantities(difference)]
    parts += [Text(), *(_verdict_lines(difference))]
    return Group(*parts, Text(), Text(conclusion(difference), style="bold"))


def difference_to_dict(difference: Difference) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "before": difference.before,
        "after": difference.after,
        "needs_approval": bool(difference.needing_approval),
        "changes": [
            {
                **dataclasses.asdict(change),
                "aspect": change.aspect.value,
                "verb": change.verb.value,
                "risk": change.risk.value,
            }
            for change in difference.changes
        ],
        "quantities": [dataclasses.asdict(item) for item in difference.quantities],
        "verdicts": [dataclasses.asdict(item) for item in difference.verdicts],
    }


def difference_as_markdown(difference: Difference) -> str:
    """Return the report as GitHub-flavoured markdown, as a comment on a pull request takes it."""
    return "\n".join(_markdown(difference)) + "\n"


def conclusion(difference: Difference) -> str:
    """Return the whole report in one sentence.

    >>> conclusion(Difference("a", "b", (), (), ()))
    'no change'
    """
    if not difference.changes:
        return "no change"
    counts = [
        f"{count} {risk.value}"
        for risk in Risk
        if (count := sum(change.risk is risk for change in difference.changes))
    ]
    needing = len(difference.needing_approval)
    approval = "none needs" if not needing else f"{needing} need" if needing > 1 else "1 needs"
    return f"{', '.join(counts)}: {approval} an approval"


def _changes(difference: Difference) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("risk", "about", "change", "what is different", "mitigation"):
        table.add_column(title, overflow="fold")
    table.add_column("approval")
    for change in difference.changes:
        table.add_row(
            Text(change.risk.value, style=_STYLES[change.risk]),
            Text(change.aspect.value),
            Text(f"{change.verb.value}: {change.name}"),
            Text(change.detail),
            Text(change.mitigation),
            Text("yes" if change.needs_approval else "no"),
        )
    return table


def _quantities(difference: Difference) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("what it means", "before", "after"):
        table.add_column(title, overflow="fold")
    for item in difference.quantities:
        table.add_row(Text(item.name), Text(item.before), Text(item.after))
    return table


def _verdict_lines(difference: Difference) -> Iterator[Text]:
    for verdict in difference.verdicts:
        style = "green" if verdict.is_kept else "bold red"
        yield Text(f"{verdict.subject}: ", style="bold").append(verdict.what, style=style)


def _markdown(difference: Difference) -> Iterator[str]:
    yield f"### podproof diff: `{difference.before}` → `{difference.after}`"
    yield ""
    yield f"**{conclusion(difference)}**"
    if difference.changes:
        yield ""
        yield "| risk | about | change | what is different | mitigation | approval |"
        yield "|---|---|---|---|---|---|"
        for change in difference.changes:
            name = f"{change.verb.value}: `{change.name}`"
            cells = (name, change.detail, change.mitigation)
            approval = "yes" if change.needs_approval else "no"
            head = f"| {change.risk.value} | {change.aspect.value} |"
            yield f"{head} {' | '.join(map(_cell, cells))} | {approval} |"
    if difference.quantities:
        yield ""
        yield "| what it means | before | after |"
        yield "|---|---|---|"
        for item in difference.quantities:
            yield f"| {item.name} | {_cell(item.before)} | {_cell(item.after)} |"
    yield ""
    for verdict in difference.verdicts:
        yield f"- {verdict.subject}: {_cell(verdict.what)}"


def _cell(text: str) -> str:
    r"""Return text that stays in its cell: what would end one is escaped.

    >>> _cell("a | b")
    'a \\| b'
    """
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
