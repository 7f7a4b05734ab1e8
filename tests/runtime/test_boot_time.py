"""How the boot program keeps time: over restarts, wrong clocks, and scripts that do not end."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.runtime.boot_world import (
    Booted,
    World,
    asked_for_its_end,
    failures,
    pod_environ,
    wait_until,
)

from podproof.runtime.boot import Child, Log, Orders
from podproof.runtime.events import EventKind, event_from_dict


def test_a_restart_does_not_extend_the_time(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "started").write_text(str(time.time() - 61))

    boot("print('ran')")

    wait_until(asked_for_its_end(world))
    (event,) = failures(world)
    assert event_from_dict(event).kind is EventKind.OUT_OF_TIME
    assert event["body"] == {"reason": "out of time after 60 s"}


def test_a_run_without_time_left_is_out_of_money_when_that_was_the_limit(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "started").write_text(str(time.time() - 61))

    boot("print('ran')", PODPROOF_LIMIT="money")

    wait_until(asked_for_its_end(world))
    assert failures(world)[0]["kind"] == EventKind.OUT_OF_MONEY
    assert failures(world)[0]["body"] == {"reason": "out of money after 60 s"}


@pytest.mark.parametrize("content", ["", "soon", "\0\0\0"])
def test_a_damaged_note_of_the_first_start_is_read_by_the_age_of_its_file(
    tmp_path: Path, world: World, content: str
) -> None:
    orders = Orders(pod_environ("", tmp_path, world))
    started = orders.folder / "started"
    started.write_text(content)
    os.utime(started, (time.time() - 50, time.time() - 50))

    assert 5 < orders.seconds_left() <= 10


def test_a_clock_that_was_set_back_gives_no_more_time_than_there_was(
    tmp_path: Path, world: World
) -> None:
    orders = Orders(pod_environ("", tmp_path, world))
    (orders.folder / "started").write_text(str(time.time() + 9_000))

    assert orders.seconds_left() == 60


def test_a_script_that_stays_after_its_end_is_ended_at_the_deadline(
    boot: Callable[..., Booted], world: World
) -> None:
    boot(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
        PODPROOF_MAX_SECONDS="1",
    )

    wait_until(asked_for_its_end(world))
    assert [event["kind"] for event in failures(world)] == [EventKind.OUT_OF_TIME]


def test_a_script_out_of_time_that_delivered_is_over(
    boot: Callable[..., Booted], world: World
) -> None:
    booted = boot("raise SystemExit(6)")

    wait_until(asked_for_its_end(world))
    assert (booted.folder / "over").read_text() == "6"
    assert failures(world) == []


def test_a_script_that_ignores_the_end_of_its_time_is_killed(tmp_path: Path, world: World) -> None:
    environ = {**pod_environ("", tmp_path, world), "PODPROOF_MAX_SECONDS": "1.5"}
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"

    code = Child(Log(), grace_s=0.1).run([sys.executable, "-c", ignore], environ, Orders(environ))

    assert code == -signal.SIGKILL
