"""`podproof rescore`: what is printed, what is written, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from podproof.cli import main
from podproof.monitor.store import open_store
from podproof.runtime.events import Event, EventKind

STREAM = str(Path(__file__).parents[1] / "streams" / "sft.jsonl.gz")

# Runs one command in a Python that has no matplotlib.
WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
from podproof.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PODPROOF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def keep_run(home: Path, run_id: str) -> None:
    """Write a run with two evaluations into the store."""
    losses = {10: 2.0, 20: 1.5}
    with open_store(home / "podproof.db") as store:
        store.ingest(
            Event(f"{run_id}-{step}", run_id, 1, step, EventKind.EVALUATION, 0.0, step, None, body)
            for step, body in ((step, {"eval_loss": loss}) for step, loss in losses.items())
        )


def test_a_recording_is_scored_by_every_scorer(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["rescore", STREAM])

    out = capsys.readouterr().out
    assert code == 0
    assert "12: robust, eval_loss, seed_v1" in out
    assert "\x1b" not in out


def test_a_run_of_the_store_is_found_by_its_beginning(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_run(home, "tiny-sft-1")

    code = main(["rescore", "tiny", "--scorer", "robust", "--json"])

    (run,) = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (run["name"], run["choices"][0]["step"]) == ("tiny-sft-1", 20)


def test_a_held_out_metric_adds_the_regret_in_the_direction_that_was_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metric = "eval_mean_token_accuracy"

    code = main(["rescore", STREAM, "--held-out", metric, "--held-out-higher", "--json"])

    (run,) = json.loads(capsys.readouterr().out)
    assert code == 0
    assert run["best_held_out"] == 9
    assert run["choices"][0]["regret"] == pytest.approx(0.3002919 - 0.2949442, abs=1e-6)


def test_a_formula_of_ones_own_is_asked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def own_components(state, evaluation, plan): return {'late': -evaluation.loss}\n"
        "def own_bound(plan): return -9.0, 0.0\n"
    )

    code = main(["rescore", STREAM, "--scorer", "robust", "--scorer-file", str(mine), "--json"])

    (run,) = json.loads(capsys.readouterr().out)
    assert code == 0
    assert {c["scorer"]: c["step"] for c in run["choices"]} == {"robust": 12, "mine": 3}


def test_a_plot_is_written_beside_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["rescore", STREAM, "--plot", str(tmp_path / "plot.svg")])

    captured = capsys.readouterr()
    assert code == 0
    assert (tmp_path / "plot.svg").is_file()
    assert "plot.svg" in captured.err
    assert "lowest score" in captured.out


def test_without_matplotlib_a_plot_is_refused_with_the_line_that_installs_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MATPLOTLIB, "rescore", STREAM, "--plot", "plot.svg"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "pip install 'podproof[plot]'" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["nowhere.json"], "no such file or folder, and no such run"),
        ([STREAM, "--scorer", "robst"], "did you mean robust?"),
        ([STREAM, "--held-out", "eval_los"], "did you mean eval_loss?"),
        ([STREAM, "--eval-loss", "eval_other"], "has eval_other"),
        ([STREAM, "--scorer-file", "missing.py"], "cannot be read"),
    ],
)
def test_a_mistake_is_exit_2_and_told_with_the_way_out(
    argv: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["rescore", *argv])

    captured = capsys.readouterr()
    assert code == 2
    assert what in " ".join(captured.err.split())
    assert captured.out == ""
