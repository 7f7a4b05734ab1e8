"""Advice on choosing by little: given with numbers, and only where something is known."""

import pytest

from podproof.runtime.advice import selection_notices


def test_few_rows_are_told_with_what_was_measured() -> None:
    assert selection_notices(24, 20) == (
        "24 evaluation rows are few to choose by (regret 0.127 with 8, 0.076 with 128)",
    )


def test_few_evaluations_are_told_with_what_was_measured() -> None:
    assert selection_notices(128, 5) == (
        "5 evaluations are few to choose from (regret 0.108 with 5, 0.088 with 20)",
    )


def test_both_may_be_few() -> None:
    assert len(selection_notices(8, 5)) == 2


@pytest.mark.parametrize(
    ("eval_rows", "evaluations"),
    [(128, 20), (1000, 1000), (None, None), (None, 20), (128, None), (8, 0), (0, 0), (0, None)],
)
def test_enough_unknown_or_none_at_all_gives_no_advice(
    eval_rows: int | None, evaluations: int | None
) -> None:
    assert selection_notices(eval_rows, evaluations) == ()
