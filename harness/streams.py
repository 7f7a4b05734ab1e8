"""Streams of events with faults in them: a value that can be drawn, shrunk, saved and played again.

A stream says what a trainer logs and what goes wrong at which event. Played, it is a simulated
training around the embedded callback that goes on from its last checkpoint after each kill.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from podproof.harness.drawn import Subject
from podproof.harness.errors import BadStream
from podproof.harness.expected import best_of, expected_choice
from podproof.harness.simulator import OUTPUT, Scenario, SimulatedTrainer, TrainerState
from podproof.harness.stream_rows import with_numbers
from podproof.harness.witness import Violation, Witness
from podproof.runtime.errors import Problem
from podproof.runtime.events import strict_json
from podproof.runtime.plan import MethodName
from podproof.runtime.reader import read_section

# The one key of a saved stream, and the form its value has.
STREAM_KEY = "podproof_stream"
STREAMS_FOLDER = "streams"


class FaultKind(StrEnum):
    """What goes wrong at an event.

    `kill` ends the process before the event; the next one goes on from the last checkpoint.
    `crash` is another callback that raises; the same process begins again from there. `interrupt`
    is a second signal while the next report is made. `lost_report` fails the next report,
    `dead_endpoint` that of the failure as well. `signal` asks for an orderly end. `halt` is another
    callback that stops the trainer, `taken` one that takes away what was logged. `bare` calls the
    hook once more without a log. `foreign` has the next checkpoint hold the best value of another
    metric, as one that was written before the metric was changed.
    """

    KILL = "kill"
    CRASH = "crash"
    INTERRUPT = "interrupt"
    LOST_REPORT = "lost_report"
    DEAD_ENDPOINT = "dead_endpoint"
    SIGNAL = "signal"
    HALT = "halt"
    TAKEN = "taken"
    BARE = "bare"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at an event, counted from 0 over all processes of the stream."""

    event: int
    kind: FaultKind


@dataclass(frozen=True)
class Change:
    """A key of the n-th log of a run, from 0, that has another value; or is missing."""

    log: int
    key: str
    value: Any
    is_missing: bool


@dataclass(frozen=True)
class FaultStream:
    """A training to simulate: what a Scenario says, what is logged otherwise, what goes wrong.

    `margins` and `accuracies` are those of the evaluations in turn, the last one again at their
    end. `scorer` are fields of the plan's scorer that are changed.
    """

    method: MethodName
    max_steps: int = 4
    logging_steps: int = 1
    eval_steps: int = 2
    micro_batches: int = 1
    eval_sets: tuple[str, ...] = ("",)
    eval_on_start: bool = False
    is_first_rank: bool = True
    train_losses: tuple[Any, ...] = (1.0,)
    eval_losses: tuple[Any, ...] = (1.0,)
    margins: tuple[Any, ...] = (0.5,)
    accuracies: tuple[Any, ...] = (0.5,)
    changes: tuple[Change, ...] = ()
    faults: tuple[Fault, ...] = ()
    scorer: dict[str, Any] = field(default_factory=dict)

    def scenario(self) -> Scenario:
        """Return what the simulator needs of it."""
        return Scenario(
            "a stream with faults",
            self.method,
            max_steps=self.max_steps,
            logging_steps=self.logging_steps,
            eval_steps=self.eval_steps,
            train_losses=self.train_losses,
            eval_losses=self.eval_losses,
            eval_sets=self.eval_sets,
            micro_batches=self.micro_batches,
            eval_on_start=self.eval_on_start,
            is_first_rank=self.is_first_rank,
        )


class ProcessKilled(BaseException):
    """The process is gone in the midst of the training."""


class OtherCallbackFailed(Exception):
    """A callback that is not ours raised, and the trainer with it."""


def play(stream: FaultStream, subject: Subject) -> Witness:
    """Play a stream to the subject's callback, restarts included; return what was seen of it."""
    subject = subject.neighbour(stream.scorer)
    witness = Witness(subject.code, subject.plan, subject.own_plan)
    company = _Company(stream, witness)
    while True:
        try:
            # Building it fires the first event, at which things may go wrong too.
            ended = SimulatedTrainer(stream.scenario(), company, state=company.saved).train()
        except (ProcessKilled, KeyboardInterrupt):
            witness.end_process("killed")
            witness.start_process()
        except OtherCallbackFailed:
            witness.mark("crashed")
        except Exception as error:
            died = f"the trainer would have died of {type(error).__name__}: {error}"
            witness.mark("died", Violation("survived", died))
            return witness
        else:
            witness.mark("ended", *_unchosen(witness, ended.state))
            witness.end_process("left")
            return witness


def _unchosen(witness: Witness, state: TrainerState) -> list[Violation]:
    """Hold the checkpoint that the trainer would load against the scores of the run."""
    process = witness.process
    step = expected_choice(process.lines, process.scores, process.plan)
    best = best_of([score for score in process.scores if score[0] == step])
    expected = (None, None) if best is None else (best[0], -best[1])
    # The trainer compares the first evaluation with -inf, and keeps that where it is no better.
    metric = None if state.best_metric == -math.inf else state.best_metric
    found = (state.best_global_step, metric)
    what = f"the trainer would load step {found[0]} ({found[1]}), the scores say {expected[0]}"
    return [] if found == expected else [Violation("chosen", what)]


