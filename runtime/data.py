"""The data: found, read, checked row by row, and parted into training and evaluation.

All of this happens before a model is loaded, so a broken line costs a second and not an hour of
GPU time. Every problem is gathered with its file and line, and told in one BadData. Files of
JSON lines, JSON and CSV need the standard library alone; parquet and the hub need `datasets`.
"""

import csv
import difflib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.errors import BadData, Problem
from podproof.runtime.libraries import prepare_training_libraries
from podproof.runtime.plan import DataPlan, DataSource, MethodName, RowFormat
from podproof.runtime.rows import (
    Row,
    Rows,
    check_rows,
    cut_rows,
    detect_format,
    keep_columns,
    part_rows,
    wrong_columns,
)

_DATA_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class RowsRead:
    """What one source gave: its rows, and what could not be read of it."""

    source: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()


def read_data(plan: DataPlan, method: MethodName, roots: tuple[Path, ...]) -> Rows:
    """Return every row of the plan, checked for the method and parted into train and eval.

    `roots` are the folders in which a relative path is looked up, in order. `max_rows` is cut
    before a share is parted off for evaluation. The same plan and files give the same rows in
    the same order on every machine. Raises BadData once, with everything that is wrong.
    """
    sources = _data_sources(plan, roots)
    row_format, problems = _data_problems(sources, plan, method)
    if problems or row_format is None:
        raise BadData(*problems)
    kept = [keep_columns(source.rows, row_format) for source in sources]
    train = cut_rows(kept[0], plan.max_rows, plan.shuffle_seed)
    if len(kept) > 1:
        return Rows(train, cut_rows(kept[1], plan.max_eval_rows, plan.shuffle_seed), row_format)
    if plan.eval.fraction is None:
        return Rows(train, (), row_format)
    train, evaluation = part_rows(
        train, plan.eval.fraction, most=plan.max_eval_rows, seed=plan.shuffle_seed
    )
    return Rows(train, evaluation, row_format)


def find_data_file(path: str, roots: tuple[Path, ...]) -> Path | None:
    """Return the first file that `path` names under `roots`, or None; absolute paths stand.

    A file of the same name right in a root comes after every whole path, so that a script can be
    carried off with its data beside it.
    """
    names = (path,) if Path(path).is_absolute() else (path, Path(path).name)
    candidates = (root / name for name in names for root in (roots or (Path(),)))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def parse_jsonl(lines: Iterable[bytes], source: str) -> RowsRead:
    """Read one JSON object a line; blank lines are passed over, broken ones become problems."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        where = f"{source}:{number}"
        if not line.strip():
            continue
        try:
            # Editors on Windows put a byte order mark before the first line.
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(where, f"not JSON: {error}"))
            continue
        if isinstance(value, dict):
            rows.append(Row(where, value))
        else:
            problems.append(_not_an_object(where, value))
    return RowsRead(source, tuple(rows), tuple(problems))


def parse_json(content: bytes, source: str) -> RowsRead:
    """Read a JSON list of objects."""
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return RowsRead(source, (), (Problem(source, f"not JSON: {error}"),))
    if not isinstance(values, list):
        what = f"must be a JSON list of objects, got {type(values).__name__}"
        return RowsRead(source, (), (Problem(source, what, "set data.source=jsonl for lines"),))
    places = [(f"{source} row {number}", value) for number, value in enumerate(values, start=1)]
    rows = tuple(Row(where, value) for where, value in places if isinstance(value, dict))
    others = ((where, value) for where, value in places if not isinstance(value, dict))
    return RowsRead(source, rows, tuple(_not_an_object(where, value) for where, value in others))


def parse_csv(lines: Iterable[str], source: str) -> RowsRead:
    """Read CSV with a header line; a row's place is the line on which it begins."""
    reader = csv.DictReader(lines)
    rows: list[Row] = []
    problems: list[Problem] = []
    begins = 2  # line 1 is the header
    try:
        for values in reader:
            where, begins = f"{source}:{begins}", reader.line_num + 1
            # DictReader files the cells beyond the header under None.
            if None in values:
                problems.append(Problem(where, "has more cells than the header"))
            else:
                rows.append(Row(where, values))
    except (csv.Error, UnicodeDecodeError) as error:
        problems.append(Problem(f"{source}:{begins}", f"not CSV: {error}"))
    return RowsRead(source, tuple(rows), tuple(problems))


def _not_an_object(where: str, value: Any) -> Problem:
    return Problem(where, f"must be a JSON object, got {type(value).__name__}")


def _data_sources(plan: DataPlan, roots: tuple[Path, ...]) -> list[RowsRead]:
    """Read the training rows, and the evaluation rows where they have a source of their own."""
    sources = [_data_read(plan, plan.path, plan.split, roots)]
    # A file has no splits: `eval.split` alone would evaluate on the training rows.
    has_other_split = plan.source is DataSource.HUB and plan.eval.split is not None
    if plan.eval.path is not None or has_other_split:
        path, split = plan.eval.path or plan.path, plan.eval.split or plan.split
        sources.append(_data_read(plan, path, split, roots))
    return [_data_rename(source, plan.columns) for source in sources]


