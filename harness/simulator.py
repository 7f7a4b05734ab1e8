"""A trainer's event stream without a trainer: the order, the state and the flags, in plain Python.

Reproduced, event by event, is what transformers 5.23 does under TRL 1.16: see trainer_loop.py for
the loop, schedule.py for its arithmetic. Out of scope are stack-specific ways of loading and
saving (DeepSpeed, FSDP, an accelerator configured by hand), datasets without a length, what the
ranks of one run say to each other, and the numbers a model brings about, which are inputs. How it
is held against recorded and real trainers is told in docs/explanation/simulator.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from podproof.harness.loss_window import LossWindow
from podproof.harness.schedule import Schedule
from podproof.harness.trainer_loop import TrainerLoop
from podproof.harness.trainer_state import CheckpointFolder, TrainerControl, TrainerState
from podproof.runtime.plan import MethodName

__all__ = [
    "METHOD_KEYS",
    "OUTPUT",
    "Scenario",
    "Simulated",
    "SimulatedTrainer",
    "TrainerControl",
    "TrainerState",
]

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
    end the last one is repeated. `step_losses`, where given, are those of the micro-batches of
    the k-th step instead, and the trainer makes its train logs of them, NaN filter and all.
    `drop_eval_loss_at` names evaluations (from 0) without any loss. Of several `eval_sets` the
    first has these losses; those of the others fall at every evaluation; each takes `eval_batches`.
    `micro_batches` are those of one step; `taken_keys` are keys that a callback of the user's takes
    out of an evaluation's log. `seconds` is what an evaluation takes, which differs between ranks.

    The rest are arguments of the trainer by their own names. Left open, `rows` make one epoch of
    `max_steps`, and saves come with evaluations. With `num_train_epochs` the run ends by epochs.
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
    step_losses: tuple[float, ...] = ()
    eval_batches: int = 1
    rows: int | None = None
    per_device_train_batch_size: int = 1
    num_train_epochs: float | None = None
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    logging_nan_inf_filter: bool = True
    eval_delay: float = 0
    save_strategy: str = "steps"
    save_steps: int | None = None
    save_total_limit: int | None = None
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "eval_checkpoint_score"
    greater_is_better: bool = True
    dataloader_drop_last: bool = False
    ignore_data_skip: bool = False

    def schedule(self) -> Schedule:
        """Return when this run logs, evaluates, saves and ends."""
        by_epochs = self.num_train_epochs is not None
        batch = self.per_device_train_batch_size
        return Schedule(
            rows=self.max_steps * self.micro_batches * batch if self.rows is None else self.rows,
            eval_sets=tuple((name, self.eval_batches) for name in self.eval_sets),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=self.micro_batches,
            num_train_epochs=self.num_train_epochs or 1.0,
            max_steps=-1 if by_epochs else self.max_steps,
            logging_strategy=self.logging_strategy,
            logging_steps=self.logging_steps,
            logging_first_step=self.logging_first_step,
            logging_nan_inf_filter=self.logging_nan_inf_filter,
            eval_strategy=self.eval_strategy,
            eval_steps=self.eval_steps,
            eval_delay=self.eval_delay,
            eval_on_start=self.eval_on_start,
            save_strategy=self.save_strategy,
            save_steps=self.eval_steps if self.save_steps is None else self.save_steps,
            save_total_limit=self.save_total_limit,
            load_best_model_at_end=self.load_best_model_at_end,
            metric_for_best_model=self.metric_for_best_model,
            greater_is_better=self.greater_is_better,
            dataloader_drop_last=self.dataloader_drop_last,
            ignore_data_skip=self.ignore_data_skip,
        )


@dataclass(frozen=True)
class Simulated:
    """How a simulated run ended: its state, every checkpoint saved, and the events sent.

    `checkpoints` are those still on the disk.
    """

    state: TrainerState
    saved_steps: tuple[int, ...]
    events: int
    checkpoints: tuple[int, ...] = ()


class SimulatedTrainer:
    """Fires a scenario's events at a callback and keeps the trainer's own books."""

    def __init__(
        self,
        scenario: Scenario,
        callback: object,
        *,
        state: TrainerState | None = None,
        checkpoints: Iterable[int] | None = None,
    ) -> None:
        """Start fresh, or from the `state` that an earlier simulated run left behind.

        `checkpoints` are the steps of those on the disk; left open, that of the state and its best.
        """
        self.scenario = scenario
        self._resume = state
        if checkpoints is None:
            kept = () if state is None else (state.best_global_step, state.global_step)
            checkpoints = [step for step in kept if step]
        taker = _KeyTaker(scenario.taken_keys)
        self._loop = TrainerLoop(
            scenario.schedule(),
            _ScenarioLosses(scenario),
            [callback, taker] if scenario.taken_keys else [callback],
            CheckpointFolder(OUTPUT, checkpoints),
            is_first_rank=scenario.is_first_rank,
        )

    @property
    def state(self) -> TrainerState:
        """Return the state the callbacks see now, also after one of them raised."""
        return self._loop.state

    @property
    def control(self) -> TrainerControl:
        """Return the flags as they are now."""
        return self._loop.control

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Return the steps of the checkpoints on the disk now."""
        return self._loop.folder.steps

    def train(self, until_step: int | None = None) -> Simulated:
        """Run to the end, or stop dead after `until_step` as a killed process does.

        Raises whatever a hook raises, and KeyError when an evaluation lacks the metric.
        """
        self._loop.train(self._resume, until_step)
        return self.ended()

    def ended(self) -> Simulated:
        """Return how far the run came."""
        loop = self._loop
        return Simulated(loop.state, tuple(loop.saved), loop.events, self.checkpoints)


