"""What a trainer shows its callbacks: its state, its flags, and the checkpoints on the disk."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any


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
    num_train_epochs: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None

    def read_back(self) -> "TrainerState":
        """Return the state as a checkpoint gives it back: nothing in it is shared with this one."""
        return replace(self, log_history=[dict(entry) for entry in self.log_history])


@dataclass
class TrainerControl:
    """The flags of transformers' TrainerControl."""

    should_training_stop: bool = False
    should_log: bool = False
    should_evaluate: bool = False
    should_save: bool = False
    should_epoch_stop: bool = False


class CheckpointFolder:
    """The checkpoints in an output folder, by step; written, rotated and cleaned up."""

    def __init__(self, output_dir: str, steps: Iterable[int] = ()) -> None:
        """Begin with the checkpoints that lie there already, oldest first."""
        self.output_dir = output_dir
        self._by_age = list(dict.fromkeys(steps))

    @property
    def steps(self) -> tuple[int, ...]:
        """Return the steps of the checkpoints there, in order of their steps."""
        return tuple(sorted(self._by_age))

    def __contains__(self, step: object) -> bool:
        return step in self._by_age

    def path(self, step: int) -> str:
        """Return where the checkpoint of a step lies."""
        return f"{self.output_dir}/checkpoint-{step}"

    def write(self, step: int) -> None:
        """Write a checkpoint; one that is written over keeps its age, as its folder does."""
        if step not in self._by_age:
            self._by_age.append(step)

    def rotate(self, limit: int | None, best: str | None) -> None:
        """Delete the oldest beyond `limit`, but neither the newest nor the best.

        Age is the time of creation. The trainer goes by the step instead when all were created
        within a second, which differs only in a folder with checkpoints of higher steps.
        """
        if limit is None or limit <= 0 or len(self._by_age) <= limit:
            return
        newest = self._by_age[-1]
        is_safe = {step: step == newest or self.path(step) == best for step in self._by_age}
        excess = len(self._by_age) - max(limit, 1 + (best not in {None, self.path(newest)}))
        for step in [step for step in self._by_age if not is_safe[step]][: max(excess, 0)]:
            self._by_age.remove(step)

    def keep_only(self, path: str) -> None:
        """Delete every checkpoint but this one."""
        self._by_age = [step for step in self._by_age if self.path(step) == path]
