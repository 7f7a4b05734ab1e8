"""The rows of a file of events: JSON lines, gzipped or not, with NaN and the infinities by name."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podproof.harness.errors import BadStream
from podproof.runtime.errors import Problem

_NOT_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_GZIP_MAGIC = b"\x1f\x8b"

WHAT_IS_READ = (
    "give a stream that podproof saved, or a recording of a trainer: JSON lines, one event each"
)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file: one document, or one a line, gzipped or not.

    Raise BadStream for a file that cannot be read, and for a line that is none. A last line that
    was cut short, as by a kill, is left out.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadStream(Problem(str(path), f"cannot be read: {error}", WHAT_IS_READ)) from error
    try:
        return [_object(json.loads(text), str(path))]
    except RecursionError as error:
        what = "is nested deeper than anything that was recorded"
        raise BadStream(Problem(str(path), what, WHAT_IS_READ)) from error
    except ValueError:
        return list(_lines(text, path))


def with_numbers(value: Any) -> Any:
    """Return a value with the names of NaN and the infinities as those numbers."""
    match value:
        case dict():
            return {key: with_numbers(item) for key, item in value.items()}
        case list():
            return [with_numbers(item) for item in value]
        case str():
            return _NOT_JSON.get(value, value)
        case _:
            return value


def _lines(text: str, path: Path) -> Iterator[dict[str, Any]]:
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise BadStream(Problem(str(path), "is empty", WHAT_IS_READ))
    for at, line in lines:
        try:
            yield _object(json.loads(line), f"{path}:{at}")
        except ValueError as error:
            if at == lines[-1][0] > 1:
                return
            raise BadStream(Problem(f"{path}:{at}", f"not JSON: {error}", WHAT_IS_READ)) from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        what = f"must be an object, got {type(value).__name__}"
        raise BadStream(Problem(where, what, WHAT_IS_READ))
    return value
