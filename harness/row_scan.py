"""One pass over a data file: every row checked and counted, none of them kept."""

from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from podproof.harness.row_signs import SignReader
from podproof.harness.verdict import OnProgress
from podproof.runtime.data import (
    RowSource,
    file_rows,
    numbered_rows,
    renamed_rows,
    source_name,
    usable_rows,
)
from podproof.runtime.errors import BadData, Problem
from podproof.runtime.plan import DataPlan, DataSource, MethodName, RowFormat
from podproof.runtime.rows import BadRow, Row, detect_format, row_identity
from podproof.runtime.tally import RowTally

_ROWS_A_REPORT = 5_000
_PARQUET_BATCH = 1_000


@dataclass(frozen=True)
class ScanPlan:
    """What a scan goes by: the plan's data and method, and who is told how far it is.

    `signs` reads of each row what is worth knowing.
    """

    data: DataPlan
    method: MethodName
    on_progress: OnProgress
    signs: SignReader


@dataclass
class SourceScan:
    """What one pass over a source found.

    `identities` holds 8 bytes for each good row, in order: two rows share theirs when their
    columns are equal (and two of a billion by chance). `turned` holds the same of pairs whose
    answers are exchanged, and nothing for other rows; `signs` a byte of each row. `problems` are
    those of the source itself. `wanted` is the format its rows were asked to have.
    """

    source: RowSource
    path: Path
    wanted: RowFormat
    tally: RowTally
    identities: "array[int]" = field(default_factory=lambda: array("Q"))
    turned: "array[int]" = field(default_factory=lambda: array("Q"))
    signs: bytearray = field(default_factory=bytearray)
    first: Row | None = None
    problems: tuple[Problem, ...] = ()

    def add(self, row: Row, reader: SignReader) -> None:
        """Take in one good row."""
        self.first = self.first or row
        self.identities.append(identity(row))
        self.signs.append(reader.signs(row, self.first))
        if "rejected" in row.columns:
            self.turned.append(identity(_turned(row)))

    def row_format(self, method: MethodName) -> RowFormat:
        """Return the format of the good rows, or the one that was wanted when there are none."""
        found = self.first and detect_format(tuple(self.first.columns), self.wanted, method)
        return found or self.wanted


def scan(plan: ScanPlan, source: RowSource, path: Path, wanted: RowFormat) -> SourceScan:
    """Read a source to its end; memory grows by 9 bytes a row, and 17 a pair."""
    found = SourceScan(source, path, wanted, RowTally(source_name(plan.data, source)))
    try:
        for row in stream(plan, found):
            found.tally.add(row)
            if isinstance(row, Row):
                found.add(row, plan.signs)
    except BadData as error:
        found.problems = tuple(error.problems)
    return found


def stream(plan: ScanPlan, of: SourceScan) -> Iterator[Row | BadRow]:
    """Yield the rows of a source as the pod reads them; raises BadData as the pod would."""
    name = of.tally.source
    with of.path.open("rb") as file:
        read = _file_rows(file, plan.data.source, name)
        told = _telling(plan.on_progress, name, file, of.path.stat().st_size)
        renamed = renamed_rows(_watched(read, told), plan.data, name)
        yield from usable_rows(renamed, of.wanted, plan.method)


def places(plan: ScanPlan, of: SourceScan, numbers: Collection[int]) -> dict[int, str]:
    """Return where the good rows of these numbers stand; the source is read as far as needed."""
    found: dict[int, str] = {}
    if not numbers:
        return found
    good = (row for row in stream(plan, of) if isinstance(row, Row))
    for number, row in enumerate(islice(good, max(numbers) + 1)):
        if number in numbers:
            found[number] = row.where
    return found


def identity(row: Row) -> int:
    """Return 64 bits of a hash of the row's columns."""
    return int.from_bytes(blake2b(row_identity(row).encode(), digest_size=8).digest(), "little")


def _turned(row: Row) -> Row:
    """Return the pair that prefers what this one rejects."""
    chosen, rejected = row.columns["chosen"], row.columns["rejected"]
    return Row(row.where, {**row.columns, "chosen": rejected, "rejected": chosen})


def has_parquet_reader() -> bool:
    """Tell whether parquet can be read here without the training libraries."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def _file_rows(file: BinaryIO, source: DataSource, name: str) -> Iterator[Row | BadRow]:
    if source is not DataSource.PARQUET:
        return file_rows(file, source, name)
    return numbered_rows(name, _parquet_values(file, name))


def _parquet_values(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(file).iter_batches(batch_size=_PARQUET_BATCH):
            yield from batch.to_pylist()
    except ArrowException as error:
        raise BadData(Problem(name, f"not parquet: {error}")) from error


def _watched(read: Iterator[Row | BadRow], told: Callable[[int], None]) -> Iterator[Row | BadRow]:
    for count, row in enumerate(read):
        if count % _ROWS_A_REPORT == 0:
            told(count)
        yield row


def _telling(
    on_progress: OnProgress, name: str, file: BinaryIO, size: int
) -> Callable[[int], None]:
    def told(count: int) -> None:
        on_progress(f"{name}, {count:,} rows", file.tell() / size if size else None)

    return told
