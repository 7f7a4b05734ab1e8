"""A trainer's event stream without a trainer: the order, the state and the flags, in plain Python.

Written after the events of transformers 5.23 as recorded from real trainers: per update
on_step_begin, on_pre_optimizer_step, on_optimizer_step, on_step_end, then, in this order, a train
log, an evaluation (on_log and on_evaluate with the same dictionary), the comparison with the best,
a save. The last step of a step-based run evaluates and saves even off the grid. Several eval sets
log one after the other, and the trainer lays their metrics over each other. Out of scope here: hub
pushes, and what several ranks say to each other.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from podproof.runtime.plan import MethodName

OUTPUT = "/simulated"

# Keys beside `loss` that TRL 1.16 logs for each method, as measured.
_PREFERENCE_KEYS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
)
METHOD_KEYS: Mapping[MethodName, tuple[str, ...]] = {
    MethodName.SFT: ("entropy", "mean_token_accuracy", "num_tokens"),
    MethodName.DPO: ("entropy", "num_tokens", "mean_token_accuracy", *_PREFERENCE_KEYS),
    MethodName.ORPO: (*_PREFERENCE_KEYS, "nll_loss", "log_odds_ratio", "log_odds_chosen"),
}


@dataclass(frozen=True)
class Scenario:
    """A run to simulate: its schedule, and the losses the trainer will log.

    `train_losses` and `eval_losses` give the k-th train log's and evaluation's loss; past their
    end the last one is repeated. `drop_eval_loss_at` names evaluations (from 0) without any loss.
    Of several `eval_sets` the first has these losses; those of the others fall at every evaluation.
    `micro_batches` are those of one step; `taken_keys` are keys that a callback of the user's takes
    out of an evaluation's log. `seconds` is what an evaluation takes, which differs between ranks.
    """

    name: str
    method: MethodName
    max_steps: int = 20
    logging_steps: int = 5
    eval_steps: int = 5
    eval_strategy: str = "steps"
    train_losses: tuple[object, ...] = (2.0, 1.5, 1.0)
    eval_losses: tuple[object, ...] = (2.1, 1.6, 1.4, 1.5)
    drop_eval_loss_at: frozenset[int] = frozenset()
    eval_sets: tuple[str, ...] = ("",)
    micro_batches: int = 1
    taken_keys: frozenset[str] = frozenset()
    eval_on_start: bool = False
    seconds: float = 0.1
    is_first_rank: bool = True


@dataclass
class TrainerState:
    """The fields of transformers' TrainerState that callbacks read or change."""

    max_steps: int
    global_step: int = 0
    epoch: float = 0.0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_world_process_zero: bool = True


@dataclass
class TrainerControl:
    """The flags of transformers' TrainerControl."""

    should_training_stop: bool = False
    should_log: bool = False
    should_evaluate: bool = False
    should_save: bool = False


@dataclass(frozen=True)
class Simulated:
    """How a simulated run ended: its state, every checkpoint saved, and the events sent."""

    state: TrainerState
    saved_steps: tuple[int, ...]
    events: int


