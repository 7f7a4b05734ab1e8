"""Regret: how far from its best checkpoint a run ends under a selector, and how sure that is."""

import csv
import io
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from podproof.monitor.errors import BadHistory
from podproof.monitor.recording import read_text
from podproof.monitor.scorers import Scorer, named_scorers, scorer_of_file
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Objective

DATA = Path(__file__).parent / "checkpoint-curves.dev.csv.gz"

BASELINE = "eval_loss"
SEED = 20_260_101
RESAMPLES = 4000
FEWEST_RUNS_FOR_AN_INTERVAL = 5

# Eval rows that misrepresent the task: leaked from the train rows, or of another distribution.
MISLEADING = frozenset({"leak", "shift"})

# The mean over the last 10 steps, which is what a trainer logs with logging_steps=10.
TRAIN_LOSS = "train_loss_mean10"

# What else an evaluation logs, by column; measured on the run's own eval set only.
MEASURES = {
    "reward_margin": "eval_rewards/margins",
    "reward_accuracy": "eval_rewards/accuracies",
    "eval_accuracy": "eval_mean_token_accuracy",
}

# Of the test set, what an objective may change, and the methods it is meant for.
TEST_METRICS = ("gold_reward", "test_accuracy", "test_loss")
OBJECTIVE_METHODS = {
    Objective.REWARD: ("dpo", "orpo"),
    Objective.ACCURACY: ("sft", "dpo", "orpo"),
}

Log = Sequence[Mapping[str, Any]]
Select = Callable[[Log], int | None]


@dataclass(frozen=True)
class Run:
    """One training: its rows are its checkpoints, in order of steps."""

    run_id: str
    method: str
    regime: str
    rows: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Setting:
    """What the selectors get to see of a run.

    `evaluations` of its 20 checkpoints, evenly spaced and ending with the last one; the losses in
    the column `eval_loss` and the logged train losses, each times a factor.
    """

    eval_loss: str = "eval_loss"
    evaluations: int = 20
    eval_factor: float = 1.0
    train_factor: float = 1.0


CHECKPOINTS = Setting.evaluations
Measured = Mapping[Setting, Mapping[str, Sequence[float]]]

OWN = (Setting(),)
SIZES = ("eval_loss_n8", "eval_loss_n32", "eval_loss_n128")
COUNTS = (5, 10, 20)
GRID = tuple(Setting(size, count) for size in SIZES for count in COUNTS)
NEEDED = {"run_id", "method", "regime", "step", "test_loss", TRAIN_LOSS, "eval_loss", *SIZES}
SCALED = {
    "losses as they are": Setting(),
    "every loss x 0.25": Setting(eval_factor=0.25, train_factor=0.25),
    "train loss x 4": Setting(train_factor=4.0),
}

GROUPS: Mapping[str, Callable[[Run], bool]] = {
    "all": lambda _run: True,
    "SFT": lambda run: run.method == "sft",
    "SFT without leak, shift": lambda run: run.method == "sft" and run.regime not in MISLEADING,
    "DPO": lambda run: run.method == "dpo",
    "ORPO": lambda run: run.method == "orpo",
    "DPO + ORPO": lambda run: run.method != "sft",
}


@dataclass(frozen=True)
class Comparison:
    """The regrets of one selector, paired with those of the baseline, over some runs.

    `difference` is the mean of regret minus the baseline's, `interval` its 95 % interval, absent
    for fewer than five runs. `better` and `worse` count runs in which the two differ.
    """

    runs: int
    regret: float
    difference: float
    interval: tuple[float, float] | None
    better: int
    worse: int


