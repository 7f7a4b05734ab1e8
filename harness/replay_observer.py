"""The callback that watches a replay: it compares each event with the next one on the tape.

It also does to the simulated trainer what was done to the recorded one: raises flags that somebody
raised, hands on a metric that a callback added, ends a training that was cut short.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from podproof.harness.replay_inputs import Tape
from podproof.harness.schedule import Schedule
from podproof.harness.stream_events import FLAGS, StreamEvent, differing, event_seen
from podproof.harness.trainer_loop import OutOfMemory
from podproof.harness.trainer_state import CheckpointFolder, TrainerControl, TrainerState

# Flags that somebody raised or lowered right after an event, by the event's number.
Interference = Mapping[int, Mapping[str, bool]]

_STOPS = frozenset({"should_training_stop", "should_epoch_stop"})
_IN_EVALUATION = frozenset({"on_prediction_step", "on_log", "on_evaluate"})
# Where JITCheckpointCallback, which comes before the user's callbacks, saves and stops.
_JIT_HOOKS = frozenset({"on_pre_optimizer_step", "on_step_begin", "on_step_end", "on_epoch_end"})


class Diverged(Exception):
    """The simulator fires another event than the recording goes on with."""

    def __init__(self, tape: Tape, simulated: str) -> None:
        """Tell which event it fires where the tape has stopped."""
        super().__init__(f"{tape.where()}: event: the simulator fires {simulated}")
        self.simulated = simulated


class StreamEnded(Exception):
    """The recording is over, by an exception or a kill that the simulator cannot know of."""


class Interrupted(Exception):
    """The recorded training ended here without a word, and another one began."""


class Observer:
    """A callback that has every hook; `differences` and `interference` are in words."""

    write_checkpoint: Callable[[], None]

    def __init__(
        self, tape: Tape, folder: CheckpointFolder, schedule: Schedule, interference: Interference
    ) -> None:
        """Watch the trainer that writes to this folder."""
        self.differences: list[str] = []
        self._ascribed: list[str] = []
        self._tape = tape
        self._folder = folder
        self._schedule = schedule
        self._interference = interference
        self._raised: set[str] = set()
        self._evaluated: set[str] = set()  # the keys of this evaluation, all sets together
        self._is_training = False

    @property
    def interference(self) -> tuple[str, ...]:
        """Return what was ascribed to somebody but the trainer."""
        return tuple(self._ascribed)

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if not hook.startswith("on_"):
            raise AttributeError(hook)
        return partial(self._see, hook)

    def _see(
        self, hook: str, _: object, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        recorded = self._tape.next()
        if recorded is None:
            raise StreamEnded
        if hook == "on_init_end" and recorded.name == "on_train_begin":
            self._ascribed.append("the recorder was added after on_init_end")
            return
        seen = event_seen(hook, state, control, given, self._folder.steps)
        if seen.name != recorded.name:
            raise Diverged(self._tape, seen.name)
        self._raise_as_recorded(hook, recorded, control)
        if hook == "on_evaluate":
            self._complete(given["metrics"], recorded, state)
        seen = event_seen(hook, state, control, given, self._folder.steps)
        where = self._tape.where()
        self.differences += [f"{where}: {what}" for what in differing(recorded, seen)]
        self._change_afterwards(control)
        self._tape.at += 1
        if hook not in _IN_EVALUATION:
            self._evaluated.clear()
        self._end_as_recorded(hook)

    def _raise_as_recorded(self, hook: str, recorded: StreamEvent, control: TrainerControl) -> None:
        """Set the flags that a callback before the recorder set, and lower those it lowered.

        No callback lowers what another one just raised, and a stop is never taken back: these
        stay differences.
        """
        if hook == "on_step_begin":
            self._raised.clear()
        for flag in FLAGS:
            wanted = recorded.flag(flag)
            if wanted == getattr(control, flag):
                continue
            if not wanted and (flag in _STOPS or flag in self._raised):
                continue
            setattr(control, flag, wanted)
            self._assume(flag, wanted=wanted, place="by")
            is_jit = self._schedule.enable_jit_checkpoint and hook in _JIT_HOOKS
            if flag == "should_training_stop" and is_jit:
                self.write_checkpoint()

    def _change_afterwards(self, control: TrainerControl) -> None:
        for flag, wanted in sorted(self._interference.get(self._tape.at, {}).items()):
            setattr(control, flag, wanted)
            self._assume(flag, wanted=wanted, place="after")

    def _assume(self, flag: str, *, wanted: bool, place: str) -> None:
        if wanted:
            self._raised.add(flag)
        self._ascribed.append(
            f"{flag} {'set' if wanted else 'lowered'} {place} {self._tape.where()}"
        )

    def _complete(
        self, metrics: dict[str, Any], recorded: StreamEvent, state: TrainerState
    ) -> None:
        """Add the metrics a callback added, the one for the best model even if nobody saw it.

        A callback after the recorder adds it unseen; then the best metric that follows tells
        whether it was better, and how good it was.
        """
        metrics.update(recorded.numbers or {})
        self._evaluated.update(metrics)
        key, after = self._schedule.best_metric_key, self._tape.next(1)
        is_last = recorded.eval_set == self._schedule.eval_sets[-1][0]
        if key is None or after is None or not (self._is_training and is_last):
            return
        if key in self._evaluated or after.name in _IN_EVALUATION:
            return
        is_better = after.best_metric is not None and after.best_metric != state.best_metric
        is_better = is_better and not math.isinf(after.best_metric or 0.0)
        metrics[key] = after.best_metric if is_better else math.nan
        self._ascribed.append(f"{key} taken from best_metric after {self._tape.where()}")

    def _end_as_recorded(self, hook: str) -> None:
        self._is_training = hook != "on_train_end" and (
            self._is_training or hook == "on_train_begin"
        )
        if hook == "on_train_begin":
            return
        if self._is_training and self._tape.has_next("on_train_begin"):
            self._ascribed.append(f"training cut short after {self._tape.where(-1)}")
            self._is_training = False
            raise OutOfMemory if self._schedule.auto_find_batch_size else Interrupted
