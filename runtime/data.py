"""The data: found, read, checked row by row, and parted into training and evaluation.

All of this happens before a model is loaded, so a broken line costs a second and not an hour of
GPU time. Every problem is gathered with its file and line, and told in one BadData; up to a share
of the plan's, bad rows are dropped instead, and told in a notice. Files of JSON lines, JSON and CSV
need the standard library alone; parquet and the hub need `datasets`.
"""

import csv
import difflib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from podproof.runtime.errors import BadData, Problem
from podproof.runtime.libraries import prepare_training_libraries
from podproof.runtime.plan import DataPlan, DataSource, MethodName, RowFormat
from podproof.runtime.rows import (
    BadRow,
    Row,
    Rows,
    checked_rows,
    cut_rows,
    detect_format,
    part_rows,
)
from podproof.runtime.tally import RowTally

_AnyDatum = TypeVar("_AnyDatum")


@dataclass(frozen=True)
class RowSource:
    """One place rows come from: a file, or a split of a dataset on the hub."""

    path: str
    split: str


@dataclass(frozen=True)
class _RowsRead:
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    notices: tuple[str, ...]


def read_data(plan: DataPlan, method: MethodName, roots: tuple[Path, ...]) -> Rows:
    """Return every row of the plan, checked for the method and parted into train and eval.

    `roots` are the folders in which a relative path is looked up, in order. Bad rows are dropped
    where they are no more than `max_bad_fraction` of their source. `max_rows` is cut before a
    share is parted off for evaluation. The same plan and files give the same rows in the same
    order on every machine. Raises BadData once, with everything that is wrong.
    """
    wanted, reads = plan.format, []
    for source in data_sources(plan):
        read = _data_read(plan, method, source, wanted, roots)
        wanted = (read.rows and detect_format(read.rows[0].columns, wanted, method)) or wanted
        reads.append(read)
    problems = [problem for read in reads for problem in read.problems]
    if not problems and is_undividable(plan, len(reads[0].rows)):
        problems.append(undividable(plan.path))
    if problems:
        raise BadData(*problems)
    train, evaluation = part_data(plan, *(read.rows for read in reads))
    notices = tuple(notice for read in reads for notice in read.notices)
    return Rows(tuple(train), tuple(evaluation), wanted, notices)


def data_sources(plan: DataPlan) -> tuple[RowSource, ...]:
    """Return where the training rows come from, and the evaluation rows where that is another."""
    train = RowSource(plan.path, plan.split)
    # A file has no splits: `eval.split` alone would evaluate on the training rows.
    has_other_split = plan.source is DataSource.HUB and plan.eval.split is not None
    if plan.eval.path is None and not has_other_split:
        return (train,)
    return train, RowSource(plan.eval.path or plan.path, plan.eval.split or plan.split)


def part_data(
    plan: DataPlan, train: Sequence[_AnyDatum], evaluation: Sequence[_AnyDatum] | None = None
) -> tuple[Sequence[_AnyDatum], Sequence[_AnyDatum]]:
    """Return what is trained on and what is evaluated on, of all good rows of each source."""
    train = cut_rows(train, plan.max_rows, plan.shuffle_seed)
    if evaluation is not None:
        return train, cut_rows(evaluation, plan.max_eval_rows, plan.shuffle_seed)
    if plan.eval.fraction is None:
        return train, ()
    return part_rows(train, plan.eval.fraction, most=plan.max_eval_rows, seed=plan.shuffle_seed)


def is_undividable(plan: DataPlan, count: int) -> bool:
    """Tell whether so few training rows leave none when a share is parted off for evaluation."""
    most = count if plan.max_rows is None else min(count, plan.max_rows)
    return len(data_sources(plan)) == 1 and plan.eval.fraction is not None and most == 1


def undividable(path: str) -> Problem:
    """Say that `is_undividable`."""
    what = "one row cannot be parted into training and evaluation"
    return Problem(Path(path).name, what, "add rows, or name an eval.path")


