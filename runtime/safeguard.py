"""What makes a trainer survive: signals, full disks, gradients that are no numbers, restarts.

A checkpoint carries, inside the trainer's own state, what the trainer itself forgets: the loss not
yet logged, whether the run was over, and whether an evaluation is still to be made. So a run that
was stopped at any step goes on exactly as if it had not been.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.callback import StopRequest
from podproof.runtime.checkpoints import CHECKPOINT_RECORD, weights_damage
from podproof.runtime.deadline import DeadlineWatch
from podproof.runtime.errors import DiskFull, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.failures import is_disk_full
from podproof.runtime.plan import NonfinitePlan
from podproof.runtime.reporter import Report
from podproof.runtime.sealing import CheckpointSealer

# The class a safeguarded trainer is mixed with is imported late, and so has no name here.
_StockTrainer: Any = object


class EvaluationLeftError(Exception):
    """A stop was asked for in the middle of an evaluation; caught where the evaluation began."""


@dataclass
class Safeguard:
    """What a safeguarded trainer is given, and what it found out.

    `write_events` has the reporter write what it was told so far, and returns soon in any case.
    `stop_reason` says why the trainer ended the run by itself; `nonfinite_steps` counts steps
    whose gradients were not finite, `nonfinite_in_a_row` the latest of them.
    """

    stop: StopRequest
    plan: NonfinitePlan
    sealer: CheckpointSealer
    report: Report
    config_sha256: str
    deadline: DeadlineWatch
    write_events: Callable[[], None]
    stop_reason: str | None = None
    nonfinite_steps: int = 0
    nonfinite_in_a_row: int = 0
    is_poisoned: bool = False
    is_evaluation_due: bool = False
    saved_step: int | None = None


class SafeguardedTrainer(_StockTrainer):  # type: ignore[misc]  # its base is Any, see there
    """Mixed in front of a TRL trainer; `safeguard` is set before training begins."""

    safeguard: Safeguard

    def on_train_begin(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Go on where the checkpoint was saved; called as a hook, after the score is rebuilt."""
        import torch

        # Of the micro-batches since the last log: how many there were, and how many were finite.
        self.micro_batches = torch.zeros(2, device=self.args.device)
        self.safeguard.stop.is_awaited = True
        record = state.stateful_callbacks.get(CHECKPOINT_RECORD) or {}
        if "window" in record:
            loss, self._globalstep_last_logged, *counts = record["window"]
            self._tr_loss += loss
            self.micro_batches += torch.tensor(counts, device=self.args.device)
        is_complete = state.global_step >= state.max_steps
        control.should_training_stop |= record.get("is_over", False) or is_complete
        if record.get("is_evaluation_due"):
            # The random numbers go on from where they were, or the checkpoint that is now saved
            # again would hold others than those of a run that was not stopped.
            self._load_rng_state(f"{self.args.output_dir}/checkpoint-{state.global_step}")
            control.should_evaluate = control.should_save = True
            since = time.time()
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model, None, state.epoch, None, since
            )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a micro-batch, or zero for one that is not finite; count both.

        The stock trainer puts the average so far in the place of such a loss, which shows as a
        loss of zero, or of half its size.
        """
        import torch

        loss = super().training_step(*args, **kwargs)
        finite = torch.isfinite(loss)
        self.micro_batches += torch.stack([torch.ones_like(finite), finite])
        return torch.where(finite, loss, torch.zeros_like(loss))

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Log; a train loss becomes the mean over the micro-batches that were finite."""
        if "loss" in logs:
            # Over all ranks: the logged loss enters the score, which must be the same on each.
            every, finite = self.accelerator.reduce(self.micro_batches).tolist()
            self.micro_batches.zero_()
            if finite < every:
                logs["loss"] = logs["loss"] * every / finite if finite else math.nan
                logs["nonfinite_microbatches"] = int(every - finite)
            if self.safeguard.nonfinite_steps:
                logs["nonfinite_steps"] = self.safeguard.nonfinite_steps
        if self.args.fp16 and not math.isfinite(logs.get("grad_norm", 0.0)):
            # Under this name it is no sign of a loss that is none, see `_get_grad_norm`.
            logs["overflowed_grad_norm"] = logs.pop("grad_norm")
        super().log(logs, *args, **kwargs)

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate a batch; leave the evaluation at once when a stop was asked for."""
        is_left = self.safeguard.stop.reason is not None and self.control.should_evaluate
        if is_left and self.args.world_size == 1:
            raise EvaluationLeftError
        return super().prediction_step(*args, **kwargs)

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        # The norm of all gradients, over all ranks and shards, just before the optimizer's step.
        norm = super()._get_grad_norm(*args, **kwargs)
        # With fp16 gradients overflow by design; its scaler skips those steps by itself.
        if not self.args.fp16:
            self._judge_gradients(float(norm))
        return norm

    def _judge_gradients(self, norm: float) -> None:
        guard = self.safeguard
        # DeepSpeed has made its step by now; whether it dropped it shows by the next norm.
        is_skipped = guard.plan.skip_step and not self.is_deepspeed_enabled
        if math.isfinite(norm):
            guard.nonfinite_in_a_row = 0
            guard.is_poisoned &= not self.is_deepspeed_enabled
            return
        guard.nonfinite_steps += 1
        guard.nonfinite_in_a_row += 1
        if is_skipped:
            # An optimizer passes over weights without a gradient, decay and moments included.
            self.optimizer.zero_grad(set_to_none=True)
        guard.is_poisoned = not is_skipped
        if guard.nonfinite_in_a_row >= guard.plan.max_consecutive:
            self.control.should_training_stop = True
            count = guard.nonfinite_in_a_row
            guard.stop_reason = f"{count} steps in a row had gradients that are not finite"
        if self.state.is_world_process_zero and guard.nonfinite_steps == 1:
            fate = "skipped" if is_skipped else "taken, which ruins the weights"
            if self.is_deepspeed_enabled:
                fate = "left to DeepSpeed, and nothing is saved until they are finite"
            what = f"gradients that are not finite: the step was {fate}; the log counts such steps"
            step = self.state.global_step + 1
            guard.report(EventKind.NOTICE, step=step, body={"what": what, "count": 1})

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        import torch

        if self.safeguard.stop.reason is not None:
            self._save_and_stop()
        # Weights that are no numbers must not take the place of a checkpoint that is good.
        if self.safeguard.is_poisoned:
            self.control.should_save = False
        random_state = torch.get_rng_state()
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except EvaluationLeftError:
            # It had drawn a seed for its loader; the evaluation that is made up for draws again.
            torch.set_rng_state(random_state)
            self._save_and_stop()
            super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save_and_stop(self) -> None:
        """Have this step saved, once, without the evaluation that is due: a resumed run makes it.

        An epoch's evaluation and log come after the step that ends it; they are foreseen here.
        """
        control, state, args = self.control, self.state, self.args
        control.should_training_stop = True
        if self.safeguard.saved_step == state.global_step:
            control.should_log = control.should_evaluate = control.should_save = False
            return
        is_epoch_over = state.epoch == int(state.epoch) or state.global_step >= state.max_steps
        is_due = args.eval_strategy == "epoch" and is_epoch_over
        self.safeguard.is_evaluation_due = control.should_evaluate or is_due
        control.should_log |= args.logging_strategy == "epoch" and is_epoch_over
        control.should_evaluate = False
        control.should_save = True

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        guard, step = self.safeguard, self.state.global_step
        # Of what a checkpoint remembers, a resumed run says nothing again: the file has it before.
        guard.write_events()
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if self.args.should_save:
            guard.sealer.break_seal(folder)
        self.state.stateful_callbacks[CHECKPOINT_RECORD] = self._record()
        try:
            super()._save_checkpoint(*args, **kwargs)
        except Exception as error:
            self._clear_away(folder, error)
            raise
        # Only now have all ranks written what is theirs.
        self.accelerator.wait_for_everyone()
        guard.saved_step = step
        if self.args.should_save:
            guard.sealer.seal(folder)

    def _record(self) -> dict[str, Any]:
        import torch

        window = torch.cat([self._tr_loss.float().reshape(1), self.micro_batches])
        loss, *counts = self.accelerator.reduce(window, reduction="mean").tolist()
        guard = self.safeguard
        return {
            "config_sha256": guard.config_sha256,
            "window": [loss, self._globalstep_last_logged, *counts],
            # Told to stop, or out of time, it is not over: another start would go on.
            "is_over": self.control.should_training_stop
            and guard.stop.reason is None
            and guard.deadline.reason is None,
            "is_evaluation_due": guard.stop.reason is not None and guard.is_evaluation_due,
        }

    def _clear_away(self, folder: Path, error: Exception) -> None:
        """Remove what was half written, so that the next start finds whole checkpoints only."""
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        if is_disk_full(error):
            way_out = "free some space, or lower trainer.save_total_limit; then start again"
            what = f"the disk is full: {error}"
            raise DiskFull(Problem(str(folder), what, way_out)) from error

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A run that was over when it was saved has no step left, though it had not come to its end.
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self.safeguard.stop.is_awaited = False
        # With a limit of one the newest checkpoint would go before anything is delivered, and with
        # it what a run that was stopped goes on from.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        ended = super()._finalize_training(*args, **kwargs)
        self.args.save_total_limit = limit
        return ended

    def _load_best_model(self) -> None:
        # What is delivered are files; damaged ones are passed over there, and must not end the run.
        is_sound = weights_damage(Path(self.state.best_model_checkpoint)) is None
        if is_sound and self.safeguard.stop.reason is None:
            super()._load_best_model()
