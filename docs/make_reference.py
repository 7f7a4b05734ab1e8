# ruff: noqa: INP001 - docs/ is a folder of pages and their scripts, not a package
"""Write docs/reference/config.md from the schema, the bounds and the configs that ship.

Run `python docs/make_reference.py` to write the page; with `--check` nothing is written, and the
exit code is 1 when the page is not what would be written.
"""

import argparse
import dataclasses
import inspect
import math
import sys
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from podproof.compiler.bounds import BOUNDS
from podproof.compiler.schema import METHODS, SECTIONS, Config, plain

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "config.md"

INTRODUCTION = """\
# Every key of a config

Made by `python docs/make_reference.py` from `compiler/schema.py`, `runtime/plan.py` and
`compiler/bounds.py`; a test compares it with them. Do not edit it by hand.

A key is set as `section.key=value` on the command line, or in a YAML file of
[your own](../how-to/own-config.md). The column *default* is what holds when no config says
otherwise; the groups listed under a section override some of them. NaN and infinities are outside
every range. `null` is YAML for nothing.
"""

_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "anything",
    type(None): "null",
}


def page() -> str:
    """Return the whole page, its sections in the order in which a config has them."""
    parts = [INTRODUCTION, "## On top\n", *_table(_top_rows())]
    for field in dataclasses.fields(Config):
        if field.name in SECTIONS:
            parts += _section_part(field.name, SECTIONS[field.name])
        if field.name == "method":
            parts += _method_part()
    parts += ["\n## experiment\n", "Whole runs, chosen with `experiment=NAME`.\n"]
    parts += _groups("experiment")
    return "\n".join(parts).rstrip("\n") + "\n"


def _section_part(section: str, kind: type[Any]) -> Iterator[str]:
    yield f"\n## {section}\n"
    yield f"{_prose(kind)}\n"
    yield from _groups(section)
    yield from _table(_rows(section, kind))


def _method_part() -> Iterator[str]:
    yield "\n## method\n"
    yield "Chosen with `method=NAME`; each method has its own fields.\n"
    yield from _groups("method")
    for name, kind in METHODS.items():
        yield f"\n### method={name}\n"
        yield f"{_prose(kind)}\n"
        yield from _table(_rows("method", kind))


def _top_rows() -> Iterator[tuple[str, str, str, str]]:
    hints = get_type_hints(Config)
    for key, default in (("name", "run"), ("seed", 42)):
        yield f"`{key}`", _words(hints[key]), _value(default), _range(key)


def _rows(prefix: str, kind: type[Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and range of each field, those of nested sections in place."""
    defaults, hints = plain(kind()), get_type_hints(kind)
    for field in dataclasses.fields(kind):
        key, hint = f"{prefix}.{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _rows(key, hint)
        else:
            yield f"`{key}`", _words(hint), _value(defaults[field.name]), _range(key)


def _table(rows: Iterator[tuple[str, str, str, str]]) -> Iterator[str]:
    yield "| key | type | default | range |"
    yield "|---|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _groups(section: str) -> Iterator[str]:
    """Yield one line for each config that ships in this group, by its first comment."""
    files = sorted((ROOT / "conf" / section).glob("*.yaml"))
    for file in files:
        yield f"- `{section}={file.stem}`: {_first_sentence(file)}"
    yield ""


def _first_sentence(file: Path) -> str:
    lines = (line for line in file.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    prose = (line.lstrip("# ") for line in lines if not line.startswith(("# @", "#   ")))
    return " ".join(prose).partition(". ")[0].rstrip(".") + "."


def _prose(kind: type[Any]) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return " or ".join(_words(choice) for choice in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"mapping of text to {_words(arguments[1])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(f"`{member.value}`" for member in hint)
    return _NAMES[hint]


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return '`""`' if value == "" else f"`{value}`"


def _range(key: str) -> str:
    bound = BOUNDS.get(key)
    if bound is None:
        return ""
    ends = ((">=", bound.at_least), (">", bound.above), ("<=", bound.at_most), ("<", bound.below))
    return ", ".join(f"{sign} {end:,}" for sign, end in ends if math.isfinite(end))


def main() -> int:
    """Write the page, or with --check compare it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8", newline="\n")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE.name} is out of date: run python docs/make_reference.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
