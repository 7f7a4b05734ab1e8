"""The comparison of scorers: its arithmetic by hand, its data, and the page of its results."""

import csv
import gzip
import importlib
import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "scorer"
DIFFERENCE = re.compile(r"[+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\]")
PROGRAM = FOLDER / "compare.py"

OWN = """
def own_components(state, evaluation, plan):
    return {"eval_loss": evaluation.loss}


def own_bound(plan):
    return 0.0, 0.0
"""


def loaded(name: str) -> Any:
    """Return a module of the folder, which is no package, as the program itself finds it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


compare, regrets = loaded("compare"), loaded("regrets")


def run(run_id: str, method: str, regime: str, *rows: tuple[int, float, float, float]) -> Any:
    """Return a run whose rows are step, train loss, eval loss, test loss."""
    names = ("step", "train_loss_mean10", "eval_loss", "test_loss")
    cells = tuple(dict(zip(names, map(str, row), strict=True)) for row in rows)
    return regrets.Run(run_id, method, regime, cells)


# The eval loss chooses step 30 in both; the last checkpoint is step 40. Of the test losses of the
# first, 1.0 to 3.0, step 30 has 2.0 and step 40 has 1.5; the second is best at 30, worst at 40.
LEAKED = run("a", "sft", "leak", (10, 2, 4, 3.0), (20, 2, 3, 1.0), (30, 1, 2, 2.0), (40, 1, 3, 1.5))
HONEST = run("b", "sft", "easy", (10, 2, 4, 6.0), (20, 2, 3, 5.0), (30, 1, 2, 4.0), (40, 1, 3, 8.0))
FOUR, ONE = regrets.Setting(evaluations=4), regrets.Setting(evaluations=1)


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    """Write the first two runs of the data into a table of their own."""
    path = tmp_path / "two.csv.gz"
    with gzip.open(regrets.DATA, "rt", encoding="utf-8") as lines:
        path.write_bytes(gzip.compress("".join(islice(lines, 41)).encode()))
    return path


def program(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def program_refusing(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


# The arithmetic.


@pytest.mark.parametrize(("step", "regret"), [(10, 1.0), (20, 0.0), (30, 0.5), (40, 0.25)])
def test_regret_is_the_test_loss_above_the_lowest_as_a_share_of_the_range(
    step: int, regret: float
) -> None:
    assert regrets.regret(LEAKED, step) == regret


def test_choosing_nothing_is_the_worst_choice() -> None:
    assert regrets.regret(LEAKED, None) == 1.0


def by_group(*settings: Any) -> Any:
    runs, chosen = [LEAKED, HONEST], regrets.selectors([])
    return regrets.by_group(runs, regrets.measure(runs, chosen, settings), settings, regrets.GROUPS)


def test_the_selectors_of_a_group_are_compared_run_by_run() -> None:
    table = by_group(FOUR)

    # Regrets of eval loss: 0.5 and 0.0, of the last checkpoint: 0.25 and 1.0.
    assert table["all"]["eval_loss"] == regrets.Comparison(2, 0.25, 0.0, None, 0, 0)
    assert table["all"]["last checkpoint"] == regrets.Comparison(2, 0.625, 0.375, None, 1, 1)
    assert table["SFT without leak, shift"]["last checkpoint"].difference == 1.0
    assert "DPO" not in table


def test_the_regrets_of_a_run_in_several_settings_are_averaged_first() -> None:
    table = by_group(FOUR, ONE)

    # With a single evaluation only the last checkpoint can be chosen: (0.5 + 0.25) / 2 and
    # (0.0 + 1.0) / 2, against 0.25 and 1.0 of the last checkpoint.
    assert table["all"]["eval_loss"].regret == (0.375 + 0.5) / 2
    assert table["all"]["last checkpoint"].difference == (-0.125 + 0.5) / 2


def test_fewer_evaluations_are_evenly_spaced_and_end_with_the_last() -> None:
    log = regrets.log_of(HONEST, regrets.Setting(evaluations=2, eval_factor=0.25, train_factor=4.0))

    assert log == [
        {"loss": 8.0, "step": 20},
        {"eval_loss": 0.75, "step": 20},
        {"loss": 4.0, "step": 40},
        {"eval_loss": 0.75, "step": 40},
    ]


def test_an_interval_needs_five_runs() -> None:
    few, enough = regrets.compare([0.5] * 4, [0.0] * 4), regrets.compare([0.5] * 5, [0.0] * 5)

    assert few.interval is None
    assert enough.interval == (0.5, 0.5)


@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_an_interval_is_the_same_every_time_and_within_the_differences(
    differences: list[float],
) -> None:
    low, high = regrets.interval(differences, resamples=100)

    assert regrets.interval(differences, resamples=100) == (low, high)
    assert min(differences) - 1e-12 <= low <= high <= max(differences) + 1e-12


def test_a_clear_difference_has_an_interval_on_one_side_of_zero() -> None:
    low, high = regrets.interval([0.1, 0.2, 0.3, 0.2, 0.1, 0.2])

    # The mean is 0.183, its standard error 0.028.
    assert low == pytest.approx(0.183 - 2 * 0.028, abs=0.015)
    assert high == pytest.approx(0.183 + 2 * 0.028, abs=0.015)


def test_an_objective_gains_what_its_choice_is_better_at_in_units_of_the_run() -> None:
    names = ("step", "train_loss_mean10", "eval_loss", "reward_margin", "gold_reward")
    cells = [(step, 1.0, 1.0 + step / 1e4, step / 20, step * 10.0) for step in range(1, 21)]
    rows = tuple(dict(zip(names, map(str, row), strict=True)) for row in cells)
    unmeasured = {"test_loss": "", "test_accuracy": ""}
    runs = [
        regrets.Run(f"r{n}", "dpo", "easy", tuple({**row, **unmeasured} for row in rows))
        for n in range(5)
    ]

    found = regrets.by_objective(runs)

    # The loss chooses step 1, the reward step 20. Gold rewards are 10 to 200, evenly spaced, so
    # their standard deviation is 10 * sqrt((20**2 - 1) / 12) = 57.66.
    (gain,) = found["reward, dpo"]
    assert (gain.metric, gain.runs) == ("gold_reward", 5)
    assert gain.difference == pytest.approx(190 / 57.66, abs=1e-3)
    assert gain.interval == pytest.approx((gain.difference, gain.difference))


# The data and the results.


def test_the_data_are_124_runs_of_20_checkpoints_in_25_regimes() -> None:
    runs = regrets.read_runs(regrets.DATA)

    assert len(runs) == 124
    assert {len(run.rows) for run in runs} == {20}
    assert len({run.regime for run in runs}) == 25
    assert {run.method: sum(r.method == run.method for r in runs) for run in runs} == {
        "sft": 86,
        "dpo": 20,
        "orpo": 18,
    }


def test_the_readme_names_every_column_of_the_data() -> None:
    with gzip.open(regrets.DATA, "rt", encoding="utf-8") as lines:
        columns = next(csv.reader(lines))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")

    assert [column for column in columns if f"`{column}`" not in readme] == []


def test_the_page_of_results_is_what_the_program_finds() -> None:
    found = regrets.results(regrets.read_runs(regrets.DATA), regrets.selectors([]))

    assert compare.RESULTS.read_text(encoding="utf-8") == compare.page(found)


@pytest.mark.parametrize("page", ["benchmarks/scorer/README.md", "docs/explanation/score.md"])
def test_a_page_quotes_differences_as_the_results_have_them(page: str) -> None:
    quoted = DIFFERENCE.findall(" ".join((ROOT / page).read_text(encoding="utf-8").split()))
    results = compare.RESULTS.read_text(encoding="utf-8")

    assert len(quoted) > 5
    assert [difference for difference in quoted if difference not in results] == []


# The program.


def test_a_formula_of_ones_own_gets_a_row_in_every_table(tmp_path: Path, two_runs: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)

    printed = program("--data", two_runs, "--scorer-file", mine)

    rows = [line for line in printed.splitlines() if line.startswith("| mine ")]
    assert len(rows) == 3
    assert "+0.0000" in rows[0]


def test_the_json_has_the_numbers_of_the_tables(two_runs: Path) -> None:
    found = json.loads(program("--data", two_runs, "--json"))

    assert found["own"]["all"]["eval_loss"]["runs"] == 2
    assert found["sizes"][0]["evaluations"] == 5


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda lines: lines[:20], "cls_noisy-00: has 19 checkpoints, not 20"),
        (lambda lines: [lines[0].replace("eval_loss_n8", "x"), *lines[1:]], "column eval_loss_n8"),
        (lambda lines: [lines[0], *[lines[1]] * 20], "has one test loss throughout"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(
    change: Any, what: str, tmp_path: Path, two_runs: Path
) -> None:
    path = tmp_path / "changed.csv"
    path.write_text(
        "".join(change(gzip.decompress(two_runs.read_bytes()).decode().splitlines(True)))
    )

    done = program_refusing("--data", path)

    assert what in done


def test_results_of_other_data_are_not_written_over_ours(two_runs: Path) -> None:
    assert "--write is for" in program_refusing("--data", two_runs, "--write")
