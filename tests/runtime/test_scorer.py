"""The score: a pure fold, lower is better; what it promises, and what the original formula did."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from podproof.harness.drawn import subject_of
from podproof.harness.properties import PROPERTIES
from podproof.runtime import readings, scorer, scores, selfcheck, stopping, trend
from podproof.runtime.plan import Objective, ScorerName, ScorerPlan
from podproof.runtime.readings import read_log, usable_loss
from podproof.runtime.scorer import (
    observe_evaluation,
    observe_log,
    observe_train_loss,
    replay_scores,
    trainer_metric,
)
from podproof.runtime.scores import Score, ScoreState
from podproof.runtime.selfcheck import ROBUST_VECTORS, failed_vectors

ROBUST = ScorerPlan()
# A script has the names of all modules together.
MODULES = (readings, scores, trend, stopping, scorer, selfcheck)
AS_IN_A_SCRIPT = SimpleNamespace(**{key: it for one in MODULES for key, it in vars(one).items()})
OFFERED = {
    "robust": ROBUST,
    "other weights": ScorerPlan(gap_weight=0.3, gap_limit=1.0, train_ema_alpha=0.9),
    "eval_loss": ScorerPlan(name=ScorerName.EVAL_LOSS),
    "own": ScorerPlan(name=ScorerName.OWN),
    "accuracy": ScorerPlan(objective=Objective.ACCURACY),
    "accuracy above all": ScorerPlan(objective=Objective.ACCURACY, accuracy_weight=1.0),
    "reward": ScorerPlan(objective=Objective.REWARD),
    "redrawn": ScorerPlan(redrawn_eval=True),
    "redrawn for accuracy": ScorerPlan(redrawn_eval=True, objective=Objective.ACCURACY),
}

# Large and small enough to matter, far enough from overflow to be scaled by 2**40.
LOSSES = st.just(0.0) | st.floats(1e-60, 1e60) | st.floats(-1e60, -1e-60)
HOSTILE: st.SearchStrategy[Any] = st.sampled_from(
    [None, math.nan, math.inf, -math.inf, "0.1", True, False, 10**400, -(10**400), [], 1e308]
)
Round = tuple[list[Any], Any]
USABLE = st.lists(st.tuples(st.lists(LOSSES, max_size=3), LOSSES), min_size=1, max_size=8)
ANY = st.lists(
    st.tuples(st.lists(LOSSES | HOSTILE, max_size=3), LOSSES | HOSTILE), min_size=1, max_size=8
)


def trained(losses: Sequence[object], plan: ScorerPlan = ROBUST) -> ScoreState:
    """Return the state after some train logs and no evaluation."""
    return reduce(lambda state, loss: observe_train_loss(state, loss, plan), losses, ScoreState())


def log_of(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Return a trainer's log_history of the rounds; evaluation k is step k, counted from 1."""
    log: list[dict[str, Any]] = []
    for step, (train_losses, eval_loss) in enumerate(rounds, 1):
        log += [{"loss": loss, "grad_norm": 1.0, "step": step} for loss in train_losses]
        log.append({"eval_loss": eval_loss, "eval_runtime": 0.1, "step": step})
    return log


def scored(
    rounds: Sequence[Round], plan: ScorerPlan = ROBUST
) -> tuple[ScoreState, tuple[Score, ...]]:
    return replay_scores(log_of(rounds), plan)


def evaluated(*losses: object, plan: ScorerPlan = ROBUST) -> ScoreState:
    """Return the state after evaluations without any train log."""
    return scored([([], loss) for loss in losses], plan)[0]


# The published values.


def test_every_published_vector_is_reproduced() -> None:
    assert failed_vectors() == ()


@pytest.mark.parametrize(("train_losses", "eval_loss", "expected"), ROBUST_VECTORS)
def test_robust_gives_its_published_values(
    train_losses: tuple[float, ...], eval_loss: float, expected: float
) -> None:
    _, score = observe_evaluation(trained(train_losses), 1, eval_loss, ROBUST)

    assert score.value == pytest.approx(expected, abs=1e-12)


# What robust promises, by the harness' own properties and by facts of its own.


@pytest.mark.parametrize("name", OFFERED)
@pytest.mark.parametrize("law", PROPERTIES)
def test_every_scorer_that_is_offered_keeps_every_law(law: str, name: str) -> None:
    PROPERTIES[law](subject_of(AS_IN_A_SCRIPT, OFFERED[name]), 50)


@given(ANY)
def test_a_score_is_never_nan_and_only_the_unusable_is_infinite(rounds: list[Round]) -> None:
    _, scores = scored(rounds)

    assert not any(math.isnan(score.value) for score in scores)
    unusable = [usable_loss(eval_loss) is None for _, eval_loss in rounds]
    assert [score.value == math.inf for score in scores] == unusable


@given(USABLE)
def test_the_components_of_a_score_sum_to_it(rounds: list[Round]) -> None:
    _, scores = scored(rounds)

    assert all(score.value == sum(score.components.values()) for score in scores)


