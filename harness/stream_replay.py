"""A recorded stream against the simulator, event by event.

The schedule comes from the header's config alone. Inputs are the numbers the model brought about,
what lay on the disk and in the checkpoint at the beginning, and where somebody interfered: a flag
set by a callback or a signal, an exception, a kill. Everything else is predicted and compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podproof.harness.recording import Recording, read_recording
from podproof.harness.replay_inputs import (
    RecordedLosses,
    RecordedTrainer,
    Tape,
    recorded_schedule,
)
from podproof.harness.replay_observer import (
    Diverged,
    Interference,
    Interrupted,
    Observer,
    StreamEnded,
)
from podproof.harness.schedule import OutOfScope, Schedule
from podproof.harness.stream_events import FLAGS, StreamEvent
from podproof.harness.trainer_state import CheckpointFolder, TrainerState

_OUTPUT = "/replayed"
# The flag without which an event does not come, and which is lowered before callbacks see it.
_ASKED_BY: Mapping[str, str] = {
    "on_save": "should_save",
    "on_push_begin": "should_save",
    "on_log train": "should_log",
    "on_prediction_step": "should_evaluate",
    "on_log eval": "should_evaluate",
}
_ABSENT_METRIC = "metric_for_best_model"


@dataclass(frozen=True)
class Replayed:
    """How a recorded stream compares with the simulated one.

    `differences` name each field that differs, with the event; after an event that is not the
    predicted one nothing more is compared. `read` tells what was taken from the stream because the
    header leaves it open; `interference` tells which flags, metrics or ends were ascribed to
    somebody but the trainer. `out_of_scope` is the reason why nothing was compared, if so.
    """

    name: str
    events: int
    replayed: int
    differences: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    interference: tuple[str, ...] = ()
    out_of_scope: str | None = None

    @property
    def is_exact(self) -> bool:
        """Return whether every event of the stream was predicted in every field.

        Given the interference: a stream of a trainer left to itself has none.
        """
        return self.out_of_scope is None and not self.differences and self.replayed == self.events


def replay_recording(path: str | Path) -> Replayed:
    """Replay a recorded stream in the simulator and return how they differ.

    Raise BadStream for a file that is none, or cannot be read.
    """
    return replay(read_recording(path))


def replay(recording: Recording) -> Replayed:
    """Replay a recording that was read; it is gone through again for each interference found."""
    total = len(recording.events)
    try:
        schedule, read = recorded_schedule(recording)
    except OutOfScope as reason:
        return Replayed(recording.name, total, 0, out_of_scope=str(reason))
    interference: Interference = {}
    best = _Attempt(recording, schedule, interference)
    while found := best.explanation():
        interference = {**interference, **found}
        again = _Attempt(recording, schedule, interference)
        if again.tape.at <= best.tape.at:
            break
        best = again
    return Replayed(
        recording.name, total, best.tape.at, best.differences, read, best.observer.interference
    )


class _Attempt:
    """One pass over a recording with the interference known so far."""

    def __init__(
        self, recording: Recording, schedule: Schedule, interference: Interference
    ) -> None:
        self.tape = Tape(recording)
        self.has_diverged = False
        self._simulated = ""
        self._recording = recording
        self._interference = interference
        looked = (event.checkpoints for event in recording.events)
        at_start = next((steps for steps in looked if steps is not None), ())
        self._folder = CheckpointFolder(_OUTPUT, at_start)
        self.observer = Observer(self.tape, self._folder, schedule, interference)
        ends = self._played(schedule)
        self.differences = (*self.observer.differences, *ends)

    def explanation(self) -> Interference:
        """Return flags changed after the last matching event that would explain what follows."""
        after, before, number = self.tape.next(), self.tape.next(-1), self.tape.at - 1
        if not self.has_diverged or after is None or before is None:
            return {}
        asked = _ASKED_BY.get(after.name)
        shown = {flag for flag in FLAGS if after.flag(flag) and after.name != "on_step_begin"}
        wanted = {flag for flag in shown | {asked} if flag and not before.flag(flag)}
        asked_in_vain = _ASKED_BY.get(self._simulated)
        changes = dict.fromkeys(wanted, True)
        if asked_in_vain and before.flag(asked_in_vain):
            changes[asked_in_vain] = False
        known = self._interference.get(number, {})
        return {number: {**known, **changes}} if changes.keys() - known.keys() else {}

    def _played(self, schedule: Schedule) -> tuple[str, ...]:
        """Play the tape; return what is wrong with how it ended."""
        try:
            trainer = self._trainer(schedule)
            while (event := self.tape.next()) is not None:
                self._call(trainer, event)
        except Diverged as error:
            self.has_diverged, self._simulated = True, error.simulated
            return (str(error),)
        except StreamEnded:
            return self._problems_of_cut_stream()
        except KeyError as error:
            if _ABSENT_METRIC not in str(error):
                raise
            return self._problems_of_absent_metric(error)
        return self._problems_of_whole_stream(trainer)

    def _trainer(self, schedule: Schedule) -> RecordedTrainer:
        trainer = RecordedTrainer(
            schedule,
            RecordedLosses(self.tape),
            [self.observer],
            self._folder,
            is_first_rank=self._recording.rank == 0,
        )
        trainer.tape = self.tape
        self.observer.write_checkpoint = trainer.write_checkpoint
        return trainer

    def _call(self, trainer: RecordedTrainer, event: StreamEvent) -> None:
        """Do what the script did next: train, evaluate, predict or push."""
        if event.name == "on_train_begin":
            try:
                trainer.train(self._resumed(event))
            except Interrupted:
                return
        elif event.name == "on_push_begin":
            trainer.push()
        elif event.name in {"on_prediction_step", "on_log eval", "on_predict"}:
            self._evaluate_or_predict(trainer)
        else:
            raise Diverged(self.tape, "nothing, or another call of the trainer's")

    def _evaluate_or_predict(self, trainer: RecordedTrainer) -> None:
        batches = 0
        while (event := self.tape.next(batches)) and event.name == "on_prediction_step":
            batches += 1
        if event is not None and event.name == "on_predict":
            trainer.predict(batches, dict(event.numbers or {}))
        else:
            trainer.evaluate()

    def _resumed(self, event: StreamEvent) -> TrainerState | None:
        """Return the state of the checkpoint that a training went on from, if it did."""
        if event.step == 0 and event.history_length == 0:
            return None
        history = [dict(entry) for entry in self._recording.history[: event.history_length]]
        history += [{} for _ in range(event.history_length - len(history))]
        best = event.best_model_checkpoint
        return TrainerState(
            event.max_steps,
            event.step,
            event.epoch,
            history,
            event.best_metric,
            event.best_global_step,
            None if best is None else self._folder.path(best),
            logging_steps=event.every[0],
            eval_steps=event.every[1],
            save_steps=event.every[2],
            train_batch_size=event.train_batch_size,
        )

    def _problems_of_cut_stream(self) -> tuple[str, ...]:
        outcome, message = self._recording.outcome, self._recording.message
        if outcome == "ok":
            return ("the recording ends, and the simulator goes on",)
        if outcome == "KeyError" and _ABSENT_METRIC in message:
            return ("the recording ends with a KeyError the simulator does not raise",)
        return ()

    def _problems_of_absent_metric(self, error: KeyError) -> tuple[str, ...]:
        if self.tape.next() is None and self._recording.outcome != "ok":
            return ()
        return (f"the simulator raises {error!r} after event {self.tape.at - 1}",)

    def _problems_of_whole_stream(self, trainer: RecordedTrainer) -> tuple[str, ...]:
        """Return what differs at the end of a run that no exception ended."""
        recording = self._recording
        if recording.outcome != "ok":
            return ()
        problems = []
        there = recording.checkpoints_at_end
        if there is not None and there != self._folder.steps:
            problems.append(f"checkpoints left: {there}, simulated {self._folder.steps}")
        if recording.history and len(recording.history) != len(trainer.state.log_history):
            logged = len(trainer.state.log_history)
            problems.append(f"length of log_history: {len(recording.history)}, simulated {logged}")
        return tuple(problems)
