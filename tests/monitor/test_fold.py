import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.ir import Provider
from podproof.monitor.fold import fold_run
from podproof.monitor.records import (
    Delivery,
    Ending,
    LaunchRecord,
    LaunchStatus,
    NoticeCount,
    Publication,
    RunStatus,
    SavedCheckpoint,
    ScoredEvaluation,
    best_of,
)
from podproof.runtime.events import Event, EventKind


def event(
    kind: EventKind,
    seq: int,
    *,
    boot: int = 1,
    step: int | None = None,
    body: Mapping[str, Any] | None = None,
) -> Event:
    epoch = None if step is None else step / 10
    event_id = f"run-a-{boot}-{seq}"
    return Event(event_id, "run-a", boot, seq, kind, 100.0 * boot + seq, step, epoch, body or {})


def evaluation(seq: int, step: int, *, boot: int = 1, **body: Any) -> Event:
    return event(EventKind.EVALUATION, seq, boot=boot, step=step, body=body)


def launch(status: LaunchStatus, **fields: Any) -> LaunchRecord:
    return LaunchRecord(
        run_id="run-a",
        name="demo",
        provider=Provider.LOCAL,
        status=status,
        pod_id=None,
        script_sha256="s",
        config_sha256="c",
        intended_unix_s=50.0,
        **fields,
    )


def status_of(*events: Event, launched: LaunchRecord | None = None) -> RunStatus:
    return fold_run("run-a", events, launched).status


# --- status


def test_a_launch_without_a_pod_is_intended() -> None:
    assert status_of(launched=launch(LaunchStatus.INTENDED)) is RunStatus.INTENDED


def test_a_pod_that_has_said_nothing_is_pending() -> None:
    assert status_of(launched=launch(LaunchStatus.CREATED)) is RunStatus.PENDING


def test_the_first_word_of_a_pod_makes_the_run_running() -> None:
    assert status_of(event(EventKind.PLAN, 0)) is RunStatus.RUNNING


@pytest.mark.parametrize(
    "kind",
    [
        EventKind.DONE,
        EventKind.STOPPED_EARLY,
        EventKind.OUT_OF_TIME,
        EventKind.OUT_OF_MONEY,
        EventKind.INTERRUPTED,
        EventKind.PREEMPTED,
        EventKind.FAILED,
    ],
)
def test_a_terminal_event_gives_the_run_its_name(kind: EventKind) -> None:
    assert status_of(event(EventKind.STARTED, 0), event(kind, 1)) == kind.value


@pytest.mark.parametrize(
    "word", [EventKind.INTERRUPTED, EventKind.OUT_OF_TIME, EventKind.OUT_OF_MONEY]
)
def test_the_launchers_word_of_an_end_follows_the_pods_own_last_word(word: EventKind) -> None:
    events = (event(EventKind.PREEMPTED, 5), event(word, 9))

    assert status_of(*events) == word.value


def test_an_interruption_does_not_undo_a_run_that_is_done() -> None:
    assert status_of(event(EventKind.DONE, 5), event(EventKind.INTERRUPTED, 9)) is RunStatus.DONE


@pytest.mark.parametrize(
    "ending",
    [
        EventKind.DONE,
        EventKind.STOPPED_EARLY,
        EventKind.OUT_OF_TIME,
        EventKind.OUT_OF_MONEY,
        EventKind.INTERRUPTED,
    ],
)
def test_a_final_ending_stays_whatever_comes_later(ending: EventKind) -> None:
    events = (
        event(ending, 0),
        event(EventKind.STARTED, 0, boot=2),
        event(EventKind.FAILED, 1, boot=2),
    )

    assert status_of(*events) == ending.value


@pytest.mark.parametrize("ending", [EventKind.PREEMPTED, EventKind.FAILED])
def test_a_later_start_of_the_container_goes_on_after_a_preemption_or_a_failure(
    ending: EventKind,
) -> None:
    events = event(ending, 5), event(EventKind.RESUMED, 0, boot=2)

    record = fold_run("run-a", events, None)

    assert (record.status, record.ending, record.boots) == (RunStatus.RUNNING, None, 2)


