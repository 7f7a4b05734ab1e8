"""What the code of a scorer can reach: nothing of it may tell one rank or moment from another."""

import dis
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from podproof.compiler.own_scorer import FORBIDDEN_NAMES, IMPORTABLE


def forbidden_reach(functions: Iterable[Any]) -> tuple[str, ...]:
    """Return the names that these functions use and a scorer must not, sorted.

    Functions and classes of ours that they name are followed. A clock, a random number, a file, the
    environment: each comes from a standard module that no formula may import, or is a built-in.
    """
    found: set[str] = set()
    for function in reached_functions(functions):
        for is_import, name in _loaded_names(function.__code__):
            value = None if is_import else function.__globals__.get(name)
            found |= {name} if _is_forbidden(name, value, is_import=is_import) else set()
    return tuple(sorted(found))


def reached_functions(functions: Iterable[Any]) -> tuple[Any, ...]:
    """Return these functions, and those of ours that they name, each once."""
    seen: dict[Any, None] = {}
    todo = list(functions)
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen[function] = None
        for is_import, name in _loaded_names(function.__code__):
            todo += [] if is_import else _own_functions(function.__globals__.get(name))
    return tuple(seen)


def _loaded_names(code: CodeType) -> Iterator[tuple[bool, str]]:
    """Yield what a function imports (True) or loads as a global, its inner functions included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"}:
            yield instruction.opname == "IMPORT_NAME", str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded_names(constant)


def _is_forbidden(name: str, value: object, *, is_import: bool) -> bool:
    if is_import:
        return name not in IMPORTABLE
    if value is None:
        return name in FORBIDDEN_NAMES
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return _is_standard(module) and module not in IMPORTABLE


def _own_functions(value: object) -> list[Any]:
    if _is_standard(getattr(value, "__module__", None)):
        return []
    # What dataclasses and enums write by themselves (__repr__ and such) is no part of a score.
    parts = [value]
    if isinstance(value, type):
        parts = [item for name, item in vars(value).items() if not name.startswith("__")]
    return [part for part in parts if isinstance(part, FunctionType)]


def _is_standard(module: object) -> bool:
    return str(module).partition(".")[0] in sys.stdlib_module_names
