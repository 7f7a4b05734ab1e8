"""What the score makes of margins, accuracies, redrawn rows and several eval sets."""

import math

import pytest
from hypothesis import given, strategies as st
from tests.runtime.test_readings import recorded

from podproof.runtime.plan import Objective, ScorerName, ScorerPlan
from podproof.runtime.readings import read_log
from podproof.runtime.scorer import final_choice, replay_scores, score_bound
from podproof.runtime.scores import Score, ScoreState

ACCURACY = ScorerPlan(name=ScorerName.EVAL_LOSS, objective=Objective.ACCURACY)
REWARD = ScorerPlan(objective=Objective.REWARD)

# An evaluation: its loss, margin and accuracy; None where it was not logged.
Measured = tuple[object, object, object]


def scored(*evaluations: Measured, plan: ScorerPlan) -> tuple[ScoreState, tuple[Score, ...]]:
    """Return the fold of evaluations at steps 1, 2, ..."""
    log = [
        {
            "eval_loss": loss,
            "eval_rewards/margins": margin,
            "eval_rewards/accuracies": accuracy,
            "step": step,
        }
        for step, (loss, margin, accuracy) in enumerate(evaluations, 1)
    ]
    return replay_scores(log, plan)


def chosen(*evaluations: Measured, plan: ScorerPlan = REWARD) -> int | None:
    choice = final_choice(scored(*evaluations, plan=plan)[1], plan)
    return None if choice is None else choice.step


# The objective accuracy.


def test_accuracy_lowers_the_score_by_its_weight_in_units_of_the_first_loss() -> None:
    _, scores = scored((2.0, None, 0.5), (1.5, None, 0.75), plan=ACCURACY)

    assert [score.value for score in scores] == pytest.approx([1.8, 1.2])
    assert scores[0].components == {"eval_loss": 2.0, "objective": pytest.approx(-0.2)}


def test_where_accuracies_are_saturated_the_loss_decides() -> None:
    state, _ = scored(*[(loss, None, 1.0) for loss in (0.5, 0.3, 0.4)], plan=ACCURACY)

    assert state.best_step == 2


def test_a_gain_in_accuracy_may_cost_loss_up_to_the_stated_bound_and_no_more() -> None:
    assert score_bound(ACCURACY) == (-0.2, 0.0)
    assert scored((1.0, None, 0.0), (1.19, None, 1.0), plan=ACCURACY)[0].best_step == 2
    assert scored((1.0, None, 0.0), (1.21, None, 1.0), plan=ACCURACY)[0].best_step == 1


@pytest.mark.parametrize("missing", [None, math.nan, 1.5, "0.9"])
def test_a_missing_accuracy_is_as_if_it_had_stayed(missing: object) -> None:
    gone = scored((2.0, None, 0.8), (1.9, None, missing), plan=ACCURACY)[1]
    stayed = scored((2.0, None, 0.8), (1.9, None, 0.8), plan=ACCURACY)[1]

    assert gone[1].value == stayed[1].value


def test_the_objective_is_loss_unless_the_plan_says_otherwise() -> None:
    _, scores = scored((2.0, 9.0, 1.0), plan=ScorerPlan())

    assert scores[0].value == 2.0


# The objective reward.


def test_the_highest_margin_within_the_tolerance_is_chosen_at_the_end() -> None:
    # 0.52 is within 5 % of 0.5, and 0.53 is not.
    assert chosen((0.6, 9.0, None), (0.5, 1.0, None), (0.52, 3.0, None), (0.53, 8.0, None)) == 3


def test_with_equal_margins_the_better_score_is_chosen_and_with_equal_scores_the_earlier() -> None:
    assert chosen((0.51, 2.0, None), (0.5, 2.0, None), (0.5, 2.0, None)) == 2


