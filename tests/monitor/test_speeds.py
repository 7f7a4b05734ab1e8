"""Speeds: what a run got done, from its train logs and what was estimated of it."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from podproof.compiler.ir import Provider
from podproof.compiler.throughput import PastRun
from podproof.monitor.records import LaunchRecord, LaunchStatus
from podproof.monitor.speeds import past_run
from podproof.monitor.store import Store, open_store
from podproof.runtime.events import Event, EventKind
from podproof.runtime.plan import AdapterKind

ESTIMATED = {"flops_per_token": 1000.0, "processes": 2, "adapter": "lora"}


def event(kind: EventKind, seq: int, *, at: float, boot: int = 1, **body: Any) -> Event:
    return Event(f"r-{boot}-{seq}", "r", boot, seq, kind, at, seq, None, body)


def started(boot: int = 1, **body: Any) -> Event:
    return event(EventKind.STARTED, 0, at=0.0, boot=boot, **body)


def logs(*seconds: float, boot: int = 1) -> list[Event]:
    """Return logs at these moments, each 100 tokens after the one before."""
    return [
        event(EventKind.TRAIN_LOG, seq, at=at, boot=boot, num_tokens=100.0 * seq)
        for seq, at in enumerate(seconds, start=1)
    ]


def test_a_speed_is_that_of_one_gpu_in_operations() -> None:
    run = past_run(ESTIMATED, [started(device="cuda:0", gpu="NVIDIA A40"), *logs(0, 1, 2, 3)])

    assert run == PastRun("NVIDIA A40", AdapterKind.LORA, 100 * 1000.0 / 2)


def test_an_evaluation_between_two_logs_does_not_count() -> None:
    run = past_run(ESTIMATED, [started(device="cpu", gpu=None), *logs(0, 1, 2, 60, 61, 62)])

    assert run is not None
    assert run.flops_per_s == 100 * 1000.0 / 2


def test_a_restart_is_no_pair() -> None:
    first, second = logs(0, 1, 2, 3), logs(1000, 1001, 1002, 1003, boot=2)

    run = past_run(ESTIMATED, [started(device="cpu"), *first, *second])

    assert run is not None
    assert run.flops_per_s == 100 * 1000.0 / 2


@pytest.mark.parametrize(
    "events",
    [
        [],
        [started(device="cuda:0"), *logs(0, 1, 2, 3)],
        [started(device="cpu"), *logs(0, 1)],
        [started(device="cpu"), *logs(5, 5, 5, 5)],
        logs(0, 1, 2, 3),
    ],
    ids=["nothing", "a GPU without a name", "too few logs", "no time", "no start"],
)
def test_events_that_do_not_tell_give_no_run(events: list[Event]) -> None:
    assert past_run(ESTIMATED, events) is None


@pytest.mark.parametrize(
    "changes",
    [{"flops_per_token": None}, {"processes": 0}, {"adapter": "prefix"}, {"adapter": None}],
    ids=str,
)
def test_estimates_of_another_release_give_no_run(changes: dict[str, Any]) -> None:
    events = [started(device="cpu"), *logs(0, 1, 2, 3)]

    assert past_run({**ESTIMATED, **changes}, events) is None


def launched(run_id: str = "r") -> LaunchRecord:
    return LaunchRecord(
        run_id=run_id,
        name="r",
        provider=Provider.LOCAL,
        status=LaunchStatus.INTENDED,
        pod_id=None,
        script_sha256="0" * 64,
        config_sha256="0" * 64,
        intended_unix_s=0.0,
    )


def test_a_store_gives_back_what_its_runs_got_done(store: Store) -> None:
    store.intend_launch(launched())
    store.record_estimate("r", ESTIMATED)
    store.ingest([started(device="cpu"), *logs(0, 1, 2, 3)])

    assert store.past_runs() == (PastRun("cpu", AdapterKind.LORA, 100 * 1000.0 / 2),)


def test_a_second_estimate_of_a_run_takes_the_place_of_the_first(store: Store) -> None:
    store.intend_launch(launched())
    store.record_estimate("r", {**ESTIMATED, "processes": 1})
    store.record_estimate("r", ESTIMATED)
    store.ingest([started(device="cpu"), *logs(0, 1, 2, 3)])

    assert store.past_runs()[0].flops_per_s == 100 * 1000.0 / 2


def test_a_store_of_an_earlier_release_is_read_and_teaches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with open_store(path) as store:
        store.intend_launch(launched())
        store.ingest([started(device="cpu"), *logs(0, 1, 2, 3)])
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE estimates"))
    engine.dispose()

    with open_store(path) as store:
        assert store.past_runs() == ()
        assert store.run("r").device == "cpu"
