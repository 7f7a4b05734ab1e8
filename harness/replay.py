"""Play a stream from a file to the callback of a script, and show each event and what it broke."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podproof.harness.drawn import subject_of
from podproof.harness.recorded import Recording, play_recording, recording_of
from podproof.harness.stream_rows import rows_of
from podproof.harness.streams import STREAM_KEY, FaultStream, play, stream_of
from podproof.harness.witness import Seen
from podproof.runtime.events import strict_json
from podproof.runtime.plan import ScorerPlan

Stream = FaultStream | Recording


def read_stream(path: Path) -> Stream:
    """Return the stream a file holds: one that podproof saved, or a recording of a trainer.

    Raise BadStream for anything else.
    """
    rows = rows_of(path)
    if STREAM_KEY in rows[0]:
        return stream_of(rows[0], str(path))
    return recording_of(rows, str(path))


def replay(stream: Stream, code: Any, plan: ScorerPlan) -> tuple[Seen, ...]:
    """Play a stream to the callback in a script's code; return everything that was seen."""
    subject = subject_of(code, plan)
    if isinstance(stream, Recording):
        return tuple(play_recording(stream, subject).seen)
    return tuple(play(stream, subject).seen)


def is_clean(seen: Sequence[Seen]) -> bool:
    """Tell whether no invariant was broken."""
    return not any(item.broken for item in seen)


def seen_to_dicts(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Return every event as JSON values; `score` is lower is better, as it is told."""
    return [
        {
            "number": number,
            "process": item.process,
            "event": item.event,
            "step": item.step,
            "epoch": strict_json(item.epoch),
            "logged": None if item.given is None else strict_json(dict(item.given)),
            "score": strict_json(_score(item)),
            "told": list(item.told),
            "is_stopping": item.is_stopping,
            "is_saving": item.is_saving,
            "broken": [{"invariant": it.invariant, "what": it.what} for it in item.broken],
        }
        for number, item in enumerate(seen)
    ]


def seen_table(seen: Sequence[Seen]) -> RenderableType:
    """Return a row for each event, then what was broken, then the conclusion."""
    table = Table(box=None, pad_edge=False)
    for title in ("event", "process", "what", "step", "logged", "score", "told", "decided"):
        table.add_column(title, justify="right" if title in {"event", "step", "score"} else "left")
    for number, item in enumerate(seen):
        style = "bold red" if item.broken else None
        table.add_row(str(number), str(item.process), *_cells(item), style=style)
    return Group(table, *_broken_lines(seen), _conclusion(seen))


def _cells(item: Seen) -> tuple[str, ...]:
    score = _score(item)
    flags = (("stop", item.is_stopping), ("save", item.is_saving))
    return (
        item.event,
        str(item.step),
        _losses(item.given or {}),
        "" if score is None else f"{score:.6g}",
        ", ".join(item.told),
        ", ".join(name for name, is_set in flags if is_set),
    )


def _losses(given: Mapping[str, Any]) -> str:
    losses = {key: value for key, value in given.items() if key.endswith("loss")}
    return " ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in losses.items()
    )


def _score(item: Seen) -> float | None:
    """Return the score, lower is better; the trainer is shown it with its sign turned."""
    if item.score is None:
        return None
    return math.inf if math.isnan(item.score) else -item.score


def _broken_lines(seen: Sequence[Seen]) -> list[Text]:
    return [
        Text(f"\n{it.invariant}", style="bold red").append(
            f" at event {number}, {item.event} of step {item.step}: {it.what}", style="not bold"
        )
        for number, item in enumerate(seen)
        for it in item.broken
    ]


def _conclusion(seen: Sequence[Seen]) -> Text:
    count = sum(len(item.broken) for item in seen)
    evaluations = sum("evaluation" in item.told for item in seen)
    said = f"\n{len(seen)} events, {evaluations} evaluations told"
    if count:
        page = "docs/explanation/dry-run.md"
        text = f"{said}, {count} times an invariant was broken; {page} says what each asks"
        return Text(text, style="bold red")
    return Text(f"{said}, nothing broken", style="bold green")
