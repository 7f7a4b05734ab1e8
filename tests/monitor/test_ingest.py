import itertools
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from podproof.monitor.fold import fold_run
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
    },
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
            kind=draw(st.sampled_from(EventKind)),
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
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    bounds = [0, *cuts, len(shuffled)]
    return history, [list(shuffled[start:end]) for start, end in itertools.pairwise(bounds)]


def tables_after(batches: Sequence[Sequence[Event]]) -> tuple[list[int], dict[str, Any]]:
    """Return the counts that a new store answered, and all that is then in its tables."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        with open_store(path) as store:
            counts = [store.ingest(batch) for batch in batches]
            record = run_to_dict(store.run("run-a"))
        return counts, {"record": record, **read_tables(path)}


def read_tables(path: Path) -> dict[str, Any]:
    tables = ("training_jobs", "training_metrics", "training_checkpoints", "training_events")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        rows = {name: list(connection.execute(text(f"SELECT * FROM {name}"))) for name in tables}  # noqa: S608 - names from the line above
    engine.dispose()
    return {name: sorted(map(repr, found)) for name, found in rows.items()}


@settings(max_examples=40, deadline=None)
@given(arrivals())
def test_the_order_and_the_number_of_arrivals_change_nothing(
    arrival: tuple[list[Event], list[list[Event]]],
) -> None:
    history, batches = arrival

    counts, tables = tables_after(batches)
    _, expected = tables_after([history])

    assert tables == expected
    assert tables["record"] == run_to_dict(fold_run("run-a", history, None))
    assert sum(counts) == len(history)


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
    first = Event("run-a-1-0", "run-a", 1, 0, EventKind.TRAIN_LOG, 0.0, 5, 0.5, {"loss": 1.0})
    second = Event(
        "run-a-1-1", "run-a", 1, 1, EventKind.TRAIN_LOG, 0.0, 5, None, {"loss": None, "lr": 0.1}
    )
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([second])
        store.ingest([first])

    assert read_tables(tmp_path / "runs.db")["training_metrics"] == [
        repr(("run-a", 5, "train_log", 0.5, 1.0, None, None, '{"loss": 1.0, "lr": 0.1}'))
    ]


def test_the_jobs_row_carries_the_best_checkpoint_and_the_history(tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = [
        {"score": 0.5, "eval_loss": 0.4},
        {"score": "Infinity", "eval_loss": "NaN"},
    ]
    kind = EventKind.EVALUATION
    events = [
        Event(f"run-a-1-{seq}", "run-a", 1, seq, kind, 0.0, 10 * seq, 0.5, body)
        for seq, body in enumerate(reported, start=1)
    ]
    with open_store(tmp_path / "runs.db") as store:
        store.ingest(events)

    assert (
        '{"best_checkpoint_score": 0.5, "best_checkpoint_step": 10, "best_checkpoint_epoch": 0.5, '
        '"checkpoint_scores_history": ['
        '{"step": 10, "epoch": 0.5, "eval_loss": 0.4, "score": 0.5}, '
        '{"step": 20, "epoch": 0.5, "eval_loss": "NaN", "score": "Infinity"}]}'
    ) in read_tables(tmp_path / "runs.db")["training_jobs"][0]


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
