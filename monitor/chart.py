"""A run's losses as characters, with the step each scorer chose below them.

No plotting library: those for terminals bring megabytes and keep one picture in a global, and
what is needed is points, two labels and some marks, in plain characters where a pipe wants them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from podproof.monitor.rescore import Rescored

_HEIGHT = 10
_WIDEST = 100
_LABEL = 9
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Chart:
    """Draws itself in the width of the console, in ASCII where it can show nothing else."""

    rescored: Rescored

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the chart; none when no loss is finite."""
        width = max(10, min(options.max_width, _WIDEST) - _LABEL - 2)
        marks = ("o", ".", "^") if options.ascii_only else ("●", "·", "▲")
        yield from _lines(self.rescored, width, marks)


@dataclass(frozen=True)
class Sparkline:
    """One bar for each value, lowest to highest; a blank for what is absent, nothing in ASCII."""

    values: tuple[float | None, ...]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the bars."""
        yield Text("" if options.ascii_only else _bars(self.values))

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        """Return its width: a character for each value."""
        return Measurement(len(self.values), len(self.values))


def _bars(values: Sequence[float | None]) -> str:
    """Return the bars as text.

    >>> _bars([3.0, None, 1.0, 2.0])
    '█ ▁▅'
    """
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    return "".join(
        " " if value is None else _BARS[_place(value, low, high, len(_BARS))] for value in values
    )


def _lines(rescored: Rescored, width: int, marks: tuple[str, str, str]) -> Iterator[Text]:
    evals = [(e.step, e.eval_loss) for e in rescored.evaluations if e.eval_loss is not None]
    losses = [loss for _, loss in (*evals, *rescored.train_losses)]
    steps = [step for step, _ in (*evals, *rescored.train_losses)]
    if not losses:
        return
    at_eval, at_train, at_choice = marks
    grid = [[" "] * width for _ in range(_HEIGHT)]
    low, high = min(losses), max(losses)
    for points, mark in ((rescored.train_losses, at_train), (evals, at_eval)):
        for step, loss in points:
            grid[_place(loss, high, low, _HEIGHT)][_column(step, steps, width)] = mark
    labels = {0: f"{high:.4g}", _HEIGHT - 1: f"{low:.4g}"}
    for row, cells in enumerate(grid):
        yield Text(f"{labels.get(row, ''):>{_LABEL}} |{''.join(cells)}".rstrip())
    for step, names in _choices(rescored).items():
        line = " " * _column(step, steps, width) + at_choice
        label = f" {step}: {', '.join(names)}"
        yield _labelled(line, label, width)
    key = f"{at_eval} eval loss  {at_train} train loss  {at_choice} chosen"
    yield Text(f"{'':>{_LABEL}}  steps {min(steps)} to {max(steps)}   {key}", style="dim")


def _labelled(line: str, label: str, width: int) -> Text:
    """Return the mark with its label behind it, or before it where there is no room behind."""
    if len(line) + len(label) > width and len(label) < len(line):
        line = f"{label[1:]} ".rjust(len(line) - 1) + line[-1]
        label = ""
    return Text(f"{'':>{_LABEL}}  {line}{label}", style="bold green")


def _choices(rescored: Rescored) -> dict[int, list[str]]:
    chosen: dict[int, list[str]] = {}
    for choice in rescored.choices:
        if choice.step is not None:
            chosen.setdefault(choice.step, []).append(choice.scorer)
    if rescored.best_held_out is not None and rescored.held_out is not None:
        best = f"best {rescored.held_out.metric}"
        chosen.setdefault(rescored.best_held_out, []).append(best)
    return dict(sorted(chosen.items()))


def _column(step: int, steps: Sequence[int], width: int) -> int:
    return _place(step, min(steps), max(steps), width)


def _place(value: float, start: float, end: float, cells: int) -> int:
    """Return the cell of a value on a line from `start` to `end`, which may run downwards."""
    if start == end:
        return 0
    # Halved first, so that the distance of two huge losses does not overflow.
    share = (value / 2 - start / 2) / (end / 2 - start / 2)
    return min(cells - 1, max(0, round(share * (cells - 1))))
