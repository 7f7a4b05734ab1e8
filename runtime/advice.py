"""What to know about choosing a checkpoint by few rows or few evaluations, in numbers.

The numbers are regrets: how much worse the chosen checkpoint was than the best one on a large test
set, as a share of all that the run's checkpoints differed. They are means over 135 small trainings
that were not used to choose anything; docs/explanation/score.md says what they cannot tell.
"""

# The largest number of each that was measured; more is better still, but nobody knows by how much.
_ENOUGH_EVAL_ROWS = 128
_ENOUGH_EVALUATIONS = 20


def selection_notices(eval_rows: int | None, evaluations: int | None) -> tuple[str, ...]:
    """Return advice for a run that chooses by few rows or evaluations; None: not known, no advice.

    A run without any evaluation chooses nothing, and gets none.

    >>> selection_notices(128, 20), selection_notices(None, None), selection_notices(8, 0)
    ((), (), ())
    """
    notices = []
    if evaluations == 0:
        return ()
    if eval_rows and eval_rows < _ENOUGH_EVAL_ROWS:
        few = f"{eval_rows} evaluation rows are few to choose by"
        notices.append(f"{few} (regret 0.127 with 8, 0.076 with 128)")
    if evaluations and evaluations < _ENOUGH_EVALUATIONS:
        few = f"{evaluations} evaluations are few to choose from"
        notices.append(f"{few} (regret 0.108 with 5, 0.088 with 20)")
    return tuple(notices)
