"""Find the log of a run in whatever file or folder holds it, by content and never by name."""

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from podproof.monitor.curves import read_curves
from podproof.monitor.errors import BadHistory, UnknownRun
from podproof.monitor.fold import in_order
from podproof.monitor.history import (
    FORMS,
    LOG_KINDS,
    Columns,
    History,
    history_of_log,
    log_of_events,
)
from podproof.monitor.store import Store
from podproof.runtime.errors import Problem
from podproof.runtime.events import event_from_dict

TRAINER_STATE = "trainer_state.json"
EVENTS_FILE = "events.jsonl"

_GZIP_MAGIC = b"\x1f\x8b"


def find_histories(
    names: Sequence[str], columns: Columns, stored: Callable[[str], History]
) -> tuple[History, ...]:
    """Return the runs that the names mean: files and folders, else runs of the store.

    `stored` returns a run of the store by its id or beginning, or raises UnknownRun. Runs that
    would be called alike are called by where they were read from. Raises BadHistory with the
    problems of every name that cannot be read.
    """
    found: list[History] = []
    problems: list[Problem | str] = []
    for name in names:
        try:
            is_there = os.path.exists(name)  # noqa: PTH110 - Path.exists raises for a name too long
            found += read_path(Path(name), columns) if is_there else [stored(name)]
        except UnknownRun as error:
            way_out = error.problems[0].way_out
            problems.append(Problem(name, "no such file or folder, and no such run", way_out))
        except BadHistory as error:
            problems += error.problems
    if problems:
        raise BadHistory(*problems)
    count = Counter(history.name for history in found)
    return tuple(h if count[h.name] == 1 else replace(h, name=h.source) for h in found)


def stored_history(store: Store, run_id: str, columns: Columns) -> History:
    """Return the history of a run in the store; raise UnknownRun or BadHistory."""
    store.run(run_id)  # raises UnknownRun
    log = log_of_events(store.events(run_id, LOG_KINDS))
    return history_of_log(run_id, f"run {run_id}", log, columns)


def read_path(path: Path, columns: Columns) -> tuple[History, ...]:
    """Return the runs a file or folder tells of; only a table of curves has more than one.

    Of a folder with several checkpoints the newest is read, since its log holds the others'.
    """
    if path.is_dir():
        return read_path(_file_of_folder(path), columns)
    text, source = read_text(path), str(path)
    if not text.lstrip().startswith("{"):
        return read_curves(source, text, columns)
    name = _name_of_file(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return (_of_lines(name, source, text, columns, error),)
    if isinstance(document.get("log_history"), list):
        return (history_of_log(name, source, document["log_history"], columns),)
    return (_of_rows(name, source, [document], columns),)


def _file_of_folder(folder: Path) -> Path:
    """Return the file that knows most of the run whose folder, output or checkpoint this is."""
    for place in (folder, folder / "output"):
        if (place / TRAINER_STATE).is_file():
            return place / TRAINER_STATE
        checkpoints = [path.parent for path in place.glob(f"checkpoint-*/{TRAINER_STATE}")]
        numbered = [path for path in checkpoints if path.name.partition("-")[2].isdigit()]
        if numbered:
            newest = max(numbered, key=lambda path: int(path.name.partition("-")[2]))
            return newest / TRAINER_STATE
        if (place / EVENTS_FILE).is_file():
            return place / EVENTS_FILE
    what = f"holds no {TRAINER_STATE}, no checkpoint-N/{TRAINER_STATE} and no {EVENTS_FILE}"
    raise BadHistory(Problem(str(folder), what, FORMS))


def read_text(path: Path) -> str:
    """Return the text of a file, unpacked when it is gzip's; raise BadHistory."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        what = f"cannot be read: {error}"
        raise BadHistory(
            Problem(str(path), what, "check the path, or copy the file anew")
        ) from error
    except UnicodeDecodeError as error:
        raise BadHistory(Problem(str(path), "is not text", FORMS)) from error


def _name_of_file(path: Path) -> str:
    """Return how a run is called by its file: with its folder where every file has one name."""
    is_common = path.name in {TRAINER_STATE, EVENTS_FILE} and path.parent.name
    return f"{path.parent.name}/{path.name}" if is_common else path.name


def _of_lines(name: str, source: str, text: str, columns: Columns, error: Exception) -> History:
    """Read one JSON object a line; a last line that was cut short is left out, and said so."""
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not _is_object(lines[0][1]) or len(lines) == 1:
        what = f"is JSON that was cut short or damaged: {error}"
        way_out = "take the same file of an earlier checkpoint, or copy it anew"
        raise BadHistory(Problem(source, what, way_out)) from error
    rows = [_row(source, at, line) for at, line in lines[:-1]]
    try:
        rows.append(_row(source, *lines[-1]))
    except BadHistory:
        # The process that wrote it was killed in the middle of a line.
        note = "its last line was cut short and is left out"
        return _of_rows(name, source, rows, columns, notes=(note,))
    return _of_rows(name, source, rows, columns)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), Mapping)
    except (ValueError, RecursionError):
        return False


def _row(source: str, at: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"not JSON: {error}"
        raise BadHistory(Problem(f"{source}:{at}", what, "copy the file anew")) from error
    if not isinstance(row, Mapping):
        what = f"must be an object, got {type(row).__name__}"
        raise BadHistory(Problem(f"{source}:{at}", what, FORMS))
    return row


def _of_rows(
    name: str,
    source: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Columns,
    *,
    notes: tuple[str, ...] = (),
) -> History:
    if "event_id" in rows[0]:
        return _of_events(name, source, rows, columns, notes=notes)
    if "event" in rows[0]:
        return _of_stream(name, source, rows, columns, notes=notes)
    what = "is JSON, but neither a trainer's state nor events"
    raise BadHistory(Problem(source, what, FORMS))


def _of_events(
    name: str,
    source: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Columns,
    *,
    notes: tuple[str, ...],
) -> History:
    events = []
    for at, row in enumerate(rows, 1):
        try:
            events.append(event_from_dict(row))
        except (ValueError, TypeError) as error:
            raise BadHistory(Problem(f"{source}, event {at}", str(error), FORMS)) from error
    log = log_of_events(in_order(events))
    return history_of_log(events[-1].run_id or name, source, log, columns, notes=notes)


def _of_stream(
    name: str,
    source: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Columns,
    *,
    notes: tuple[str, ...],
) -> History:
    """Take the log from the footer; a run that was killed has none, and is put together again."""
    footers = [row for row in rows if row.get("event") == "_footer"]
    if footers and isinstance(footers[-1].get("log_history"), list):
        return history_of_log(name, source, footers[-1]["log_history"], columns, notes=notes)
    logs = [row for row in rows if row.get("event") == "on_log"]
    begins = [row.get("state") for row in rows if row.get("event") == "on_train_begin"]
    missing = next((state.get("len_log_history") for state in begins if state), 0)
    notes = (*notes, "the recording has no end: its log is put together from its events")
    if missing:
        notes = (*notes, f"the {missing} log entries before its resume are not in the recording")
    entries = [_logged(row) for row in logs]
    return history_of_log(name, source, entries, columns, notes=notes)


def _logged(row: Mapping[str, Any]) -> dict[str, Any]:
    entry = row.get("log_history_last") or row.get("logs")
    place = {"step": row.get("step"), "epoch": row.get("epoch")}
    return {**place, **entry} if isinstance(entry, Mapping) else place
