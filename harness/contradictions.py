"""Pairs that contradict each other: one row prefers what another of the same prompt rejects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from podproof.runtime.errors import Problem
from podproof.runtime.plan import DataPlan

# A few contradictions are people who disagree.
_FEWEST = 10
# As in repeats: compared in slices, so that what is held at once stays small.
_SLICE_ROWS = 250_000
_MOST_SLICES = 16


@dataclass(frozen=True)
class Contradictions:
    """How many training rows another one contradicts, and the first two that do, from 0."""

    train_rows: int
    contradicted: int
    first: tuple[int, int] | None


def contradictions(rows: Sequence[int], turned: Sequence[int]) -> Contradictions:
    """Count by hashes: those of the rows, and those of the rows with both answers exchanged."""
    slices = min(_MOST_SLICES, len(rows) // _SLICE_ROWS + 1)
    places: list[int] = []
    for number in range(slices):
        seen = {value for value in rows if value % slices == number}
        places += [
            place
            for place, value in enumerate(turned)
            if value % slices == number and value in seen
        ]
    if not places:
        return Contradictions(len(rows), 0, None)
    earliest = min(places)
    partner = next(place for place, value in enumerate(rows) if value == turned[earliest])
    return Contradictions(len(rows), len(places), (earliest, partner))


def contradiction_problems(
    found: Contradictions, where: Sequence[str], plan: DataPlan
) -> Iterator[Problem]:
    """Refuse more than the plan allows to repeat: such rows are repeats, the other way round."""
    most = plan.max_duplicate_fraction
    if found.contradicted >= _FEWEST and found.contradicted > most * found.train_rows:
        what = f"{_words(found, where)}, more than data.max_duplicate_fraction={most:g}"
        way_out = "keep one of each two; where both are meant, raise data.max_duplicate_fraction"
        yield Problem("data.path", what, way_out)


def contradiction_notices(found: Contradictions, where: Sequence[str]) -> Iterator[str]:
    """Say what there is, for the summary."""
    if found.contradicted:
        yield _words(found, where)


def _words(found: Contradictions, where: Sequence[str]) -> str:
    count = f"{found.contradicted:,} of {found.train_rows:,} train rows"
    return f"{count} prefer what another rejects of the same prompt ({' and '.join(where)})"
