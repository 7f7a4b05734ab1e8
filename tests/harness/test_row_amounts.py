"""Rows against what the config asks of them: refused where it can have nothing of it."""

from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.plan import EvalPlan
from tests.harness.data_world import Answered, ask, data_of, plan_of, talk, talks

STEPS: dict[str, Any] = {"eval_strategy": "steps"}
DROP: dict[str, Any] = {**STEPS, "dataloader_drop_last": True}


def asked_about(folder: Path, train: int, evaluation: int, **arguments: Any) -> Answered:
    """Ask about a file of rows to train on and one of rows to evaluate on."""
    held_out = [talk(number) for number in range(1000, 1000 + evaluation)]
    return ask(folder, plan_of(data_of(folder, talks(train), held_out), **arguments))


def keys(answered: Answered) -> list[str]:
    return [problem.where for problem in answered.problems]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {**DROP, "per_device_train_batch_size": 64, "per_device_eval_batch_size": 4},
            "drops all 60 train rows",
        ),
        ({**DROP, "per_device_eval_batch_size": 16}, "drops all 12 eval rows"),
    ],
)
def test_a_batch_that_is_always_dropped_is_refused(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    answered = asked_about(tmp_path, 60, 12, **arguments)

    assert keys(answered) == ["trainer.extra.dataloader_drop_last"]
    assert words in answered.text


@pytest.mark.parametrize(
    "arguments",
    [
        {**DROP, "per_device_train_batch_size": 60, "per_device_eval_batch_size": 12},
        {**DROP, "per_device_train_batch_size": 64, "packing": True},
        {**DROP, "per_device_eval_batch_size": 16, "eval_strategy": "no"},
        {**STEPS, "per_device_train_batch_size": 64, "per_device_eval_batch_size": 16},
    ],
)
def test_a_batch_that_is_filled_or_not_dropped_passes(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    assert keys(asked_about(tmp_path, 60, 12, **arguments)) == []


def test_an_accumulation_that_all_epochs_cannot_fill_is_refused(tmp_path: Path) -> None:
    few = {"per_device_train_batch_size": 8, "num_train_epochs": 3, "max_steps": -1}

    answered = asked_about(tmp_path, 64, 9, gradient_accumulation_steps=25, **few)

    assert keys(answered) == ["trainer.gradient_accumulation_steps"]
    assert "sum 25 batches, and all epochs together have 24" in answered.text
    assert "to at most 8" in answered.text


@pytest.mark.parametrize(
    ("rows", "arguments"),
    [
        (64, {"gradient_accumulation_steps": 24}),
        (64, {"gradient_accumulation_steps": 25, "max_steps": 9}),
        (64, {"gradient_accumulation_steps": 25, "packing": True}),
        (8, {"gradient_accumulation_steps": 16}),
        (64, {"per_device_train_batch_size": 512}),
    ],
)
def test_a_step_of_a_whole_epoch_passes(
    tmp_path: Path, rows: int, arguments: dict[str, Any]
) -> None:
    usual = {"per_device_train_batch_size": 8, "num_train_epochs": 3, "max_steps": -1}

    assert keys(asked_about(tmp_path, rows, 9, **{**usual, **arguments})) == []


def test_a_step_that_asks_for_more_rows_than_there_are_is_told(tmp_path: Path) -> None:
    usual = {"gradient_accumulation_steps": 1, "max_steps": -1}

    more = asked_about(tmp_path, 60, 9, per_device_train_batch_size=64, **usual)
    all_of_them = asked_about(tmp_path, 60, 9, per_device_train_batch_size=60, **usual)

    assert "a step asks for 64 rows and gets the 60 there are, once an epoch" in more.summary
    assert "a step asks" not in all_of_them.summary


def test_a_share_that_is_no_row_is_refused(tmp_path: Path) -> None:
    data = data_of(tmp_path, talks(60), eval=EvalPlan(fraction=0.001))

    answered = ask(tmp_path, plan_of(data, **STEPS))

    assert keys(answered) == ["data.eval.fraction"]
    assert "0.001 of 60 rows is less than one row" in answered.text


@pytest.mark.parametrize(("rows", "fraction"), [(60, 0.01), (9, 0.01), (60, 0.1)])
def test_a_share_of_a_row_or_of_a_first_try_passes(
    tmp_path: Path, rows: int, fraction: float
) -> None:
    data = data_of(tmp_path, talks(rows), eval=EvalPlan(fraction=fraction))

    assert keys(ask(tmp_path, plan_of(data, **STEPS))) == []


def test_a_single_row_to_choose_by_is_told(tmp_path: Path) -> None:
    assert "chosen by a single eval row" in asked_about(tmp_path, 20, 1, **STEPS).summary
    assert "single eval row" not in asked_about(tmp_path, 20, 2, **STEPS).summary


def test_what_the_amounts_say_is_asked_again_of_rows_that_are_remembered(tmp_path: Path) -> None:
    rows, home = data_of(tmp_path, talks(60)), tmp_path / "home"

    passed = ask(tmp_path, plan_of(rows, per_device_train_batch_size=8), home)
    refused = ask(tmp_path, plan_of(rows, per_device_train_batch_size=64, **DROP), home)

    assert keys(passed) == []
    assert refused.details["cached"]
    assert keys(refused) == ["trainer.extra.dataloader_drop_last"]
