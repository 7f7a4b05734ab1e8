"""The simulated trainer: what it does at each turn of a real one's loop."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from podproof.harness.simulator import (
    Scenario,
    SimulatedTrainer,
    TrainerControl,
    TrainerState,
)
from podproof.harness.trainer_state import CheckpointFolder
from tests.harness.drawn_runs import (
    Callbacks,
    Interferer,
    Recorder,
    letters,
    run,
    scenarios,
    steps_of,
    stream_of,
)

# When things happen.


@pytest.mark.parametrize(
    ("changes", "letter", "steps"),
    [
        ({}, "V", [2, 4, 6]),
        ({"max_steps": 5}, "V", [2, 4, 5]),
        ({"max_steps": 5}, "K", [2, 4, 5]),
        ({"max_steps": 5}, "L", [2, 4]),
        ({"logging_first_step": True}, "L", [1, 2, 4, 6]),
        ({"eval_delay": 4}, "V", [4, 6]),
        ({"eval_on_start": True}, "V", [0, 2, 4, 6]),
        ({"eval_strategy": "no"}, "V", []),
        ({"eval_strategy": "epoch", "rows": 3}, "V", [3, 6]),
        ({"logging_strategy": "epoch", "rows": 3}, "L", [3, 6]),
        ({"save_strategy": "epoch", "rows": 3}, "K", [3, 6]),
        ({"save_strategy": "no"}, "K", []),
        ({"save_strategy": "best", "eval_losses": (2.0, 2.0, 1.0)}, "K", [2, 6]),
        ({"save_steps": 4}, "K", [4, 6]),
        ({"num_train_epochs": 1.5, "rows": 4}, "S", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_logs_evaluations_and_saves_come_when_the_arguments_say(
    changes: Mapping[str, Any], letter: str, steps: list[int]
) -> None:
    assert steps_of(letter, stream_of(run(**changes))) == steps


def test_the_last_update_of_an_epoch_may_have_fewer_micro_batches() -> None:
    events = stream_of(run(max_steps=2, rows=5, micro_batches=3))

    assert letters(events) == "IBEsuupoSsupoSLPVvKeFT"


def test_rows_that_fill_no_batch_are_dropped_when_the_trainer_is_told_to() -> None:
    scenario = run(rows=7, per_device_train_batch_size=2, num_train_epochs=1.0)

    whole = stream_of(scenario)
    dropped = stream_of(replace(scenario, dataloader_drop_last=True))

    assert (steps_of("S", whole)[-1], steps_of("S", dropped)[-1]) == (4, 3)


def test_each_batch_of_each_eval_set_is_an_event() -> None:
    scenario = run(
        max_steps=2,
        eval_sets=("near", "far"),
        eval_batches=2,
        metric_for_best_model="eval_far_loss",
    )

    events = stream_of(scenario)

    assert "SLPPVvPPVvK" in letters(events)


# What is best, and what lies on the disk.


def test_a_metric_that_no_evaluation_has_ends_the_run_without_another_event() -> None:
    recorder = Recorder()
    trainer = SimulatedTrainer(run(metric_for_best_model="eval_score"), recorder)

    with pytest.raises(KeyError, match="metric_for_best_model is 'eval_score'"):
        trainer.train()

    assert letters(recorder.events) == "IBEspoSspoSLPVv"


def test_the_metric_may_be_of_any_eval_set_and_the_last_set_wins_a_key_they_share() -> None:
    keys: list[dict[str, Any]] = []

    class Sharing:
        def on_evaluate(self, *_: object, metrics: dict[str, Any], **__: object) -> None:
            metrics["eval_shared"] = float(len(keys))
            keys.append(metrics)

    scenario = run(max_steps=2, eval_sets=("a", "b"), metric_for_best_model="eval_shared")
    ended = SimulatedTrainer(scenario, Sharing()).train()

    assert (len(keys), ended.state.best_metric) == (2, 1.0)


def test_a_best_evaluation_without_a_save_leaves_no_checkpoint_to_load() -> None:
    ended = SimulatedTrainer(run(save_steps=4, eval_losses=(1.0, 2.0, 2.0)), object()).train()

    assert (ended.state.best_global_step, ended.state.best_model_checkpoint) == (2, None)


@pytest.mark.parametrize(
    ("limit", "losses", "left"),
    [
        (None, (3.0, 2.0, 1.0), (2, 4, 6)),
        (2, (3.0, 2.0, 1.0), (4, 6)),
        (2, (1.0, 2.0, 3.0), (2, 6)),
        (1, (1.0, 2.0, 3.0), (2,)),
        (1, (3.0, 2.0, 1.0), (6,)),
        (1, (math.nan, math.nan, math.nan), (6,)),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(
    limit: int | None, losses: tuple[float, ...], left: tuple[int, ...]
) -> None:
    ended = SimulatedTrainer(run(save_total_limit=limit, eval_losses=losses), object()).train()

    assert ended.checkpoints == left
    assert ended.saved_steps == (2, 4, 6)


def test_with_a_limit_of_one_two_lie_there_until_the_end() -> None:
    events = stream_of(run(save_total_limit=1, eval_losses=(1.0, 2.0, 3.0)))

    there = [event.checkpoints for event in events if event.letter in "KT"]
    assert there == [(2,), (2, 4), (2, 6), (2,)]


@given(
    steps=st.lists(st.integers(1, 30), unique=True),
    limit=st.integers(1, 4),
    best=st.none() | st.integers(1, 30),
)
def test_rotation_never_deletes_the_newest_or_the_best(
    steps: list[int], limit: int, best: int | None
) -> None:
    folder = CheckpointFolder("/out", steps)

    folder.rotate(limit, None if best is None else folder.path(best))

    kept = {step for step in {*steps[-1:], best} if step in steps}
    assert kept <= set(folder.steps) <= set(steps)
    assert len(folder.steps) <= max(limit, 2)


def test_a_best_checkpoint_that_lies_elsewhere_still_counts_against_the_limit() -> None:
    folder = CheckpointFolder("/out", [1, 2, 3])

    folder.rotate(1, "/elsewhere/checkpoint-9")

    assert folder.steps == (2, 3)


# Who interferes.


@pytest.mark.parametrize(
    ("hook", "flag", "stream"),
    [
        ("on_substep_end", "should_training_stop", "IBEsueFT"),
        ("on_step_end", "should_training_stop", "IBEsupoSeFT"),
        ("on_epoch_begin", "should_training_stop", "IBEsueFT"),
        ("on_substep_end", "should_epoch_stop", "IBEsueEsupoS"),
        ("on_step_end", "should_save", "IBEsupoSKsupoSLPVvK"),
        ("on_step_end", "should_evaluate", "IBEsupoSPVvsupoSLPVvK"),
        ("on_step_end", "should_log", "IBEsupoSLsupoSLPVvK"),
        ("on_log", "should_training_stop", "IBEsupoSsupoSLPVvKeFT"),
        ("on_evaluate", "should_training_stop", "IBEsupoSsupoSLPVvKeFT"),
        ("on_save", "should_training_stop", "IBEsupoSsupoSLPVvKeFT"),
    ],
)
def test_a_flag_that_a_callback_raises_has_its_effect_at_once(
    hook: str, flag: str, stream: str
) -> None:
    events = stream_of(run(micro_batches=2, rows=6), Interferer(hook, 0, flag))

    assert letters(events)[: len(stream)] == stream


@pytest.mark.parametrize(
    ("flag", "missing"), [("should_save", "K"), ("should_evaluate", "V"), ("should_log", "L")]
)
def test_a_flag_that_a_callback_lowers_keeps_its_event_from_coming(flag: str, missing: str) -> None:
    events = stream_of(run(max_steps=2), Interferer("on_step_end", 1, flag, value=False))

    assert missing not in letters(events)


def test_a_save_asked_for_at_an_evaluation_comes_after_it() -> None:
    events = stream_of(
        run(save_strategy="no", max_steps=4), Interferer("on_evaluate", 0, "should_save")
    )

    assert steps_of("K", events) == [2]


def test_a_flag_raised_after_its_turn_is_lowered_when_the_next_step_begins() -> None:
    events = stream_of(run(), Interferer("on_save", 0, "should_evaluate"))

    assert steps_of("V", events) == [2, 4, 6]


def test_a_hook_that_raises_ends_the_run_without_closing_events() -> None:
    class Raising:
        def on_log(self, *_: object, **__: object) -> None:
            raise ValueError("a bug")

    recorder = Recorder()
    trainer = SimulatedTrainer(run(), Callbacks([recorder, Raising()]))

    with pytest.raises(ValueError, match="a bug"):
        trainer.train()

    assert letters(recorder.events) == "IBEspoSspoSL"
    assert trainer.ended().state.global_step == 2


def test_a_hook_that_returns_another_control_is_obeyed() -> None:
    class Replacing:
        def on_step_end(self, *_: object, **__: object) -> TrainerControl:
            return TrainerControl(should_training_stop=True)

    assert letters(stream_of(run(), Replacing())) == "IBEspoSeFT"


def test_a_trainer_that_was_stopped_trains_again() -> None:
    trainer = SimulatedTrainer(run(), Interferer("on_step_end", 0, "should_training_stop"))

    stopped = trainer.train().state.global_step
    again = trainer.train().state.global_step

    assert (stopped, again) == (1, 6)


def test_a_killed_run_stops_dead_after_its_step() -> None:
    recorder = Recorder()

    ended = SimulatedTrainer(run(), recorder).train(until_step=3)

    assert letters(recorder.events)[-4:] == "spoS"
    assert (ended.state.global_step, ended.saved_steps) == (3, (2,))


def test_another_rank_sees_the_same_stream() -> None:
    assert stream_of(run(save_total_limit=1)) == stream_of(
        run(save_total_limit=1, is_first_rank=False)
    )


# Going on from a checkpoint.


class Saver:
    """Keeps what a checkpoint holds, and what lay on the disk when it was written."""

    state: TrainerState | None = None
    checkpoints: tuple[int, ...] = ()
    trainer: SimulatedTrainer

    def on_save(self, _: object, state: TrainerState, *__: object, **___: object) -> None:
        self.state, self.checkpoints = state.read_back(), self.trainer.checkpoints


@given(scenario=scenarios(), cut=st.integers(1, 30))
def test_a_run_killed_anywhere_goes_on_from_its_last_checkpoint_as_if_it_had_not_been(
    scenario: Scenario, cut: int
) -> None:
    # An evaluation at the start comes again at the restart, and moves the losses that follow.
    scenario = replace(scenario, eval_on_start=False)
    whole = SimulatedTrainer(scenario, object()).train()
    assume(whole.state.global_step > 1)
    saver = Saver()
    saver.trainer = SimulatedTrainer(scenario, saver)
    saver.trainer.train(until_step=min(cut, whole.state.global_step - 1))

    ended = SimulatedTrainer(
        scenario, object(), state=saver.state, checkpoints=saver.checkpoints
    ).train()

    assert ended.checkpoints == whole.checkpoints
    assert ended.state.best_model_checkpoint == whole.state.best_model_checkpoint
    assert ended.state.best_metric == whole.state.best_metric
    assert ended.state.global_step == whole.state.global_step


def test_a_run_resumed_in_mid_epoch_takes_the_rest_of_the_epoch() -> None:
    scenario = run(rows=3, max_steps=6)
    killed = SimulatedTrainer(scenario, object()).train(until_step=2)
    recorder = Recorder()

    SimulatedTrainer(scenario, recorder, state=killed.state).train()

    assert letters(recorder.events) == "IBEspoSeEspoSLPVvKspoSspoSLPVvKeFT"
    assert [event.epoch for event in recorder.events if event.letter == "S"] == [
        1.0,
        1 + 1 / 3,
        1 + 2 / 3,
        2.0,
    ]


def test_a_run_resumed_without_skipping_data_begins_its_epoch_again() -> None:
    scenario = run(rows=3, max_steps=6, ignore_data_skip=True)
    killed = SimulatedTrainer(scenario, object()).train(until_step=2)
    recorder = Recorder()

    SimulatedTrainer(scenario, recorder, state=killed.state).train()

    assert [event.epoch for event in recorder.events if event.letter == "S"][:3] == [
        1 / 3,
        2 / 3,
        1.0,
    ]


def test_a_finished_run_that_is_resumed_only_says_so() -> None:
    finished = SimulatedTrainer(run(step_losses=(2.0,)), object()).train()
    recorder = Recorder()

    SimulatedTrainer(run(), recorder, state=finished.state).train()

    assert letters(recorder.events) == "IBFT"


def test_a_finished_run_that_ended_in_mid_epoch_takes_a_step_too_many_when_resumed() -> None:
    finished = SimulatedTrainer(run(max_steps=2, rows=3), object()).train()
    recorder = Recorder()

    SimulatedTrainer(run(max_steps=2, rows=3), recorder, state=finished.state).train()

    assert letters(recorder.events) == "IBEspoSPVvKeFT"
    assert recorder.events[-1].step == 3


def test_a_resumed_run_keeps_the_steps_of_its_checkpoint() -> None:
    killed = SimulatedTrainer(run(), object()).train(until_step=2)
    recorder = Recorder()

    changed = run(eval_steps=3, save_steps=3, logging_steps=3)
    SimulatedTrainer(changed, recorder, state=killed.state).train()

    assert steps_of("V", recorder.events) == steps_of("L", recorder.events) == [4, 6]


def test_a_resumed_run_ends_where_the_new_arguments_say() -> None:
    killed = SimulatedTrainer(run(), object()).train(until_step=2)

    longer = SimulatedTrainer(run(max_steps=8), object(), state=killed.state).train()

    assert longer.state.global_step == longer.state.max_steps == 8


def test_a_best_checkpoint_that_is_gone_is_forgotten_on_resuming() -> None:
    killed = SimulatedTrainer(run(eval_losses=(1.0, 2.0)), object()).train(until_step=4)

    trainer = SimulatedTrainer(run(), object(), state=killed.state, checkpoints=(4,))
    trainer.train(until_step=5)

    assert trainer.state.best_model_checkpoint is None
