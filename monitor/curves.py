"""Tables of checkpoint curves: one row a checkpoint, any number of runs in one file."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from podproof.monitor.errors import BadHistory
from podproof.monitor.history import FORMS, Columns, History
from podproof.runtime.errors import Problem

_TRAIN_LOSSES = ("train_loss", "loss")


def read_curves(source: str, text: str, columns: Columns) -> tuple[History, ...]:
    """Return one history for each `run_id` of a CSV table, in the order of the file.

    The table needs the columns `step` and that of the eval loss; without `run_id` it is one run.
    A cell that is empty is a value that was not measured. Raises BadHistory.
    """
    table = csv.DictReader(io.StringIO(text), strict=True)
    try:
        header = list(table.fieldnames or ())
        eval_loss, train_loss = _meant(source, header, columns)
        runs: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for row in table:
            step = _step(source, table.line_num, row)
            runs.setdefault(row.get("run_id") or source, []).append((step, row))
    except csv.Error as error:
        where = f"{source}:{table.line_num}"
        raise BadHistory(Problem(where, f"not CSV: {error}", "mend the line")) from error
    if not runs:
        raise BadHistory(Problem(source, "has a header and no rows", "give a table with rows"))
    notes = () if train_loss else (f"no column {' or '.join(_TRAIN_LOSSES)}: no train losses",)
    return tuple(
        _history(name, source, sorted(rows, key=lambda row: row[0]), (eval_loss, train_loss), notes)
        for name, rows in runs.items()
    )


def _meant(source: str, header: Sequence[str], columns: Columns) -> tuple[str, str | None]:
    """Return the columns of eval and train loss."""
    eval_loss = columns.eval_loss or "eval_loss"
    needed = ["step", eval_loss, *([columns.train_loss] if columns.train_loss else [])]
    missing = [name for name in needed if name not in header]
    if missing:
        seen = ", ".join(name for name in header if name)[:300]
        what = f"is no table of curves: it lacks {', '.join(missing)}; its first line is {seen!r}"
        way_out = f"name its columns with --eval-loss and --train-loss; otherwise {FORMS}"
        raise BadHistory(Problem(source, what, way_out))
    found = next((name for name in _TRAIN_LOSSES if name in header), None)
    return eval_loss, columns.train_loss or found


def _step(source: str, line: int, row: dict[str, Any]) -> int:
    number = _number(row.get("step"))
    if number is None or not number.is_integer():
        what = f"step must be a whole number, got {row.get('step')!r}"
        raise BadHistory(Problem(f"{source}:{line}", what, "mend the line"))
    return int(number)


def _history(
    name: str,
    source: str,
    rows: Sequence[tuple[int, dict[str, str]]],
    losses: tuple[str, str | None],
    notes: tuple[str, ...],
) -> History:
    metrics: dict[int, dict[str, float]] = {}
    for step, row in rows:
        numbers = {key: n for key, cell in row.items() if (n := _number(cell)) is not None}
        metrics.setdefault(step, {}).update(numbers)
    log = tuple(entry for step, row in rows for entry in _entries(step, row, losses))
    return History(name, source, log, metrics, notes)


def _entries(
    step: int, row: dict[str, str], losses: tuple[str, str | None]
) -> Iterator[dict[str, Any]]:
    """Yield what a trainer logs at one step: the train loss first, then the evaluation."""
    eval_loss, train_loss = losses
    train = _number(row.get(train_loss)) if train_loss else None
    if train is not None:
        yield {"loss": train, "step": step}
    # What else was evaluated may count, the margins of DPO for instance.
    beside = {
        key: n
        for key, cell in row.items()
        if _is_measured(key) and (n := _number(cell)) is not None
    }
    yield {**beside, "eval_loss": _number(row.get(eval_loss)), "step": step}


def _is_measured(column: Any) -> bool:
    return isinstance(column, str) and column.startswith("eval_") and "loss" not in column


def _number(cell: Any) -> float | None:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return number if not math.isnan(number) else None
