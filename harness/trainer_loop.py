"""The training loop of transformers without training: its events, its state, its flags.

Follows `Trainer._inner_training_loop`, `_run_epoch`, `_maybe_log_save_evaluate`, `evaluate`,
`_save_checkpoint` and `_finalize_training` of transformers 5.23, with DefaultFlowCallback before
every callback of the user's.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, Protocol

from podproof.harness.loss_window import LossWindow
from podproof.harness.schedule import Schedule
from podproof.harness.trainer_state import CheckpointFolder, TrainerControl, TrainerState

EVENTS = (
    "on_init_end",
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_epoch_end",
    "on_prediction_step",
    "on_log",
    "on_evaluate",
    "on_predict",
    "on_push_begin",
    "on_save",
    "on_train_end",
)

_SAVING_STRATEGIES = frozenset({"steps", "epoch", "best"})


class OutOfMemory(RuntimeError):
    """What a model raises that `auto_find_batch_size` answers with a smaller batch."""


class LossSource(Protocol):
    """What the trainer cannot know beforehand: the numbers a model brings about."""

    def micro_loss(self, state: TrainerState) -> float | None:
        """Train on a micro-batch; return its loss where it is known. May raise, as models do."""

    def train_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        """Return a train log without its epoch, of the window that was just drained."""

    def eval_logs(self, eval_set: str, state: TrainerState) -> dict[str, Any]:
        """Return the metrics of one eval set without the epoch."""

    def final_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        """Return the summary of the run without the epoch."""


class TrainerLoop:
    """A trainer with this schedule, these losses and these callbacks, in this output folder.

    Whatever a callback or the loss source raises leaves `train` as it leaves a real trainer:
    without another event. Then `state`, `control`, `folder` and `saved` show how far it came.
    """

    def __init__(
        self,
        schedule: Schedule,
        losses: LossSource,
        callbacks: Iterable[object],
        folder: CheckpointFolder,
        *,
        is_first_rank: bool = True,
    ) -> None:
        """Build the trainer, which fires on_init_end."""
        self.schedule = schedule
        self.losses = losses
        self.folder = folder
        self.is_first_rank = is_first_rank
        self.args = SimpleNamespace(output_dir=folder.output_dir, **asdict(schedule))
        self.state = TrainerState(0, is_world_process_zero=is_first_rank)
        self.control = TrainerControl()
        self.window = LossWindow(filters_nonfinite=schedule.logging_nan_inf_filter, step=0)
        self.saved: list[int] = []
        self.events = 0
        self._logs_by_step = schedule.logging_strategy == "steps"
        self._evaluates_by_step = schedule.eval_strategy == "steps"
        self._saves_by_step = schedule.save_strategy == "steps"
        self._hooks = _hooks_by_event(tuple(callbacks))
        self._fire("on_init_end")

    def train(self, resume: TrainerState | None = None, until_step: int | None = None) -> bool:
        """Run to the end, or stop dead after `until_step`; return whether it came to the end.

        `resume` is the state in the checkpoint to go on from. Raises KeyError when the metric for
        the best model is not among those of an evaluation.
        """
        while True:
            try:
                return self._run(resume, until_step)
            except OutOfMemory:
                if not self.schedule.auto_find_batch_size:
                    raise
                self.schedule = self.schedule.with_smaller_batch()

    def evaluate(self) -> dict[str, Any]:
        """Evaluate every set; return their metrics laid over each other, as the trainer does."""
        merged: dict[str, Any] = {}
        for name, batches in self.schedule.eval_sets:
            self.window.is_training_mode = False
            for _ in range(batches):
                self._fire("on_prediction_step")
            metrics = self.losses.eval_logs(name, self.state)
            self._log(metrics)
            self.control.should_evaluate = False
            self._fire("on_evaluate", metrics=metrics)
            merged.update(metrics)
        return merged

    def predict(self, batches: int, metrics: dict[str, Any]) -> None:
        """Fire what a prediction fires; it logs nothing."""
        for _ in range(batches):
            self._fire("on_prediction_step")
        self._fire("on_predict", metrics=metrics)

    def push(self) -> None:
        """Fire what a push to the hub fires."""
        self._fire("on_push_begin")

    def write_checkpoint(self) -> None:
        """Write the checkpoint of this step and rotate, which by itself fires no on_save."""
        schedule, state, step = self.schedule, self.state, self.state.global_step
        self.folder.write(step)
        best = state.best_global_step
        if schedule.save_strategy in _SAVING_STRATEGIES and best and best in self.folder:
            state.best_model_checkpoint = self.folder.path(best)
        if self.pushes():
            self.push()
        # On another rank it is the first that deletes, at the same time.
        self.folder.rotate(schedule.save_total_limit, state.best_model_checkpoint)

    def pushes(self) -> bool:
        """Return whether a checkpoint is pushed; the last push is taken to be over by then."""
        schedule = self.schedule
        return schedule.push_to_hub and self.is_first_rank and schedule.hub_strategy != "end"

    def _run(self, resume: TrainerState | None, until_step: int | None) -> bool:
        schedule = self.schedule
        self.state = state = self._state_at_begin(resume)
        first_epoch, done = divmod(state.global_step, schedule.updates_per_epoch)
        self.window = LossWindow(
            filters_nonfinite=schedule.logging_nan_inf_filter, step=state.global_step
        )
        self.control.should_training_stop = False
        self._fire("on_train_begin")
        if schedule.eval_on_start:
            self.evaluate()  # which the trainer leaves out when it looks for the best
        for epoch in range(first_epoch, schedule.epochs):
            self.control.should_epoch_stop = False
            self._fire("on_epoch_begin")
            is_resumed = epoch == first_epoch and not schedule.ignore_data_skip
            if self._epoch(epoch, done if is_resumed else 0, until_step):
                return False
            if self.control.should_training_stop:
                break
        self._finish()
        return True

    def _state_at_begin(self, resume: TrainerState | None) -> TrainerState:
        schedule = self.schedule
        if resume is None:
            state = TrainerState(
                schedule.last_step,
                logging_steps=schedule.steps("logging"),
                eval_steps=schedule.steps("eval"),
                save_steps=schedule.steps("save"),
                train_batch_size=schedule.per_device_train_batch_size,
            )
        else:
            # The steps between logs, evaluations and saves stay those of the checkpoint.
            state = resume.read_back()
            state.max_steps = schedule.last_step
            best = state.best_model_checkpoint
            if best is not None and best not in map(self.folder.path, self.folder.steps):
                state.best_model_checkpoint = None
        state.num_train_epochs = schedule.epochs
        state.is_world_process_zero = self.is_first_rank
        return state

    def _epoch(self, epoch: int, done: int, until_step: int | None) -> bool:
        """Run an epoch from its update number `done`; return whether it was cut off for good."""
        batches = self.schedule.batches_per_epoch
        accumulation = self.schedule.gradient_accumulation_steps
        for first in range(done * accumulation, batches, accumulation):
            self._update(epoch, first, min(first + accumulation, batches), batches)
            if self.state.global_step == until_step:
                return True
            if self.control.should_training_stop or self.control.should_epoch_stop:
                break
        if not batches:
            self.control.should_training_stop = True
        self._set_flags_after_epoch()
        self._fire("on_epoch_end")
        self._log_evaluate_save()
        return False

    def _update(self, epoch: int, first: int, end: int, batches: int) -> None:
        control = self.control
        control.should_log = control.should_evaluate = control.should_save = False
        self._fire("on_step_begin")
        for batch in range(first, end):
            self.window.add(self.losses.micro_loss(self.state), self.state.global_step)
            if batch < end - 1:
                self._fire("on_substep_end")
                if self.control.should_training_stop or self.control.should_epoch_stop:
                    return
        self._fire("on_pre_optimizer_step")
        self._fire("on_optimizer_step")
        self.state.global_step += 1
        self.state.epoch = epoch + end / batches
        self._set_flags_after_step()
        self._fire("on_step_end")
        control = self.control
        if control.should_log or control.should_evaluate or control.should_save:
            self._log_evaluate_save()

    def _set_flags_after_step(self) -> None:
        # DefaultFlowCallback.on_step_end, which runs before user callbacks. The last step
        # evaluates and saves even off the grid.
        state, control = self.state, self.control
        step = state.global_step
        is_last = step >= state.max_steps
        if self._logs_by_step and step % state.logging_steps == 0:
            control.should_log = True
        if step == 1 and self.schedule.logging_first_step:
            control.should_log = True
        if self._evaluates_by_step and (is_last or step % state.eval_steps == 0):
            control.should_evaluate |= self.schedule.eval_delay <= step
        if self._saves_by_step:
            is_due = state.save_steps > 0 and step % state.save_steps == 0
            control.should_save |= is_last or is_due
        if is_last:
            control.should_training_stop = True

    def _set_flags_after_epoch(self) -> None:
        # DefaultFlowCallback.on_epoch_end.
        schedule, control = self.schedule, self.control
        control.should_log |= schedule.logging_strategy == "epoch"
        control.should_save |= schedule.save_strategy == "epoch"
        if schedule.eval_strategy == "epoch":
            control.should_evaluate |= schedule.eval_delay <= self.state.epoch

    def _log_evaluate_save(self) -> None:
        state = self.state
        if self.control.should_log and state.global_step > self.window.last_logged_step:
            self.window.drain(state.global_step)
            self._log(self.losses.train_logs(state, self.window))
        if self.control.should_evaluate:
            is_best = self._compare(self.evaluate())
            if self.schedule.save_strategy == "best":
                self.control.should_save = is_best
        if self.control.should_save:
            self.write_checkpoint()
            self.saved.append(state.global_step)
            self.control.should_save = False
            self._fire("on_save")

    def _compare(self, metrics: Mapping[str, Any]) -> bool:
        """Keep the best metric as `Trainer._determine_best_metric` does: strictly, NaN never."""
        schedule, state = self.schedule, self.state
        key = schedule.best_metric_key
        if key is None:
            return False
        if key not in metrics:
            found = list(metrics)
            raise KeyError(f"metric_for_best_model is {key!r}, and an evaluation gave {found}")
        value, is_greater = metrics[key], bool(schedule.greater_is_better)
        if state.best_metric is None:
            state.best_metric = -math.inf if is_greater else math.inf
        is_best = value > state.best_metric if is_greater else value < state.best_metric
        if is_best:
            state.best_metric = value
            if schedule.save_strategy in _SAVING_STRATEGIES:
                state.best_global_step = state.global_step
        return bool(is_best)

    def _finish(self) -> None:
        self.window.take_metrics()
        self._log(self.losses.final_logs(self.state, self.window))
        best = self.state.best_model_checkpoint
        if self.schedule.save_total_limit == 1 and best is not None:
            self.folder.keep_only(best)
        self._fire("on_train_end")

    def _log(self, logs: dict[str, Any]) -> None:
        logs["epoch"] = self.state.epoch
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control.should_log = False
        self._fire("on_log", logs=logs)

    def _fire(self, event: str, **given: Any) -> None:
        self.events += 1
        for hook in self._hooks[event]:
            control = hook(self.args, self.state, self.control, model=None, **given)
            if control is not None:
                self.control = control


def _hooks_by_event(callbacks: tuple[object, ...]) -> Mapping[str, tuple[Callable[..., Any], ...]]:
    found = {event: [getattr(each, event, None) for each in callbacks] for event in EVENTS}
    return {event: tuple(hook for hook in hooks if hook) for event, hooks in found.items()}
