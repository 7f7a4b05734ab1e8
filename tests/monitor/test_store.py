import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from podproof.compiler.approvals import Approval
from podproof.compiler.ir import Provider
from podproof.monitor.errors import UnknownRun
from podproof.monitor.records import LaunchRecord, LaunchStatus, RunStatus
from podproof.monitor.store import Store, open_store
from podproof.runtime.events import Event, EventKind


def launch(run_id: str = "run-a", **fields: Any) -> LaunchRecord:
    return LaunchRecord(
        **{
            "run_id": run_id,
            "name": "demo",
            "provider": Provider.RUNPOD,
            "status": LaunchStatus.INTENDED,
            "pod_id": None,
            "script_sha256": "5" * 64,
            "config_sha256": "c" * 64,
            "intended_unix_s": 1000.0,
            **fields,
        }
    )


def event(kind: EventKind, seq: int, run_id: str = "run-a", **body: Any) -> Event:
    return Event(f"{run_id}-1-{seq}", run_id, 1, seq, kind, 2000.0 + seq, 10, 0.5, body)


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[Store]:
    """Give a store for which it is always 4600 seconds past the epoch."""
    with Store(f"sqlite:///{tmp_path / 'runs.db'}", clock=lambda: 4600.0) as store:
        yield store


# --- launches


def test_an_intended_launch_is_read_back_as_it_was_written(store: Store) -> None:
    written = launch(log_path="/tmp/log", output_path="/tmp/out", cost_usd_per_h=0.5)  # noqa: S108 - only text here

    store.intend_launch(written)

    assert store.launch("run-a") == written
    assert store.launches() == (written,)


def test_an_intended_launch_survives_the_process(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.intend_launch(launch())

    with open_store(tmp_path / "runs.db") as store:
        assert store.launch("run-a") == launch()


def test_a_second_intent_leaves_the_first_as_it_is_and_returns_it(store: Store) -> None:
    store.intend_launch(launch())
    store.record_pod("run-a", "pod-1", 0.4)

    standing = store.intend_launch(launch(name="other"))

    assert standing == launch(status=LaunchStatus.CREATED, pod_id="pod-1", cost_usd_per_h=0.4)


def test_launches_are_listed_oldest_first(store: Store) -> None:
    store.intend_launch(launch("run-b", intended_unix_s=2.0))
    store.intend_launch(launch("run-a", intended_unix_s=1.0))

    assert [record.run_id for record in store.launches()] == ["run-a", "run-b"]


def test_an_unknown_price_does_not_replace_a_known_one(store: Store) -> None:
    store.intend_launch(launch())
    store.record_pod("run-a", "pod-1", 0.4)
    store.record_pod("run-a", "pod-1", None)

    assert store.launch("run-a").cost_usd_per_h == 0.4


def test_the_first_end_of_a_launch_counts(clocked: Store) -> None:
    clocked.intend_launch(launch())
    clocked.end_launch("run-a", "no capacity")
    clocked.end_launch("run-a", "reaped")

    assert clocked.launch("run-a") == launch(
        status=LaunchStatus.ENDED, ended_unix_s=4600.0, reason="no capacity"
    )


def test_a_pod_that_turns_up_after_the_end_is_known_but_the_launch_stays_ended(
    store: Store,
) -> None:
    store.intend_launch(launch())
    store.end_launch("run-a", "gave up")
    store.record_pod("run-a", "pod-1", 0.4)

    record = store.launch("run-a")

    assert (record.status, record.pod_id) == (LaunchStatus.ENDED, "pod-1")


def test_a_stop_is_requested_by_one_process_and_seen_by_another(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as ours, open_store(tmp_path / "runs.db") as theirs:
        ours.intend_launch(launch())
        before = theirs.is_stop_requested("run-a")
        ours.request_stop("run-a")

        assert (before, theirs.is_stop_requested("run-a")) == (False, True)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.run("run-x"),
        lambda store: store.launch("run-x"),
        lambda store: store.record_pod("run-x", "pod-1", None),
        lambda store: store.end_launch("run-x", "over"),
        lambda store: store.request_stop("run-x"),
        lambda store: store.is_stop_requested("run-x"),
    ],
)
def test_a_run_nobody_knows_is_refused_by_every_method(store: Store, call: Any) -> None:
    with pytest.raises(UnknownRun, match="run 'run-x': is not in the store"):
        call(store)


# --- runs


def test_a_run_goes_from_intended_to_done(clocked: Store) -> None:
    clocked.intend_launch(launch())
    seen = [clocked.run("run-a").status]
    clocked.record_pod("run-a", "pod-1", 0.4)
    seen.append(clocked.run("run-a").status)
    clocked.ingest([event(EventKind.STARTED, 0)])
    seen.append(clocked.run("run-a").status)
    clocked.ingest([event(EventKind.DONE, 1, best_step=10)])
    clocked.end_launch("run-a", "done")
    seen.append(clocked.run("run-a").status)

    assert seen == [RunStatus.INTENDED, RunStatus.PENDING, RunStatus.RUNNING, RunStatus.DONE]