class SimulatedTrainer:
    """Fires a scenario's events at a callback and keeps the trainer's own books."""

    def __init__(self, scenario: Scenario, callback: Any, *, state: TrainerState | None = None):
        """Start fresh, or from the `state` that an earlier simulated run left behind."""
        self.scenario = scenario
        self.callback = callback
        self.state = _read_back(state) if state else TrainerState(scenario.max_steps)
        self.state.max_steps = scenario.max_steps
        self.state.is_world_process_zero = scenario.is_first_rank
        self.control = TrainerControl()
        self.args = SimpleNamespace(
            output_dir=OUTPUT, logging_steps=scenario.logging_steps, eval_steps=scenario.eval_steps
        )
        self.saved: list[int] = []
        self.events = 0

    def train(self, until_step: int | None = None) -> Simulated:
        """Run to the end, or stop dead after `until_step` as a killed process does."""
        self._fire("on_train_begin")
        if self.scenario.eval_on_start:
            self._evaluate()  # which the trainer leaves out when it looks for the best
        self._fire("on_epoch_begin")
        while self.state.global_step < self.scenario.max_steps:
            self._step()
            if self.state.global_step == until_step:
                return self._ended()
            if self.control.should_training_stop:
                break
        self._fire("on_epoch_end")
        self._log({"train_runtime": 1.0, "train_loss": 1.0, "epoch": self.state.epoch})
        self._fire("on_train_end")
        return self._ended()

    def _ended(self) -> Simulated:
        return Simulated(self.state, tuple(self.saved), self.events)

    def _step(self) -> None:
        self.control.should_log = self.control.should_evaluate = self.control.should_save = False
        self._fire("on_step_begin")
        for _ in range(self.scenario.micro_batches - 1):
            self._fire("on_substep_end")
        self._fire("on_pre_optimizer_step")
        self._fire("on_optimizer_step")
        self.state.global_step += 1
        self.state.epoch = self.state.global_step / self.scenario.max_steps
        self._set_flags()
        self._fire("on_step_end")
        if self.control.should_log:
            self._log(self._train_logs())
        if self.control.should_evaluate:
            self._compare(self._evaluate())
        if self.control.should_save:
            self.saved.append(self.state.global_step)
            self._fire("on_save")

    def _set_flags(self) -> None:
        # DefaultFlowCallback runs before user callbacks and decides by the step alone.
        step, scenario = self.state.global_step, self.scenario
        is_last = step >= scenario.max_steps
        self.control.should_log = step % scenario.logging_steps == 0
        due = step % scenario.eval_steps == 0 or is_last
        self.control.should_evaluate = due and scenario.eval_strategy != "no"
        self.control.should_save = due
        if is_last:
            self.control.should_training_stop = True

    def _train_logs(self) -> dict[str, Any]:
        count = sum("loss" in entry for entry in self.state.log_history)
        loss = _item(self.scenario.train_losses, count)
        rest = dict.fromkeys(METHOD_KEYS[self.scenario.method], 0.5)
        return {
            "loss": loss,
            "grad_norm": 1.0,
            "learning_rate": 1e-4,
            **rest,
            "epoch": self.state.epoch,
        }

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate every set; return their metrics laid over each other, as the trainer does."""
        runtime = _eval_key(self.scenario.eval_sets[0], "runtime")
        count = sum(runtime in entry for entry in self.state.log_history)
        merged: dict[str, Any] = {}
        for place, name in enumerate(self.scenario.eval_sets):
            self._fire("on_prediction_step")
            metrics = self._eval_logs(name, count, is_first=place == 0)
            self._log(metrics)
            for key in self.scenario.taken_keys:
                metrics.pop(key, None)
            self._fire("on_evaluate", metrics=metrics)
            merged |= metrics
        return merged

    def _eval_logs(self, name: str, count: int, *, is_first: bool) -> dict[str, Any]:
        logs: dict[str, Any] = {
            _eval_key(name, "runtime"): self.scenario.seconds * (count + 1),
            _eval_key(name, "samples_per_second"): 1 / self.scenario.seconds,
        }
        if count not in self.scenario.drop_eval_loss_at:
            loss = _item(self.scenario.eval_losses, count) if is_first else 1 / (count + 1)
            logs[_eval_key(name, "loss")] = loss
        logs |= {f"eval_{key}": 0.5 for key in METHOD_KEYS[self.scenario.method]}
        return {**logs, "epoch": self.state.epoch}

    def _compare(self, metrics: Mapping[str, Any]) -> None:
        # Trainer._determine_best_metric: a KeyError when the metric is absent, strict, NaN never.
        value = metrics["eval_checkpoint_score"]
        best = -math.inf if self.state.best_metric is None else self.state.best_metric
        if value > best:
            self.state.best_metric = value
            self.state.best_global_step = self.state.global_step
            self.state.best_model_checkpoint = f"{OUTPUT}/checkpoint-{self.state.global_step}"

    def _log(self, logs: dict[str, Any]) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._fire("on_log", logs=logs)

    def _fire(self, event: str, **kwargs: Any) -> None:
        self.events += 1
        hook: Callable[..., None] | None = getattr(self.callback, event, None)
        if hook is not None:
            hook(self.args, self.state, self.control, model=None, **kwargs)


def _item(values: tuple[object, ...], index: int) -> object:
    return values[min(index, len(values) - 1)]


def _eval_key(name: str, what: str) -> str:
    return f"eval_{name}_{what}" if name else f"eval_{what}"


def _read_back(state: TrainerState) -> TrainerState:
    """Return the state as a checkpoint gives it back: nothing in it is shared with the old one."""
    return replace(state, log_history=[dict(entry) for entry in state.log_history])
