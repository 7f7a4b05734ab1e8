"""The one reader of typed values: plain JSON or YAML values into frozen dataclasses.

It reads the plan on the pod and the config at home. Every problem is gathered with its place, since
a person mends ten slips at once more gladly than one after another.
"""

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from podproof.runtime.errors import Problem

_Section = TypeVar("_Section")


def read_section(
    section: type[_Section], fields: Any, where: str, problems: list[Problem]
) -> _Section:
    """Read a frozen dataclass from plain JSON values, field by field, nested ones too.

    Every problem is appended to `problems`, with its place as a dotted path; the value returned
    may be used only when none was appended. A whole number is read as a float where one is due;
    a boolean is never a number.
    """
    if not isinstance(fields, Mapping):
        problems.append(Problem(where, f"must be an object, got {type(fields).__name__}"))
        return section(**dict.fromkeys(get_type_hints(section)))
    hints = get_type_hints(section)
    values = {
        key: _read_typed_value(hint, fields[key], f"{where}.{key}", problems)
        for key, hint in hints.items()
        if key in fields
    }
    unknown = sorted(fields.keys() - hints)
    problems += [Problem(f"{where}.{key}", "unknown field") for key in unknown]
    missing = sorted(hints.keys() - fields.keys())
    problems += [Problem(f"{where}.{key}", "missing field") for key in missing]
    values.update(dict.fromkeys(missing))
    return section(**values)


def _read_typed_value(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        return _read_typed_union(hint, value, where, problems)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_section(hint, value, where, problems)
    if origin in {tuple, dict} and isinstance(value, list | Mapping):
        return _read_typed_items(hint, value, where, problems)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _read_typed_member(hint, value, where, problems)
    return _read_typed_scalar(origin or hint, value, where, problems)


def _read_typed_items(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(value, list) and get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return tuple(_read_typed_value(kind, item, where, problems) for item in value)
    if isinstance(value, Mapping) and get_origin(hint) is dict:
        kind = get_args(hint)[1]
        return {
            str(key): _read_typed_value(kind, item, f"{where}.{key}", problems)
            for key, item in value.items()
        }
    return _read_typed_scalar(get_origin(hint), value, where, problems)


def _read_typed_union(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    for choice in get_args(hint):
        attempt: list[Problem] = []
        if choice is type(None):
            if value is None:
                return None
            continue
        read = _read_typed_value(choice, value, where, attempt)
        if not attempt:
            return read
    choices = " or ".join(_hint_in_words(choice) for choice in get_args(hint))
    problems.append(Problem(where, f"must be {choices}, got {value!r}"))
    return None


def _read_typed_member(hint: type[Enum], value: Any, where: str, problems: list[Problem]) -> Any:
    try:
        return hint(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in hint)
        problems.append(Problem(where, f"must be one of {choices}, got {value!r}"))
        return None


def _read_typed_scalar(kind: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    is_flag_as_number = isinstance(value, bool) and kind is not bool
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not is_flag_as_number:
        return _read_typed_float(value, where, problems)
    if is_flag_as_number or not isinstance(value, kind):
        problems.append(Problem(where, f"must be {_HINT_WORDS.get(kind, kind)}, got {value!r}"))
    return value


def _read_typed_float(value: int, where: str, problems: list[Problem]) -> float:
    try:
        return float(value)
    except OverflowError:
        problems.append(Problem(where, f"must be a number below 1e308, got {value!r}"))
        return 0.0


def _hint_in_words(hint: Any) -> str:
    if hint is type(None):
        return "null"
    return _HINT_WORDS.get(get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


_HINT_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    tuple: "a list",
}
