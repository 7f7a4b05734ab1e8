"""The schedule: when a trainer does what, by its arguments and the number of its rows."""

from collections.abc import Callable
from typing import Any

import pytest

from podproof.harness.schedule import OutOfScope, Schedule, schedule_of


@pytest.mark.parametrize(
    ("arguments", "what", "value"),
    [
        ({}, lambda it: (it.last_step, it.epochs), (33, 3)),
        ({"num_train_epochs": 0.5}, lambda it: (it.last_step, it.epochs), (6, 1)),
        ({"max_steps": 12}, lambda it: (it.last_step, it.epochs), (12, 2)),
        ({"gradient_accumulation_steps": 4}, lambda it: it.updates_per_epoch, 3),
        ({"logging_steps": 0.1}, lambda it: it.steps("logging"), 4),
        ({"eval_strategy": "steps"}, lambda it: it.steps("eval"), 10),
        ({"load_best_model_at_end": True}, lambda it: it.best_metric_key, "eval_loss"),
        ({"load_best_model_at_end": True}, lambda it: it.greater_is_better, False),
        ({"metric_for_best_model": "score"}, lambda it: it.greater_is_better, True),
        ({"metric_for_best_model": None}, lambda it: it.best_metric_key, None),
        ({"dataloader_drop_last": True}, lambda it: it.batches_per_epoch, 10),
    ],
)
def test_a_schedule_follows_from_arguments_and_rows(
    arguments: dict[str, Any], what: Callable[[Schedule], object], value: object
) -> None:
    schedule = schedule_of({"per_device_train_batch_size": 4, **arguments}, rows=43)

    assert what(schedule) == value


def test_processes_share_the_batches() -> None:
    arguments = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}

    schedule = schedule_of(arguments, rows=43, eval_rows={"a": 14, "b": 2}, processes=2)

    assert (schedule.batches_per_epoch, schedule.eval_sets) == (6, (("a", 2), ("b", 1)))


@pytest.mark.parametrize(
    ("name", "value"), [("deepspeed", "zero3.json"), ("train_sampling_strategy", "batch_rebalance")]
)
def test_arguments_whose_events_nobody_recorded_are_out_of_scope(name: str, value: str) -> None:
    with pytest.raises(OutOfScope, match=name):
        schedule_of({name: value}, rows=8)