@given(st.lists(LOSSES, max_size=4), LOSSES)
def test_an_eval_loss_at_or_below_the_train_average_is_the_score_exactly(
    train_losses: list[float], eval_loss: float
) -> None:
    state = trained(train_losses)
    lowered = min(eval_loss, eval_loss if state.train_ema is None else state.train_ema)

    _, score = observe_evaluation(state, 1, lowered, ROBUST)

    assert score.value == lowered


@given(USABLE)
def test_the_gap_adds_at_most_a_hundredth_of_the_first_eval_loss(rounds: list[Round]) -> None:
    _, scores = scored(rounds)

    most = 0.02 * 0.5 * abs(rounds[0][1])
    assert all(0.0 <= score.components["gap"] <= most for score in scores)


@given(USABLE, st.integers(-40, 40))
def test_losses_in_another_unit_choose_the_same_checkpoint(rounds: list[Round], power: int) -> None:
    unit = 2.0**power
    rescaled = [([loss * unit for loss in train], loss * unit) for train, loss in rounds]

    before, after = scored(rounds)[0], scored(rescaled)[0]

    assert after.best_step == before.best_step
    assert after.best_score == before.best_score * unit


@given(st.lists(LOSSES, min_size=1, max_size=8))
def test_without_a_train_loss_the_score_is_the_eval_loss(losses: list[float]) -> None:
    _, scores = scored([([], loss) for loss in losses])

    assert [score.value for score in scores] == losses


def test_a_train_loss_that_is_late_favours_earlier_evaluations_by_a_hundredth_at_most() -> None:
    # The one caveat: what was scored before any train log carries no gap.
    _, scores = scored([([], 2.0), ([0.0], 1.99)])

    assert [score.value for score in scores] == [2.0, 2.01]
    assert scores[0].value - 1.99 <= 0.01 * 2.0


@given(ANY)
@example([([], math.nan), ([], 2.0), ([], math.nan)])
def test_an_unusable_evaluation_is_never_the_best(rounds: list[Round]) -> None:
    state, _ = scored(rounds)

    usable = {step for step, (_, loss) in enumerate(rounds, 1) if usable_loss(loss) is not None}
    assert state.best_step in usable or (state.best_step is None and not usable)


def test_a_tie_keeps_the_earlier_evaluation() -> None:
    state, scores = scored([([], 1.5), ([], 1.5), ([], 1.5)])

    assert state.best_step == 1
    assert [score.is_best for score in scores] == [True, False, False]


def test_an_unusable_train_loss_changes_nothing() -> None:
    before = trained([2.0, 1.0])

    assert trained([2.0, None, 1.0, math.nan, math.inf, True, "0.5", 10**400]) == before


def test_the_train_average_moves_halfway_to_each_new_loss() -> None:
    assert trained([4.0, 2.0, 1.0]).train_ema == 2.0


@pytest.mark.parametrize(
    "value", [None, True, False, "1.0", [], {}, math.nan, math.inf, -math.inf, 10**400, 1j]
)
def test_what_is_no_finite_number_is_no_loss(value: object) -> None:
    assert usable_loss(value) is None


def test_the_trainer_is_told_the_score_with_its_sign_turned_or_nan() -> None:
    _, usable = observe_evaluation(ScoreState(), 1, 2.0, ROBUST)
    _, unusable = observe_evaluation(ScoreState(), 1, math.nan, ROBUST)

    assert trainer_metric(usable) == -2.0
    assert math.isnan(trainer_metric(unusable))
    assert type(trainer_metric(usable)) is float


# The fold: the same from a log, however it was cut.


@given(ANY, st.integers(0, 40))
def test_replaying_a_log_cut_anywhere_and_going_on_gives_the_same(
    rounds: list[Round], cut: int
) -> None:
    log = log_of(rounds)

    went_on = reduce(going_on, log[cut:], replay_scores(log[:cut], ROBUST))

    assert went_on == replay_scores(log, ROBUST)


def going_on(
    folded: tuple[ScoreState, tuple[Score, ...]], entry: dict[str, Any]
) -> tuple[ScoreState, tuple[Score, ...]]:
    """Fold one more entry as the callback does while training goes on."""
    state, scores = folded
    state, score = observe_log(state, read_log(entry), ROBUST)
    return state, scores if score is None else (*scores, score)


def test_the_final_summary_of_a_log_is_no_train_loss() -> None:
    log = [{"loss": 2.0}, {"eval_loss": 1.0, "step": 5}, {"train_loss": 9.0, "loss": 9.0}]

    assert replay_scores(log, ROBUST) == replay_scores(log[:2], ROBUST)


def test_an_entry_of_a_log_without_any_loss_is_passed_over() -> None:
    state, scores = replay_scores([{"eval_a_loss": 1.0, "step": 1}, {"epoch": 1.0}], ROBUST)

    assert (state, scores) == (ScoreState(), ())


def test_the_state_of_a_fold_is_a_value() -> None:
    state = trained([1.0])

    observe_evaluation(state, 1, 2.0, ROBUST)

    assert state == replace(ScoreState(), train_ema=1.0, last_train_loss=1.0)