@pytest.mark.parametrize("ending", [EventKind.PREEMPTED, EventKind.FAILED])
def test_the_same_start_does_not_go_on_after_it_ended(ending: EventKind) -> None:
    assert status_of(event(ending, 5), event(EventKind.TRAIN_LOG, 6, step=1)) == ending.value


def test_a_second_start_that_fails_at_once_replaces_the_ending_of_the_first() -> None:
    events = (
        event(EventKind.PREEMPTED, 5, body={"reason": "SIGTERM"}),
        event(EventKind.FAILED, 0, boot=2, body={"error": "BadData", "problems": ["no rows"]}),
    )

    ending = fold_run("run-a", events, None).ending

    assert ending == Ending(200.0, reason=None, error="BadData", problems=("no rows",))


def test_a_pod_that_is_gone_without_a_word_has_failed_with_the_launchs_reason() -> None:
    gone = launch(LaunchStatus.ENDED, ended_unix_s=900.0, reason="terminated by the provider")

    record = fold_run("run-a", [event(EventKind.STARTED, 0)], gone)

    assert record.status is RunStatus.FAILED
    assert record.ending == Ending(
        900.0,
        reason="terminated by the provider",
        error="the pod ended without a word of how the run ended",
    )


def test_a_pod_that_is_gone_and_was_never_heard_has_ended_nobody_knows_how() -> None:
    gone = launch(LaunchStatus.ENDED, ended_unix_s=900.0, reason="the pod ended itself")
    made = replace(gone, pod_id="pod-1")

    record = fold_run("run-a", [], made)

    assert record.status is RunStatus.ENDED
    assert record.ending is not None
    assert "reported to nobody" in str(record.ending.error)


def test_a_launch_that_never_made_a_pod_has_failed() -> None:
    gone = launch(LaunchStatus.ENDED, ended_unix_s=900.0, reason="no-capacity")

    assert status_of(launched=gone) is RunStatus.FAILED


def test_a_pod_that_is_gone_because_we_asked_was_interrupted() -> None:
    stopped = launch(LaunchStatus.ENDED, ended_unix_s=900.0, stop_requested=True)

    assert status_of(event(EventKind.STARTED, 0), launched=stopped) is RunStatus.INTERRUPTED


def test_a_run_that_ended_well_stays_done_when_its_pod_is_gone() -> None:
    gone = launch(LaunchStatus.ENDED, ended_unix_s=900.0)

    assert status_of(event(EventKind.DONE, 0), launched=gone) is RunStatus.DONE


# --- scores


def test_the_best_is_the_lowest_score_and_the_earlier_step_on_a_tie() -> None:
    events = [
        evaluation(0, 10, score=0.9),
        evaluation(1, 20, score=0.5),
        evaluation(2, 30, score=0.5),
    ]

    best = fold_run("run-a", events, None).best

    assert best is not None
    assert best.step == 20


@pytest.mark.parametrize("score", ["Infinity", "-Infinity", "NaN", None, "low", True])
def test_an_evaluation_without_a_usable_score_is_never_the_best(score: Any) -> None:
    record = fold_run("run-a", [evaluation(0, 10, eval_loss="NaN", score=score)], None)

    assert record.best is None
    assert record.evaluations[0].score == math.inf


def test_an_evaluation_repeated_after_a_restart_replaces_the_older_one() -> None:
    events = [
        evaluation(9, 10, score=0.5, eval_loss=0.5),
        evaluation(0, 10, boot=2, score=0.7, eval_loss=None),
    ]

    scored = fold_run("run-a", events, None).evaluations

    assert [(item.score, item.eval_loss) for item in scored] == [(0.7, 0.5)]


def test_components_that_are_no_numbers_are_left_out() -> None:
    parts = {"eval": 0.4, "gap": "Infinity", "note": "text"}

    scored = fold_run("run-a", [evaluation(0, 10, score=0.5, components=parts)], None).evaluations

    assert scored[0].components == (("eval", 0.4), ("gap", math.inf))


scores = st.one_of(st.just(math.inf), st.floats(-5, 5).map(lambda score: round(score, 1)))


@given(st.lists(scores))
def test_no_usable_evaluation_is_better_than_the_best(values: list[float]) -> None:
    evaluations = [ScoredEvaluation(step, None, None, score) for step, score in enumerate(values)]

    best = best_of(reversed(evaluations))

    expected = min(values, default=math.inf)
    assert (best.score if best else math.inf) == expected
    assert (best.step if best else None) == (values.index(expected) if best else None)