def find_data_file(path: str, roots: tuple[Path, ...]) -> Path | None:
    """Return the first file that `path` names under `roots`, or None; absolute paths stand.

    A file of the same name right in a root comes after every whole path, so that a script can be
    carried off with its data beside it.
    """
    names = (path,) if Path(path).is_absolute() else (path, Path(path).name)
    candidates = (root / name for name in names for root in (roots or (Path(),)))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def file_rows(file: BinaryIO, source: DataSource, name: str) -> Iterator[Row | BadRow]:
    """Yield the rows of JSON lines, JSON or CSV as they are read; broken ones become BadRows.

    `name` is the file's, for a row's place. Raises BadData where the file cannot be read on.
    """
    if source is DataSource.JSON:
        return _json_rows(file.read(), name)
    if source is DataSource.CSV:
        return _csv_rows(_decoded(file), name)
    return _jsonl_rows(file, name)


def renamed_rows(read: Iterable[Row | BadRow], plan: DataPlan, name: str) -> Iterator[Row | BadRow]:
    """Yield the rows under TRL's column names; `name` is that of their source.

    Raises BadData at the end for a source without a row, or without a column that is renamed.
    """
    there: set[str] = set()
    count = 0
    names = {old: new for new, old in plan.columns.items()}
    for count, row in enumerate(read, start=1):  # noqa: B007 - it is asked for below
        if names and isinstance(row, Row):
            there.update(row.columns)
            row = Row(row.where, _renamed_columns(row.columns, names))  # noqa: PLW2901
        yield row
    if not count:
        raise BadData(Problem(name, "holds no rows", "write at least two rows"))
    problems = [
        Problem(f"data.columns.{new}", f"{name} has no column {old!r}", _near(old, sorted(there)))
        for new, old in plan.columns.items()
        if old not in there
    ]
    if problems:
        raise BadData(*problems)


def usable_rows(
    renamed: Iterator[Row | BadRow], wanted: RowFormat, method: MethodName
) -> Iterator[Row | BadRow]:
    """Yield what `checked_rows` makes of `renamed_rows`, and raise BadData as they do."""
    try:
        yield from checked_rows(renamed, wanted, method)
    except BadData:
        # What else is wrong is told too; a renaming of a column that is not there shows last, and
        # explains wrong columns better.
        yield from (row for row in renamed if isinstance(row, BadRow))
        raise


def _jsonl_rows(lines: Iterable[bytes], name: str) -> Iterator[Row | BadRow]:
    """Read one JSON object a line; blank lines are passed over."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = json.loads(_decoded_line(number, line))
        except (ValueError, RecursionError) as error:
            yield BadRow((Problem(where, f"not JSON: {error}"),))
        else:
            yield _row_or_not(where, value)


def _json_rows(content: bytes, name: str) -> Iterator[Row | BadRow]:
    """Read a JSON list of objects."""
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadData(Problem(name, f"not JSON: {error}")) from error
    if not isinstance(values, list):
        what = f"must be a JSON list of objects, got {type(values).__name__}"
        raise BadData(Problem(name, what, "set data.source=jsonl for lines"))
    for number, value in enumerate(values, start=1):
        yield _row_or_not(f"{name} row {number}", value)


def _csv_rows(lines: Iterable[str], name: str) -> Iterator[Row | BadRow]:
    """Read CSV with a header line; a row's place is the line on which it begins."""
    reader = csv.DictReader(lines)
    begins = 2  # line 1 is the header
    try:
        for values in reader:
            where, begins = f"{name}:{begins}", reader.line_num + 1
            # DictReader files the cells beyond the header under None.
            if None in values:
                yield BadRow((Problem(where, "has more cells than the header"),))
            else:
                yield Row(where, values)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadData(Problem(f"{name}:{begins}", f"not CSV: {error}")) from error


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        yield _decoded_line(number, line)