def read_runs(path: Path) -> tuple[Run, ...]:
    """Return the runs of a table of curves, in the order of the file.

    Raises BadHistory for a column that is missing, a run that has not 20 checkpoints, and one
    whose test losses are all equal, in which there is nothing to choose.
    """
    table = csv.DictReader(io.StringIO(read_text(path)))
    missing = sorted(NEEDED - set(table.fieldnames or ()))
    if missing:
        what = f"has no column {', '.join(missing)}"
        raise BadHistory(Problem(str(path), what, "README.md beside this program has them all"))
    runs: dict[str, list[dict[str, str]]] = {}
    for row in table:
        runs.setdefault(row["run_id"], []).append(row)
    problems = [problem for run_id, rows in runs.items() for problem in _problems(run_id, rows)]
    if problems:
        raise BadHistory(*problems)
    return tuple(
        Run(run_id, rows[0]["method"], rows[0]["regime"], tuple(rows))
        for run_id, rows in runs.items()
    )


def _problems(run_id: str, rows: Sequence[Mapping[str, str]]) -> Iterator[Problem]:
    if len(rows) != CHECKPOINTS:
        what = f"has {len(rows)} checkpoints, not {CHECKPOINTS}"
        yield Problem(run_id, what, "leave the run out, or evaluate it so often")
    if len({float(row["test_loss"]) for row in rows}) == 1:
        yield Problem(run_id, "has one test loss throughout", "leave the run out")


def log_of(run: Run, setting: Setting) -> list[dict[str, Any]]:
    """Return what the run's trainer would have logged: before each evaluation, the train loss."""
    every = len(run.rows) // setting.evaluations
    log: list[dict[str, Any]] = []
    for row in run.rows[every - 1 :: every]:
        step = int(row["step"])
        log.append({"loss": float(row[TRAIN_LOSS]) * setting.train_factor, "step": step})
        loss = float(row[setting.eval_loss]) * setting.eval_factor
        log.append({"eval_loss": loss, **_measures(row, setting), "step": step})
    return log


def _measures(row: Mapping[str, str], setting: Setting) -> dict[str, float]:
    if setting.eval_loss != Setting.eval_loss:
        return {}
    return {name: float(row[column]) for column, name in MEASURES.items() if row.get(column)}


def regret(run: Run, step: int | None) -> float:
    """Return the regret of a choice, from 0 to 1; choosing nothing counts as the worst choice."""
    losses = {int(row["step"]): float(row["test_loss"]) for row in run.rows}
    lowest, highest = min(losses.values()), max(losses.values())
    if step is None:
        return 1.0
    return (losses[step] - lowest) / (highest - lowest)


def measure(
    runs: Sequence[Run], chosen: Mapping[str, Select], settings: Iterable[Setting]
) -> Measured:
    """Return the regret of every run, in their order, by setting and selector."""
    return {
        setting: {
            name: [regret(run, select(log_of(run, setting))) for run in runs]
            for name, select in chosen.items()
        }
        for setting in settings
    }


