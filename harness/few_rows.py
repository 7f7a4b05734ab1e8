"""A few rows to train on: the shortest of the first real ones, or made ones of the same format."""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from podproof.runtime.data import find_data_file, read_data
from podproof.runtime.errors import PodproofError
from podproof.runtime.plan import DataPlan, DataSource, EvalPlan, Plan, RowFormat
from podproof.runtime.rows import METHOD_FORMATS, detect_format

TRAIN_ROWS = 16
EVAL_ROWS = 4
# Short rows cost less, and one long row among few would be all that is trained on.
_LOOKED_AT = 200
_MADE_SHARE = 0.2

_CSV_CELL_BYTES = 1 << 30


def few_rows(plan: Plan, roots: tuple[Path, ...], folder: Path) -> tuple[DataPlan, str]:
    """Write a few rows of the plan's files into `folder`; return where they are, and what they are.

    A file keeps its format and its columns, so the script reads it as it would the whole. Rows
    that are not at hand, or that cannot be trained on, are replaced by made ones.
    """
    data = plan.data
    path = _at_hand(data.path, data, roots)
    other = None if data.eval.path is None else _at_hand(data.eval.path, data, roots)
    if path is None or (data.eval.path is not None and other is None):
        return made_rows(plan, folder), "made rows, for the data are not at hand"
    eval_plan = data.eval
    try:
        few = _few_of(path, data.source, folder / f"train.{data.source}", TRAIN_ROWS)
        if other is not None:
            there = _few_of(other, data.source, folder / f"eval.{data.source}", EVAL_ROWS)
            eval_plan = EvalPlan(path=str(there))
        shrunken = replace(data, path=str(few), eval=eval_plan, max_rows=_most(data.max_rows))
        if data.source is not DataSource.PARQUET:
            read_data(shrunken, plan.method, ())
    except (PodproofError, OSError, ValueError, csv.Error):
        return made_rows(plan, folder), "made rows, for those at hand cannot be read"
    return shrunken, f"{TRAIN_ROWS} rows of {path.name}"


def made_rows(plan: Plan, folder: Path) -> DataPlan:
    """Write rows made in the format the plan asks for, under the names its files would use."""
    row_format = _format_to_make(plan)
    column_names = _made(row_format, 0)
    names = {key: name for key, name in plan.data.columns.items() if key in column_names}
    rows = [
        {names.get(column, column): value for column, value in _made(row_format, index).items()}
        for index in range(TRAIN_ROWS + EVAL_ROWS)
    ]
    path = folder / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    evaluates = plan.arguments.get("eval_strategy", "no") != "no"
    return DataPlan(
        source=DataSource.JSONL,
        path=str(path),
        format=plan.data.format,
        columns=names,
        eval=EvalPlan(fraction=_MADE_SHARE if evaluates else None),
        shuffle_seed=plan.data.shuffle_seed,
    )


def _format_to_make(plan: Plan) -> RowFormat:
    usable = METHOD_FORMATS[plan.method]
    if plan.data.format in usable:
        return plan.data.format
    return detect_format(plan.data.columns, RowFormat.AUTO, plan.method) or usable[0]


def _at_hand(path: str, data: DataPlan, roots: tuple[Path, ...]) -> Path | None:
    return None if data.source is DataSource.HUB else find_data_file(path, roots)


def _most(rows: int | None) -> int:
    return TRAIN_ROWS if rows is None else min(rows, TRAIN_ROWS)


def _few_of(path: Path, source: DataSource, target: Path, count: int) -> Path:
    """Write the shortest of the first rows of a file to `target`, in their order."""
    match source:
        case DataSource.JSONL:
            with path.open("rb") as lines:
                target.write_bytes(b"".join(_shortest(_with_ends(lines), count, len)))
        case DataSource.JSON:
            values = json.loads(path.read_bytes().decode("utf-8-sig"))[:_LOOKED_AT]
            target.write_text(json.dumps(_shortest(values, count, _length)), encoding="utf-8")
        case DataSource.CSV:
            _few_of_csv(path, target, count)
        case DataSource.PARQUET | DataSource.HUB:
            # Only the script's own library can read it, whole.
            return path
    return target


def _few_of_csv(path: Path, target: Path, count: int) -> None:
    csv.field_size_limit(_CSV_CELL_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader)
        rows = _shortest(reader, count, _length)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _with_ends(lines: Iterable[bytes]) -> Iterator[bytes]:
    return (line if line.endswith(b"\n") else line + b"\n" for line in lines if line.strip())


def _shortest(values: Iterable[Any], count: int, length: Any) -> list[Any]:
    first = list(itertools.islice(values, _LOOKED_AT))
    kept = sorted(sorted(range(len(first)), key=lambda index: length(first[index]))[:count])
    return [first[index] for index in kept]


def _length(value: Any) -> int:
    return len(json.dumps(value))


def _made(row_format: RowFormat, index: int) -> Mapping[str, Any]:
    question = f"What comes after {index}?"
    right, wrong = f"{index + 1} comes after {index}.", "I would not know."
    asked = [{"role": "user", "content": question}]
    match row_format:
        case RowFormat.PREFERENCE:
            answers = {"chosen": right, "rejected": wrong}
            turns = {key: [_answer(text)] for key, text in answers.items()}
            return {"prompt": asked, **turns}
        case RowFormat.TEXT:
            return {"text": f"{question} {right}"}
        case RowFormat.PROMPT_COMPLETION:
            return {"prompt": question, "completion": f" {right}"}
        case RowFormat.MESSAGES | RowFormat.AUTO:
            return {"messages": [*asked, _answer(right)]}


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