def test_margins_below_zero_are_compared_like_others() -> None:
    assert chosen((0.5, -3.0, None), (0.5, -1.0, None), (0.5, -2.0, None)) == 2


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, "9"])
def test_a_checkpoint_without_a_margin_is_chosen_only_when_none_has_one(missing: object) -> None:
    assert chosen((0.5, missing, None), (0.51, 1.0, None)) == 2
    assert chosen((0.51, missing, None), (0.5, missing, None)) == 2


def test_an_unusable_evaluation_is_not_chosen_for_its_margin() -> None:
    assert chosen((0.5, 1.0, None), (math.nan, 9.0, None)) == 1
    assert chosen((math.nan, 9.0, None)) is None


def test_the_tolerance_of_a_negative_loss_reaches_upwards_too() -> None:
    assert chosen((-1.0, 1.0, None), (-0.96, 2.0, None), (-0.94, 3.0, None)) == 2


def test_the_score_itself_stays_that_of_the_loss() -> None:
    assert scored((0.5, 1.0, 1.0), plan=REWARD)[1][0].value == 0.5


def test_other_objectives_end_with_the_best_score() -> None:
    evaluations = ((0.5, 1.0, None), (0.51, 9.0, None))

    assert chosen(*evaluations, plan=ScorerPlan()) == 1
    assert chosen(*evaluations, plan=REWARD) == 2


# Redrawn eval rows.


def test_redrawn_rows_are_averaged_over_evaluations() -> None:
    plan = ScorerPlan(name=ScorerName.EVAL_LOSS, redrawn_eval=True, eval_ema_alpha=0.5)

    _, scores = scored(*[(loss, None, None) for loss in (2.0, 1.0, 1.5)], plan=plan)

    assert [score.value for score in scores] == [2.0, 1.5, 1.5]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_an_average_lies_within_the_losses_seen_so_far(losses: list[float]) -> None:
    _, scores = scored(*[(loss, None, None) for loss in losses], plan=ScorerPlan(redrawn_eval=True))

    slack = 1e-9 * max(map(abs, losses))
    assert all(
        min(losses[:k]) - slack <= score.value <= max(losses[:k]) + slack
        for k, score in enumerate(scores, 1)
    )


# Several eval sets.


def test_the_first_eval_set_seen_is_scored_and_the_others_are_for_the_record() -> None:
    log = [
        {"eval_b_loss": 2.0, "eval_b_runtime": 1.0, "step": 1},
        {"eval_a_loss": 0.1, "eval_a_runtime": 1.0, "step": 1},
        {"eval_b_loss": 1.0, "eval_b_runtime": 1.0, "step": 2},
        {"eval_a_loss": 9.0, "eval_a_runtime": 1.0, "step": 2},
    ]

    state, scores = replay_scores(log, ScorerPlan())

    assert [(score.step, score.value) for score in scores] == [(1, 2.0), (2, 1.0)]
    assert (state.eval_set, state.best_step) == ("b", 2)


def test_a_real_run_with_two_eval_sets_has_one_score_for_each_pair_of_evaluations() -> None:
    evaluations = [read for read in map(read_log, recorded("sft_two_evals")) if read.eval_set]

    state, scores = replay_scores(recorded("sft_two_evals"), ScorerPlan())

    assert len(evaluations) == 2 * len(scores) > 2
    assert state.eval_set == evaluations[0].eval_set
    assert [score.loss for score in scores] == [read.loss for read in evaluations[::2]]


# Before the first step.


def test_an_evaluation_before_the_first_step_is_scored_but_has_no_checkpoint_to_choose() -> None:
    log = [{"eval_loss": 0.5, "step": 0}, {"eval_loss": 1.0, "step": 5}]

    state, scores = replay_scores(log, ScorerPlan())

    assert [score.is_best for score in scores] == [False, True]
    assert state.best_step == 5
    assert final_choice(scores, ScorerPlan()) == scores[1]


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_the_margins_of_a_real_run_are_kept_beside_its_scores(method: str) -> None:
    _, scores = replay_scores(recorded(method), ScorerPlan())

    assert len(scores) > 1
    assert all(score.measures.margin is not None for score in scores)
