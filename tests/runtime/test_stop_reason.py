"""Why a run ends before its last step: patience, a loss that diverges, a loss that is flat."""

import functools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from podproof.runtime.plan import EarlyStopping, ScorerPlan, TrendPlan
from podproof.runtime.scorer import observe_evaluation, trainer_metric
from podproof.runtime.scores import ScoreState
from podproof.runtime.stopping import StopReason, stop_reason
from podproof.runtime.trend import LossTrend, observe_loss, trend_of


def patient(patience: int | None, min_delta: float = 0.0) -> ScorerPlan:
    return ScorerPlan(early_stopping=EarlyStopping(patience, min_delta))


def evaluated(*losses: object, plan: ScorerPlan) -> ScoreState:
    """Return the state after evaluations without any train log."""
    state = ScoreState()
    for step, loss in enumerate(losses, 1):
        state, _ = observe_evaluation(state, step, loss, plan)
    return state


def stops(*losses: object, plan: ScorerPlan) -> bool:
    return stop_reason(evaluated(*losses, plan=plan), LossTrend(), plan) is not None


def trained(*losses: float, plan: ScorerPlan) -> StopReason | None:
    """Return whether a run with these train logs and no evaluation would stop after the last."""
    trend = functools.reduce(observe_loss, losses, trend_of(plan.trend))
    return stop_reason(ScoreState(), trend, plan)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((2.0, 1.0), False),
        ((2.0, 2.1), False),
        ((2.0, 2.1, 2.2), True),
        ((2.0, 2.0, 2.0), True),
        ((2.0, 2.1, 1.9), False),
        ((2.0, 2.1, 1.9, 2.0, 2.0), True),
        ((2.0, math.nan, math.nan), True),
        ((math.nan, math.nan), False),
        ((math.nan, math.nan, math.nan), True),
        ((math.nan, 2.0, 2.1), False),
        ((), False),
    ],
)
def test_training_stops_after_two_evaluations_in_a_row_with_nothing_better(
    losses: tuple[float, ...],
    *,
    expected: bool,
) -> None:
    assert stops(*losses, plan=patient(2)) == expected


@pytest.mark.parametrize(("second", "expected"), [(1.95, True), (1.875, True), (1.85, False)])
def test_a_gain_that_is_not_beyond_the_margin_does_not_count(
    second: float,
    *,
    expected: bool,
) -> None:
    assert stops(2.0, second, plan=patient(1, min_delta=0.125)) == expected


def test_a_gain_within_the_margin_is_still_the_best() -> None:
    assert evaluated(2.0, 1.9, plan=patient(5, min_delta=0.5)).best_step == 2


def test_without_patience_nothing_stops() -> None:
    assert not stops(*[2.0] * 50, plan=patient(None))


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([1.0, 1.1, 1.25, 1.5, 1.625, 2.0, math.nan, math.inf]), max_size=10),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1, 0.125, 0.5]),
)
def test_it_stops_when_the_early_stopping_of_transformers_does(
    losses: list[float], patience: int, min_delta: float
) -> None:
    plan = patient(patience, min_delta)

    ours = [stops(*losses[: k + 1], plan=plan) for k in range(len(losses))]

    assert ours == early_stopping_of_transformers(losses, plan)


def early_stopping_of_transformers(losses: list[float], plan: ScorerPlan) -> list[bool]:
    """Return at which evaluations its callback asks for a stop; the books are kept by hand."""
    from transformers import EarlyStoppingCallback

    theirs = EarlyStoppingCallback(plan.early_stopping.patience or 1, plan.early_stopping.min_delta)
    args = SimpleNamespace(metric_for_best_model="eval_score", greater_is_better=True)
    state = SimpleNamespace(best_metric=None)
    return [_asked(theirs, args, state, metric_of(loss)) for loss in losses]


def _asked(theirs: Any, args: Any, state: Any, metric: float) -> bool:
    control = SimpleNamespace(should_training_stop=False)
    theirs.on_evaluate(args, state, control, {"eval_score": metric})
    # Trainer._determine_best_metric, after the callbacks.
    state.best_metric = -math.inf if state.best_metric is None else state.best_metric
    state.best_metric = max(state.best_metric, metric)  # NaN, coming second, never wins
    return bool(control.should_training_stop)


def metric_of(loss: float) -> float:
    return trainer_metric(observe_evaluation(ScoreState(), 1, loss, ScorerPlan())[1])


# The loss trend.


def watchful(**trend: int) -> ScorerPlan:
    return ScorerPlan(trend=TrendPlan(**trend))


def test_a_run_stops_after_so_many_logs_in_a_row_that_diverge() -> None:
    plan = watchful(stop_on_divergence=3)

    assert trained(2.0, math.nan, math.nan, plan=plan) is None
    assert trained(2.0, math.nan, math.nan, math.nan, plan=plan) is StopReason.DIVERGING


def test_a_log_that_does_not_diverge_starts_the_count_anew() -> None:
    plan = watchful(stop_on_divergence=3)

    assert trained(math.nan, math.nan, 2.0, math.nan, math.nan, plan=plan) is None


def test_a_loss_that_explodes_without_becoming_infinite_diverges_too() -> None:
    plan = watchful(stop_on_divergence=2)

    assert trained(*[1.0] * 10, 50.0, 500.0, plan=plan) is StopReason.DIVERGING


def test_a_run_stops_after_so_many_logs_in_a_row_that_are_flat() -> None:
    plan = watchful(window=6, stop_on_plateau=4)

    # The first word is said at the sixth loss.
    assert trained(*[1.0] * 8, plan=plan) is None
    assert trained(*[1.0] * 9, plan=plan) is StopReason.PLATEAU


def test_a_loss_that_keeps_falling_is_no_plateau() -> None:
    plan = watchful(window=6, stop_on_plateau=1)

    assert trained(*[2.0 - 0.02 * log for log in range(50)], plan=plan) is None


def test_a_trend_stops_nothing_unless_the_plan_says_so() -> None:
    assert trained(*[1.0] * 100, math.nan, math.nan, plan=ScorerPlan()) is None


def test_the_most_alarming_reason_is_given() -> None:
    plan = ScorerPlan(early_stopping=EarlyStopping(1), trend=TrendPlan(stop_on_divergence=1))
    diverging = observe_loss(trend_of(plan.trend), math.nan)
    impatient = evaluated(1.0, 2.0, plan=plan)

    assert stop_reason(impatient, diverging, plan) is StopReason.DIVERGING
    assert stop_reason(impatient, LossTrend(), plan) is StopReason.EARLY_STOPPING


@given(
    st.lists(st.sampled_from([1.0, 1.25, 3.0, 40.0, math.nan]), max_size=30),
    st.integers(-20, 20),
)
def test_losses_in_another_unit_stop_the_run_at_the_same_log(
    losses: list[float], power: int
) -> None:
    plan = watchful(window=6, stop_on_divergence=2, stop_on_plateau=3)
    rescaled = [loss * 2.0**power for loss in losses]

    assert trained(*rescaled, plan=plan) is trained(*losses, plan=plan)
