"""Rows: what each method can train on, what is wrong with the others, and how they are parted.

Nothing here reads a file: the functions take rows, so a gate can call them without a pod.
"""

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from podproof.runtime.errors import BadData, Problem
from podproof.runtime.plan import MethodName, RowFormat

_AnyRow = TypeVar("_AnyRow")

_ROW_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_ROW_COLUMNS: Mapping[RowFormat, tuple[str, ...]] = {
    RowFormat.MESSAGES: ("messages",),
    RowFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    RowFormat.TEXT: ("text",),
    RowFormat.PREFERENCE: ("prompt", "chosen", "rejected"),
}
# In the order in which `auto` looks for them.
METHOD_FORMATS: Mapping[MethodName, tuple[RowFormat, ...]] = {
    MethodName.SFT: (RowFormat.MESSAGES, RowFormat.PROMPT_COMPLETION, RowFormat.TEXT),
    MethodName.DPO: (RowFormat.PREFERENCE,),
    MethodName.ORPO: (RowFormat.PREFERENCE,),
}

_ROW_ENCODER = json.JSONEncoder(sort_keys=True, default=str)


@dataclass(frozen=True)
class Row:
    """One row: its place (`file:line` or `file row n`, counted from 1) and its columns."""

    where: str
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """One row, or line, that cannot be trained on: everything that is wrong with it."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Rows:
    """Rows the method can train on, under TRL's column names; `eval` may be empty.

    `notices` say which rows were dropped.
    """

    train: tuple[Row, ...]
    eval: tuple[Row, ...]
    row_format: RowFormat
    notices: tuple[str, ...] = ()


def detect_format(
    columns: Collection[str], wanted: RowFormat, method: MethodName
) -> RowFormat | None:
    """Return the format in which rows with these columns serve the method, or None.

    `auto` prefers messages to prompt + completion, and both to text. A preference row may do
    without `prompt`: its chosen and rejected conversations then begin alike.

    >>> detect_format({"prompt", "completion", "id"}, RowFormat.AUTO, MethodName.SFT).value
    'prompt_completion'
    """
    usable = METHOD_FORMATS[method]
    choices = usable if wanted is RowFormat.AUTO else tuple(c for c in usable if c is wanted)
    return next((choice for choice in choices if _row_needs(choice) <= set(columns)), None)


def wrong_columns(row: Row, wanted: RowFormat, method: MethodName) -> Problem:
    """Say why `detect_format` finds nothing in a row like this one."""
    usable = METHOD_FORMATS[method]
    if wanted is not RowFormat.AUTO and wanted not in usable:
        formats = " or ".join(choice.value for choice in usable)
        what = f"{method.value} cannot train on {wanted.value} rows"
        return Problem("data.format", what, f"set data.format to auto or {formats}")
    choices = usable if wanted is RowFormat.AUTO else (wanted,)
    needed = ", or ".join(" + ".join(_ROW_COLUMNS[choice]) for choice in choices)
    there = ", ".join(row.columns) or "none"
    what = f"the columns are {there}; {method.value} needs {needed}"
    return Problem(row.where, what, "rename columns with data.columns")


def checked_rows(
    read: Iterable[Row | BadRow], wanted: RowFormat, method: MethodName
) -> Iterator[Row | BadRow]:
    """Yield each row with the columns its trainer takes, or all that keeps it from training.

    Text must hold more than white space; conversations need known roles, contents and an
    assistant turn. The first row decides the format, and the first good one the shape of all
    others, since TRL looks only at that one. Raises BadData when the first row has no format that
    serves the method.
    """
    row_format: RowFormat | None = None
    names: tuple[str, ...] = ()
    first_shape: tuple[str, ...] = ()
    for row in read:
        if isinstance(row, BadRow):
            yield row
            continue
        row_format = row_format or _row_format(row, wanted, method)
        complaints = _row_complaints(row.columns, row_format)
        shape = () if complaints else _row_shape(row.columns, row_format)
        if shape and not first_shape:
            first_shape, names = shape, _kept_columns(row.columns, row_format)
        if not complaints and shape != first_shape:
            complaints = [f"has {', '.join(shape)}; the first row has {', '.join(first_shape)}"]
        if complaints:
            yield BadRow(tuple(Problem(row.where, complaint) for complaint in complaints))
        else:
            yield Row(row.where, {name: row.columns.get(name) for name in names})


def cut_rows(rows: Sequence[_AnyRow], most: int | None, seed: int | None) -> Sequence[_AnyRow]:
    """Return at most `most` rows: the first ones, or drawn by the seed if there is one."""
    if seed is not None:
        return tuple(rows[index] for index in _row_order(len(rows), seed)[:most])
    return rows[:most]


def part_rows(
    rows: Sequence[_AnyRow], fraction: float, *, most: int | None, seed: int | None
) -> tuple[tuple[_AnyRow, ...], tuple[_AnyRow, ...]]:
    """Draw a share of the rows for evaluation, at least one and at most `most`; keep the rest.

    Both parts stay in the order of `rows`. The draw depends on the number of rows and the seed
    alone (no seed counts as 0).
    """
    share = max(1, round(len(rows) * fraction))
    count = min(share, len(rows) - 1, share if most is None else most)
    drawn = set(_row_order(len(rows), seed or 0)[:count])
    train = tuple(row for index, row in enumerate(rows) if index not in drawn)
    return train, tuple(row for index, row in enumerate(rows) if index in drawn)


def row_notices(rows: Rows) -> tuple[str, ...]:
    """Return what is worth knowing but no reason to stop: rows dropped, repeated, or leaked."""
    train = Counter(row_identity(row) for row in rows.train)
    repeated = sum(train.values()) - len(train)
    leaked = sum(row_identity(row) in train for row in rows.eval)
    notices = list(rows.notices)
    if repeated:
        notices.append(f"{repeated} of {len(rows.train)} training rows repeat an earlier one")
    if leaked:
        notices.append(f"{leaked} of {len(rows.eval)} evaluation rows are training rows too")
    return tuple(notices)


def row_identity(row: Row) -> str:
    """Return a text that two rows share only when their columns are equal."""
    return _ROW_ENCODER.encode(row.columns)


def row_texts(row: Row) -> tuple[str, ...]:
    """Return every text of a row: its text columns, and the contents of its conversations."""
    texts: list[str] = []
    for value in row.columns.values():
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            texts += [turn["content"] for turn in value if isinstance(turn.get("content"), str)]
    return tuple(texts)


def is_conversation(row: Row) -> bool:
    """Tell whether the row holds messages, which need a chat template."""
    return any(isinstance(value, list) for value in row.columns.values())


def _row_needs(row_format: RowFormat) -> set[str]:
    needed = set(_ROW_COLUMNS[row_format])
    return needed - {"prompt"} if row_format is RowFormat.PREFERENCE else needed


def _row_order(count: int, seed: int) -> list[int]:
    """Return the indexes below `count` in an order drawn from the seed."""
    # Only `random()` is promised to give the same numbers in every Python; `shuffle` is not.
    draw = random.Random(seed)  # noqa: S311  # rows are drawn, not secrets
    keys = [draw.random() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)


def _row_format(row: Row, wanted: RowFormat, method: MethodName) -> RowFormat:
    row_format = detect_format(tuple(row.columns), wanted, method)
    if row_format is None:
        raise BadData(wrong_columns(row, wanted, method))
    return row_format


def _kept_columns(columns: Mapping[str, Any], row_format: RowFormat) -> tuple[str, ...]:
    """Leave out what TRL would stumble over: a `prompt` beside `messages` is another format.

    A text prompt beside conversations goes as well; TRL takes the turns they share instead.
    """
    names = list(_ROW_COLUMNS[row_format])
    if row_format is RowFormat.PREFERENCE and _row_has_implicit_prompt(columns):
        names.remove("prompt")
    return (*names, *(name for name in ("tools",) if name in columns))


def _row_has_implicit_prompt(columns: Mapping[str, Any]) -> bool:
    return isinstance(columns["chosen"], list) and not isinstance(columns.get("prompt"), list)


def _row_shape(columns: Mapping[str, Any], row_format: RowFormat) -> tuple[str, ...]:
    return tuple(
        f"{name}: {'messages' if isinstance(columns[name], list) else 'text'}"
        for name in _ROW_COLUMNS[row_format]
        if columns.get(name) is not None
    )


def _row_complaints(columns: Mapping[str, Any], row_format: RowFormat) -> list[str]:
    """Return what is wrong with one row, in words that follow its place."""
    is_implicit = row_format is RowFormat.PREFERENCE and columns.get("prompt") is None
    names = [name for name in _ROW_COLUMNS[row_format] if not (is_implicit and name == "prompt")]
    complaints = [words for name in names for words in _column_complaints(name, columns.get(name))]
    if complaints:
        return complaints
    if row_format is RowFormat.PREFERENCE:
        return _preference_complaints(columns)
    if len({isinstance(columns[name], list) for name in names}) > 1:
        return [f"{' and '.join(names)} must be both text or both messages"]
    return []


def _preference_complaints(columns: Mapping[str, Any]) -> list[str]:
    prompt, chosen, rejected = columns.get("prompt"), columns["chosen"], columns["rejected"]
    if isinstance(chosen, list) != isinstance(rejected, list):
        return ["chosen and rejected must be both text or both messages"]
    if chosen == rejected:
        return ["chosen and rejected are the same, so there is nothing to prefer"]
    if _row_has_implicit_prompt(columns):
        return [] if chosen[0] == rejected[0] else ["chosen and rejected do not begin alike"]
    if prompt is None:
        return ["prompt is missing"]
    is_mixed = isinstance(prompt, list) and isinstance(chosen, str)
    return ["prompt is messages, but chosen and rejected are text"] if is_mixed else []


def _column_complaints(name: str, value: Any) -> list[str]:
    if value is None:
        return [f"{name} is missing"]
    if isinstance(value, list) and name != "text":
        return _conversation_complaints(name, value)
    if isinstance(value, str) and name != "messages":
        return [f"{name} {words}"] if (words := _text_complaint(value)) else []
    allowed = {"text": "text", "messages": "a list of messages"}.get(name, "text or messages")
    return [f"{name} must be {allowed}, got {type(value).__name__}"]


def _conversation_complaints(name: str, messages: Sequence[Any]) -> list[str]:
    complaints = [
        f"{name}[{index}] {words}"
        for index, message in enumerate(messages)
        if (words := _message_complaint(message))
    ]
    if complaints:
        return complaints
    roles = [message["role"] for message in messages]
    if name == "prompt" and roles[-1:] not in (["user"], ["tool"]):
        return ["prompt must end with a turn of the user"]
    if name != "prompt" and "assistant" not in roles:
        return [f"{name} has no assistant turn"]
    return []


def _message_complaint(message: Any) -> str:
    if not isinstance(message, dict):
        return f"must be an object, got {type(message).__name__}"
    role, content = message.get("role"), message.get("content")
    if role not in _ROW_ROLES:
        return f"has the role {role!r}, not one of {', '.join(sorted(_ROW_ROLES))}"
    if not isinstance(content, str | None):
        return f"has a content that is no text but {type(content).__name__}"
    words = _text_complaint(content or "")
    if words == "is empty":
        # A turn that only calls tools has nothing to say.
        return "" if message.get("tool_calls") else "has no content"
    return words and f"has a content that {words}"


def _text_complaint(text: str) -> str:
    if not text.strip():
        return "is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which no tokenizer takes"
    return ""
