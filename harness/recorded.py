"""Streams recorded from real trainers: read from JSON lines, and played to an embedded callback.

One row an event: {event, step, epoch, state, control, logs, log_history_last, ...}; the first row
is a header, the last one a footer with the outcome, which a process that was killed left without.
NaN and the infinities are written as text. What was recorded stays as it is: a callback that would
have stopped the run earlier is asked about the rest all the same.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from podproof.harness.drawn import Subject
from podproof.harness.errors import BadStream
from podproof.harness.simulator import OUTPUT, TrainerControl, TrainerState
from podproof.harness.stream_rows import WHAT_IS_READ, with_numbers
from podproof.harness.witness import Violation, Witness
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName


@dataclass(frozen=True)
class Recording:
    """The events of a real trainer, its method, and the log that it ended with, if it ended."""

    method: MethodName
    events: tuple[Mapping[str, Any], ...]
    log_history: tuple[Mapping[str, Any], ...]


def recording_of(rows: Sequence[Mapping[str, Any]], where: str) -> Recording:
    """Return the recording that these rows are; raise BadStream naming the row that is not one."""
    header, *rest = [with_numbers(row) for row in rows]
    methods = {method.value: method for method in MethodName}
    if header.get("event") != "_header" or header.get("method") not in methods:
        what = f"has no header with a method ({', '.join(methods)})"
        raise BadStream(Problem(f"{where}:1", what, WHAT_IS_READ))
    footers = [row for row in rest if row.get("event") == "_footer"]
    # Rows with an underscore are notes of the recorder's.
    numbered = [
        (at, row) for at, row in enumerate(rest, 2) if not str(row.get("event", "")).startswith("_")
    ]
    problems = [problem for at, row in numbered for problem in _bad_row(row, where, at)]
    if problems:
        raise BadStream(*problems)
    if not numbered:
        raise BadStream(Problem(where, "has no event", WHAT_IS_READ))
    events = [row for _, row in numbered]
    history = (footers[-1].get("log_history") if footers else None) or ()
    if not isinstance(history, list | tuple) or not all(isinstance(log, dict) for log in history):
        what = "the footer's log_history is no list of logs"
        raise BadStream(Problem(where, what, WHAT_IS_READ))
    return Recording(methods[header["method"]], tuple(events), tuple(history))


def _bad_row(row: Mapping[str, Any], where: str, at: int) -> Iterator[Problem]:
    needed = {"event": str, "step": int, "state": dict, "control": dict}
    if row.get("event") == "on_log":
        needed |= {"logs": dict, "log_history_last": dict}
    for key, kind in needed.items():
        if not isinstance(row.get(key), kind):
            yield Problem(f"{where}:{at}", f"an event needs {key!r}, a {kind.__name__}")


def play_recording(recording: Recording, subject: Subject) -> Witness:
    """Fire every recorded event at the subject's callback; return what was seen of it.

    The trainer's books on the best checkpoint are kept anew, from the scores that it is shown.
    """
    witness = Witness(subject.code, subject.plan, subject.own_plan)
    player = _Player(recording, witness)
    for row in recording.events:
        player.fire(row)
    witness.end_process("left")
    return witness


class _Player:
    def __init__(self, recording: Recording, witness: Witness) -> None:
        self._recording, self._witness = recording, witness
        self._state = TrainerState(max_steps=0)
        self._metrics: dict[str, Any] = {}

    def fire(self, row: Mapping[str, Any]) -> None:
        event = row["event"]
        state = self._at(row)
        given: dict[str, Any] = {}
        if event == "on_log":
            state.log_history.append(dict(row["log_history_last"]))
            self._metrics = dict(row["logs"])
            given = {"logs": self._metrics}
        elif event == "on_evaluate":
            # The trainer hands on_evaluate the very dictionary that on_log was given.
            given = {"metrics": self._metrics}
        args = SimpleNamespace(output_dir=OUTPUT, **_schedule(row))
        self._witness.fire(event, args, state, _control(row), model=None, **given)
        if event == "on_evaluate" and state.global_step > 0:
            self._compare()

    def _at(self, row: Mapping[str, Any]) -> TrainerState:
        if row["event"] == "on_train_begin":
            # A new state, with the log of the checkpoint that the trainer goes on from.
            kept = self._recording.log_history[: int(row["state"].get("len_log_history", 0))]
            self._state = TrainerState(0, log_history=[dict(entry) for entry in kept])
        self._state.global_step, self._state.epoch = row["step"], row.get("epoch") or 0.0
        self._state.max_steps = row["state"].get("max_steps", 0)
        self._state.is_world_process_zero = row["state"].get("is_world_process_zero", True)
        return self._state

    def _compare(self) -> None:
        # As the trainer does: no score ends the run, a tie keeps the earlier, NaN never wins.
        value = self._metrics.get(self._witness.code.SCORE_KEY)
        if value is None:
            died = "the trainer would have died of KeyError: no score at this evaluation"
            self._witness.mark("died", Violation("survived", died))
        elif value > (-math.inf if self._state.best_metric is None else self._state.best_metric):
            self._state.best_metric = value
            self._state.best_global_step = self._state.global_step


def _schedule(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row["state"].get(key) for key in ("logging_steps", "eval_steps")}


def _control(row: Mapping[str, Any]) -> TrainerControl:
    flags = row["control"]
    names = ("stop", "log", "evaluate", "save")
    return TrainerControl(*(bool(flags.get(name)) for name in names))
