"""When a trainer logs, evaluates, saves and ends, by its arguments and the number of its rows.

The arithmetic of transformers 5.23 (`set_initial_training_values`, `TrainerState.compute_steps`,
the checks of `TrainingArguments`, the dataloaders that accelerate shares out among processes).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

# Where an argument is left open. TRL's config classes log every 10 steps, transformers every 500.
_TRL_LOGGING_STEPS = 10
_UNSET_STEPS = 500
# accelerate's find_executable_batch_size.
_SMALLER_BATCH = 0.9
_SCHEDULERS_THAT_ASK = frozenset({"reduce_lr_on_plateau", "greedy"})

# Arguments that change the stream in ways nobody recorded, with the values that leave it alone.
_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "accelerator_config": (None,),
    "deepspeed": (None, ""),
    "fsdp": (None, "", [], False),
    "parallelism_config": (None,),
    "restore_callback_states_from_checkpoint": (False, None),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", None),
}


class OutOfScope(ValueError):
    """A run that the simulator does not claim to reproduce; the message is the reason."""


@dataclass(frozen=True)
class Schedule:
    """The arguments that decide which events come when, by their TrainingArguments names.

    `rows` are those trained on. `eval_sets` are pairs of a name ("" for a single set) and the
    batches one evaluation of it takes. `known_batches` is the length of the training dataloader
    where the rows do not tell it, as after packing. Steps below 1 are shares of all steps, and
    `max_steps` below 0 leaves the end to `num_train_epochs`, as in TrainingArguments.
    """

    rows: int = 0
    eval_sets: tuple[tuple[str, int], ...] = ()
    processes: int = 1
    known_batches: int | None = None
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 3.0
    max_steps: int = -1
    logging_strategy: str = "steps"
    logging_steps: float = _TRL_LOGGING_STEPS
    logging_first_step: bool = False
    logging_nan_inf_filter: bool = True
    eval_strategy: str = "no"
    eval_steps: float | None = None
    eval_delay: float = 0
    eval_on_start: bool = False
    save_strategy: str = "steps"
    save_steps: float = _UNSET_STEPS
    save_total_limit: int | None = None
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    dataloader_drop_last: bool = False
    ignore_data_skip: bool = False
    auto_find_batch_size: bool = False
    enable_jit_checkpoint: bool = False
    push_to_hub: bool = False
    hub_strategy: str = "every_save"

    @property
    def batches_per_epoch(self) -> int:
        """Return the micro-batches one process takes from its dataloader in an epoch."""
        if self.known_batches is not None:
            return self.known_batches
        return batches(
            self.rows,
            self.per_device_train_batch_size,
            self.processes,
            drop_last=self.dataloader_drop_last,
        )

    @property
    def updates_per_epoch(self) -> int:
        """Return the optimizer steps of an epoch; its last may have fewer micro-batches."""
        return max(math.ceil(self.batches_per_epoch / self.gradient_accumulation_steps), 1)

    @property
    def last_step(self) -> int:
        """Return the step at which the trainer stops by itself."""
        if self.max_steps >= 0:
            return self.max_steps
        return math.ceil(self.num_train_epochs * self.updates_per_epoch)

    @property
    def epochs(self) -> int:
        """Return how many epochs the trainer is ready to begin."""
        if self.max_steps > 0:
            return math.ceil(self.max_steps / self.updates_per_epoch)
        return math.ceil(self.num_train_epochs)

    @property
    def best_metric_key(self) -> str | None:
        """Return the key that is looked up in the metrics of every evaluation, if any."""
        name = self.metric_for_best_model
        return name if name is None or name.startswith("eval_") else f"eval_{name}"

    def steps(self, kind: str) -> int:
        """Return the steps between two logs, evaluations or saves, as TrainerState keeps them."""
        number = getattr(self, f"{kind}_steps")
        if number is None:
            return _UNSET_STEPS
        return math.ceil(self.last_step * number) if number < 1 else int(number)

    def with_smaller_batch(self) -> "Schedule":
        """Return what `auto_find_batch_size` tries next. Raises RuntimeError when none is left."""
        smaller = int(self.per_device_train_batch_size * _SMALLER_BATCH)
        if smaller == 0:
            raise RuntimeError("No executable batch size found, reached zero.")
        return replace(self, per_device_train_batch_size=smaller)


_SCHEDULE_ARGUMENTS = frozenset(field.name for field in fields(Schedule)) - {
    "rows",
    "eval_sets",
    "processes",
    "known_batches",
}


def schedule_of(
    arguments: Mapping[str, Any],
    *,
    rows: int,
    eval_rows: Mapping[str, int] | int | None = None,
    processes: int = 1,
) -> Schedule:
    """Return the schedule of a TRL trainer with these arguments of its config class.

    Arguments left out have TRL's defaults. `eval_rows` is a number, or one for each named set.
    Raises OutOfScope for arguments whose events nobody recorded.
    """
    _require_scope(arguments)
    told = {name: arguments[name] for name in _SCHEDULE_ARGUMENTS & arguments.keys()}
    eval_batch = int(arguments.get("per_device_eval_batch_size", 8))
    drops = bool(arguments.get("dataloader_drop_last"))
    named = eval_rows if isinstance(eval_rows, Mapping) else {"": eval_rows or 0}
    sets = tuple(
        (name, batches(count, eval_batch, processes, drop_last=drops))
        for name, count in named.items()
    )
    schedule = Schedule(rows=rows, eval_sets=sets, processes=processes, **told)
    return _with_what_follows(schedule, str(arguments.get("lr_scheduler_type", "")))


def batches(rows: int, batch_size: int, processes: int, *, drop_last: bool) -> int:
    """Return the length of a dataloader on one of several processes, as accelerate shares it out.

    >>> batches(44, 4, 1, drop_last=False), batches(44, 2, 2, drop_last=False)
    (11, 11)
    """
    whole = rows // batch_size if drop_last else math.ceil(rows / batch_size)
    return whole // processes if drop_last else math.ceil(whole / processes)


def _require_scope(arguments: Mapping[str, Any]) -> None:
    for name, harmless in _UNSUPPORTED.items():
        if name in arguments and arguments[name] not in harmless:
            raise OutOfScope(f"{name}={arguments[name]!r}: its events were never recorded")


def _with_what_follows(schedule: Schedule, lr_scheduler: str) -> Schedule:
    """Return the schedule with what TrainingArguments derives from other arguments."""
    changes: dict[str, Any] = {}
    if schedule.eval_strategy == "steps" and not schedule.eval_steps:
        changes["eval_steps"] = schedule.logging_steps
    asks = schedule.load_best_model_at_end or lr_scheduler in _SCHEDULERS_THAT_ASK
    metric = schedule.metric_for_best_model or ("loss" if asks else None)
    changes["metric_for_best_model"] = metric
    if schedule.greater_is_better is None and metric is not None:
        changes["greater_is_better"] = not metric.endswith("loss")
    return replace(schedule, **changes)
