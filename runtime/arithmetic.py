"""The arithmetic of a run: sequences a step, steps, evaluations and saves, before anything runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podproof.runtime.plan import Plan

# What the pinned TRL and transformers take when nothing is said.
_DEFAULT_BATCH_SIZE = 8
_DEFAULT_LOGGING_STEPS = 10
_DEFAULT_SAVE_STEPS = 500
_DEFAULT_EPOCHS = 3.0


@dataclass(frozen=True)
class Arithmetic:
    """The numbers of a run; None where packing, or the scores to come, make one unknowable."""

    batch_size: int
    accumulation: int
    gpu_count: int
    train_rows: int
    steps_per_epoch: int | None
    total_steps: int | None
    evaluations: int | None
    saves: int | None

    @property
    def sequences_per_step(self) -> int:
        """Return the sequences all GPUs together see between two updates of the weights."""
        return self.batch_size * self.accumulation * self.gpu_count

    def describe(self) -> tuple[str, ...]:
        """Return the arithmetic in lines a reader can check.

        >>> Arithmetic(4, 8, 1, 100, 4, 12, 3, 3).describe()[0]
        'batch 4 x accumulation 8 x 1 GPU = 32 sequences per step'
        """
        gpus = "1 GPU" if self.gpu_count == 1 else f"{self.gpu_count} GPUs"
        batch = f"batch {self.batch_size} x accumulation {self.accumulation} x {gpus}"
        per_epoch = f"{_counted(self.steps_per_epoch, 'step')} per epoch"
        occasions = f"{_counted(self.evaluations, 'evaluation')}, {_counted(self.saves, 'save')}"
        return (
            f"{batch} = {self.sequences_per_step} sequences per step",
            f"{_counted(self.train_rows, 'row')} = {per_epoch}",
            f"{_counted(self.total_steps, 'step')} in all, {occasions}",
        )


def arithmetic(plan: Plan, train_rows: int) -> Arithmetic:
    """Return the numbers of a run over that many training rows, rounded as transformers rounds.

    A last batch that is not full counts, and so does a last accumulation; the last step
    evaluates and saves even where it is off the grid. Rows that TRL drops are not known here.
    """
    arguments = plan.arguments
    batch_size = int(arguments.get("per_device_train_batch_size", _DEFAULT_BATCH_SIZE))
    accumulation = int(arguments.get("gradient_accumulation_steps", 1))
    gpu_count = max(1, plan.gpu_count) * plan.node_count
    batches = math.ceil(math.ceil(train_rows / batch_size) / gpu_count)
    if arguments.get("dataloader_drop_last"):
        batches = train_rows // batch_size // gpu_count
    # Packing joins rows into sequences of which nobody knows the number before they are tokenized.
    per_epoch = None if arguments.get("packing") else max(1, math.ceil(batches / accumulation))
    total = _total_steps(arguments, per_epoch)
    return Arithmetic(
        batch_size=batch_size,
        accumulation=accumulation,
        gpu_count=gpu_count,
        train_rows=train_rows,
        steps_per_epoch=per_epoch,
        total_steps=total,
        evaluations=_evaluations(arguments, total, per_epoch),
        saves=_saves(arguments, total, per_epoch),
    )


def _total_steps(arguments: Mapping[str, Any], per_epoch: int | None) -> int | None:
    max_steps = int(arguments.get("max_steps", -1))
    if max_steps > 0:
        return max_steps
    epochs = float(arguments.get("num_train_epochs", _DEFAULT_EPOCHS))
    return None if per_epoch is None else math.ceil(epochs * per_epoch)


def _evaluations(
    arguments: Mapping[str, Any], total: int | None, per_epoch: int | None
) -> int | None:
    # Without eval_steps an evaluation comes with every log.
    every = arguments.get("eval_steps") or arguments.get("logging_steps", _DEFAULT_LOGGING_STEPS)
    strategy = arguments.get("eval_strategy", "no")
    count = _occasions(strategy, every, total=total, per_epoch=per_epoch)
    return None if count is None else count + bool(arguments.get("eval_on_start"))


def _saves(arguments: Mapping[str, Any], total: int | None, per_epoch: int | None) -> int | None:
    strategy = arguments.get("save_strategy", "steps")
    every = arguments.get("save_steps", _DEFAULT_SAVE_STEPS)
    return _occasions(strategy, every, total=total, per_epoch=per_epoch)


def _occasions(
    strategy: str, every: float, *, total: int | None, per_epoch: int | None
) -> int | None:
    """Return how often something happens that comes every so many steps, or every epoch."""
    if strategy == "no":
        return 0
    if total is None or strategy not in {"steps", "epoch"}:
        return None
    if strategy == "epoch":
        return None if per_epoch is None else math.ceil(total / per_epoch)
    # Below 1 it is a share of all steps.
    interval = int(every) if every >= 1 else math.ceil(total * every)
    return math.ceil(total / interval)


def _counted(number: int | None, noun: str) -> str:
    if number is None:
        return f"unknown {noun}s"
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
