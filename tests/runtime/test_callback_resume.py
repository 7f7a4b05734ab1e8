"""The callback when a run begins again: from a checkpoint, in one process, by another metric."""

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.runtime.test_callback import PLAN, Recorder, callback_with

from podproof.harness.simulator import Scenario, SimulatedTrainer, TrainerControl, TrainerState
from podproof.runtime.events import EventKind
from podproof.runtime.plan import EarlyStopping, MethodName, ScorerName, ScorerPlan
from podproof.runtime.scorer import SCORE_KEY
from podproof.runtime.stopping import StopReason

LOSSES = (2.0, 1.0, 1.5, 1.8)
HISTORY: list[dict[str, Any]] = [
    {"loss": 2.0, "step": 2},
    {"eval_loss": 2.0, "eval_runtime": 0.1, "step": 3},
    {"loss": 1.0, "step": 4},
    {"eval_loss": 1.0, "eval_runtime": 0.1, "step": 6},
]


def begun(callback: Any, history: list[dict[str, Any]] | None = None, **books: Any) -> TrainerState:
    """Begin to train from a checkpoint with this log and these books; return its state."""
    entries = [dict(entry) for entry in (HISTORY if history is None else history)]
    state = TrainerState(99, global_step=6, log_history=entries, **books)
    callback.on_train_begin(None, state, TrainerControl())
    return state


def evaluated(callback: Any, state: TrainerState, step: int, **logs: Any) -> dict[str, Any]:
    """Log an evaluation as the trainer does; return the metrics it would compare."""
    state.global_step = step
    metrics = {"eval_runtime": 0.1, **logs}
    state.log_history.append({**metrics, "step": step})
    callback.on_log(None, state, TrainerControl(), logs=metrics)
    callback.on_evaluate(None, state, TrainerControl(), metrics=metrics)
    return metrics


# The books of the trainer.


def test_the_best_value_of_another_metric_gives_way_to_the_best_score_of_the_history() -> None:
    # 4.58 was a loss under metric_for_best_model=eval_loss: no score of ours can ever beat it.
    callback = callback_with()

    state = begun(
        callback, best_metric=4.58, best_global_step=3, best_model_checkpoint="checkpoint-3"
    )

    assert (state.best_metric, state.best_global_step) == (-callback.scores.best_score, 6)
    assert state.best_model_checkpoint is None


def test_books_of_an_evaluation_that_is_not_in_the_history_are_closed() -> None:
    state = begun(callback_with(), [], best_metric=0.9, best_global_step=3)

    assert (state.best_metric, state.best_global_step) == (None, None)


def test_books_that_agree_with_the_history_are_left_alone() -> None:
    first = callback_with()
    begun(first)
    best = -first.scores.best_score

    state = begun(
        callback_with(),
        best_metric=best,
        best_global_step=6,
        best_model_checkpoint="/elsewhere/checkpoint-6",
    )

    assert state.best_model_checkpoint == "/elsewhere/checkpoint-6"


def test_a_scorer_that_is_changed_before_a_resume_judges_the_old_evaluations_anew() -> None:
    loss_only = ScorerPlan(name=ScorerName.EVAL_LOSS)
    with_gap = callback_with()
    begun(with_gap)

    state = begun(
        callback_with(plan=loss_only), best_metric=-with_gap.scores.best_score, best_global_step=6
    )

    assert state.best_metric == -1.0


# An evaluation that comes twice.


def test_an_evaluation_repeated_after_a_restart_is_not_scored_twice() -> None:
    recorder = Recorder()
    callback = callback_with(recorder, plan=ScorerPlan(early_stopping=EarlyStopping(1)))
    state = begun(callback)
    before = callback.scores

    metrics = evaluated(callback, state, 6, eval_loss=7.0)

    assert callback.scores == before
    assert metrics[SCORE_KEY] == -before.best_score
    assert recorder.bodies(EventKind.EVALUATION) == []
    assert callback.stop_reason is None


def test_a_history_with_a_repeated_evaluation_is_replayed_as_it_was_lived() -> None:
    lived, replayed = callback_with(), callback_with()
    state = begun(lived)
    evaluated(lived, state, 6, eval_loss=7.0)
    evaluated(lived, state, 9, eval_loss=0.5)

    begun(replayed, state.log_history)

    assert replayed.scores == lived.scores


# The same callback again, in the same process.


def scenario(**changes: Any) -> Scenario:
    return Scenario("again", MethodName.SFT, eval_losses=LOSSES, **changes)


@given(given_up=st.integers(1, 19), kept=st.sampled_from([0, 5, 10]))
def test_a_second_beginning_remembers_the_checkpoint_and_nothing_else(
    given_up: int, kept: int
) -> None:
    plan = ScorerPlan(early_stopping=EarlyStopping(3))
    fresh, again = callback_with(plan=plan), callback_with(plan=plan)
    checkpoint = SimulatedTrainer(scenario(), callback_with(plan=plan)).train(kept or 1).state
    start = checkpoint if kept else None
    SimulatedTrainer(scenario(), again).train(given_up)

    second = SimulatedTrainer(scenario(), again, state=start).train().state
    undisturbed = SimulatedTrainer(scenario(), fresh, state=start).train().state

    assert again.scores == fresh.scores
    assert again.trend == fresh.trend
    assert second.best_global_step == undisturbed.best_global_step == 10


def test_a_run_that_stopped_early_and_is_begun_again_has_not_stopped_yet() -> None:
    callback = callback_with(plan=ScorerPlan(early_stopping=EarlyStopping(1)))
    SimulatedTrainer(scenario(), callback).train()
    stopped = callback.stop_reason

    begun(callback, [])

    assert (stopped, callback.stop_reason) == (StopReason.EARLY_STOPPING, None)


# A log that cannot be folded.


def test_a_log_that_broke_the_scorer_costs_a_resumed_run_no_other_log() -> None:
    # The original formula overflows at a loss of 800; seen live, that evaluation had no score.
    plan = ScorerPlan(name=ScorerName.SEED_V1)
    lived, resumed = callback_with(plan=plan), callback_with(plan=plan)
    state = begun(lived, HISTORY[:2])
    broken = evaluated(lived, state, 6, eval_loss=800.0)
    evaluated(lived, state, 9, eval_loss=1.0)

    begun(resumed, state.log_history)

    assert math.isnan(broken[SCORE_KEY])
    assert resumed.scores.best_step == lived.scores.best_step == 9
    assert resumed.scores == lived.scores
    assert [*resumed.failures] == ["on_log raised OverflowError: math range error"]


# Several eval sets.


def test_the_set_seen_first_stays_the_one_that_is_scored_after_a_resume() -> None:
    callback = callback_with()
    history = [
        {"eval_b_loss": 1.0, "eval_b_runtime": 0.1, "step": 3},
        {"eval_a_loss": 9.0, "eval_a_runtime": 0.1, "step": 3},
    ]
    state = begun(callback, history)

    other = evaluated(callback, state, 9, eval_a_loss=0.1, eval_a_runtime=0.1, eval_runtime=None)

    assert callback.scores.best_step == 3
    assert other.get(SCORE_KEY) is not None


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_log_of_nothing_changes_nothing(repeats: int) -> None:
    callback = callback_with()
    state = begun(callback)
    before = callback.scores

    _ = [callback.on_log(None, state, TrainerControl(), logs={}) for _ in range(repeats)]

    assert (callback.scores, callback.plan, callback.failures) == (before, PLAN, {})
