"""A recorded stream, read from its file.

JSON lines, gzipped or not. The first row is a header (config, rows, method), the last one a
footer that tells how the run ended; a process that was killed left none. NaN and the infinities
are written as names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.harness.errors import BadStream
from podproof.harness.stream_events import (
    FLAGS,
    StreamEvent,
    checkpoint_step,
    eval_set_of,
    named,
)
from podproof.harness.stream_rows import WHAT_IS_READ, rows_of, with_numbers
from podproof.runtime.errors import Problem

_FLAG_KEYS: Mapping[str, str] = {
    "should_training_stop": "stop",
    "should_epoch_stop": "epoch_stop",
    "should_save": "save",
    "should_evaluate": "evaluate",
    "should_log": "log",
}


@dataclass(frozen=True)
class Recording:
    """A stream as it was recorded, and what the header and the footer say of its run.

    `arguments` are those of the config class that were set. `outcome` is "ok", the name of the
    exception that ended the run (`message` is what it said), or None when the process was killed.
    """

    name: str
    method: str
    arguments: Mapping[str, Any]
    rows: int | None
    eval_rows: Mapping[str, int] | int | None
    rank: int
    events: tuple[StreamEvent, ...]
    outcome: str | None
    message: str
    history: tuple[Mapping[str, Any], ...]
    checkpoints_at_end: tuple[int, ...] | None


def read_recording(path: str | Path) -> Recording:
    """Read a recorded stream; raise BadStream for a file that is none, or cannot be read."""
    path = Path(path)
    rows = [with_numbers(row) for row in rows_of(path)]
    if rows[0].get("event") != "_header" or "config" not in rows[0]:
        what = "its first row is no header with a config"
        raise BadStream(Problem(f"{path}:1", what, WHAT_IS_READ))
    header = rows[0]
    footer = rows[-1] if rows[-1].get("event") == "_footer" else None
    ended = footer or {}
    return Recording(
        name=path.name.partition(".jsonl")[0],
        method=str(header.get("method", "")),
        arguments=header["config"],
        rows=header.get("n_train"),
        eval_rows=header.get("n_eval"),
        rank=int(header.get("rank") or 0),
        events=tuple(_event(row) for row in rows if not row["event"].startswith("_")),
        outcome=ended.get("outcome"),
        message=str(ended.get("message") or ""),
        history=tuple(ended.get("log_history") or ()),
        checkpoints_at_end=_steps(ended.get("ckpts")),
    )


def _event(row: Mapping[str, Any]) -> StreamEvent:
    state, control = row["state"], row["control"]
    numbers = row.get("logs", row.get("metrics"))
    return StreamEvent(
        name=named(row["event"], numbers),
        step=row["step"],
        epoch=row["epoch"],
        flags=tuple(control[_FLAG_KEYS[flag]] for flag in FLAGS),
        best_metric=state["best_metric"],
        best_global_step=state["best_global_step"],
        best_model_checkpoint=checkpoint_step(state["best_model_checkpoint"]),
        history_length=state["len_log_history"],
        max_steps=state["max_steps"],
        num_train_epochs=state["num_train_epochs"],
        every=(state["logging_steps"], state["eval_steps"], state["save_steps"]),
        train_batch_size=state["train_batch_size"],
        eval_set=eval_set_of(numbers),
        checkpoints=_steps(row.get("ckpts")),
        numbers=numbers,
    )


def _steps(names: Iterable[str] | None) -> tuple[int, ...] | None:
    if names is None:
        return None
    found = (checkpoint_step(name) for name in names)
    return tuple(sorted(step for step in found if step is not None))
