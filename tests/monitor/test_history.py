"""A run's log: what a scorer is given of it, and what is refused."""

import math
from typing import Any

import pytest

from podproof.monitor.errors import BadHistory
from podproof.monitor.history import Columns, History, history_of_log, log_of_events
from podproof.runtime.events import Event, EventKind

TRAINED = {"loss": 3.0, "grad_norm": 1.0, "epoch": 0.5, "step": 5}
EVALUATED = {"eval_loss": 2.5, "eval_runtime": 0.1, "epoch": 1.0, "step": 10}
SUMMARY = {"train_loss": 2.9, "train_runtime": 4.0, "epoch": 1.0, "step": 10}


def read(*entries: Any, columns: Columns = Columns()) -> History:  # noqa: B008 - a frozen value
    return history_of_log("run", "state.json", entries, columns)


def problem(*entries: Any) -> str:
    with pytest.raises(BadHistory) as refused:
        read(*entries)
    return str(refused.value)


def event(kind: EventKind, boot: int, step: int, **body: Any) -> Event:
    return Event(f"r-{boot}-{step}-{kind}", "r", boot, step, kind, 0.0, step, None, body)


def test_a_log_keeps_train_logs_and_evaluations_and_drops_the_summary() -> None:
    history = read(TRAINED, EVALUATED, SUMMARY)

    assert [(entry.get("loss"), entry.get("eval_loss")) for entry in history.log] == [
        (3.0, None),
        (None, 2.5),
    ]


def test_every_number_of_a_step_can_be_asked_for_by_name() -> None:
    history = read(TRAINED, EVALUATED, {"eval_f1": 0.5, "step": 10}, SUMMARY)

    assert history.metrics[10] == {
        "eval_loss": 2.5,
        "eval_runtime": 0.1,
        "epoch": 1.0,
        "eval_f1": 0.5,
        "step": 10.0,
    }


def test_another_metric_can_be_taken_as_eval_loss() -> None:
    history = read(
        EVALUATED, {"eval_test_loss": 9.0, "step": 10}, columns=Columns("eval_test_loss")
    )

    assert [entry["eval_loss"] for entry in history.log] == [9.0]


def test_of_several_eval_sets_the_first_seen_is_scored_and_the_history_says_so() -> None:
    history = read(
        {"eval_a_loss": 1.0, "eval_a_runtime": 0.1, "step": 10},
        {"eval_b_loss": 2.0, "eval_b_runtime": 0.1, "step": 10},
    )

    assert [entry["eval_loss"] for entry in history.log] == [1.0]
    assert "scored by eval_a_loss" in history.notes[0]


def test_the_words_for_numbers_that_json_lacks_are_read_as_numbers() -> None:
    history = read({"eval_loss": "NaN", "step": 1}, {"eval_loss": "Infinity", "step": 2})

    assert math.isnan(history.log[0]["eval_loss"])
    assert history.log[1]["eval_loss"] == math.inf


def test_a_log_without_an_evaluation_is_refused_with_what_there_is() -> None:
    text = problem(TRAINED, {"eval_nll_loss": 1.0, "step": 5})

    assert "none of its 2 log entries has eval_loss" in text
    assert "there is eval_nll_loss" in text


def test_an_empty_log_is_refused() -> None:
    assert "none of its 0 log entries" in problem()


@pytest.mark.parametrize("step", [None, "ten", 1.5, True, math.nan])
def test_an_evaluation_without_a_whole_step_is_refused_by_its_place(step: Any) -> None:
    text = problem(TRAINED, {"eval_loss": 1.0, "step": step})

    assert "state.json, entry 2: its step must be a whole number" in text


def test_an_entry_that_is_no_object_is_refused_by_its_place() -> None:
    assert "entry 2: a log entry is an object, got list" in problem(TRAINED, [])


def test_a_step_written_as_a_float_is_a_whole_step() -> None:
    assert read({"eval_loss": 1.0, "step": 10.0}).log[0]["step"] == 10


def test_events_tell_the_log_of_their_trainer() -> None:
    log = log_of_events(
        [
            event(EventKind.STARTED, 1, 0),
            event(EventKind.TRAIN_LOG, 1, 5, loss=3.0),
            event(EventKind.EVALUATION, 1, 10, eval_loss=2.5, metrics={"eval_f1": 0.5}),
        ]
    )

    assert log == [
        {"loss": 3.0, "step": 5},
        {"eval_f1": 0.5, "eval_loss": 2.5, "step": 10},
    ]


def test_what_a_restarted_run_trained_again_replaces_what_was_lost() -> None:
    log = log_of_events(
        [
            event(EventKind.EVALUATION, 1, 10, eval_loss=3.0),
            event(EventKind.EVALUATION, 1, 20, eval_loss=2.0),
            event(EventKind.TRAIN_LOG, 1, 25, loss=1.9),
            event(EventKind.TRAIN_LOG, 2, 15, loss=2.6),
            event(EventKind.EVALUATION, 2, 20, eval_loss=2.1),
        ]
    )

    assert log == [
        {"eval_loss": 3.0, "step": 10},
        {"loss": 2.6, "step": 15},
        {"eval_loss": 2.1, "step": 20},
    ]


def test_an_evaluation_repeated_when_training_resumes_leaves_the_train_log_of_its_step() -> None:
    log = log_of_events(
        [
            event(EventKind.TRAIN_LOG, 1, 10, loss=3.0),
            event(EventKind.EVALUATION, 1, 10, eval_loss=2.5),
            event(EventKind.EVALUATION, 2, 10, eval_loss=2.5),
        ]
    )

    assert log == [{"loss": 3.0, "step": 10}, {"eval_loss": 2.5, "step": 10}]
