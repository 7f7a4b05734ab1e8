"""How good are the checkpoints that scorers choose? Measured on 124 trainings with a known truth.

    .venv/bin/python benchmarks/scorer/compare.py
    .venv/bin/python benchmarks/scorer/compare.py --scorer-file mine.py

Each selector sees what a run logs: train losses, and the loss on a small eval set. Its regret is
the test loss of the checkpoint it chose, minus the lowest of all of the run's checkpoints, over the
run's range (highest minus lowest): 0 is the best choice there was, 1 the worst. Everything is
compared with the argmin of eval loss, run by run; intervals are 95 % percentile bootstraps over
runs. README.md beside this file describes the data and their limits.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regrets import BASELINE, DATA, Comparison, Gain, read_runs, results, selectors

from podproof.runtime.errors import PodproofError

RESULTS = Path(__file__).parent / "RESULTS.md"

_FIRST_ROW = (
    "The row `eval_loss` is the regret of its argmin. The others say how much higher (+) or lower\n"
    "(-) theirs is, run by run, with a 95 % interval. Regret is a share of the run's range."
)

_OBJECTIVES = (
    "What `robust` chooses with another `scorer.objective`, minus what it chooses for the loss:\n"
    "gold reward in standard deviations over the run, test accuracy as a share, test loss in nats."
)


def report(found: Mapping[str, Any]) -> str:
    """Return the tables as Markdown that can be read on a terminal too."""
    count = found["own"]["all"][BASELINE].runs
    sections = [
        f"# What scorers chose in {count} runs",
        _FIRST_ROW,
        "## All 20 evaluations, on the run's own eval set of 8 to 128 rows",
        _group_table(found["own"]),
        "Runs in which the regret is lower and higher than that of eval loss:",
        _counts_table(found["own"]),
        "## Mean of 9 settings: 8, 32, 128 eval rows by 5, 10, 20 evaluations",
        _group_table(found["grid"]),
        "## By regime, mean of the 9 settings",
        "With 5 or 6 runs an interval is a hint at best; with fewer none is given.",
        _regime_table(found["regimes"]),
        "## By eval rows and evaluations",
        "Mean regret over all runs.",
        _size_table(found["sizes"]),
        "## Other objectives",
        _OBJECTIVES,
        _objective_table(found["objectives"]),
        "## The same losses in another unit, and an inflated train loss",
        "All 20 evaluations on the run's own eval set.",
        _scale_table(found["scaled"]),
    ]
    return "\n\n".join(sections)


def _group_table(groups: Mapping[str, Mapping[str, Comparison]]) -> str:
    heads = [f"{group} ({of[BASELINE].runs})" for group, of in groups.items()]
    names = next(iter(groups.values()))
    rows = [[name, *(_cell(name, of[name]) for of in groups.values())] for name in names]
    return _table(["selector", *heads], rows)


def _counts_table(groups: Mapping[str, Mapping[str, Comparison]]) -> str:
    names = [name for name in next(iter(groups.values())) if name != BASELINE]
    rows = [
        [name, *(f"{of[name].better} lower, {of[name].worse} higher" for of in groups.values())]
        for name in names
    ]
    return _table(["selector", *groups], rows)


def _regime_table(regimes: Mapping[str, Mapping[str, Comparison]]) -> str:
    names = list(next(iter(regimes.values())))
    rows = [
        [regime, str(of[BASELINE].runs), *(_cell(name, of[name]) for name in names)]
        for regime, of in regimes.items()
    ]
    return _table(["regime", "runs", *names], rows)


def _size_table(sizes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            of["eval_loss"].removeprefix("eval_loss_n"),
            str(of["evaluations"]),
            *(f"{regret:.4f}" for regret in of["regret"].values()),
        ]
        for of in sizes
    ]
    return _table(["eval rows", "evaluations", *sizes[0]["regret"]], rows)


def _objective_table(objectives: Mapping[str, Sequence[Gain]]) -> str:
    rows = [
        [title, gain.metric, str(gain.runs), _with_interval(gain.difference, gain.interval)]
        for title, gains in objectives.items()
        for gain in gains
    ]
    return _table(["objective, method", "metric", "runs", "difference"], rows)


def _scale_table(scaled: Mapping[str, Mapping[str, Mapping[str, Comparison]]]) -> str:
    shown = [group for group in ("all", "SFT", "DPO + ORPO") if group in scaled["train loss x 4"]]
    rows = [
        [title, name, *(_cell(name, groups[group][name]) for group in shown)]
        for title, groups in scaled.items()
        for name in groups["all"]
        if name not in {BASELINE, "last checkpoint"}
    ]
    return _table(["losses", "selector", *shown], rows)


def _cell(name: str, comparison: Comparison) -> str:
    if name == BASELINE:
        return f"{comparison.regret:.4f}"
    return _with_interval(comparison.difference, comparison.interval)


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return _signed(value)
    low, high = map(_signed, interval)
    return f"{_signed(value)} [{low}, {high}]"


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # 0.0 makes a plus of minus zero


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heads, rule, *rows)
    ]
    return "\n".join(f"| {line} |" for line in lines)


def page(found: Mapping[str, Any]) -> str:
    """Return the page of results."""
    made = (
        "<!-- Written by python benchmarks/scorer/compare.py --write, from the data beside it. -->"
    )
    return f"{made}\n\n{report(found)}\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the comparison, or write the page of results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = "a file with a formula of your own; may be given several times"
    parser.add_argument("--scorer-file", action="append", default=[], type=Path, help=what)
    parser.add_argument("--data", type=Path, default=DATA, help="another table of curves")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md instead")
    options = parser.parse_args(argv)
    if options.write and (options.scorer_file or options.data != DATA):
        parser.error("--write is for the scorers and the data of the repository")
    try:
        runs, chosen = read_runs(options.data), selectors(options.scorer_file)
    except PodproofError as error:
        sys.exit(str(error))
    found = results(runs, chosen)
    if options.write:
        RESULTS.write_text(page(found), encoding="utf-8")
    else:
        print(json.dumps(found, default=vars, indent=2) if options.json else report(found))


if __name__ == "__main__":
    main()
