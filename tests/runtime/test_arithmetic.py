"""The arithmetic of a run, against what transformers counts (see test_trainers for the proof)."""

from typing import Any

import pytest

from podproof.runtime.arithmetic import Arithmetic, arithmetic
from podproof.runtime.plan import (
    AdapterPlan,
    DataPlan,
    MethodName,
    ModelPlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    ScorerPlan,
)


def counted(rows: int, gpu_count: int = 1, node_count: int = 1, **arguments: Any) -> Arithmetic:
    plan = Plan(
        name="numbers",
        seed=1,
        method=MethodName.SFT,
        model=ModelPlan(),
        data=DataPlan(),
        adapter=AdapterPlan(),
        arguments=arguments,
        scorer=ScorerPlan(),
        recovery=RecoveryPlan(),
        predictions=PredictionsPlan(),
        report=ReportPlan(),
        publish=PublishPlan(),
        gpu_count=gpu_count,
        node_count=node_count,
        config_sha256="0",
    )
    return arithmetic(plan, rows)


def test_the_batch_is_told_as_a_product() -> None:
    numbers = counted(100, 2, per_device_train_batch_size=4, gradient_accumulation_steps=8)

    assert numbers.describe()[0] == "batch 4 x accumulation 8 x 2 GPUs = 64 sequences per step"


def test_the_whole_run_is_told() -> None:
    numbers = counted(
        100,
        per_device_train_batch_size=4,
        num_train_epochs=2,
        eval_strategy="steps",
        eval_steps=20,
        save_steps=50,
    )

    assert numbers.describe() == (
        "batch 4 x accumulation 1 x 1 GPU = 4 sequences per step",
        "100 rows = 25 steps per epoch",
        "50 steps in all, 3 evaluations, 1 save",
    )


def test_every_gpu_of_every_node_takes_its_batch() -> None:
    cluster = counted(960, gpu_count=8, node_count=3, per_device_train_batch_size=4)

    assert (cluster.sequences_per_step, cluster.steps_per_epoch) == (96, 10)


def test_a_pod_without_a_gpu_counts_one_process() -> None:
    assert counted(10, 0, per_device_train_batch_size=2).sequences_per_step == 2


@pytest.mark.parametrize(
    ("rows", "gpu_count", "arguments", "per_epoch"),
    [
        (10, 1, {"per_device_train_batch_size": 4}, 3),
        (10, 1, {"per_device_train_batch_size": 4, "dataloader_drop_last": True}, 2),
        (10, 1, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}, 3),
        (10, 4, {"per_device_train_batch_size": 1}, 3),
        (3, 1, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8}, 1),
        (10, 1, {}, 2),
    ],
)
def test_steps_per_epoch_are_rounded_up(
    rows: int, gpu_count: int, arguments: dict[str, Any], per_epoch: int
) -> None:
    assert counted(rows, gpu_count, **arguments).steps_per_epoch == per_epoch


def test_max_steps_win_over_epochs() -> None:
    assert counted(100, max_steps=7, num_train_epochs=3).total_steps == 7


def test_a_part_of_an_epoch_is_rounded_up_to_a_step() -> None:
    assert counted(10, per_device_train_batch_size=1, num_train_epochs=0.25).total_steps == 3


def test_packing_makes_the_steps_unknowable() -> None:
    numbers = counted(100, packing=True, num_train_epochs=1, eval_strategy="steps", eval_steps=5)

    assert (numbers.steps_per_epoch, numbers.total_steps, numbers.evaluations) == (None, None, None)
    assert "unknown steps in all" in numbers.describe()[2]


def test_packing_with_max_steps_is_known_but_for_its_epochs() -> None:
    numbers = counted(100, packing=True, max_steps=9, eval_strategy="steps", eval_steps=5)

    assert (numbers.steps_per_epoch, numbers.total_steps, numbers.evaluations) == (None, 9, 2)


@pytest.mark.parametrize(
    ("arguments", "evaluations"),
    [
        ({}, 0),
        ({"eval_strategy": "steps", "eval_steps": 5}, 4),
        ({"eval_strategy": "steps", "eval_steps": 6}, 4),
        ({"eval_strategy": "steps", "eval_steps": 0.25}, 4),
        ({"eval_strategy": "steps", "logging_steps": 10}, 2),
        ({"eval_strategy": "epoch"}, 2),
        ({"eval_strategy": "steps", "eval_steps": 5, "eval_on_start": True}, 5),
    ],
)
def test_evaluations_include_the_last_step(arguments: dict[str, Any], evaluations: int) -> None:
    numbers = counted(10, per_device_train_batch_size=1, num_train_epochs=2, **arguments)

    assert numbers.evaluations == evaluations


@pytest.mark.parametrize(
    ("arguments", "saves"),
    [
        ({}, 1),
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "epoch"}, 2),
        ({"save_strategy": "best"}, None),
        ({"save_steps": 8}, 3),
    ],
)
def test_saves_include_the_last_step(arguments: dict[str, Any], saves: int | None) -> None:
    numbers = counted(10, per_device_train_batch_size=1, num_train_epochs=2, **arguments)

    assert numbers.saves == saves
