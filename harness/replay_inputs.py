"""What the arguments cannot tell of a recorded run, read off its stream.

Always the numbers a model brought about: losses and metrics. Where the header leaves them open,
also the length of the dataloader after packing, the number of processes, the eval sets. Each of
these is read once, from the first epoch's first step and the first evaluation; all later ones must
then agree with it.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from podproof.compiler.pins import POD_PINS
from podproof.harness.api import CONFIG_CLASSES, PACKAGES, class_table
from podproof.harness.loss_window import LossWindow
from podproof.harness.recording import Recording
from podproof.harness.schedule import OutOfScope, Schedule, schedule_of
from podproof.harness.stream_events import StreamEvent
from podproof.harness.trainer_loop import TrainerLoop
from podproof.harness.trainer_state import TrainerState
from podproof.runtime.plan import MethodName

_MOST_PROCESSES = 64


class Tape:
    """The events of a recording, and how far they have been played."""

    def __init__(self, recording: Recording) -> None:
        """Begin before the first event."""
        self.recording = recording
        self.at = 0

    def next(self, ahead: int = 0) -> StreamEvent | None:
        """Return the event to come, or the one `ahead` of it; None past the end."""
        events, number = self.recording.events, self.at + ahead
        return events[number] if 0 <= number < len(events) else None

    def has_next(self, name: str) -> bool:
        """Return whether the event to come is this one."""
        event = self.next()
        return event is not None and event.name == name

    def where(self, ahead: int = 0) -> str:
        """Return in words which event is to come, or the one `ahead` of it."""
        event = self.next(ahead)
        if event is None:
            return "the end"
        return f"event {self.at + ahead} ({event.name}, step {event.step})"


class RecordedLosses:
    """The recorded numbers, each given where its log is the next event on the tape.

    Where it is not, numbers of the right kind stand in, so that the events are told apart.
    """

    def __init__(self, tape: Tape) -> None:
        """Read from this tape."""
        self.tape = tape

    def micro_loss(self, state: TrainerState) -> float | None:  # noqa: ARG002 - as a LossSource
        """Return None: the losses of micro-batches are not recorded."""
        return None

    def train_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:  # noqa: ARG002
        """Return the train log that comes next."""
        return self._numbers("on_log train") or {"loss": math.nan}

    def eval_logs(self, eval_set: str, state: TrainerState) -> dict[str, Any]:  # noqa: ARG002
        """Return the metrics of this eval set if they come next."""
        key = f"eval_{eval_set}_runtime" if eval_set else "eval_runtime"
        numbers = self._numbers("on_log eval")
        return numbers if key in numbers else {key: math.nan}

    def final_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:  # noqa: ARG002
        """Return the final log if it comes next."""
        return self._numbers("on_log final") or {"train_loss": math.nan}

    def _numbers(self, name: str) -> dict[str, Any]:
        event = self.tape.next()
        return dict(event.numbers or {}) if event is not None and event.name == name else {}


class RecordedTrainer(TrainerLoop):
    """A simulated trainer that pushes to the hub when the recorded one did.

    A push is left out while the one before is still going on, which depends on the network.
    """

    tape: Tape

    def pushes(self) -> bool:
        """Return whether the recording goes on with a push."""
        return super().pushes() and self.tape.has_next("on_push_begin")


def recorded_schedule(recording: Recording) -> tuple[Schedule, tuple[str, ...]]:
    """Return the schedule of a recorded run, and in words what had to be read off its stream.

    Raises OutOfScope with the reason where the simulator does not claim to reproduce it.
    """
    _require_scope(recording)
    read: list[str] = []
    arguments, rows = recording.arguments, recording.rows
    is_packed = bool(arguments.get("packing"))
    processes = _processes(recording)
    if processes > 1:
        read.append(f"{processes} processes")
    schedule = schedule_of(
        arguments, rows=rows or 0, eval_rows=recording.eval_rows, processes=processes
    )
    if is_packed or rows is None:
        length = batches_read_off(recording.events)
        read.append(f"{length} batches an epoch")
        schedule = replace(schedule, known_batches=length)
    if recording.eval_rows is None or (is_packed and arguments.get("eval_packing") is not False):
        sets = eval_sets_read_off(recording.events)
        read += [f"{count} batches of eval set {name!r}" for name, count in sets]
        schedule = replace(schedule, eval_sets=sets)
    return schedule, tuple(read)


def batches_read_off(events: Sequence[StreamEvent]) -> int:
    """Return the batches of an epoch, from the first step of a stream and what it adds to epoch.

    Raises OutOfScope for a stream without a step.
    """
    substeps = 0
    before = 0.0
    for event in events:
        if event.name == "on_step_begin":
            substeps, before = 0, event.epoch
        elif event.name == "on_substep_end":
            substeps += 1
        elif event.name == "on_step_end" and event.epoch > before:
            return round((substeps + 1) / (event.epoch - before))
    raise OutOfScope("neither the header nor a step tells how long an epoch is")


def eval_sets_read_off(events: Iterable[StreamEvent]) -> tuple[tuple[str, int], ...]:
    """Return name and batches of each set in the first evaluation of a stream."""
    names = ("on_prediction_step", "on_log eval", "on_evaluate")
    later = itertools.dropwhile(lambda event: event.name not in names[:2], events)
    sets: list[tuple[str, int]] = []
    batches = 0
    for event in itertools.takewhile(lambda event: event.name in names, later):
        if event.name == "on_prediction_step":
            batches += 1
        elif event.name == "on_log eval":
            sets.append((event.eval_set or "", batches))
            batches = 0
    return tuple(sets) or ((("", batches),) if batches else ())


def _require_scope(recording: Recording) -> None:
    if recording.method not in set(CONFIG_CLASSES):
        raise OutOfScope(f"method {recording.method!r}: only {', '.join(CONFIG_CLASSES)} are known")
    if sum(event.name == "on_init_end" for event in recording.events) > 1:
        raise OutOfScope("two trainers in one stream, of which the header describes one")
    config = CONFIG_CLASSES[MethodName(recording.method)]
    table = class_table(config, {package: POD_PINS[package] for package in PACKAGES})
    unknown = sorted(set(recording.arguments) - set(table.arguments if table else ()))
    if unknown:
        raise OutOfScope(f"{', '.join(unknown)}: no arguments of {config}")


def _processes(recording: Recording) -> int:
    """Return the fewest processes that fit the first step and evaluation; 1 for a lone one."""
    if recording.rank == 0 and "ddp_backend" not in recording.arguments:
        return 1
    fitting = (
        number for number in range(1, _MOST_PROCESSES + 1) if _fits(recording, processes=number)
    )
    return next(fitting, 1)


def _fits(recording: Recording, processes: int) -> bool:
    schedule = schedule_of(
        recording.arguments,
        rows=recording.rows or 0,
        eval_rows=recording.eval_rows,
        processes=processes,
    )
    is_known = recording.rows is not None and not recording.arguments.get("packing")
    if is_known and schedule.batches_per_epoch != batches_read_off(recording.events):
        return False
    seen = eval_sets_read_off(recording.events)
    return recording.eval_rows is None or not seen or schedule.eval_sets == seen
