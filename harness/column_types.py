"""Types that cannot stand in one column: Arrow, which holds the rows on the pod, takes only one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from podproof.runtime.errors import Problem
from podproof.runtime.rows import Row

# bool is asked before int, which it is as well.
_KINDS = ((bool, "true or false"), ((int, float), "a number"), (str, "text"))
# The place of texts every row has, which are looked at elsewhere.
_PLAIN = frozenset({"role", "content"})
_ONE_KIND = "a column holds values of one kind, and the pod could not load these rows"
_WAY_OUT = "write it alike in all rows; where the arguments of calls differ, as JSON text"


@dataclass
class ColumnTypes:
    """The kind of value in each place of the rows so far, and the first clash of each place.

    Whole numbers and fractions go together, and null with everything.
    """

    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    clashes: dict[str, Problem] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Look at one more row."""
        for name, value in row.columns.items():
            if name == "tools" and value is not None:
                self._note(row.where, name, value)
                self._look(row.where, name, value)
            elif isinstance(value, list):
                # Most turns have a role and a content alone, and most rows only such turns.
                turns = [turn for turn in value if not turn.keys() <= _PLAIN]
                if turns:
                    self._look(row.where, name, turns)

    def _look(self, where: str, place: str, value: Any) -> None:
        for inner, item in _items(place, value):
            if item is None:
                continue
            self._note(where, inner, item)
            if isinstance(item, list | dict):
                self._look(where, inner, item)

    def _note(self, where: str, place: str, value: Any) -> None:
        kind = _kind(value)
        if kind is None or place in self.clashes:
            return
        earlier, first = self.kinds.setdefault(place, (kind, where))
        if earlier != kind:
            there = f"in {first}" if first != where else "in the same row"
            what = f"{place} is {kind} here and {earlier} {there}; {_ONE_KIND}"
            self.clashes[place] = Problem(where, what, _WAY_OUT)


def _items(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is inside a list or an object, each with its place; nothing of other values."""
    if not isinstance(value, list | dict):
        return iter(())
    if isinstance(value, list):
        return ((f"{place}[]", item) for item in value)
    return ((f"{place}.{name}", item) for name, item in value.items() if name not in _PLAIN)


def _kind(value: Any) -> str | None:
    """Return the kind of a value in words; None for one that JSON does not have."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return next((words for kind, words in _KINDS if isinstance(value, kind)), None)
