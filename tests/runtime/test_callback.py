"""The callback: scores, reports, stops when asked, and never hurts training.

It is driven by the simulated trainer, and by event streams recorded from real ones.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.streams.player import play

from podproof.harness.simulator import Scenario, SimulatedTrainer, TrainerControl, TrainerState
from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.events import EventKind
from podproof.runtime.plan import EarlyStopping, MethodName, ScorerPlan
from podproof.runtime.scorer import SCORE_KEY, replay_scores
from podproof.runtime.stopping import StopReason

PLAN = ScorerPlan()
RECORDINGS = ("sft", "dpo", "orpo", "sft_logging_slower_than_eval", "sft_ddp2.rank0")
LOSSES = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, None, "x"])


@dataclass
class Recorder:
    """Stands in for the reporter: takes events and keeps them."""

    told: list[tuple[EventKind, int | None, dict[str, Any]]] = field(default_factory=list)

    def __call__(
        self,
        kind: EventKind,
        *,
        step: int | None = None,
        epoch: float | None = None,
        body: Mapping[str, Any],
    ) -> None:
        self.told.append((kind, step, dict(body)))

    def bodies(self, kind: EventKind) -> list[dict[str, Any]]:
        return [body for told, _, body in self.told if told is kind]

    def steps(self, kind: EventKind) -> list[int | None]:
        return [step for told, step, _ in self.told if told is kind]


def callback_with(
    recorder: Any = None, *, plan: ScorerPlan = PLAN, stop: StopRequest | None = None
) -> PodCallback:
    return PodCallback(plan, recorder or Recorder(), stop or StopRequest())


def simulated(callback: PodCallback, **scenario: Any) -> TrainerState:
    return SimulatedTrainer(Scenario("a run", MethodName.SFT, **scenario), callback).train().state


def argmin(scores: list[float], steps: list[int | None]) -> int | None:
    """Return the step of the lowest finite score, the earliest on a tie."""
    usable = [(score, step) for score, step in zip(scores, steps, strict=True) if score < math.inf]
    return min(usable, key=lambda pair: pair[0])[1] if usable else None


# The score drives the trainer's own selection.


@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_real_trainer_would_load_the_checkpoint_with_the_best_score(recording: str) -> None:
    recorder = Recorder()
    callback = callback_with(recorder)

    played = play(recording, callback)

    scores = [body["score"] for body in recorder.bodies(EventKind.EVALUATION)]
    best = argmin(scores, recorder.steps(EventKind.EVALUATION))
    assert len(scores) == len(played.evaluated) > 0
    assert played.state.best_global_step == callback.scores.best_step == best
    assert recorder.steps(EventKind.CHECKPOINT_SAVED) == played.saved_steps
    assert callback.failures == {}


@given(st.lists(LOSSES, min_size=1, max_size=6), st.lists(LOSSES, min_size=1, max_size=6))
def test_a_simulated_trainer_would_load_the_checkpoint_with_the_best_score(
    eval_losses: list[Any], train_losses: list[Any]
) -> None:
    recorder = Recorder()
    callback = callback_with(recorder)

    state = simulated(
        callback, eval_losses=tuple(eval_losses), train_losses=tuple(train_losses), max_steps=30
    )

    scores = [body["score"] for body in recorder.bodies(EventKind.EVALUATION)]
    best = argmin(scores, recorder.steps(EventKind.EVALUATION))
    assert state.best_global_step == callback.scores.best_step == best


@pytest.mark.parametrize("recording", [*RECORDINGS, "sft_nan_weights_nofilter", "sft_two_evals"])
def test_the_trainer_finds_a_score_at_every_evaluation(recording: str) -> None:
    played = play(recording, callback_with())

    scores = [metrics[SCORE_KEY] for metrics in played.evaluated]
    assert {type(score) for score in scores} == {float}


def test_nan_weights_never_win() -> None:
    recorder = Recorder()
    callback = callback_with(recorder)

    played = play("sft_nan_weights_nofilter", callback)

    assert played.state.best_global_step == callback.scores.best_step == 3
    assert [math.isnan(metrics[SCORE_KEY]) for metrics in played.evaluated] == [
        False,
        True,
        True,
        True,
    ]
    assert recorder.bodies(EventKind.EVALUATION)[1]["trend"] == "diverging"
    assert callback.failures == {}


def test_an_evaluation_without_an_eval_loss_gets_nan_so_that_the_trainer_goes_on() -> None:
    recorder = Recorder()

    state = simulated(callback_with(recorder), drop_eval_loss_at=frozenset({0, 2}))

    bodies = recorder.bodies(EventKind.EVALUATION)
    assert [body["score"] == math.inf for body in bodies] == [True, False, True, False]
    assert math.isnan(bodies[0]["checkpoint_score"])
    assert state.best_global_step == 20


def test_each_of_several_eval_sets_gets_the_score_of_the_first_which_alone_is_told() -> None:
    recorder = Recorder()

    played = play("sft_two_evals", callback_with(recorder))

    told = [body["checkpoint_score"] for body in recorder.bodies(EventKind.EVALUATION)]
    assert len(told) > 1
    assert [metrics[SCORE_KEY] for metrics in played.evaluated[::2]] == told
    assert [metrics[SCORE_KEY] for metrics in played.evaluated[1::2]] == told


def test_the_log_that_is_saved_with_a_checkpoint_carries_the_scores() -> None:
    played = play("sft", callback_with())

    kept = [entry for entry in played.state.log_history if "eval_loss" in entry]
    assert [entry[SCORE_KEY] for entry in kept] == [
        metrics[SCORE_KEY] for metrics in played.evaluated
    ]
    assert all("step" in entry for entry in kept)


def test_an_evaluation_is_reported_with_its_score_its_parts_and_all_metrics() -> None:
    recorder = Recorder()

    play("dpo", callback_with(recorder))

    body = recorder.bodies(EventKind.EVALUATION)[-1]
    assert set(body) == {
        "eval_loss",
        "score",
        "checkpoint_score",
        "components",
        "trend",
        "nonfinite_train_logs",
        "metrics",
    }
    assert body["score"] == -body["checkpoint_score"] == sum(body["components"].values())
    assert body["metrics"]["eval_rewards/margins"] > 0
    assert SCORE_KEY not in body["metrics"]


def test_a_new_best_is_reported_when_there_is_one() -> None:
    recorder = Recorder()

    simulated(callback_with(recorder), eval_losses=(2.0, 1.0, 1.0, 0.5), max_steps=20)

    assert recorder.steps(EventKind.NEW_BEST) == [5, 10, 20]


def test_train_logs_are_reported_as_they_are_and_the_summary_is_not_one() -> None:
    recorder = Recorder()

    play("orpo", callback_with(recorder))

    logs = recorder.bodies(EventKind.TRAIN_LOG)
    assert recorder.steps(EventKind.TRAIN_LOG) == [2, 4, 6, 8, 10, 12]
    assert all({"loss", "nll_loss", "log_odds_ratio"} <= set(log) for log in logs)


# A run that is resumed.


def test_a_resumed_real_run_chooses_as_the_uninterrupted_one() -> None:
    whole, resumed = callback_with(), callback_with()

    uninterrupted, second_part = play("sft", whole), play("sft_resume.part2", resumed)

    assert resumed.scores == whole.scores
    assert second_part.state.best_metric == uninterrupted.state.best_metric


@given(
    cut=st.integers(1, 29),
    losses=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=6),
    patience=st.none() | st.integers(1, 3),
)
def test_a_run_killed_anywhere_goes_on_as_if_it_had_not_been(
    cut: int, losses: list[float], patience: int | None
) -> None:
    plan = ScorerPlan(early_stopping=EarlyStopping(patience))
    scenario = Scenario("cut", MethodName.DPO, max_steps=30, eval_losses=tuple(losses))
    whole = callback_with(plan=plan)
    uninterrupted = SimulatedTrainer(scenario, whole).train().state

    before_its_end = min(cut, uninterrupted.global_step - 1)

    killed = SimulatedTrainer(scenario, callback_with(plan=plan)).train(before_its_end).state
    resumed = callback_with(plan=plan)
    ended = SimulatedTrainer(scenario, resumed, state=killed).train().state

    assert resumed.scores == whole.scores
    assert ended.best_global_step == uninterrupted.best_global_step
    assert ended.global_step == uninterrupted.global_step


def test_the_history_of_a_resumed_run_is_rebuilt_from_the_log_of_the_trainer() -> None:
    history = [
        {"loss": 2.0, "step": 1},
        {"eval_loss": 3.0, "step": 2},
        {"loss": 1.0, "step": 3},
        {"eval_loss": 2.5, "step": 4},
    ]
    callback = callback_with()

    callback.on_train_begin(None, TrainerState(max_steps=9, log_history=history), TrainerControl())

    assert callback.scores == replay_scores(history, PLAN)[0]
    assert callback.trend.losses == (2.0, 1.0)


# A run that is stopped.


def test_a_signal_saves_and_stops_within_one_step() -> None:
    stop = StopRequest()
    control = TrainerControl()
    callback = callback_with(stop=stop)
    state = TrainerState(max_steps=9, global_step=4)

    callback.on_step_end(None, state, control)
    before = (control.should_save, control.should_training_stop)
    stop.reason = "SIGTERM"
    callback.on_step_end(None, state, control)

    assert before == (False, False)
    assert (control.should_save, control.should_training_stop) == (True, True)


def test_a_stopped_run_has_a_checkpoint_of_its_last_step() -> None:
    stop = StopRequest("SIGTERM")
    recorder = Recorder()
    trainer = SimulatedTrainer(
        Scenario("stopped", MethodName.SFT), callback_with(recorder, stop=stop)
    )

    ended = trainer.train()

    assert (ended.state.global_step, ended.saved_steps) == (1, (1,))
    assert recorder.bodies(EventKind.CHECKPOINT_SAVED) == [{"path": "/simulated/checkpoint-1"}]


def test_a_run_without_gains_stops_early_and_says_so() -> None:
    callback = callback_with(plan=ScorerPlan(early_stopping=EarlyStopping(2)))

    state = simulated(callback, eval_losses=(1.0, 2.0, 2.0, 2.0, 2.0), max_steps=50)

    assert (state.global_step, callback.stop_reason) == (15, StopReason.EARLY_STOPPING)
    assert state.best_global_step == 5


def test_a_run_that_goes_on_getting_better_is_not_stopped() -> None:
    callback = callback_with(plan=ScorerPlan(early_stopping=EarlyStopping(2)))

    state = simulated(callback, eval_losses=(4.0, 3.0, 2.0, 1.0), max_steps=20)

    assert (state.global_step, callback.stop_reason) == (20, None)


# Failures stay inside.


class Broken:
    """Stands in for a reporter with a bug: every report fails."""

    def __call__(self, kind: EventKind, **rest: Any) -> None:
        raise OSError("no more files")


def test_a_reporter_that_fails_every_time_does_not_end_training_nor_change_the_choice() -> None:
    callback = callback_with(Broken())

    state = simulated(callback, eval_losses=(2.0, 1.0, 1.5, 1.8))

    assert (state.global_step, state.best_global_step) == (20, 10)
    assert callback.failures["on_save raised OSError: no more files"] == 4


@pytest.mark.parametrize(
    ("hook", "given"),
    [
        ("on_train_begin", {}),
        ("on_log", {"logs": {"loss": 1.0}}),
        ("on_log", {"logs": {"eval_loss": 1.0}}),
        ("on_save", {}),
    ],
)
def test_a_hook_that_fails_is_counted_and_reported_once(hook: str, given: dict[str, Any]) -> None:
    recorder = Recorder()
    callback = callback_with(recorder)
    # A state without its fields, as another version of the trainer might hand over.
    state = SimpleNamespace(is_world_process_zero=True)

    fire = functools.partial(
        getattr(callback, hook), SimpleNamespace(), state, TrainerControl(), **given
    )
    fire()
    fire()
    fire()

    (notice,) = recorder.bodies(EventKind.NOTICE)
    assert notice["what"].startswith(f"{hook} raised AttributeError")
    assert list(callback.failures.values()) == [3]


def test_a_train_loss_that_is_no_number_does_not_fail_a_hook() -> None:
    recorder = Recorder()
    callback = callback_with(recorder)

    simulated(callback, train_losses=(None, "0.1", 10**400, True, 1.0), max_steps=30)

    assert callback.failures == {}
    assert len(recorder.bodies(EventKind.TRAIN_LOG)) == 6


@pytest.mark.parametrize("logs", [None, {}, {"train_loss": 1.0, "loss": 1.0}, {"epoch": 1.0}])
def test_a_log_that_is_neither_training_nor_evaluation_is_passed_over(
    logs: dict[str, Any] | None,
) -> None:
    recorder = Recorder()
    callback = callback_with(recorder)
    state = TrainerState(max_steps=3)

    callback.on_log(None, state, TrainerControl(), logs=logs)

    assert (recorder.told, dict(callback.failures)) == ([], {})


# Several ranks.


def test_every_rank_decides_the_same_and_only_the_first_speaks() -> None:
    first, second = Recorder(), Recorder()
    callbacks = callback_with(first), callback_with(second)

    ranks = play("sft_ddp2.rank0", callbacks[0]), play("sft_ddp2.rank1", callbacks[1])

    assert callbacks[0].scores == callbacks[1].scores
    assert ranks[0].state.best_global_step == ranks[1].state.best_global_step
    assert [metrics[SCORE_KEY] for metrics in ranks[0].evaluated] == [
        metrics[SCORE_KEY] for metrics in ranks[1].evaluated
    ]
    assert (len(first.told) > 0, second.told) == (True, [])


def test_a_failure_on_another_rank_is_counted_there_and_not_reported() -> None:
    recorder = Recorder()
    callback = callback_with(recorder)

    callback.on_save(
        SimpleNamespace(), SimpleNamespace(is_world_process_zero=False), TrainerControl()
    )

    assert (len(callback.failures), recorder.told) == (1, [])