# --- the rest


def test_what_the_run_said_of_itself_is_in_the_record() -> None:
    events = [
        event(EventKind.PLAN, 0, body={"name": "demo", "method": "sft", "total_steps": 200}),
        event(EventKind.STARTED, 1, body={"device": "cuda:0", "output": "/workspace/out"}),
        event(EventKind.CHECKPOINT_SAVED, 2, step=50, body={"path": "out/checkpoint-50"}),
        event(EventKind.NOTICE, 3, body={"what": "a row was cut", "count": 2}),
        event(EventKind.NOTICE, 4, body={"what": "a row was cut", "count": 1}),
        event(EventKind.TRAIN_LOG, 5, step=100, body={"loss": 1.0}),
        event(
            EventKind.DELIVERED, 6, step=50, body={"path": "d", "step": 50, "sha256": {"a": "1"}}
        ),
        event(
            EventKind.PUBLISHED,
            7,
            body={
                "repo_id": "me/demo",
                "commit": "a1",
                "url": "https://hub/me/demo/tree/a1",
                "step": 50,
                "files": 1,
            },
        ),
    ]

    record = fold_run("run-a", events, None)

    assert (record.plan.name, record.plan.method, record.device) == ("demo", "sft", "cuda:0")
    assert record.publication == Publication("me/demo", "a1", "https://hub/me/demo/tree/a1", 50)
    assert (record.step, record.epoch, record.progress) == (100, 10.0, 0.5)
    assert record.checkpoints == (SavedCheckpoint(50, "out/checkpoint-50"),)
    assert record.notices == (NoticeCount("a row was cut", 3),)
    assert record.delivery == Delivery("d", 50, (("a", "1"),))
    assert (record.started_unix_s, record.last_event_unix_s) == (101.0, 107.0)


def test_the_end_of_a_run_tells_the_checkpoint_it_chose() -> None:
    body = {"best_step": 50, "best_score": 0.4, "delivered": "d", "final_step": 200}
    events = [event(EventKind.PLAN, 0), event(EventKind.DONE, 1, step=200, body=body)]

    record = fold_run("run-a", events, None)

    assert record.ending == Ending(101.0, best_step=50, final_step=200)
    assert record.progress == 1.0


def test_an_absent_value_of_a_later_plan_does_not_replace_a_present_one() -> None:
    events = [
        event(EventKind.PLAN, 0, body={"total_steps": 200}),
        event(EventKind.PLAN, 0, boot=2, body={"total_steps": None}),
    ]

    assert fold_run("run-a", events, None).plan.total_steps == 200


def test_bodies_of_the_wrong_shape_are_survived() -> None:
    events = [
        event(EventKind.PLAN, 0, body={"name": 7, "total_steps": "many"}),
        event(EventKind.EVALUATION, 1, step=1, body={"components": [1], "score": {}}),
        event(EventKind.CHECKPOINT_SAVED, 2, step=1, body={}),
        event(EventKind.DELIVERED, 3, body={"path": None, "sha256": "abc"}),
        event(EventKind.NOTICE, 4, body={"what": ["list"]}),
        event(EventKind.PUBLISHED, 4, body={"repo_id": "me/demo", "commit": 7, "url": None}),
        event(EventKind.FAILED, 5, body={"error": "\0bad \ud800", "problems": "none"}),
    ]

    record = fold_run("run-a", events, None)

    assert record.ending is not None
    assert (record.ending.error, record.ending.problems) == ("bad ?", ())
    assert (record.delivery, record.publication) == (None, None)
    assert (record.checkpoints, record.notices) == ((), ())


def test_progress_is_not_known_without_a_length() -> None:
    assert fold_run("run-a", [event(EventKind.TRAIN_LOG, 0, step=5)], None).progress is None


def test_progress_is_never_more_than_all() -> None:
    events = [
        event(EventKind.PLAN, 0, body={"total_steps": 10}),
        event(EventKind.TRAIN_LOG, 1, step=12),
    ]

    assert fold_run("run-a", events, None).progress == 1.0
