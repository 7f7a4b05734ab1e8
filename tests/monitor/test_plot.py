"""Plots in files: drawn by matplotlib, refused before any work when they cannot be."""

from pathlib import Path

import pytest

from podproof.monitor.errors import PlotUnavailable
from podproof.monitor.history import Columns, history_of_log
from podproof.monitor.plot import check_plot, write_plot
from podproof.monitor.rescore import HeldOut, Rescored, rescore
from podproof.monitor.scorers import named_scorers

LOG = [
    {"loss": 2.0, "step": 5},
    {"eval_loss": 1.5, "eval_f1": 0.5, "step": 10},
    {"eval_loss": 1.6, "eval_f1": 0.75, "step": 20},
]


def run(name: str = "run") -> Rescored:
    history = history_of_log(name, name, LOG, Columns())
    return rescore(history, named_scorers([]), HeldOut("eval_f1", higher_is_better=True))


def test_a_plot_names_the_run_its_curves_and_every_choice(tmp_path: Path) -> None:
    write_plot(tmp_path / "plot.svg", [run("tiny"), run("other")])

    # matplotlib draws letters as paths, and leaves each text in a comment.
    text = (tmp_path / "plot.svg").read_text()
    assert "<!-- tiny -->" in text
    assert "<!-- other -->" in text
    assert "<!-- robust: 10 -->" in text
    assert "<!-- eval_f1 -->" in text


def test_the_same_runs_give_the_same_svg(tmp_path: Path) -> None:
    write_plot(tmp_path / "one.svg", [run()])
    write_plot(tmp_path / "two.svg", [run()])

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_plot_may_be_a_png(tmp_path: Path) -> None:
    write_plot(tmp_path / "plot.png", [run()] * 4)

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_anything_to_draw_gets_an_empty_panel(tmp_path: Path) -> None:
    history = history_of_log("none", "none", [{"eval_loss": None, "step": 5}], Columns())

    write_plot(tmp_path / "plot.svg", [rescore(history, named_scorers([]))])

    assert "<!-- none -->" in (tmp_path / "plot.svg").read_text()


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("plot.txt", "cannot draw a .txt"),
        ("plot", "cannot draw a file without an ending"),
        ("nowhere/plot.svg", "its folder does not exist"),
    ],
)
def test_a_plot_that_could_not_be_written_is_refused(path: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(PlotUnavailable, match=what):
        check_plot(tmp_path / path)


def test_a_plot_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").mkdir()

    with pytest.raises(PlotUnavailable, match="cannot be written"):
        write_plot(tmp_path / "plot.svg", [run()])
