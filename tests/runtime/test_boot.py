"""The boot program by itself, as its own process, against a collector and a provider made here."""

import ast
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from tests.runtime.boot_world import (
    BOOT,
    KEY,
    REPORT_KEY,
    Booted,
    World,
    asked_for_its_end,
    failures,
    pod_environ,
    wait_until,
)
from tests.runtime.faulty_collector import closed_port

from podproof.runtime.boot import Log, unpack_script
from podproof.runtime.events import EventKind, event_from_dict


def test_the_pod_asks_for_its_own_end_with_its_own_key(
    boot: Callable[..., Booted], world: World
) -> None:
    booted = boot("print('hello')")
    wait_until(asked_for_its_end(world))

    booted.end()

    request = next(request for request in world.heard if request.path == "/graphql")
    assert request.authorization == f"Bearer {KEY}"
    assert request.body == {"query": 'mutation { podTerminate(input: { podId: "pod-1" }) }'}
    assert failures(world) == []


def test_neither_key_nor_token_is_printed(boot: Callable[..., Booted], world: World) -> None:
    world.refuses = {"/graphql", "/v2/pods/pod-1", "/rpc/ingest_events"}
    booted = boot("raise SystemExit(1)")
    wait_until(lambda: len(world.bodies("/graphql")) >= 2)

    printed = booted.end()

    assert "failed: HTTPError 500" in printed
    assert "hunter" not in printed


def test_a_damaged_script_is_reported_and_not_run(
    boot: Callable[..., Booted], world: World
) -> None:
    booted = boot("print('ran')", PS_SHA="0" * 64)
    wait_until(asked_for_its_end(world))

    printed = booted.end()

    assert "the script arrived with sha256" in failures(world)[0]["body"]["error"]
    assert "ran\n" not in printed


@pytest.mark.parametrize(
    "damage",
    [{"PS_00": "not base64!"}, {"PS_00": "AAAA"}, {"PS_00": None}, {"PS_N": "2"}, {"PS_N": None}],
)
def test_a_script_that_cannot_be_unpacked_is_reported(
    boot: Callable[..., Booted], world: World, damage: dict[str, str | None]
) -> None:
    boot("print('ran')", **damage)

    wait_until(asked_for_its_end(world))

    assert failures(world)[0]["body"]["error"].startswith("the pod could not run its script")


def test_orders_that_make_no_sense_end_the_pod(boot: Callable[..., Booted], world: World) -> None:
    boot("", PODPROOF_MAX_SECONDS="soon")

    wait_until(asked_for_its_end(world))

    assert len(failures(world)) == 1


def test_a_pod_without_a_run_id_ends_all_the_same(
    boot: Callable[..., Booted], world: World
) -> None:
    boot("", PODPROOF_RUN_ID=None)

    wait_until(asked_for_its_end(world))

    assert failures(world) == []


