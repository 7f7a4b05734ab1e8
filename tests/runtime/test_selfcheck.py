"""The self-check: it says which value a scorer does not reproduce, and nothing when all hold."""

import math

import pytest

from podproof.runtime.plan import Objective, ScorerName, ScorerPlan
from podproof.runtime.scorer import observe_evaluation
from podproof.runtime.scores import ScoreState
from podproof.runtime.selfcheck import (
    OBJECTIVE_VECTORS,
    ROBUST_VECTORS,
    SEED_V1_VECTORS,
    failed_vectors,
)


def test_the_scorer_reproduces_every_vector() -> None:
    assert failed_vectors() == ()


def test_the_vectors_tell_the_formulas_apart() -> None:
    with_a_gap = [(train, loss, score) for train, loss, score in ROBUST_VECTORS if score != loss]

    assert len(with_a_gap) >= 3
    assert len({score for *_, score in SEED_V1_VECTORS}) == len(SEED_V1_VECTORS)


@pytest.mark.parametrize("weight", [0.0, 0.019, 0.021])
def test_another_weight_would_be_noticed(weight: float) -> None:
    train_losses, eval_loss, expected = ROBUST_VECTORS[2]
    plan = ScorerPlan(gap_weight=weight)
    state = ScoreState(train_ema=train_losses[0])

    _, score = observe_evaluation(state, 1, eval_loss, plan)

    assert not math.isclose(score.value, expected, abs_tol=1e-12)


def test_every_scorer_that_ships_and_every_objective_has_a_vector() -> None:
    options = [ScorerPlan(**given) for given, *_ in OBJECTIVE_VECTORS]

    # seed_v1 has a table of its own, and a scorer of the user's has no published values.
    assert {plan.name for plan in options} == set(ScorerName) - {
        ScorerName.SEED_V1,
        ScorerName.OWN,
    }
    assert {plan.objective for plan in options} == set(Objective)
    assert {plan.redrawn_eval for plan in options} == {True, False}
