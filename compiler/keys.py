"""Which keys a config may have, by the schema's types, and the nearest one to a slip."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_origin, get_type_hints

from podproof.compiler.schema import METHODS, SECTIONS
from podproof.runtime.errors import Problem


def unknown_key(key: str, method: str) -> Problem | None:
    """Return a problem with the way out when the schema of this method has no such key."""
    if schema_at(key, method) is not None:
        return None
    return Problem(key, "no such key", did_you_mean(key, method))


def did_you_mean(key: str, method: str) -> str:
    """Return the way out for an unknown key: the nearest known one, its own place first."""
    known = tuple(_known_keys(method))
    section, _, last = key.rpartition(".")
    beside = [name for name in known if name.rpartition(".")[0] == section]
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]
    others = [name for name in METHODS if name != method and key in _known_keys(name)]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    if others:
        return f"method {method} has no such field; it belongs to {' and '.join(others)}"
    for candidates, cutoff in ((beside, 0.6), (known, 0.5)):
        near = _nearest_by_last_word(last, candidates, cutoff)
        if near is not None:
            return f"did you mean {near}?"
    return "docs/reference/config.md lists every key"


def _nearest_by_last_word(word: str, keys: Sequence[str], cutoff: float) -> str | None:
    by_word = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = difflib.get_close_matches(word, list(by_word), n=1, cutoff=cutoff)
    return by_word[near[0]] if near else None


def _known_keys(method: str) -> Iterator[str]:
    yield from ("name", "seed")
    for section, kind in {**SECTIONS, "method": METHODS.get(method, METHODS["sft"])}.items():
        yield from _keys_below(section, kind)


def _keys_below(prefix: str, kind: Any) -> Iterator[str]:
    for item in fields(kind):
        hint = get_type_hints(kind)[item.name]
        key = f"{prefix}.{item.name}"
        if is_dataclass(hint):
            yield from _keys_below(key, hint)
        else:
            yield key


def schema_at(key: str, method: str) -> Any:
    """Return the type at a dotted key; Any inside a mapping that takes any key, None if unknown."""
    head, *rest = key.split(".")
    sections = {"name": str, "seed": int, **SECTIONS}
    kind: Any = sections.get(head) or (METHODS.get(method) if head == "method" else None)
    for part in rest:
        if kind is None or kind is Any:
            return kind
        if get_origin(kind) is dict:
            return Any
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    return kind
