"""How far a changed function goes: bookkeeping, more calls, other constants, something else."""

import ast
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from podproof.compiler.anatomy import Definition, own_calls, parameters_of
from podproof.runtime.errors import Problem

# Calls that read or keep a value, and reach nothing outside of the process's own memory.
_HARMLESS = frozenset(
    {
        *("abs", "bool", "dict", "enumerate", "exp", "float", "getattr", "hasattr", "int"),
        *("isfinite", "isinf", "isinstance", "isnan", "len", "list", "log", "max", "min", "range"),
        *("round", "set", "sorted", "str", "sum", "tuple", "zip", "deque"),
        *("append", "appendleft", "clear", "extend", "get", "items", "keys", "pop", "popleft"),
        *("setdefault", "values", "format", "join"),
        *("debug", "info", "warning", "error"),
    }
)

_CONSTANT = re.compile(r"Constant\(value=((?:[^()'\"]|'[^']*'|\"[^\"]*\")*?)\)")


class Reach(StrEnum):
    """How far the change of one function goes, the least first."""

    BOOKKEEPING = "only adds bookkeeping"
    CALLS_MORE = "does more"
    NUMBERS = "has other constants"
    REWRITTEN = "does something else"


@dataclass(frozen=True)
class Judgement:
    """What became of one function: how far it goes, in words, and the calls that are new."""

    reach: Reach
    words: str
    new_calls: tuple[str, ...]


def judged(old: Definition, new: Definition) -> Judgement:
    """Return what changed between two versions of a function that are not the same.

    Additive means that every old statement is still there, in its order.
    """
    calls = _calls(new) - _calls(old)
    new_calls = tuple(sorted(calls))
    added = sum((Counter(new.entries) - Counter(old.entries)).values())
    removed = sum((Counter(old.entries) - Counter(new.entries)).values())
    words = f"{_counted(added)} added, {removed} removed"
    numbers = _other_constants(old, new)
    if numbers:
        return Judgement(Reach.NUMBERS, numbers, new_calls)
    if not _is_subsequence(old.entries, new.entries):
        return Judgement(Reach.REWRITTEN, words, new_calls)
    beyond = [call for call in new_calls if call.rpartition(".")[2] not in _HARMLESS]
    if beyond:
        return Judgement(Reach.CALLS_MORE, f"{words}; calls {', '.join(beyond)}", new_calls)
    return Judgement(Reach.BOOKKEEPING, words, new_calls)


def broken_calls(old: Definition, new: Definition) -> tuple[Problem, ...]:
    """Return why a call that suited the old parameters may not suit the new ones; empty if all do.

    A parameter must keep its name and its place, may not lose its default, and a new one needs one.
    """
    if old.arguments is None or new.arguments is None:
        return ()
    before = {item.name: item for item in parameters_of(old.arguments)}
    after = {item.name: item for item in parameters_of(new.arguments)}
    problems = [Problem(name, "is gone") for name in before if name not in after]
    problems += [
        Problem(name, "must be given")
        for name, item in after.items()
        if not item.has_default and (name not in before or before[name].has_default)
    ]
    places = [
        [item.name for item in side.values() if item.is_positional] for side in (before, after)
    ]
    if not problems and places[1][: len(places[0])] != places[0]:
        problems.append(Problem(", ".join(places[1]), "take other places"))
    return tuple(problems)


def callers_of(names: Collection[str], definitions: Collection[Definition]) -> tuple[str, ...]:
    """Return the definitions that call one of these bare names, and are not called so themselves.

    >>> callers_of(["f"], [])
    ()
    """
    return tuple(
        sorted(
            item.name
            for item in definitions
            if item.name.rpartition(".")[2] not in names
            and {call.rpartition(".")[2] for call in _calls(item)} & set(names)
        )
    )


def _calls(definition: Definition) -> Counter[str]:
    block = ast.Module(list(definition.nodes), [])
    return Counter(ast.unparse(call.func) for call in own_calls(block))


def _other_constants(old: Definition, new: Definition) -> str:
    """Return the constants that are all that differs, as `0.3 -> 0.02`; "" if more does."""
    if len(old.entries) != len(new.entries) or old.signature != new.signature:
        return ""
    pairs = []
    for before, after in zip(old.entries, new.entries, strict=True):
        if _CONSTANT.sub("", before) != _CONSTANT.sub("", after):
            return ""
        found = zip(_CONSTANT.findall(before), _CONSTANT.findall(after), strict=True)
        pairs += [f"{one} -> {other}" for one, other in found if one != other]
    return ", ".join(pairs)


def _is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def _counted(count: int) -> str:
    return f"{count} statement" if count == 1 else f"{count} statements"
