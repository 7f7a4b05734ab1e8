"""What the simulated trainer makes of losses, of metrics, and of too little memory."""

import math
from typing import Any

import pytest

from podproof.harness.loss_window import LossWindow
from podproof.harness.schedule import Schedule
from podproof.harness.simulator import METHOD_KEYS, SimulatedTrainer, TrainerState
from podproof.harness.stream_events import StreamEvent
from podproof.harness.trainer_loop import OutOfMemory, TrainerLoop
from podproof.harness.trainer_state import CheckpointFolder
from podproof.runtime.plan import MethodName
from tests.harness.drawn_runs import Recorder, run

# What the trainer makes of losses.


def logged(**changes: Any) -> list[dict[str, Any]]:
    return SimulatedTrainer(run(**changes), object()).train().state.log_history


def train_losses(history: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def test_a_train_log_is_the_mean_of_the_steps_since_the_last() -> None:
    history = logged(step_losses=(1.0, 3.0, 4.0, 6.0), max_steps=4)

    assert train_losses(history) == [2.0, 5.0]
    assert history[-1]["train_loss"] == 3.5


def test_a_window_of_nothing_but_nan_logs_zero() -> None:
    assert train_losses(logged(step_losses=(math.nan,), max_steps=4)) == [0.0, 0.0]


def test_a_nan_in_a_window_counts_as_its_average_so_far() -> None:
    # After one step of loss 2 the window is divided by 1 + 1.
    assert train_losses(logged(step_losses=(2.0, math.nan), max_steps=2)) == [1.5]


def test_without_the_filter_one_nan_makes_every_later_log_nan() -> None:
    losses = train_losses(
        logged(step_losses=(2.0, math.nan, 2.0), logging_nan_inf_filter=False, max_steps=6)
    )

    assert all(map(math.isnan, losses))


def test_the_final_log_has_the_metrics_of_steps_that_no_log_told() -> None:
    stopped = logged(max_steps=3, eval_strategy="no")[-1]
    evaluated = logged(max_steps=3)[-1]

    assert METHOD_KEYS[MethodName.SFT][0] in stopped
    assert METHOD_KEYS[MethodName.SFT][0] not in evaluated


def test_a_train_log_after_an_evaluation_lacks_the_metrics_of_training() -> None:
    # The log at the end of the epoch finds the model in evaluation mode.
    history = logged(logging_strategy="epoch", max_steps=2)

    assert "entropy" not in next(entry for entry in history if "loss" in entry)


def test_a_window_that_nobody_measured_knows_no_loss() -> None:
    window = LossWindow(filters_nonfinite=True, step=0)

    window.add(None, 0)
    window.drain(1)

    assert (window.logged_loss, window.train_loss(1)) == (None, None)


# Out of memory.


class OutOfMemoryAbove:
    """Losses of a model that has room for so many rows a batch."""

    def __init__(self, room: int) -> None:
        self.room = room

    def micro_loss(self, state: TrainerState) -> float | None:
        if (state.train_batch_size or 0) > self.room:
            raise OutOfMemory("CUDA out of memory.")
        return 1.0

    def train_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        return {"loss": window.logged_loss}

    def eval_logs(self, eval_set: str, state: TrainerState) -> dict[str, Any]:
        return {"eval_runtime": 1.0}

    def final_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        return {"train_loss": window.train_loss(state.global_step)}


def trained_with_room(room: int, **changes: Any) -> list[StreamEvent]:
    recorder = Recorder()
    schedule = Schedule(rows=8, per_device_train_batch_size=4, num_train_epochs=1, **changes)
    folder = CheckpointFolder("/out")
    TrainerLoop(schedule, OutOfMemoryAbove(room), [recorder], folder).train()
    return recorder.events


def test_a_smaller_batch_is_tried_from_the_beginning() -> None:
    events = trained_with_room(2, auto_find_batch_size=True)

    begun = [event.train_batch_size for event in events if event.letter == "B"]
    assert (begun, events[-1].step) == ([4, 3, 2], 4)


def test_without_that_argument_running_out_of_memory_ends_the_run() -> None:
    with pytest.raises(OutOfMemory):
        trained_with_room(2)


def test_a_batch_that_cannot_get_smaller_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="reached zero"):
        trained_with_room(0, auto_find_batch_size=True)