def test_a_volume_that_cannot_be_written_ends_the_pod(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    boot("", PODPROOF_VOLUME=str(tmp_path / "file"))

    wait_until(asked_for_its_end(world))


def test_the_report_of_giving_up_is_an_event_like_any_other(
    boot: Callable[..., Booted], world: World
) -> None:
    boot("raise SystemExit(1)")

    wait_until(asked_for_its_end(world))

    (report,) = world.bodies("/rpc/ingest_events")
    event = event_from_dict(report["events"][0])
    assert report["job_id"] == event.run_id == "run-1"
    assert (event.event_id, event.boot, event.kind) == ("run-1-3-2147483647", 3, EventKind.FAILED)
    assert event.body == {"error": "gave up after 1 restarts", "problems": []}
    assert world.heard[0].authorization == f"Bearer {REPORT_KEY}"


def test_an_address_that_ends_in_a_slash_is_taken_as_by_the_courier(
    boot: Callable[..., Booted], world: World
) -> None:
    boot("raise SystemExit(1)", PODPROOF_REPORT_URL=f"{world.url}/")

    wait_until(asked_for_its_end(world))
    assert len(failures(world)) == 1


def test_a_collector_that_refuses_is_asked_three_times_and_then_left(
    boot: Callable[..., Booted], world: World
) -> None:
    world.refuses = {"/rpc/ingest_events"}

    boot("raise SystemExit(1)")

    wait_until(asked_for_its_end(world))
    assert len(failures(world)) == 3
    assert len({event["event_id"] for event in failures(world)}) == 1


def test_without_a_collector_the_pod_ends_without_a_word(
    boot: Callable[..., Booted], world: World
) -> None:
    boot("raise SystemExit(1)", PODPROOF_REPORT_URL=None)

    wait_until(asked_for_its_end(world))

    assert failures(world) == []


def test_a_run_that_is_over_is_not_started_again(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "over").write_text("0")
    booted = boot("print('ran')")
    wait_until(asked_for_its_end(world))

    printed = booted.end()

    assert "ran\n" not in printed


def test_whatever_lies_in_place_of_the_count_of_starts_ends_the_pod(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    (tmp_path / "run-1" / "boots").mkdir(parents=True)

    boot("print('ran')")

    wait_until(asked_for_its_end(world))
    assert "IsADirectoryError" in failures(world)[0]["body"]["error"]


def test_an_address_that_is_none_does_not_keep_the_pod_from_ending(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    calls = program(tmp_path / "bin" / "runpodctl")

    boot(
        "raise SystemExit(1)",
        PODPROOF_REPORT_URL="nonsense",
        RUNPOD_API_BASE_URL=f"http://127.0.0.1:{closed_port()}",
        PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
    )

    wait_until(lambda: calls.exists() and calls.read_text().count("\n") >= 2)
    assert failures(world) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_reaches_the_script_and_ends_the_command(
    boot: Callable[..., Booted], world: World, number: signal.Signals
) -> None:
    booted = boot(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('training', flush=True)\n"
        "time.sleep(600)\n"
    )
    log = booted.folder / "log.txt"
    wait_until(lambda: log.exists() and "training" in log.read_text())

    booted.process.send_signal(number)

    assert booted.process.wait(30) == 143
    assert "the script ended with exit code 143" in log.read_text()
    assert world.heard == []


def test_a_request_to_stop_between_two_starts_ends_the_command(
    boot: Callable[..., Booted], world: World
) -> None:
    booted = boot("raise SystemExit(1)", PODPROOF_PAUSE_SECONDS="600")
    log = booted.folder / "log.txt"
    wait_until(lambda: log.exists() and "ended with exit code 1" in log.read_text())

    booted.end()

    assert booted.process.returncode == 143
    assert world.heard == []


def test_a_script_that_was_done_when_it_was_told_to_stop_is_over(
    boot: Callable[..., Booted],
) -> None:
    booted = boot(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('training', flush=True)\n"
        "time.sleep(600)\n"
    )
    log = booted.folder / "log.txt"
    wait_until(lambda: log.exists() and "training" in log.read_text())

    booted.end()

    assert (booted.folder / "over").read_text() == "0"


def test_the_script_finds_its_surroundings(boot: Callable[..., Booted], world: World) -> None:
    booted = boot("import json, os; print(json.dumps({**os.environ, 'cwd': os.getcwd()}))")
    wait_until(asked_for_its_end(world))

    booted.end()

    printed = (booted.folder / "log.txt").read_text()
    seen = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    assert seen["cwd"] == str(booted.folder)
    assert seen["PODPROOF_BOOT"] == "1"
    assert 0 < float(seen["PODPROOF_DEADLINE_UNIX_S"]) - time.time() < 60
    assert seen["PODPROOF_OUTPUT"] == str(booted.folder / "output")
    assert seen["PODPROOF_DATA"] == str(booted.folder / "data")
    assert seen["PODPROOF_REPORT_TOKEN"] == REPORT_KEY
    assert not [key for key in seen if key.startswith("PS_") or key == "RUNPOD_API_KEY"]


def test_off_a_pod_there_is_nothing_to_end(boot: Callable[..., Booted], world: World) -> None:
    booted = boot("print('hello')", RUNPOD_POD_ID=None)

    printed, _ = booted.process.communicate(timeout=30)

    assert "this is no pod" in printed
    assert (booted.process.returncode, world.heard) == (0, [])


def test_when_no_api_answers_runpodctl_is_asked(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    world.refuses = {"/graphql", "/v2/pods/pod-1"}
    calls = program(tmp_path / "bin" / "runpodctl")

    boot("", PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    wait_until(lambda: calls.exists() and "\n" in calls.read_text())
    assert calls.read_text().splitlines()[0] == "remove pod pod-1"


def test_without_an_interpreter_of_the_image_uv_runs_the_script(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    calls = program(tmp_path / "bin" / "uv")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    booted = boot("", PODPROOF_PYTHON=None, PATH=path)

    wait_until(asked_for_its_end(world))
    assert calls.read_text() == "run --script pod_script.py\n"
    assert (booted.folder / "over").read_text() == "0"


def test_where_uv_cannot_be_had_the_start_counts_as_failed(
    boot: Callable[..., Booted], world: World, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()

    booted = boot(
        "",
        PODPROOF_PYTHON=None,
        PATH=str(tmp_path / "empty"),
        PODPROOF_MAX_RESTARTS="0",
        PIP_NO_INDEX="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )

    wait_until(asked_for_its_end(world))
    assert "the script ended with exit code 1" in (booted.folder / "log.txt").read_text()
    assert failures(world)[0]["body"]["error"] == "gave up after 0 restarts"


def program(path: Path) -> Path:
    """Make a program that writes its arguments down; return where."""
    calls = path.with_suffix(".calls")
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    path.chmod(0o755)
    return calls


class FullDisk(io.BytesIO):
    """A file on a disk that is full."""

    def write(self, _content: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_volume_does_not_silence_the_rest() -> None:
    log, terminal = Log(), io.BytesIO()
    full: IO[bytes] = FullDisk()
    log.streams = [full, terminal]

    log.say("still here")

    assert terminal.getvalue() == b"[boot] still here\n"


def test_the_script_may_have_any_text(tmp_path: Path, world: World) -> None:
    text = '"""\\\r\n\0 ä 🙂'

    assert unpack_script(pod_environ(text, tmp_path, world)) == text


def test_the_boot_program_is_plain_python_3_8() -> None:
    tree = ast.parse(BOOT.read_text(), feature_version=(3, 8))

    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names
    }
    modules |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names
