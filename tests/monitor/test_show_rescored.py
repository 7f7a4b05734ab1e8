"""What `podproof rescore` prints: whole pages, and what a pipe or an old terminal gets of them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from tests.blessing import golden

from podproof.monitor.chart import Chart
from podproof.monitor.curves import read_curves
from podproof.monitor.history import Columns, History, history_of_log
from podproof.monitor.recording import read_path
from podproof.monitor.rescore import HeldOut, rescore
from podproof.monitor.scorers import named_scorers
from podproof.monitor.show_rescored import rescored_to_dict, show_rescored

GOLDEN = Path(__file__).parent / "golden"
STREAMS = Path(__file__).parents[1] / "streams"

HUGE = history_of_log(
    "huge",
    "huge",
    [{"eval_loss": 800.0, "step": 1}, {"eval_loss": 1e308, "step": 2}],
    Columns(),
)
FLAT = history_of_log("flat", "flat", [{"eval_loss": 1.0, "step": 5}], Columns())
UNUSABLE = history_of_log("unusable", "unusable", [{"eval_loss": None, "step": 5}], Columns())


def recorded(name: str) -> History:
    return read_path(STREAMS / f"{name}.jsonl.gz", Columns())[0]


def page(*histories: History, held_out: HeldOut | None = None) -> RenderableType:
    return show_rescored([rescore(h, named_scorers([]), held_out) for h in histories])


def printed(renderable: RenderableType, *, width: int = 110, encoding: str = "utf-8") -> str:
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=written, width=width, highlight=False).print(renderable)
    written.flush()
    buffer = written.buffer
    assert isinstance(buffer, io.BytesIO)
    lines = buffer.getvalue().decode(encoding).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


@pytest.mark.parametrize(
    ("name", "renderable"),
    [
        ("rescored.txt", page(recorded("sft_logging_slower_than_eval"))),
        ("rescored_held_out.txt", page(recorded("sft"), held_out=HeldOut("eval_entropy"))),
        ("rescored_two.txt", page(HUGE, UNUSABLE)),
        (
            "rescored_many.txt",
            page(
                *map(recorded, ("sft", "dpo", "orpo", "sft_nan_weights_nofilter")),
                held_out=HeldOut("eval_runtime"),
            ),
        ),
    ],
)
def test_the_page_is_the_golden_one(name: str, renderable: RenderableType) -> None:
    text = printed(renderable)

    assert text == golden(GOLDEN / name, text)


def test_a_console_without_unicode_gets_ascii() -> None:
    one = printed(page(recorded("sft")), encoding="ascii")
    many = printed(page(*[recorded("sft")] * 4), encoding="ascii")

    assert "12: robust, eval_loss, seed_v1 ^" in one
    assert many.count("sft.jsonl.gz") == 4


def test_the_chart_keeps_within_the_width_of_the_console() -> None:
    text = printed(Chart(rescore(recorded("sft"), named_scorers([]))), width=60)

    assert max(map(len, text.splitlines())) <= 60


def test_a_choice_at_the_right_edge_has_its_name_to_the_left() -> None:
    text = printed(Chart(rescore(recorded("sft"), named_scorers(["robust"]))), width=60)

    assert "12: robust ▲" in text


@pytest.mark.parametrize("history", [HUGE, FLAT], ids=lambda history: str(history.name))
def test_losses_that_are_huge_or_all_equal_can_be_drawn(history: History) -> None:
    assert "●" in printed(Chart(rescore(history, named_scorers(["robust"]))))


def test_a_run_without_a_usable_loss_has_no_chart() -> None:
    assert printed(Chart(rescore(UNUSABLE, named_scorers(["robust"])))) == ""


def test_the_json_is_strict_and_tells_every_score() -> None:
    rescored = rescore(UNUSABLE, named_scorers(["robust"]))

    plain = json.loads(json.dumps(rescored_to_dict(rescored), allow_nan=False))

    assert plain["choices"][0]["scores"] == ["Infinity"]
    assert plain["choices"][0]["why"] == "none of its 1 evaluations can be used"


def test_many_curves_of_a_table_are_a_line_each_with_means() -> None:
    rows = "".join(f"{run},1,{run}.5,3\n{run},2,{run}.0,4\n" for run in range(1, 5))
    histories = read_curves("t.csv", f"run_id,step,eval_loss,test_loss\n{rows}", Columns())

    text = printed(page(*histories, held_out=HeldOut("test_loss")))

    assert "chose, of 4 runs" in text
    assert text.count("2 (1.0000)") == 12