def test_events_may_arrive_before_the_launch_is_known_to_this_store(store: Store) -> None:
    store.ingest([event(EventKind.STARTED, 0)])
    store.intend_launch(launch())

    record = store.run("run-a")

    assert (record.status, record.launch) == (RunStatus.RUNNING, launch())


def test_a_summary_has_the_best_score_the_price_and_the_progress(store: Store) -> None:
    store.intend_launch(launch())
    store.record_pod("run-a", "pod-1", 0.4)
    store.ingest(
        [event(EventKind.PLAN, 0, total_steps=40), event(EventKind.EVALUATION, 1, score=0.7)]
    )

    (summary,) = store.runs()

    assert (summary.status, summary.progress) == (RunStatus.RUNNING, 0.25)
    assert (summary.best_score, summary.best_step, summary.cost_usd_per_h) == (0.7, 10, 0.4)


def test_runs_are_listed_newest_first(store: Store) -> None:
    store.intend_launch(launch("run-a", intended_unix_s=1.0))
    store.intend_launch(launch("run-b", intended_unix_s=2.0))
    store.ingest([event(EventKind.NOTICE, 0, "run-c", what="never launched from here")])

    assert [summary.run_id for summary in store.runs()] == ["run-b", "run-a", "run-c"]


@pytest.mark.parametrize("metrics", ["NULL", "'{}'", "'{\"best_checkpoint_score\": null}'", "'[]'"])
def test_rows_without_the_best_checkpoint_are_still_listed(
    tmp_path: Path, store: Store, metrics: str
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'runs.db'}")
    with engine.begin() as connection:
        insert = (
            f"INSERT INTO training_jobs (id, status, metrics) VALUES ('old', 'done', {metrics})"  # noqa: S608 - our own literals
        )
        connection.execute(text(insert))
    engine.dispose()

    (summary,) = store.runs()

    assert (summary.run_id, summary.best_score) == ("old", None)


@pytest.mark.parametrize("typed", ["demo-7f3", "demo-7f3a12", "dmeo-7f3a12c"])
def test_an_unknown_run_comes_with_the_one_that_was_meant(store: Store, typed: str) -> None:
    store.intend_launch(launch("demo-7f3a12c"))
    store.intend_launch(launch("other-000000"))

    with pytest.raises(UnknownRun, match=r"did you mean demo-7f3a12c\?"):
        store.run(typed)


def test_an_unknown_run_like_no_other_comes_with_advice(store: Store) -> None:
    with pytest.raises(UnknownRun, match="list the runs to see their ids"):
        store.run("")


# --- tokens


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_only_the_registered_token_matches(store: Store) -> None:
    store.register_token("run-a", sha256("secret"))

    assert store.token_matches("run-a", "secret")
    assert not store.token_matches("run-a", "Secret")
    assert not store.token_matches("run-a", sha256("secret"))
    assert not store.token_matches("run-b", "secret")


def test_a_new_token_takes_the_place_of_the_old_one(store: Store) -> None:
    store.register_token("run-a", sha256("old"))
    store.register_token("run-a", sha256("new"))

    assert not store.token_matches("run-a", "old")
    assert store.token_matches("run-a", "new")


def test_the_plain_token_is_nowhere_in_the_store(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.register_token("run-a", sha256("a-very-secret-token"))
        store.token_matches("run-a", "a-very-secret-token")

    contents = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert sha256("a-very-secret-token").encode() in contents
    assert b"a-very-secret-token" not in contents


# --- events of some kinds


def test_the_events_of_some_kinds_come_as_they_happened_whatever_order_they_came_in(
    store: Store,
) -> None:
    first, second = event(EventKind.TRAIN_LOG, 1, loss=2.0), event(EventKind.EVALUATION, 2)
    store.ingest([second, event(EventKind.STARTED, 0), first])

    kept = store.events("run-a", (EventKind.EVALUATION, EventKind.TRAIN_LOG))

    assert [item.event_id for item in kept] == [first.event_id, second.event_id]


def test_a_run_that_is_not_known_has_no_events(store: Store) -> None:
    assert store.events("nobody", tuple(EventKind)) == ()


def test_approvals_are_kept_in_their_order(store: Store) -> None:
    first = Approval("mine", "a" * 64, "Ada", "the baseline", 1.0)
    second = Approval("mine", "b" * 64, "Ada", "a lower rate", 2.0, ("MEDIUM changed x",))

    store.record_approval(first)
    store.record_approval(second)

    assert store.approvals() == (first, second)


def test_a_store_from_before_there_were_approvals_stays_readable(tmp_path: Path) -> None:
    with open_store(tmp_path / "old.db") as older:
        older.intend_launch(launch("run-a"))
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE approvals"))
    engine.dispose()

    with open_store(tmp_path / "old.db") as store:
        assert store.approvals() == ()
        assert store.launch("run-a").run_id == "run-a"
