"""Tables of checkpoint curves: many runs in one file."""

import pytest

from podproof.monitor.curves import read_curves
from podproof.monitor.errors import BadHistory
from podproof.monitor.history import Columns

TABLE = """\
run_id,step,train_loss,eval_loss,eval_loss_n8,regime,test_loss
a,20,2.0,2.5,2.4,easy,2.6
a,10,3.0,3.5,3.4,easy,3.6
b,10,1.0,,0.9,hard,1.5
"""


def refusal(text: str, columns: Columns = Columns()) -> str:  # noqa: B008 - a frozen value
    with pytest.raises(BadHistory) as refused:
        read_curves("curves.csv", text, columns)
    return str(refused.value)


def test_every_run_is_a_history_in_order_of_steps() -> None:
    first, second = read_curves("curves.csv", TABLE, Columns())

    assert (first.name, second.name) == ("a", "b")
    assert first.log == (
        {"loss": 3.0, "step": 10},
        {"eval_loss": 3.5, "step": 10},
        {"loss": 2.0, "step": 20},
        {"eval_loss": 2.5, "step": 20},
    )


def test_an_empty_cell_was_not_measured() -> None:
    _, second = read_curves("curves.csv", TABLE, Columns())

    assert second.log[1] == {"eval_loss": None, "step": 10}
    assert "eval_loss" not in second.metrics[10]


def test_every_number_of_a_row_can_be_asked_for_and_no_text() -> None:
    first, _ = read_curves("curves.csv", TABLE, Columns())

    assert first.metrics[20]["test_loss"] == 2.6
    assert "regime" not in first.metrics[20]


def test_other_columns_can_be_taken_as_the_losses() -> None:
    first, _ = read_curves("curves.csv", TABLE, Columns("eval_loss_n8", "test_loss"))

    assert first.log[:2] == ({"loss": 3.6, "step": 10}, {"eval_loss": 3.4, "step": 10})


def test_without_run_ids_the_table_is_one_run_and_without_train_losses_it_says_so() -> None:
    (only,) = read_curves("curves.csv", "step,eval_loss\n1,2.0\n2,1.0\n", Columns())

    assert only.name == "curves.csv"
    assert only.notes == ("no column train_loss or loss: no train losses",)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("step,loss\n1,2\n", "it lacks eval_loss; its first line is 'step, loss'"),
        ("step,eval_loss\n", "has a header and no rows"),
        ("step,eval_loss\nten,2\n", "curves.csv:2: step must be a whole number, got 'ten'"),
        ("step,eval_loss\n1.5,2\n", "curves.csv:2: step must be a whole number"),
        ('step,eval_loss\n1,"2"x\n', "curves.csv:1: not CSV"),
    ],
)
def test_what_is_no_table_of_curves_is_refused(text: str, what: str) -> None:
    assert what in refusal(text)


def test_a_column_that_was_named_and_is_not_there_is_refused() -> None:
    assert "it lacks loss_mean" in refusal(TABLE, Columns(train_loss="loss_mean"))


def test_what_else_was_evaluated_is_there_for_the_scorers() -> None:
    text = "step,eval_loss,eval_rewards/margins\n1,2.0,0.5\n"

    (only,) = read_curves("curves.csv", text, Columns())

    assert only.log == ({"eval_loss": 2.0, "eval_rewards/margins": 0.5, "step": 1},)
