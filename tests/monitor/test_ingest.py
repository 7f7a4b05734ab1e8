import itertools
import math
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings, strategies as st
from sqlalchemy.exc import IntegrityError

from podproof.monitor.fold import fold_run
from podproof.monitor.records import RunStatus
from podproof.monitor.show import run_to_dict
from podproof.monitor.store import Store, open_store
from podproof.runtime.events import Event, EventKind

numbers = st.sampled_from([0.25, 0.5, 1.0, 1e9, "NaN", "Infinity", None])
bodies = st.fixed_dictionaries(
    {},
    optional={
        "score": numbers,
        "eval_loss": numbers,
        "loss": numbers,
        "components": st.just({"eval": 0.5}),
        "total_steps": st.sampled_from([4, 10, None]),
        "path": st.sampled_from(["a", "b", None]),
        "what": st.sampled_from(["one", "two"]),
        "count": st.integers(0, 3),
        "device": st.sampled_from(["cpu", "cuda:0"]),
        "error": st.sampled_from(["out of memory", None]),
        "best_step": st.sampled_from([1, None]),
        "sample": st.sampled_from([0, 1, True, "one", 2**40]),
        "answer": st.sampled_from(["yes", "n\0o", 7, None]),
    },
)


# Half of them those that come most often, as in a real run.
kinds = st.one_of(
    st.sampled_from([EventKind.TRAIN_LOG, EventKind.EVALUATION, EventKind.PREDICTION]),
    st.sampled_from(EventKind),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw what one run could have said in up to three starts, sense or nonsense."""
    places = [
        (1, 0),
        *((boot, seq) for boot in (1, 2, 3) for seq in range(1, draw(st.integers(1, 6)))),
    ]
    return [
        Event(
            event_id=f"run-a-{boot}-{seq}",
            run_id="run-a",
            boot=boot,
            seq=seq,
            kind=draw(kinds),
            time_unix_s=float(draw(st.integers(0, 99))),
            step=draw(st.one_of(st.none(), st.integers(0, 4))),
            epoch=draw(st.one_of(st.none(), st.just(0.5), st.just(1.5))),
            body=draw(bodies),
        )
        for boot, seq in places
    ]


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """Draw a history, and a way in which it may arrive: any order, in parts, some of it twice."""
    history = draw(histories())
    repeated = draw(st.lists(st.sampled_from(history), max_size=6))
    shuffled = draw(st.permutations([*history, *repeated]))
    cuts = sorted(draw(st.sets(st.integers(0, len(shuffled)))))
    bounds = [0, *cuts, len(shuffled)]
    return history, [list(shuffled[start:end]) for start, end in itertools.pairwise(bounds)]


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    """Give one store for all examples of a property, each under a run id of its own."""
    path = tmp_path_factory.mktemp("long_lived") / "runs.db"
    with open_store(path) as store:
        yield store, path


def renamed(events: Iterable[Event], run_id: str) -> list[Event]:
    return [
        replace(event, run_id=run_id, event_id=f"{run_id}-{event.boot}-{event.seq}")
        for event in events
    ]


def rows_of(path: Path, run_id: str) -> dict[str, list[str]]:
    """Return all that the tables have on a run, without its id."""
    parts = ("metrics", "checkpoints", "predictions", "events")
    keys = {"jobs": "id", **dict.fromkeys(parts, "job_id")}
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: sorted(
                repr(row).replace(run_id, "RUN")
                for row in connection.execute(
                    f"SELECT * FROM training_{name} WHERE {key} = ?",  # noqa: S608 - our own names
                    (run_id,),
                )
            )
            for name, key in keys.items()
        }


# Not shrunk: each example talks to a disk, and shrinking would take minutes.
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(arrival=arrivals())
def test_the_order_and_the_number_of_arrivals_change_nothing(
    long_lived: tuple[Store, Path], arrival: tuple[list[Event], list[list[Event]]]
) -> None:
    (store, path), (history, batches) = long_lived, arrival
    run_id, at_once = f"run-{uuid.uuid4()}", f"run-{uuid.uuid4()}"

    count = sum(store.ingest(renamed(batch, run_id)) for batch in batches)
    store.ingest(renamed(history, at_once))

    assert count == len(history)
    assert rows_of(path, run_id) == rows_of(path, at_once)
    assert run_to_dict(store.run(run_id)) == run_to_dict(fold_run(run_id, history, None))


def train_log(seq: int, *, run_id: str = "run-a", step: int | None = None) -> Event:
    event_id = f"{run_id}-1-{seq}"
    return Event(event_id, run_id, 1, seq, EventKind.TRAIN_LOG, 0.0, step, 0.1, {"loss": 1.0})


def test_only_events_that_are_new_are_counted(store: Store) -> None:
    store.ingest([train_log(0), train_log(1)])

    assert store.ingest([train_log(1), train_log(2), train_log(2)]) == 1


def test_events_of_several_runs_may_come_together(store: Store) -> None:
    store.ingest([train_log(0), train_log(0, run_id="run-b"), train_log(1)])

    assert sorted(summary.run_id for summary in store.runs()) == ["run-a", "run-b"]


def test_no_events_are_no_news(store: Store) -> None:
    assert (store.ingest([]), store.runs()) == (0, ())


def test_more_events_than_one_statement_takes_are_kept(store: Store) -> None:
    events = [train_log(seq, step=seq) for seq in range(1200)]

    assert (store.ingest(events), store.ingest(events)) == (1200, 0)
    assert store.run("run-a").step == 1199


def test_a_step_logged_twice_is_one_row_with_all_its_values(tmp_path: Path) -> None:
    first = replace(train_log(0, step=5), body={"loss": 1.0})
    second = replace(train_log(1, step=5), epoch=None, body={"loss": None, "lr": 0.1})
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([second])
        store.ingest([first])

    assert rows_of(tmp_path / "runs.db", "run-a")["metrics"] == [
        repr(("RUN", 5, "train_log", 0.1, 1.0, None, None, '{"loss": 1.0, "lr": 0.1}'))
    ]


def test_a_failed_run_runs_again_with_the_first_train_log_of_its_next_start(store: Store) -> None:
    store.ingest([replace(train_log(0), kind=EventKind.FAILED)])
    store.ingest([replace(train_log(0, step=5), event_id="run-a-2-0", boot=2)])

    (summary,) = store.runs()

    assert summary.status is RunStatus.RUNNING


def test_scores_that_come_one_at_a_time_are_all_in_the_jobs_row(tmp_path: Path) -> None:
    bodies: list[dict[str, object]] = [
        {"score": 0.5, "eval_loss": 0.4},
        {"score": "Infinity", "eval_loss": "NaN"},
    ]
    evaluations = [
        replace(train_log(seq, step=10 * seq), kind=EventKind.EVALUATION, body=body)
        for seq, body in enumerate(bodies, start=1)
    ]
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([train_log(0)])
        counts = list(map(store.ingest, ([evaluation] for evaluation in evaluations)))

    assert counts == [1, 1]
    assert (
        '{"best_checkpoint_score": 0.5, "best_checkpoint_step": 10, "best_checkpoint_epoch": 0.1, '
        '"checkpoint_scores_history": ['
        '{"step": 10, "epoch": 0.1, "eval_loss": 0.4, "score": 0.5}, '
        '{"step": 20, "epoch": 0.1, "eval_loss": "NaN", "score": "Infinity"}]}'
    ) in rows_of(tmp_path / "runs.db", "run-a")["jobs"][0]


def test_an_ingest_that_fails_halfway_keeps_nothing(store: Store) -> None:
    unstorable = replace(train_log(0, run_id="run-b"), time_unix_s=math.nan)

    with pytest.raises(IntegrityError):
        store.ingest([train_log(0), unstorable])

    assert store.runs() == ()


def test_threads_that_ingest_the_same_events_count_each_once(store: Store) -> None:
    events = [train_log(seq, step=seq) for seq in range(200)]
    parts = [events[start : start + 50] for start in range(0, 200, 25)]

    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(store.ingest, parts))

    assert sum(counts) == 200
    assert store.run("run-a").step == 199


def test_processes_that_open_a_new_store_at_once_and_ingest_the_same_events_count_each_once(
    tmp_path: Path,
) -> None:
    script = """if True:
        import sys
        from podproof.monitor.store import open_store
        from podproof.runtime.events import Event, EventKind
        sys.stdin.readline()
        with open_store(sys.argv[1]) as store:
            print(sum(
                store.ingest([
                    Event(f"run-a-1-{seq}", "run-a", 1, seq, EventKind.TRAIN_LOG, 0.0, seq, 0.1, {})
                    for seq in range(start, start + 40)
                ])
                for start in range(0, 200, 20)
            ))
    """
    command = [sys.executable, "-c", script, str(tmp_path / "runs.db")]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=dict(os.environ))
        for _ in range(3)
    ]

    outputs = [process.communicate("go\n")[0] for process in processes]

    assert sum(map(int, outputs)) == 220
