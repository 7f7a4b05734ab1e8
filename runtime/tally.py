"""The rows of a source, counted: bad ones are dropped with a notice, or refused, by their share."""

import re
from collections import Counter
from dataclasses import dataclass, field

from podproof.runtime.errors import Problem
from podproof.runtime.rows import BadRow, Row

_TALLY_EXAMPLES = 5
_TALLY_PROBLEMS_SHOWN = 20
_TALLY_KINDS = 100


@dataclass
class RowTally:
    """The rows of one source, counted: how many are bad, in which ways, and a few examples.

    `source` and `way_out` are those of the problem that closes the list; `use` is what the rows
    are for.
    """

    source: str
    way_out: str = "mend these rows, or take them out"
    use: str = "trained on"
    rows: int = 0
    bad: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    shown: list[Problem] = field(default_factory=list)

    def add(self, row: Row | BadRow) -> None:
        """Count one row."""
        self.rows += 1
        if isinstance(row, BadRow):
            self.bad += 1
            for problem in row.problems:
                self._add_problem(problem)

    def judged(self, most: float) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Return problems if more than the share `most` is bad, else a notice of what goes."""
        if not self.bad:
            return (), ()
        kinds = ", ".join(f"{count} x {kind}" for kind, count in self.kinds.most_common(5))
        what = f"{self.bad} of {self.rows} rows cannot be {self.use} ({kinds})"
        if self.bad > most * self.rows:
            way_out = f"{self.way_out}; data.max_bad_fraction lets a share of them be dropped"
            return (*self.shown, Problem(self.source, what, way_out)), ()
        return (), (f"{self.source}: {what}, and are dropped",)

    def _add_problem(self, problem: Problem) -> None:
        kind = re.sub(r"'[^']*'|\d+", "*", problem.what)
        if kind not in self.kinds and len(self.kinds) >= _TALLY_KINDS:
            kind = "others"
        self.kinds[kind] += 1
        if self.kinds[kind] <= _TALLY_EXAMPLES and len(self.shown) < _TALLY_PROBLEMS_SHOWN:
            self.shown.append(problem)