def _data_read(plan: DataPlan, path: str, split: str, roots: tuple[Path, ...]) -> RowsRead:
    if plan.source is DataSource.HUB:
        return _data_read_hub(plan, path, split)
    file = find_data_file(path, roots)
    if file is None:
        looked_in = dict.fromkeys(str((root / path).parent) for root in roots)
        places = ", ".join(looked_in) or "the working directory"
        way_out = "put the file into one of these folders, or give an absolute path"
        return RowsRead(path, (), (Problem(path, f"no such file; looked in {places}", way_out),))
    read = _data_read_file(file, plan.source)
    if read.rows or read.problems:
        return read
    return RowsRead(path, (), (Problem(file.name, "holds no rows", "write at least two rows"),))


def _data_read_file(file: Path, source: DataSource) -> RowsRead:
    if source is DataSource.PARQUET:
        return _data_read_parquet(file)
    if source is DataSource.JSON:
        return parse_json(file.read_bytes(), file.name)
    if source is DataSource.CSV:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return parse_csv(lines, file.name)
    with file.open("rb") as raw_lines:
        return parse_jsonl(raw_lines, file.name)


def _data_read_parquet(file: Path) -> RowsRead:
    prepare_training_libraries()
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    # The library copies a parquet file into a cache; ours is gone once the rows are in memory.
    with tempfile.TemporaryDirectory() as cache:
        try:
            dataset = Dataset.from_parquet(str(file), cache_dir=cache)
        except (DatasetsError, ValueError) as error:
            return RowsRead(file.name, (), (Problem(file.name, f"not parquet: {error}"),))
        return _data_numbered(file.name, dataset)


def _data_read_hub(plan: DataPlan, path: str, split: str) -> RowsRead:
    prepare_training_libraries()
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    source = f"{path}[{split}]"
    try:
        dataset = load_dataset(path, plan.name, split=split, revision=plan.revision)
    except (DatasetsError, ValueError) as error:
        # A hub that does not answer raises others, which pass: a restart may find it again.
        way_out = "check data.path, data.name, data.split, data.revision and the access to them"
        return RowsRead(source, (), (Problem(source, f"not loaded: {error}", way_out),))
    return _data_numbered(source, dataset)


def _data_numbered(source: str, values: Iterable[dict[str, Any]]) -> RowsRead:
    places = enumerate(values, start=1)
    return RowsRead(source, tuple(Row(f"{source} row {number}", value) for number, value in places))


def _data_rename(read: RowsRead, columns: Mapping[str, str]) -> RowsRead:
    """Give the columns TRL's names; a name that no row has is a problem of its own."""
    if not columns or not read.rows:
        return read
    there = sorted({name for row in read.rows for name in row.columns})
    problems = [
        Problem(f"data.columns.{new}", f"{read.source} has no column {old!r}", _near(old, there))
        for new, old in columns.items()
        if old not in there
    ]
    names = {old: new for new, old in columns.items()}
    rows = tuple(Row(row.where, _renamed_columns(row.columns, names)) for row in read.rows)
    return RowsRead(read.source, rows, (*read.problems, *problems))


def _renamed_columns(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    # A renamed column wins over one that already has its new name.
    kept = {name: value for name, value in columns.items() if name not in names}
    return kept | {names[old]: columns[old] for old in columns if old in names}


def _near(name: str, there: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, there, n=1)
    columns = f"its columns are {', '.join(there)}"
    return f"did you mean {near[0]!r}? {columns}" if near else columns


def _data_problems(
    sources: Sequence[RowsRead], plan: DataPlan, method: MethodName
) -> tuple[RowFormat | None, list[Problem]]:
    problems = [problem for source in sources for problem in _data_shown(source.problems, source)]
    train = sources[0]
    if not train.rows:
        return None, problems
    row_format = detect_format(tuple(train.rows[0].columns), plan.format, method)
    if row_format is None:
        return None, [*problems, wrong_columns(train.rows[0], plan.format, method)]
    for source in sources:
        problems += _data_shown(check_rows(source.rows, row_format), source)
    is_undivided = len(sources) == 1 and plan.eval.fraction is not None
    if is_undivided and len(train.rows[: plan.max_rows]) == 1:
        what = "one row cannot be parted into training and evaluation"
        problems.append(Problem(train.source, what, "add rows, or name an eval.path"))
    return row_format, problems


def _data_shown(problems: Sequence[Problem], source: RowsRead) -> list[Problem]:
    """Keep the first problems of a source, and close with how many there are."""
    if not problems or not source.rows:
        return list(problems[:_DATA_PROBLEMS_SHOWN])
    places = len({problem.where for problem in problems})
    what = f"{len(problems)} problem(s) in {places} place(s)"
    closing = Problem(source.source, what, "mend these rows, or take them out")
    return [*problems[:_DATA_PROBLEMS_SHOWN], closing]
