"""One event of a trainer as a value: recorded from a real one, or seen by a simulated callback."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_CHECKPOINT = re.compile(r"(?:.*/)?checkpoint-(\d+)")
_RUNTIME = re.compile(r"eval_(?:(?P<eval_set>.+)_)?runtime")

# The letters of stream_grammar.py; a log is one of three kinds.
LETTERS: Mapping[str, str] = {
    "on_init_end": "I",
    "on_train_begin": "B",
    "on_epoch_begin": "E",
    "on_step_begin": "s",
    "on_substep_end": "u",
    "on_pre_optimizer_step": "p",
    "on_optimizer_step": "o",
    "on_step_end": "S",
    "on_epoch_end": "e",
    "on_prediction_step": "P",
    "on_log train": "L",
    "on_log eval": "V",
    "on_log final": "F",
    "on_evaluate": "v",
    "on_save": "K",
    "on_push_begin": "H",
    "on_train_end": "T",
    "on_predict": "D",
}
FLAGS = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)


class AnyState(Protocol):
    """A TrainerState, of transformers or of the simulator."""

    global_step: int
    epoch: float
    log_history: list[dict[str, Any]]
    best_metric: float | None
    best_global_step: int | None
    best_model_checkpoint: str | None
    max_steps: int
    num_train_epochs: int
    logging_steps: int
    eval_steps: int
    save_steps: int
    train_batch_size: int | None


@dataclass(frozen=True)
class StreamEvent:
    """What a callback sees at one event.

    `name` is the hook's, with the kind of log after on_log ("on_log train"). The best checkpoint
    is its step, so that it does not matter where a run's folder lies. `checkpoints` are the steps
    of those on the disk, or None where nobody looked. `numbers` are the logs or metrics given to
    the hook, which the fields that `differing` compares leave out.
    """

    name: str
    step: int
    epoch: float
    flags: tuple[bool, ...]
    best_metric: float | None
    best_global_step: int | None
    best_model_checkpoint: int | None
    history_length: int
    max_steps: int
    num_train_epochs: int
    every: tuple[int, int, int]
    train_batch_size: int | None
    eval_set: str | None = None
    checkpoints: tuple[int, ...] | None = None
    numbers: Mapping[str, Any] | None = None

    @property
    def letter(self) -> str:
        """Return the event's letter in the grammar."""
        return LETTERS[self.name]

    def flag(self, name: str) -> bool:
        """Return one of the five flags by its name in TrainerControl."""
        return self.flags[FLAGS.index(name)]


def event_seen(
    hook: str,
    state: AnyState,
    control: object,
    given: Mapping[str, Any],
    disk: Iterable[int] | None,
) -> StreamEvent:
    """Return what a callback sees in this hook.

    `given` are its keyword arguments, `disk` the steps of the checkpoints there, if one can look.
    """
    numbers = given.get("logs", given.get("metrics"))
    return StreamEvent(
        name=named(hook, numbers),
        step=state.global_step,
        epoch=state.epoch,
        flags=tuple(bool(getattr(control, name)) for name in FLAGS),
        best_metric=state.best_metric,
        best_global_step=state.best_global_step,
        best_model_checkpoint=checkpoint_step(state.best_model_checkpoint),
        history_length=len(state.log_history),
        max_steps=state.max_steps,
        num_train_epochs=state.num_train_epochs,
        every=(state.logging_steps, state.eval_steps, state.save_steps),
        train_batch_size=state.train_batch_size,
        eval_set=eval_set_of(numbers),
        checkpoints=None if disk is None else tuple(sorted(disk)),
        numbers=None if numbers is None else dict(numbers),
    )


def named(hook: str, numbers: Mapping[str, Any] | None) -> str:
    """Return the hook's name, with the kind of log after on_log.

    A final log is known by `train_loss`: `train_runtime` is in train logs too where a run counts
    its tokens.
    """
    if hook != "on_log":
        return hook
    keys: Iterable[str] = numbers or ()
    if "train_loss" in keys:
        return "on_log final"
    return "on_log train" if "loss" in keys else "on_log eval"


def eval_set_of(numbers: Mapping[str, Any] | None) -> str | None:
    """Return the name of the eval set these metrics are of, "" for a single one.

    >>> eval_set_of({"eval_near_loss": 1.0, "eval_near_runtime": 0.2}), eval_set_of({"loss": 1.0})
    ('near', None)
    """
    found = (_RUNTIME.fullmatch(key) for key in numbers or ())
    return next((match["eval_set"] or "" for match in found if match), None)


def checkpoint_step(path: str | None) -> int | None:
    """Return the step in a checkpoint's name, or None.

    >>> checkpoint_step("/out/checkpoint-12")
    12
    """
    match = None if path is None else _CHECKPOINT.fullmatch(path)
    return int(match[1]) if match else None


_COMPARED: Mapping[str, Callable[[StreamEvent], object]] = {
    "event": lambda event: event.name,
    "step": lambda event: event.step,
    "epoch": lambda event: event.epoch,
    **{flag: lambda event, flag=flag: event.flag(flag) for flag in FLAGS},  # type: ignore[misc]
    "best_metric": lambda event: event.best_metric,
    "best_global_step": lambda event: event.best_global_step,
    "best_model_checkpoint": lambda event: event.best_model_checkpoint,
    "length of log_history": lambda event: event.history_length,
    "max_steps": lambda event: event.max_steps,
    "num_train_epochs": lambda event: event.num_train_epochs,
    "logging, eval and save steps": lambda event: event.every,
    "train_batch_size": lambda event: event.train_batch_size,
    "eval set": lambda event: event.eval_set,
    "checkpoints": lambda event: event.checkpoints,
}


def differing(recorded: StreamEvent, simulated: StreamEvent) -> tuple[str, ...]:
    """Return, in words, each field in which a simulated event is not the recorded one.

    NaN equals NaN. Checkpoints are compared where the recording looked for them.
    """
    told = ((name, field(recorded), field(simulated)) for name, field in _COMPARED.items())
    return tuple(
        f"{name}: recorded {one!r}, simulated {other!r}"
        for name, one, other in told
        if not _is_same(one, other) and not (name == "checkpoints" and one is None)
    )


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other
