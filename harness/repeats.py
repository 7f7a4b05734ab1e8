"""Rows that stand there twice: training rows that repeat, and those that leak into evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from podproof.runtime.errors import Problem
from podproof.runtime.plan import DataPlan

# One row that is there twice says nothing; a small file of a first try has a few.
_FEWEST_LEAKED = 2
_FEWEST_REPEATED = 10
# The hashes are compared in slices, so that what is held at once stays small.
_SLICE_ROWS = 250_000
_MOST_SLICES = 16


@dataclass(frozen=True)
class Repeats:
    """How many training rows repeat an earlier one, and how many evaluation rows are among them."""

    train_rows: int
    repeated: int
    eval_rows: int
    leaked: int


def repeats(train: Sequence[int], evaluation: Sequence[int]) -> Repeats:
    """Count by the rows' hashes."""
    slices = min(_MOST_SLICES, (len(train) + len(evaluation)) // _SLICE_ROWS + 1)
    distinct = leaked = 0
    for number in range(slices):
        seen = {value for value in train if value % slices == number}
        distinct += len(seen)
        leaked += sum(value in seen for value in evaluation if value % slices == number)
    return Repeats(len(train), len(train) - distinct, len(evaluation), leaked)


def repeat_problems(found: Repeats, plan: DataPlan) -> Iterator[Problem]:
    """Refuse more repeats, or leaks, than the plan allows."""
    most = plan.max_duplicate_fraction
    if found.repeated >= _FEWEST_REPEATED and found.repeated > most * found.train_rows:
        what = f"{_repeated(found)}, more than data.max_duplicate_fraction={most:g}"
        way_out = "take the repeats out; where they are meant, raise data.max_duplicate_fraction"
        yield Problem("data.path", what, way_out)
    most = plan.max_leaked_fraction
    if found.leaked >= _FEWEST_LEAKED and found.leaked > most * found.eval_rows:
        what = f"{_leaked(found)}, so eval loss would reward learning them by heart"
        way_out = "take repeated rows out before a share is parted off, or evaluate on others"
        if plan.eval.path is not None:
            way_out = "take these rows out of one of the two files"
        yield Problem(
            "data.eval", what, f"{way_out}; data.max_leaked_fraction={most:g} allows more"
        )


def repeat_notices(found: Repeats) -> Iterator[str]:
    """Say what there is of either, for the summary."""
    if found.repeated:
        yield _repeated(found)
    if found.leaked:
        yield _leaked(found)


def _repeated(found: Repeats) -> str:
    return f"{found.repeated:,} of {found.train_rows:,} training rows repeat an earlier one"


def _leaked(found: Repeats) -> str:
    return f"{found.leaked:,} of {found.eval_rows:,} evaluation rows are training rows too"