def interval(differences: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean, over runs, by a fixed seed."""
    chance = random.Random(SEED)  # noqa: S311 - statistics, not secrets
    count = len(differences)
    means = sorted(fmean(chance.choices(differences, k=count)) for _ in range(resamples))
    tail = round(resamples * 0.025)
    return means[tail], means[resamples - 1 - tail]


def compare(of_selector: Sequence[float], of_baseline: Sequence[float]) -> Comparison:
    """Compare the regrets of the same runs under a selector and under the baseline."""
    pairs = list(zip(of_selector, of_baseline, strict=True))
    differences = [mine - theirs for mine, theirs in pairs]
    has_interval = len(pairs) >= FEWEST_RUNS_FOR_AN_INTERVAL
    return Comparison(
        runs=len(pairs),
        regret=fmean(of_selector),
        difference=fmean(differences),
        interval=interval(differences) if has_interval else None,
        better=sum(difference < 0 for difference in differences),
        worse=sum(difference > 0 for difference in differences),
    )


def selectors(files: Sequence[Path]) -> dict[str, Select]:
    """Return the baseline, the last checkpoint, the scorers that ship, and those of the files."""
    scorers = [*named_scorers([]), *map(scorer_of_file, files)]
    chosen = {scorer.name: _select(scorer) for scorer in scorers}
    return {
        BASELINE: chosen.pop(BASELINE),
        "last checkpoint": lambda log: int(log[-1]["step"]),
        **chosen,
    }


def _select(scorer: Scorer) -> Select:
    def select(log: Log) -> int | None:
        chosen = scorer.choose(scorer.replay(log)[1])
        return None if chosen is None else chosen.step

    return select


def by_group(
    runs: Sequence[Run],
    measured: Measured,
    settings: Sequence[Setting],
    groups: Mapping[str, Callable[[Run], bool]],
) -> dict[str, dict[str, Comparison]]:
    """Return for each group with any runs, and each selector, how it compares.

    The regrets of a run in several settings are averaged first, so that a run counts once.
    """
    of_runs = {
        name: [fmean(values) for values in zip(*(measured[s][name] for s in settings), strict=True)]
        for name in measured[settings[0]]
    }
    table = {}
    for group, belongs in groups.items():
        which = [at for at, run in enumerate(runs) if belongs(run)]
        if which:
            table[group] = {
                name: compare([values[at] for at in which], [of_runs[BASELINE][at] for at in which])
                for name, values in of_runs.items()
            }
    return table


def results(runs: Sequence[Run], chosen: Mapping[str, Select]) -> dict[str, Any]:
    """Return every comparison; the tables and the JSON are made of this."""
    measured = measure(runs, chosen, {*OWN, *GRID, *SCALED.values()})
    regimes = [regime for _, regime in sorted({(run.method, run.regime) for run in runs})]
    sizes = [
        {
            "eval_loss": setting.eval_loss,
            "evaluations": setting.evaluations,
            "regret": {name: fmean(values) for name, values in measured[setting].items()},
        }
        for setting in GRID
    ]
    return {
        "own": by_group(runs, measured, OWN, GROUPS),
        "grid": by_group(runs, measured, GRID, GROUPS),
        "regimes": by_group(runs, measured, GRID, {name: _is_of(name) for name in regimes}),
        "sizes": sizes,
        "objectives": by_objective(runs),
        "scaled": {
            title: by_group(runs, measured, (setting,), GROUPS) for title, setting in SCALED.items()
        },
    }


def _is_of(regime: str) -> Callable[[Run], bool]:
    return lambda run: run.regime == regime


@dataclass(frozen=True)
class Gain:
    """What another objective changes in one metric of the test set: the mean, its interval."""

    metric: str
    runs: int
    difference: float
    interval: tuple[float, float]


def by_objective(runs: Sequence[Run]) -> dict[str, list[Gain]]:
    """Return by objective and method what `robust` gains and loses by it, in test metrics.

    Gold reward is in standard deviations over the run's own checkpoints, loss in nats, accuracy
    as a share. Methods with fewer than five runs that have the metrics are left out.
    """
    by_loss = _select(named_scorers(["robust"])[0])
    found = {}
    for objective in (Objective.REWARD, Objective.ACCURACY):
        select = _select(named_scorers(["robust"], objective)[0])
        for method in OBJECTIVE_METHODS[objective]:
            of_method = [run for run in runs if run.method == method]
            gains = [_gain(of_method, metric, (select, by_loss)) for metric in TEST_METRICS]
            found[f"{objective.value}, {method}"] = [gain for gain in gains if gain is not None]
    return {title: gains for title, gains in found.items() if gains}


def _gain(runs: Sequence[Run], metric: str, pair: tuple[Select, Select]) -> Gain | None:
    select, baseline = pair
    differences = []
    for run in runs:
        values = {int(row["step"]): row[metric] for row in run.rows}
        if all(values.values()):
            numbers = {step: float(value) for step, value in values.items()}
            log = log_of(run, Setting())
            mine, theirs = numbers[select(log) or 0], numbers[baseline(log) or 0]
            unit = pstdev(numbers.values()) if metric == "gold_reward" else 1.0
            differences.append((mine - theirs) / unit)
    if len(differences) < FEWEST_RUNS_FOR_AN_INTERVAL:
        return None
    return Gain(metric, len(differences), fmean(differences), interval(differences))
