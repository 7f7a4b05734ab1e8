"""The log of one run, as a trainer keeps it, whatever record of the run it was read from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from podproof.monitor.errors import BadHistory
from podproof.runtime.errors import Problem
from podproof.runtime.events import Event, EventKind, event_to_dict, number_or_none
from podproof.runtime.readings import LogKind, read_log

# The kinds of event that a log is made of.
LOG_KINDS = (EventKind.TRAIN_LOG, EventKind.EVALUATION)

# What is told to whoever gave something else.
FORMS = (
    "give a trainer_state.json, a recorded stream (.jsonl), an events.jsonl, a CSV of curves with "
    "the columns step and eval_loss, a folder of a run or a checkpoint, or a run id"
)

_NOT_JSON = frozenset({"NaN", "Infinity", "-Infinity"})


@dataclass(frozen=True)
class Columns:
    """Which metric is taken as eval loss, which as train loss; None: what the record calls so."""

    eval_loss: str | None = None
    train_loss: str | None = None


@dataclass(frozen=True)
class History:
    """One run: `log` is what a scorer is replayed over, `metrics` all numbers by step.

    `log` holds entries with "loss" (a train log) or "eval_loss" (an evaluation), each with its
    "step", oldest first. `notes` say what the record lacks.
    """

    name: str
    source: str
    log: tuple[Mapping[str, Any], ...]
    metrics: Mapping[int, Mapping[str, float]]
    notes: tuple[str, ...] = ()


def history_of_log(
    name: str,
    source: str,
    log_history: Iterable[Any],
    columns: Columns,
    *,
    notes: tuple[str, ...] = (),
) -> History:
    """Return the history that a trainer's `log_history` tells.

    Raises BadHistory for an entry that is no object, an entry without a whole step that a scorer
    would need, and a log without a single evaluation.
    """
    entries = [_checked(entry, f"{source}, entry {at}") for at, entry in enumerate(log_history, 1)]
    # The trainer's closing summary is no train log, and its numbers belong to no step.
    entries = [entry for entry in entries if "train_loss" not in entry]
    columns, more_notes = _with_first_eval_set(entries, columns)
    log = tuple(kept for entry in entries if (kept := _scorable(entry, columns)))
    if not any(map(is_evaluation, log)):
        raise BadHistory(_without_evaluation(source, entries, columns))
    metrics: dict[int, dict[str, float]] = {}
    for entry in entries:
        numbers = {
            key: n for key, value in entry.items() if (n := number_or_none(value)) is not None
        }
        metrics.setdefault(entry.get("step", -1), {}).update(numbers)
    return History(name, source, log, metrics, (*notes, *more_notes))


def is_evaluation(entry: Mapping[str, Any]) -> bool:
    """Tell whether a scorer takes the entry for an evaluation."""
    return "eval_loss" in entry and "loss" not in entry


def log_of_events(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return the log that a run's events tell, in the order given (by boot, then by number).

    A run that was restarted goes back to its checkpoint and logs some steps again. What a later
    boot says of a step replaces what an earlier one said of it and of every step after it, as the
    trainer's own log does.
    """
    kept: list[Event] = []
    for event in events:
        if event.kind in LOG_KINDS and event.step is not None:
            kept = [earlier for earlier in kept if not _is_undone(earlier, event)]
            kept.append(event)
    return [_entry(event) for event in kept]


def _is_undone(earlier: Event, later: Event) -> bool:
    if earlier.boot == later.boot or earlier.step is None or later.step is None:
        return False
    return earlier.step > later.step or (earlier.step, earlier.kind) == (later.step, later.kind)


def _entry(event: Event) -> dict[str, Any]:
    body = event_to_dict(event)["body"]
    metrics = body.pop("metrics", None)
    if event.kind is EventKind.TRAIN_LOG:
        return {**body, "step": event.step}
    logged = metrics if isinstance(metrics, dict) else {}
    return {**logged, "eval_loss": body.get("eval_loss"), "step": event.step}


def _checked(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        problem = f"a log entry is an object, got {type(entry).__name__}"
        raise BadHistory(Problem(where, problem, "take the file as the trainer wrote it"))
    read = {str(key): _number(value) for key, value in entry.items()}
    step = number_or_none(read.get("step"))
    if step is not None and step.is_integer():
        return {**read, "step": int(step)}
    if "loss" in read or any(key.startswith("eval_") for key in read):
        what = f"its step must be a whole number, got {read.get('step')!r}"
        raise BadHistory(Problem(where, what, "take the file as the trainer wrote it"))
    return read


def _number(value: Any) -> Any:
    """Return the number that strict JSON had to spell as a word; anything else as it is."""
    return number_or_none(value) if isinstance(value, str) and value in _NOT_JSON else value


def _scorable(entry: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Return the entry with its losses under the names a scorer knows; empty when it has none."""
    kept = {key: value for key, value in entry.items() if key not in {"loss", "eval_loss"}}
    trained, evaluated = columns.train_loss or "loss", columns.eval_loss or "eval_loss"
    if trained in entry:
        return {**kept, "loss": entry[trained]}
    if evaluated in entry:
        return {**kept, "eval_loss": entry[evaluated]}
    # An evaluation that lost its loss counts as one that cannot be used.
    return {**kept, "eval_loss": None} if _set_loss(entry) == evaluated else {}


def _with_first_eval_set(
    entries: Sequence[Mapping[str, Any]], columns: Columns
) -> tuple[Columns, tuple[str, ...]]:
    """Take the first eval set seen when there are several, as the callback does, and say so."""
    seen = list(dict.fromkeys(name for entry in entries if (name := _set_loss(entry))))
    if columns.eval_loss or not seen:
        return columns, ()
    note = f"scored by {seen[0]}, its first eval set; there is {', '.join(seen)}: see --eval-loss"
    return replace(columns, eval_loss=seen[0]), (note,) if len(seen) > 1 else ()


def _set_loss(entry: Mapping[str, Any]) -> str | None:
    """Return how the loss of an evaluation is called; None for what is no evaluation."""
    reading = read_log(entry)
    if reading.kind is not LogKind.EVALUATION:
        return None
    return f"eval_{reading.eval_set}_loss" if reading.eval_set else "eval_loss"


def _without_evaluation(
    source: str, entries: Sequence[Mapping[str, Any]], columns: Columns
) -> Problem:
    wanted = columns.eval_loss or "eval_loss"
    others = sorted({key for entry in entries for key in entry if key.startswith("eval_")})
    what = f"has no evaluation: none of its {len(entries)} log entries has {wanted}"
    way_out = "train with eval_strategy=steps or epoch; without evaluations nothing can be scored"
    if others:
        way_out = f"name one with --eval-loss; there is {', '.join(others)}"
    return Problem(source, what, way_out)
