"""Plays the recorded event stream of a real trainer to a callback, and keeps the trainer's books.

The recordings (`*.jsonl.gz` beside this file) are of transformers 5.23 and TRL 1.16 on tiny random
models. Their first row is a header, their last one says how the run ended; each row between is one
event with the trainer's state, its control flags, and what it logged. A process that was killed
left no last row. They were made without our callback, so the books on the best checkpoint are kept
here, as the trainer keeps them.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from podproof.harness.simulator import OUTPUT, TrainerControl, TrainerState
from podproof.harness.stream_rows import rows_of, with_numbers


@dataclass
class Played:
    """How a recording ended for the callback: the trainer's books, and who asked for a stop."""

    state: TrainerState
    saved_steps: list[int] = field(default_factory=list)
    hooks: Counter[str] = field(default_factory=Counter)
    evaluated: list[dict[str, Any]] = field(default_factory=list)


def play(name: str, callback: Any) -> Played:
    """Fire every event of a recording at the callback; raise what the trainer would die of."""
    rows = list(_rows(name))
    events = [row for row in rows if not row["event"].startswith("_")]
    history = rows[-1].get("log_history") or []
    played = Played(TrainerState(max_steps=0))
    for row in events:
        if row["event"] == "on_train_begin":
            # The trainer makes a new state, with the log of the checkpoint it goes on from.
            played.state = TrainerState(0, log_history=history[: row["state"]["len_log_history"]])
        _fire(row, callback, played)
    return played


def recordings() -> list[str]:
    """Return the name of every recording."""
    return sorted(path.name.split(".jsonl")[0] for path in Path(__file__).parent.glob("*.gz"))


def _rows(name: str) -> Iterator[dict[str, Any]]:
    for row in rows_of(Path(__file__).parent / f"{name}.jsonl.gz"):
        yield with_numbers(row)


def _fire(row: dict[str, Any], callback: Any, played: Played) -> None:
    state, event = played.state, row["event"]
    state.global_step, state.epoch = row["step"], row["epoch"]
    state.max_steps = row["state"]["max_steps"]
    state.is_world_process_zero = row["state"]["is_world_process_zero"]
    given: dict[str, Any] = {}
    if event == "on_log":
        state.log_history.append(dict(row["log_history_last"]))
        given = {"logs": row["logs"]}
        played.evaluated += [row["logs"]] if any("eval_" in key for key in row["logs"]) else []
    elif event == "on_evaluate":
        # The trainer hands on_evaluate the very dictionary that on_log was given.
        given = {"metrics": played.evaluated[-1]}
    hook = getattr(callback, event, None)
    if hook is not None:
        played.hooks[event] += 1
        hook(SimpleNamespace(output_dir=OUTPUT), state, _control(row), model=None, **given)
    if event == "on_evaluate" and state.global_step > 0:
        # What is evaluated before the first step is not compared.
        _compare(state, played.evaluated[-1])
    elif event == "on_save":
        played.saved_steps.append(state.global_step)


def _control(row: dict[str, Any]) -> TrainerControl:
    flags = row["control"]
    return TrainerControl(flags["stop"], flags["log"], flags["evaluate"], flags["save"])


def _compare(state: TrainerState, metrics: dict[str, Any]) -> None:
    # As the trainer does: an absent metric is a KeyError, a tie keeps the earlier, NaN never wins.
    value = metrics["eval_checkpoint_score"]
    if value > (-math.inf if state.best_metric is None else state.best_metric):
        state.best_metric, state.best_global_step = value, state.global_step
