"""Losses and gradients that are no numbers: the step is skipped, counted, and not without end."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.runtime.pod_process import Fault, PodFolder, plan_for, row_for

from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.deadline import DeadlineWatch
from podproof.runtime.events import EventKind
from podproof.runtime.plan import (
    MethodName,
    NonfinitePlan,
    Plan,
    PublishTo,
    RecoveryPlan,
    RowFormat,
)
from podproof.runtime.readings import read_log
from podproof.runtime.rows import Row, Rows
from podproof.runtime.safeguard import Safeguard, SafeguardedTrainer
from podproof.runtime.sealing import CheckpointSealer
from podproof.runtime.trainers import build_trainer

FOR_EVER = 10_000


def guarded(*, skip_step: bool = True, max_consecutive: int = 3, **arguments: Any) -> Plan:
    nonfinite = NonfinitePlan(skip_step=skip_step, max_consecutive=max_consecutive)
    return replace(plan_for(**arguments), recovery=RecoveryPlan(nonfinite=nonfinite))


def train_logs(pod: PodFolder) -> dict[int | None, Any]:
    return {event.step: event.body for event in pod.events(EventKind.TRAIN_LOG)}


def test_a_poisoned_step_is_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run", guarded(logging_steps=1))

    code = pod.run(Fault(at=5, is_poisoned=True))

    logs = train_logs(pod)
    assert code == 0
    assert logs[4].get("nonfinite_microbatches") is None
    assert (logs[5]["loss"], logs[5]["nonfinite_microbatches"]) == ("NaN", 1)
    assert [logs[step]["nonfinite_steps"] for step in range(5, 13)] == [1] * 8
    assert all(math.isfinite(logs[step]["grad_norm"]) for step in range(6, 13))
    assert pod.ending() == {"kind": "done", "best_step": 12, "final_step": 12}
    assert pod.notices() == [
        "gradients that are not finite: the step was skipped; the log counts such steps"
    ]


def test_the_weights_and_the_schedule_are_those_of_a_run_that_sat_the_step_out(
    tmp_path: Path,
) -> None:
    pod = PodFolder(tmp_path / "run", guarded(logging_steps=1))

    pod.run(Fault(at=5, is_poisoned=True))

    logs = train_logs(pod)
    rates = [logs[step]["learning_rate"] for step in range(1, 13)]
    state = json.loads((pod.output / "checkpoint-8" / "trainer_state.json").read_text())
    assert rates == pytest.approx([0.01 * (12 - step) / 12 for step in range(12)])
    assert all(math.isfinite(entry["eval_loss"]) for entry in evaluations(state))


def evaluations(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in state["log_history"] if "eval_loss" in entry]


def test_a_logged_loss_is_the_mean_of_what_was_finite(tmp_path: Path) -> None:
    # Of steps 4, 5 and 6, logged as one, the second is poisoned.
    each = PodFolder(tmp_path / "each", guarded(logging_steps=1))
    third = PodFolder(tmp_path / "third", guarded(logging_steps=3))

    each.run(Fault(at=5, is_poisoned=True))
    third.run(Fault(at=5, is_poisoned=True))

    mean = (each.losses()[4] + each.losses()[6]) / 2
    assert third.losses()[6] == pytest.approx(mean, abs=1e-4)
    assert train_logs(third)[6]["nonfinite_microbatches"] == 1


def test_too_many_in_a_row_end_the_run_with_the_best_checkpoint_so_far(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run", guarded())

    code = pod.run(Fault(at=6, passes=FOR_EVER, is_poisoned=True))

    (ended,) = pod.events(EventKind.STOPPED_EARLY)
    assert code == 0
    assert ended.body["reason"] == "3 steps in a row had gradients that are not finite"
    assert (ended.body["final_step"], ended.body["best_step"]) == (8, 8)
    assert (pod.output / "delivered" / "model.safetensors").is_file()


def test_a_run_without_one_good_step_ends_as_failed_and_says_why(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run", guarded())

    code = pod.run(Fault(passes=FOR_EVER, is_poisoned=True))

    (failed,) = pod.events(EventKind.FAILED)
    assert code == 4
    assert failed.body["problems"][0].startswith("3 steps in a row had gradients")
    assert pod.checkpoints() == []


def test_steps_that_are_not_skipped_ruin_no_checkpoint_and_are_counted_all_the_same(
    tmp_path: Path,
) -> None:
    plan = guarded(skip_step=False, max_consecutive=4, save_total_limit=1)
    pod = PodFolder(tmp_path / "run", plan)

    code = pod.run(Fault(at=6, is_poisoned=True))

    # Step 6 is taken; from then on every step is NaN. Step 8 is evaluated, and not saved.
    (ended,) = pod.events(EventKind.STOPPED_EARLY)
    assert code == 0
    assert (ended.body["final_step"], ended.body["best_step"]) == (9, 4)
    assert pod.checkpoints() == ["checkpoint-4"]
    assert "was taken, which ruins the weights" in pod.notices()[0]


def test_an_evaluation_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run")

    code = pod.run(Fault(at=5, passes=2, is_training=False, is_poisoned=True))

    assert code == 0
    assert pod.ending() == {"kind": "done", "best_step": 8, "final_step": 12}


@pytest.mark.parametrize(
    "method", [MethodName.DPO, pytest.param(MethodName.ORPO, marks=pytest.mark.slow)]
)
def test_every_method_skips_a_poisoned_step(tmp_path: Path, method: MethodName) -> None:
    plan = replace(guarded(logging_steps=1), method=method)
    pod = PodFolder(tmp_path / "run", plan)

    code = pod.run(Fault(at=5, is_poisoned=True))

    assert code == 0
    assert train_logs(pod)[12]["nonfinite_steps"] == 1
    assert pod.ending()["final_step"] == 12


# The row that ruins ORPO: its prompt fills max_length, so that its answer is cut to nothing, and
# its loss divides by the length of the answer. Our own check of the rows is gone around.


def test_the_row_that_ruins_orpo_costs_the_steps_that_meet_it_and_nothing_else(
    tmp_path: Path,
) -> None:
    plan = plan_for(MethodName.ORPO, logging_steps=1, num_train_epochs=1, max_length=64)
    logged: list[dict[str, Any]] = []
    trainer = orpo_trainer(plan, tmp_path, lambda kind, **event: logged.append({**event}))
    poisoned = trainer.tokenize_row({"prompt": "long " * 200, "chosen": "a", "rejected": "b"})
    rows = trainer.train_dataset.to_list()
    rows[7] = {**rows[7], **poisoned}
    trainer.train_dataset = type(trainer.train_dataset).from_list(rows)

    trainer.train()

    history = trainer.state.log_history
    skipped = [entry for entry in history if entry.get("nonfinite_microbatches")]
    assert set(poisoned["chosen_labels"]) == {-100}
    assert len(skipped) == 1
    assert math.isnan(skipped[0]["loss"])
    assert all(math.isfinite(entry["eval_loss"]) for entry in history if "eval_loss" in entry)
    assert all(bool(weights.isfinite().all()) for weights in trainer.model.parameters())


def orpo_trainer(plan: Plan, folder: Path, report: Callable[..., None]) -> Any:
    rows = [Row(f"rows:{number}", row_for(MethodName.ORPO, number)) for number in range(32)]
    stop = StopRequest()
    sealer, deadline = CheckpointSealer(report), DeadlineWatch({}, plan.publish.to)
    safeguard = Safeguard(
        stop, plan.recovery.nonfinite, sealer, report, plan.config_sha256, deadline, lambda: None
    )
    parted = Rows(tuple(rows[:24]), tuple(rows[24:]), RowFormat.PREFERENCE)
    callback = PodCallback(plan.scorer, report, stop)
    return build_trainer(plan, parted, folder, callback, safeguard).trainer


# Where others keep the gradients: DeepSpeed has made its step before its norm is known, and with
# fp16 the scaler skips the steps that overflow. Both need a GPU, so a stock trainer stands in.


class StockTrainer:
    """What a safeguarded trainer takes from the trainer it is mixed with."""

    def __init__(self, *, has_deepspeed: bool = False, has_fp16: bool = False) -> None:
        self.is_deepspeed_enabled = has_deepspeed
        self.args = SimpleNamespace(fp16=has_fp16)
        self.accelerator = SimpleNamespace(reduce=lambda counts: counts)
        self.micro_batches = torch.ones(2)
        self.optimizer = SimpleNamespace(zero_grad=lambda **_: self.dropped.append(True))
        self.state = SimpleNamespace(is_world_process_zero=True, global_step=5)
        self.control = SimpleNamespace(should_training_stop=False)
        self.dropped: list[bool] = []
        self.logged: list[dict[str, Any]] = []

    def _get_grad_norm(self, norm: float) -> float:
        return norm

    def log(self, logs: dict[str, Any]) -> None:
        self.logged.append(logs)


def stand_in(notices: list[str], **kinds: bool) -> Any:
    def report(kind: EventKind, *, body: Mapping[str, Any], **_event: Any) -> None:
        notices.append(body["what"])

    trainer = type("StandIn", (SafeguardedTrainer, StockTrainer), {})(**kinds)
    sealer, deadline = CheckpointSealer(report), DeadlineWatch({}, PublishTo.DIR)
    trainer.safeguard = Safeguard(
        StopRequest(), NonfinitePlan(), sealer, report, "c" * 64, deadline, lambda: None
    )
    return trainer


def test_of_a_step_that_deepspeed_made_it_is_not_said_that_it_was_skipped() -> None:
    notices: list[str] = []
    trainer = stand_in(notices, has_deepspeed=True)

    trainer._get_grad_norm(math.nan)

    assert trainer.safeguard.is_poisoned
    assert trainer.safeguard.nonfinite_steps == 1
    assert "the step was left to DeepSpeed, and nothing is saved until" in notices[0]


def test_a_step_that_deepspeed_dropped_by_itself_keeps_no_later_one_from_being_saved() -> None:
    trainer = stand_in([], has_deepspeed=True)

    trainer._get_grad_norm(math.nan)
    trainer._get_grad_norm(1.0)

    assert not trainer.safeguard.is_poisoned


def test_a_step_that_was_not_deepspeeds_is_skipped_and_said_to_be() -> None:
    notices: list[str] = []
    trainer = stand_in(notices)

    trainer._get_grad_norm(math.inf)

    assert (trainer.dropped, trainer.safeguard.is_poisoned) == ([True], False)
    assert "the step was skipped" in notices[0]


@pytest.mark.parametrize("kinds", [{}, {"has_deepspeed": True}])
def test_an_overflow_of_fp16_is_neither_counted_nor_read_as_a_loss_that_is_none(
    kinds: dict[str, bool],
) -> None:
    notices: list[str] = []
    trainer = stand_in(notices, has_fp16=True, **kinds)

    for norm in (math.inf, math.nan, 1.5):
        trainer._get_grad_norm(norm)
        trainer.log({"loss": 2.5, "grad_norm": norm, "step": 1})

    assert (trainer.safeguard.nonfinite_steps, notices) == (0, [])
    assert [read_log(logs).loss for logs in trainer.logged] == [2.5, 2.5, 2.5]
    assert trainer.logged[0]["overflowed_grad_norm"] == math.inf
    assert trainer.logged[2] == {"loss": 2.5, "grad_norm": 1.5, "step": 1}


def test_with_fp16_a_loss_that_is_no_number_still_shows() -> None:
    trainer = stand_in([], has_fp16=True)
    trainer.micro_batches = torch.tensor([2.0, 1.0])

    trainer.log({"loss": 1.0, "grad_norm": math.nan, "step": 1})

    assert read_log(trainer.logged[0]).loss is None


def test_without_fp16_a_norm_that_is_infinite_is_logged_as_it_is() -> None:
    trainer = stand_in([])

    trainer.log({"loss": 2.5, "grad_norm": math.inf, "step": 1})

    assert trainer.logged == [{"loss": 2.5, "grad_norm": math.inf, "step": 1}]