class _Company:
    """The callback among others, on a machine where things go wrong."""

    def __init__(self, stream: FaultStream, witness: Witness) -> None:
        self._stream, self._witness = stream, witness
        self._number = 0
        self._is_foreign = False
        self.saved: TrainerState | None = None

    def __getattr__(self, event: str) -> Any:
        if not event.startswith("on_"):
            raise AttributeError(event)
        return partial(self._fire, event)

    def _fire(self, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kinds = {fault.kind for fault in self._stream.faults if fault.event == self._number}
        self._number += 1
        if event == "on_log":
            self._log_otherwise(state, kwargs["logs"])
        self._go_wrong(kinds, control)
        if FaultKind.BARE in kinds and event in {"on_log", "on_evaluate"}:
            bare = {**kwargs, "logs" if event == "on_log" else "metrics": None}
            self._witness.fire(event, args, state, control, **bare)
        self._witness.fire(event, args, state, control, **kwargs)
        if FaultKind.TAKEN in kinds and event == "on_log":
            kwargs["logs"].clear()
        self._is_foreign |= FaultKind.FOREIGN in kinds
        if event == "on_save":
            self.saved = _from_disk(state, is_foreign=self._is_foreign)

    def _go_wrong(self, kinds: set[FaultKind], control: Any) -> None:
        if FaultKind.KILL in kinds:
            raise ProcessKilled
        if FaultKind.CRASH in kinds:
            raise OtherCallbackFailed
        if FaultKind.SIGNAL in kinds:
            self._witness.stop.reason = "SIGTERM"
        if FaultKind.HALT in kinds:
            control.should_training_stop = True
        gone = ConnectionError("the endpoint is gone")
        failures: Mapping[FaultKind, list[BaseException]] = {
            FaultKind.INTERRUPT: [KeyboardInterrupt()],
            FaultKind.LOST_REPORT: [gone],
            FaultKind.DEAD_ENDPOINT: [gone, ConnectionError("the endpoint is still gone")],
        }
        for kind in [kind for kind in failures if kind in kinds][:1]:
            self._witness.endpoint.failures = list(failures[kind])

    def _log_otherwise(self, state: Any, logs: dict[str, Any]) -> None:
        """Have the trainer log other values than the simulator knows, also into its history."""
        number = len(state.log_history) - 1
        evaluated = sum(
            any(key.startswith("eval_") for key in entry) for entry in state.log_history
        )
        values = {
            "eval_rewards/margins": _in_turn(self._stream.margins, evaluated - 1),
            "eval_rewards/accuracies": _in_turn(self._stream.accuracies, evaluated - 1),
            "eval_mean_token_accuracy": _in_turn(self._stream.accuracies, evaluated - 1),
        }
        changes = [change for change in self._stream.changes if change.log == number]
        for entry in (logs, state.log_history[-1]):
            entry.update({key: value for key, value in values.items() if key in entry})
            entry.update({change.key: change.value for change in changes})
            for change in changes:
                if change.is_missing:
                    entry.pop(change.key, None)


def _in_turn(values: tuple[Any, ...], number: int) -> Any:
    return values[min(number, len(values) - 1)] if values else None


def _from_disk(state: TrainerState, *, is_foreign: bool) -> TrainerState:
    """Return the state as trainer_state.json gives it back: keys in order of the alphabet."""
    log_history = json.loads(json.dumps(state.log_history, sort_keys=True))
    read = dataclasses.replace(state, log_history=log_history)
    if not is_foreign:
        return read
    # No score of ours is as high as this loss.
    return dataclasses.replace(
        read, best_metric=4.58, best_global_step=1, best_model_checkpoint=f"{OUTPUT}/checkpoint-1"
    )


def stream_to_json(stream: FaultStream) -> str:
    """Return the text a stream is saved as; `stream_of` reads it back."""
    document = {STREAM_KEY: strict_json(dataclasses.asdict(stream))}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def stream_of(document: Mapping[str, Any], where: str) -> FaultStream:
    """Read a saved stream; raise BadStream with every field that is wrong.

    >>> stream = FaultStream(MethodName.SFT, eval_losses=(2.0, None))
    >>> stream_of(json.loads(stream_to_json(stream)), "here") == stream
    True
    """
    problems: list[Problem] = []
    stream = read_section(FaultStream, with_numbers(document[STREAM_KEY]), where, problems)
    if problems:
        raise BadStream(*problems)
    return stream


def save_stream(stream: FaultStream, home: Path) -> Path:
    """Write a stream under `home`, whole or not at all; return its path, the same for the same."""
    text = stream_to_json(stream)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    path = home / STREAMS_FOLDER / f"{digest[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
