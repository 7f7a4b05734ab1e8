import pytest

from podproof.runtime.plan import ScorerPlan
from podproof.runtime.scores import ScoreState
from podproof.runtime.trend import LossTrend
from podproof.runtime.values import changed


@pytest.mark.parametrize("value", [ScoreState(), LossTrend()])
def test_a_changed_value_equals_one_made_anew(value: ScoreState | LossTrend) -> None:
    assert changed(value) == value
    assert changed(value) is not value


def test_a_change_leaves_the_value_it_was_made_from() -> None:
    before = ScoreState()

    after = changed(before, best_step=4)

    assert (before, after) == (ScoreState(), ScoreState(best_step=4))


def test_a_name_that_is_no_field_is_not_set() -> None:
    with pytest.raises(TypeError, match="ScorerPlan lacks one of"):
        changed(ScorerPlan(), gap_wait=0.1)
