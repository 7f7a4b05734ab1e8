"""The boot program killed, or refused by the disk, at each of its touches of the volume."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runtime.boot_world import BOOT, World, asked_for_its_end, failures, pod_environ

CRASHING = Path(__file__).with_name("crashing_boot.py")

# Fails always, and leaves one line for each start.
SCRIPT = """
import os, pathlib
with pathlib.Path(os.environ["PODPROOF_OUTPUT"], "..", "..", "ran").open("a") as ran:
    ran.write("once\\n")
raise SystemExit(1)
"""
MAX_RESTARTS = 1

# The folder is made and `boots` opened before a start is counted.
TOUCHES_BEFORE_COUNTING = 2
# In a start that finds nothing on the volume; a few more than there are, where nothing happens.
TOUCHES = 13


def container(volume: Path, world: World, starts: list[list[str]]) -> int:
    """Start the command again and again, as a provider does, until the pod asks for its end.

    Each of `starts` is the command of one start; the last is for all that follow. Return how many
    starts there were.
    """
    environ = pod_environ(SCRIPT, volume, world)
    for number in range(20):
        command = starts[min(number, len(starts) - 1)]
        process = subprocess.Popen(
            [sys.executable, "-u", *command],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not asked_for_its_end(world)():
            time.sleep(0.01)
        process.kill()
        process.wait()
        if asked_for_its_end(world)():
            return number + 1
    raise AssertionError("the pod never asked for its end")


def crashing(how: str, at: int) -> list[str]:
    return [str(CRASHING), str(BOOT), how, str(at)]


def times_run(volume: Path) -> int:
    ran = volume / "ran"
    return ran.read_text().count("once") if ran.exists() else 0


@pytest.mark.parametrize("at", range(TOUCHES))
def test_killed_once_anywhere_the_run_goes_on_and_the_pod_ends(
    tmp_path: Path, world: World, at: int
) -> None:
    container(tmp_path, world, [crashing("kill", at), [str(BOOT)]])

    assert times_run(tmp_path) <= 1 + MAX_RESTARTS
    assert failures(world)[-1]["body"]["error"] == f"gave up after {MAX_RESTARTS} restarts"


@pytest.mark.parametrize("at", range(TOUCHES_BEFORE_COUNTING, TOUCHES))
def test_killed_at_every_start_the_pod_ends_after_as_many_as_it_may_have(
    tmp_path: Path, world: World, at: int
) -> None:
    starts = container(tmp_path, world, [crashing("kill", at)])

    assert starts <= 2 + MAX_RESTARTS
    assert times_run(tmp_path) <= 1 + MAX_RESTARTS


@pytest.mark.parametrize("at", range(TOUCHES))
def test_refused_by_the_disk_anywhere_the_pod_ends_without_another_start(
    tmp_path: Path, world: World, at: int
) -> None:
    starts = container(tmp_path, world, [crashing("fail", at)])

    assert starts == 1
    assert times_run(tmp_path) <= 1 + MAX_RESTARTS
    assert len(failures(world)) == 1