class _KeyTaker:
    """A callback of the user's that takes keys out of evaluations, after the one that is tried."""

    def __init__(self, keys: frozenset[str]) -> None:
        self.keys = keys

    def on_log(self, *_: object, logs: dict[str, Any], **__: object) -> None:
        if any(key.startswith("eval_") for key in logs):
            for key in self.keys:
                logs.pop(key, None)


class _ScenarioLosses:
    """The numbers of a scenario, in the order in which the trainer asks for them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._train_logs = _Counter("loss")
        self._evaluations = _Counter(_eval_key(scenario.eval_sets[0], "runtime"))

    def micro_loss(self, state: TrainerState) -> float | None:
        losses = self.scenario.step_losses
        if not losses:
            return None
        return losses[min(state.global_step, len(losses) - 1)] / self.scenario.micro_batches

    def train_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        loss: object = window.logged_loss
        if loss is None:
            loss = _item(self.scenario.train_losses, self._train_logs.of(state.log_history))
        # ORPO adds what it gathered to every log with a loss, the others in training mode only.
        method = self.scenario.method
        has_metrics = window.has_train_metrics or method is MethodName.ORPO
        metrics = dict.fromkeys(METHOD_KEYS[method], 0.5) if has_metrics else {}
        return {"loss": loss, "grad_norm": 1.0, "learning_rate": 1e-4, **metrics}

    def eval_logs(self, eval_set: str, state: TrainerState) -> dict[str, Any]:
        scenario = self.scenario
        is_first = eval_set == scenario.eval_sets[0]
        # The first set of an evaluation adds the entry that is counted.
        count = self._evaluations.of(state.log_history) - (not is_first)
        logs: dict[str, Any] = {
            _eval_key(eval_set, "runtime"): scenario.seconds * (count + 1),
            _eval_key(eval_set, "samples_per_second"): 1 / scenario.seconds,
        }
        if count not in scenario.drop_eval_loss_at:
            loss = _item(scenario.eval_losses, count) if is_first else 1 / (count + 1)
            logs[_eval_key(eval_set, "loss")] = loss
        return logs | {f"eval_{key}": 0.5 for key in METHOD_KEYS[scenario.method]}

    def final_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        train_loss = window.train_loss(state.global_step)
        logs: dict[str, Any] = {
            "train_runtime": 1.0,
            "train_loss": 1.0 if train_loss is None else train_loss,
        }
        if window.has_train_metrics and self.scenario.method is not MethodName.ORPO:
            logs |= dict.fromkeys(METHOD_KEYS[self.scenario.method], 0.5)
        return logs


class _Counter:
    """Counts the entries of a log that have a key, reading each entry once."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._history: list[dict[str, Any]] | None = None
        self._read = self._count = 0

    def of(self, history: list[dict[str, Any]]) -> int:
        if history is not self._history or len(history) < self._read:
            self._history, self._read, self._count = history, 0, 0
        self._count += sum(self.key in entry for entry in history[self._read :])
        self._read = len(history)
        return self._count


def _item(values: tuple[object, ...], index: int) -> object:
    return values[min(index, len(values) - 1)]


def _eval_key(name: str, what: str) -> str:
    return f"eval_{name}_{what}" if name else f"eval_{what}"
