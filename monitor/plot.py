"""The losses of runs and the choices of scorers, drawn into a file by matplotlib."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podproof.monitor.errors import PlotUnavailable
from podproof.monitor.rescore import Rescored
from podproof.runtime.errors import Problem

PLOT_ENDINGS = (".svg", ".png", ".pdf")

_COLUMNS = 3
_PANEL_INCHES = (5.0, 3.4)
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:pink")


def check_plot(path: Path) -> None:
    """Raise PlotUnavailable when a plot could not be drawn there; no work is done in vain."""
    problems = []
    if path.suffix.lower() not in PLOT_ENDINGS:
        what = f"cannot draw a {path.suffix or 'file without an ending'}"
        problems.append(Problem(str(path), what, f"end it in {' or '.join(PLOT_ENDINGS)}"))
    if not path.absolute().parent.is_dir():
        problems.append(Problem(str(path), "its folder does not exist", "create it"))
    if importlib.util.find_spec("matplotlib") is None:
        way_out = "pip install 'podproof[plot]'"
        problems.append(Problem("--plot", "matplotlib is not installed", way_out))
    if problems:
        raise PlotUnavailable(*problems)


def write_plot(path: Path, runs: Sequence[Rescored]) -> None:
    """Draw one panel for each run; the same runs give the same SVG. Raises PlotUnavailable."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(runs) :]:
        panel.set_visible(False)
    for panel, run in zip(panels, runs, strict=False):
        _draw(panel, run)
    # Without a date, and with ids made from the content, the same runs give the same bytes.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    try:
        with mpl.rc_context({"svg.hashsalt": "podproof"}):
            figure.savefig(path, metadata=metadata)
    except OSError as error:
        problem = Problem(str(path), f"cannot be written: {error}", "choose another path")
        raise PlotUnavailable(problem) from error


def _draw(panel: Any, run: Rescored) -> None:
    if run.train_losses:
        panel.plot(*zip(*run.train_losses, strict=True), color="0.7", label="train loss")
    evals = [(e.step, e.eval_loss) for e in run.evaluations if e.eval_loss is not None]
    if evals:
        panel.plot(*zip(*evals, strict=True), color="black", marker="o", label="eval loss")
    for at, (choice, colour) in enumerate(zip(run.choices, _COLOURS * 9, strict=False)):
        if choice.step is not None:
            # Dashes of growing gaps, so that two scorers with one choice can both be seen.
            style = (4 * at, (4, 4 * max(1, len(run.choices) - 1)))
            label = f"{choice.scorer}: {choice.step}"
            panel.axvline(choice.step, color=colour, linestyle=style, label=label)
    panel.set_title(run.name)
    panel.set_xlabel("step")
    panel.set_ylabel("loss")
    handles, labels = panel.get_legend_handles_labels()
    if run.held_out is not None:
        beside = _draw_held_out(panel, run, run.held_out.metric)
        handles, labels = [*handles, beside], [*labels, run.held_out.metric]
    panel.legend(handles, labels, fontsize="small")


def _draw_held_out(panel: Any, run: Rescored, metric: str) -> Any:
    """Draw the held-out metric on an axis of its own, since it need not be a loss."""
    points = [(e.step, e.held_out) for e in run.evaluations if e.held_out is not None]
    beside = panel.twinx()
    (line,) = beside.plot(*zip(*points, strict=True), color="tab:red", linestyle=":")
    beside.set_ylabel(metric, color="tab:red")
    return line
