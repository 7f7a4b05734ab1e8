"""What a run says about itself: one frozen record per event, one strict JSON line each.

The same records travel from the pod to the collector, from the simulator to the dry run,
and from the store to the screen. JSON here is strict: a non-finite float is written as one of
the strings "NaN", "Infinity", "-Infinity", since RFC 8259 has no such numbers and
PostgreSQL, browsers and most parsers refuse them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = None | bool | int | float | str | list[Any] | dict[str, Any]


class EventKind(StrEnum):
    """The kinds of event, in the order in which a run first sends them."""

    PLAN = "plan"
    STARTED = "started"
    RESUMED = "resumed"
    TRAIN_LOG = "train_log"
    EVALUATION = "evaluation"
    NEW_BEST = "new_best"
    PREDICTION = "prediction"
    CHECKPOINT_SAVED = "checkpoint_saved"
    HOOK_COST = "hook_cost"
    NOTICE = "notice"
    DELIVERED = "delivered"
    PUBLISHED = "published"
    DONE = "done"
    STOPPED_EARLY = "stopped_early"
    OUT_OF_TIME = "out_of_time"
    OUT_OF_MONEY = "out_of_money"
    PREEMPTED = "preempted"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


TERMINAL_KINDS = frozenset(
    {
        EventKind.DONE,
        EventKind.STOPPED_EARLY,
        EventKind.OUT_OF_TIME,
        EventKind.OUT_OF_MONEY,
        EventKind.PREEMPTED,
        EventKind.INTERRUPTED,
        EventKind.FAILED,
    }
)


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    `event_id` is unique over all runs and boots, so a receiver can drop what it already has.
    `boot` counts container starts from 1; `seq` counts events of one boot from 0.
    `time_unix_s` is the pod's clock in seconds; nothing is ever decided by it.
    `step` and `epoch` are the trainer's, absent outside training. `body` is plain JSON.
    """

    event_id: str
    run_id: str
    boot: int
    seq: int
    kind: EventKind
    time_unix_s: float
    step: int | None
    epoch: float | None
    body: Mapping[str, Any]

    @property
    def is_terminal(self) -> bool:
        """Tell whether the run is over with this event."""
        return self.kind in TERMINAL_KINDS


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return the event as plain, strict JSON values.

    >>> event = Event("r-1-0", "r", 1, 0, EventKind.TRAIN_LOG, 0.0, 5, 0.5, {"loss": math.nan})
    >>> event_to_dict(event)["body"]
    {'loss': 'NaN'}
    """
    return {
        "event_id": event.event_id,
        "run_id": event.run_id,
        "boot": event.boot,
        "seq": event.seq,
        "kind": event.kind.value,
        "time_unix_s": event.time_unix_s,
        "step": event.step,
        "epoch": strict_json(event.epoch),
        "body": strict_json(dict(event.body)),
    }


def event_from_dict(fields: Mapping[str, Any]) -> Event:
    """Read back what `event_to_dict` wrote; raise ValueError naming the field that is wrong."""
    try:
        return Event(
            event_id=_event_text(fields, "event_id"),
            run_id=_event_text(fields, "run_id"),
            boot=_event_whole(fields, "boot"),
            seq=_event_whole(fields, "seq"),
            kind=_event_kind(fields),
            time_unix_s=_event_number(fields, "time_unix_s"),
            step=None if fields["step"] is None else _event_whole(fields, "step"),
            epoch=None if fields["epoch"] is None else _event_number(fields, "epoch"),
            body=_event_body(fields),
        )
    except KeyError as error:
        raise ValueError(f"event without the field {error}") from error


def event_to_line(event: Event) -> str:
    """Return the event as one line of JSON, without the newline."""
    return json.dumps(event_to_dict(event), ensure_ascii=True, allow_nan=False)


def event_from_line(line: str) -> Event:
    """Read one line written by `event_to_line`; raise ValueError when it is not one."""
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"an event is a JSON object, got {type(fields).__name__}")  # noqa: TRY004 - one error for every unreadable line
    return event_from_dict(fields)


def strict_json(value: Any) -> Json:
    """Return `value` with every float that JSON cannot carry as its name.

    Numbers of other libraries (numpy, torch scalars) become floats; anything else becomes text.

    >>> strict_json({"loss": math.inf, "steps": (1, 2)})
    {'loss': 'Infinity', 'steps': [1, 2]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _float_or_name(value)
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return _foreign_number(value)


def _float_or_name(value: float) -> float | str:
    if math.isfinite(value):
        return float(value)
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _foreign_number(value: Any) -> float | str:
    try:
        return _float_or_name(float(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # RuntimeError is what torch raises for a tensor of several numbers.
        return str(value)


def number_or_none(value: Any) -> float | None:
    """Return a JSON value written by `strict_json` as a float, or None if it is no number.

    >>> number_or_none("NaN"), number_or_none("12"), number_or_none(True)
    (nan, None, None)
    """
    if isinstance(value, str):
        return float(value) if value in {"NaN", "Infinity", "-Infinity"} else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _event_text(fields: Mapping[str, Any], key: str) -> str:
    value = fields[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"event field {key!r} must be non-empty text, got {value!r}")
    return value


def _event_whole(fields: Mapping[str, Any], key: str) -> int:
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"event field {key!r} must be a whole number, got {value!r}")  # noqa: TRY004 - one error for every unreadable event
    return value


def _event_number(fields: Mapping[str, Any], key: str) -> float:
    number = number_or_none(fields[key])
    if number is None:
        raise ValueError(f"event field {key!r} must be a number, got {fields[key]!r}")
    return number


def _event_kind(fields: Mapping[str, Any]) -> EventKind:
    try:
        return EventKind(fields["kind"])
    except ValueError as error:
        raise ValueError(f"event field 'kind' is none of ours: {fields['kind']!r}") from error


def _event_body(fields: Mapping[str, Any]) -> dict[str, Any]:
    value = fields["body"]
    if not isinstance(value, Mapping):
        raise ValueError(f"event field 'body' must be an object, got {value!r}")  # noqa: TRY004 - one error for every unreadable event
    return dict(value)
