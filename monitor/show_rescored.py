"""What `podproof rescore` shows: a page for each run, a line for each of many, or plain values."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podproof.monitor.chart import Chart, Sparkline
from podproof.monitor.rescore import Choice, Rescored, amount
from podproof.runtime.events import strict_json

# So many runs get a page each; more get a line each.
PAGES = 3

# Of a long run the last evaluations are drawn in its line.
_BARS = 40

_ABSENT = "-"


def show_rescored(runs: Sequence[Rescored]) -> RenderableType:
    """Return a page for each run, or from the fourth on a line each; and the means over runs."""
    if len(runs) == 1:
        return _page(runs[0])
    if len(runs) > PAGES:
        return Group(_lines(runs), Text(), _means(runs))
    parts: list[RenderableType] = []
    for run in runs:
        parts += [_page(run), Text()]
    return Group(*parts, _means(runs))


def rescored_to_dict(rescored: Rescored) -> dict[str, Any]:
    """Return everything about the run as strict JSON values."""
    plain = strict_json(dataclasses.asdict(rescored))
    assert isinstance(plain, dict)
    return plain


def _page(run: Rescored) -> RenderableType:
    count = len(run.evaluations)
    plural = "" if count == 1 else "s"
    heading = Text(run.name, style="bold").append(f"  {count} evaluation{plural}", "dim")
    parts: list[RenderableType] = [heading]
    parts += [Text(f"note: {note}", style="yellow") for note in run.notes]
    parts += [Text(), _choices(run), Text()]
    parts += [_reason(choice) for choice in run.choices]
    return Group(*parts, Text(), Chart(run))


def _choices(run: Rescored) -> Table:
    table = _table("scorer", "chosen step", "eval loss", "score", "next step", "margin", text=1)
    metric = run.held_out.metric if run.held_out is not None else None
    for heading in (metric, "regret") if metric else ():
        table.add_column(Text(heading), justify="right")
    for choice in run.choices:
        held_out = (_number(choice.held_out), _number(choice.regret)) if metric else ()
        table.add_row(*map(Text, (*_cells(choice), *held_out)))
    if run.best_held_out is not None:
        table.add_row(*map(Text, _best_cells(run)), style="dim")
    return table


def _cells(choice: Choice) -> tuple[str, ...]:
    if choice.failure is not None:
        return (choice.scorer, "failed", _ABSENT, _ABSENT, _ABSENT, _ABSENT)
    return (
        choice.scorer,
        "none" if choice.step is None else str(choice.step),
        _number(choice.eval_loss),
        _number(choice.score),
        _ABSENT if choice.runner_up is None else str(choice.runner_up),
        _number(choice.margin),
    )


def _best_cells(run: Rescored) -> Iterator[str]:
    best = next(e for e in run.evaluations if e.step == run.best_held_out)
    yield from ("best there was", str(best.step), _number(best.eval_loss))
    yield from (_ABSENT, _ABSENT, _ABSENT, _number(best.held_out), _number(0.0))


def _reason(choice: Choice) -> Text:
    style = "red" if choice.failure is not None else ""
    return Text(f"{choice.scorer}: ", style="bold").append(choice.why, style)


def _lines(runs: Sequence[Rescored]) -> Table:
    scorers = [choice.scorer for choice in runs[0].choices]
    table = _table("run", "eval loss", *scorers, text=2)
    has_held_out = runs[0].held_out is not None
    if has_held_out:
        table.add_column("best step", justify="right")
    for run in runs:
        best = (str(run.best_held_out),) if has_held_out else ()
        curve = Sparkline(tuple(e.eval_loss for e in run.evaluations[-_BARS:]))
        cells = map(Text, (*map(_step_cell, run.choices), *best))
        table.add_row(Text(run.name), curve, *cells)
    return table


def _step_cell(choice: Choice) -> str:
    if choice.failure is not None:
        return "failed"
    step = "none" if choice.step is None else str(choice.step)
    return step if choice.regret is None else f"{step} ({_number(choice.regret)})"


def _means(runs: Sequence[Rescored]) -> Table:
    """Return for each scorer in how many runs it chose, and its mean regret where it is known."""
    table = _table("scorer", f"chose, of {len(runs)} runs", "failed", text=1)
    has_held_out = runs[0].held_out is not None
    for heading in ("mean regret", "chose the best there was") if has_held_out else ():
        table.add_column(heading, justify="right")
    for choices in zip(*(run.choices for run in runs), strict=True):
        chose = sum(choice.step is not None for choice in choices)
        failed = sum(choice.failure is not None for choice in choices)
        regrets = [choice.regret for choice in choices if choice.regret is not None]
        mean = _number(math.fsum(regrets) / len(regrets)) if regrets else _ABSENT
        held_out = (mean, str(sum(regret == 0.0 for regret in regrets))) if has_held_out else ()
        table.add_row(*map(Text, (choices[0].scorer, str(chose), str(failed), *held_out)))
    return table


def _table(*headings: str, text: int) -> Table:
    """Return a table whose first `text` columns hold text and whose others hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for at, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if at < text else "right")
    return table


def _number(value: float | None) -> str:
    return _ABSENT if value is None else amount(value)