def _decoded_line(number: int, line: bytes) -> str:
    # Editors on Windows put a byte order mark before the first line.
    return line.decode("utf-8-sig" if number == 1 else "utf-8")


def _row_or_not(where: str, value: Any) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(where, value)
    return BadRow((Problem(where, f"must be a JSON object, got {type(value).__name__}"),))


def _data_read(
    plan: DataPlan,
    method: MethodName,
    source: RowSource,
    wanted: RowFormat,
    roots: tuple[Path, ...],
) -> _RowsRead:
    """Read one source to its end, and judge what was found."""
    rows: list[Row] = []
    name = source_name(plan, source)
    tally = RowTally(name)
    problems: list[Problem] = []
    try:
        read = renamed_rows(_data_rows(plan, source, roots), plan, name)
        for row in usable_rows(read, wanted, method):
            tally.add(row)
            if isinstance(row, Row):
                rows.append(row)
    except BadData as error:
        problems += error.problems
    too_many, notices = tally.judged(plan.max_bad_fraction)
    return _RowsRead(tuple(rows), (*too_many, *problems), notices)


def source_name(plan: DataPlan, source: RowSource) -> str:
    """Return what a source is called in a row's place."""
    is_hub = plan.source is DataSource.HUB
    return f"{source.path}[{source.split}]" if is_hub else Path(source.path).name


def missing_file(path: str, roots: tuple[Path, ...]) -> Problem:
    """Say that `find_data_file` found nothing, and where it looked."""
    looked_in = dict.fromkeys(str((root / path).parent) for root in roots)
    places = ", ".join(looked_in) or "the working directory"
    way_out = "put the file into one of these folders, or give an absolute path"
    return Problem(path, f"no such file; looked in {places}", way_out)


def _data_rows(
    plan: DataPlan, source: RowSource, roots: tuple[Path, ...]
) -> Iterator[Row | BadRow]:
    if plan.source is DataSource.HUB:
        yield from _data_read_hub(plan, source)
        return
    path = find_data_file(source.path, roots)
    if path is None:
        raise BadData(missing_file(source.path, roots))
    if plan.source is DataSource.PARQUET:
        yield from _data_read_parquet(path)
        return
    with path.open("rb") as file:
        yield from file_rows(file, plan.source, path.name)


def _data_read_parquet(file: Path) -> Iterator[Row]:
    prepare_training_libraries()
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    # The library copies a parquet file into a cache; ours is gone once the rows are in memory.
    with tempfile.TemporaryDirectory() as cache:
        try:
            dataset = Dataset.from_parquet(str(file), cache_dir=cache)
        except (DatasetsError, ValueError) as error:
            raise BadData(Problem(file.name, f"not parquet: {error}")) from error
        yield from numbered_rows(file.name, dataset)


def _data_read_hub(plan: DataPlan, source: RowSource) -> Iterator[Row]:
    prepare_training_libraries()
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name = source_name(plan, source)
    try:
        dataset = load_dataset(source.path, plan.name, split=source.split, revision=plan.revision)
    except (DatasetsError, ValueError) as error:
        # A hub that does not answer raises others, which pass: a restart may find it again.
        way_out = "check data.path, data.name, data.split, data.revision and the access to them"
        raise BadData(Problem(name, f"not loaded: {error}", way_out)) from error
    yield from numbered_rows(name, dataset)


def numbered_rows(name: str, values: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Yield rows whose place is their number, from 1."""
    for number, value in enumerate(values, start=1):
        yield Row(f"{name} row {number}", value)


def _renamed_columns(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    # A renamed column wins over one that already has its new name.
    kept = {name: value for name, value in columns.items() if name not in names}
    return kept | {names[old]: columns[old] for old in columns if old in names}


def _near(name: str, there: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, there, n=1)
    columns = f"its columns are {', '.join(there)}"
    return f"did you mean {near[0]!r}? {columns}" if near else columns
