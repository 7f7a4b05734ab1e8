"""The real boot code, on a local pod, through the real SDK: from create to the pod's own end."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from podproof.harness.verdict import Cleared
from podproof.launcher.client import PodRequest
from podproof.launcher.emulator import Emulator
from podproof.launcher.emulator_faults import Fault, Operation
from podproof.launcher.launch import Launched, LaunchOrder, pod_requests
from podproof.launcher.runpod_sdk import RunPodSdk

WaitUntil = Callable[[Callable[[], bool]], None]
LaunchOn = Callable[..., Launched]

# Fails at its first two starts, and says each time which it is.
THIRD_TIME_LUCKY = """
import os, sys
print("start", os.environ["PODPROOF_BOOT"])
sys.exit(0 if os.environ["PODPROOF_BOOT"] == "3" else 1)
"""

# Is done, and does not end: a thread of some library goes on.
LINGERING = """
import threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("done")
"""

# Trains for ever, and saves when it is told to stop.
OBEDIENT = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("training")
time.sleep(600)
"""


@pytest.fixture
def folder(emulator: Emulator) -> Path:
    """Return the run's folder on the network volume."""
    return emulator.volume_path("local-volume") / "run-1"


def log_of(folder: Path) -> str:
    log = folder / "log.txt"
    return log.read_text() if log.exists() else ""


def test_a_pod_runs_its_script_and_ends_itself(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    script = "import os\nprint(sorted(os.environ))\n"

    pod = launch_on(client, script)

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert (folder / "pod_script.py").read_text() == script
    assert (folder / "over").read_text() == "0"
    assert "'PODPROOF_BOOT'" in log_of(folder)
    assert "'PS_" not in log_of(folder)
    assert "'RUNPOD_API_KEY'" not in log_of(folder)


def test_what_a_pod_prints_is_in_its_log_and_on_the_volume(
    emulator: Emulator, client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    pod = launch_on(client, "import sys; print('to stdout'); print('to stderr', file=sys.stderr)")

    wait_until(lambda: client.find(pod.pod_id) is None)
    printed = emulator.log_path(pod.pod_id).read_text()
    assert ["to stdout" in printed, "to stderr" in printed] == [True, True]
    assert ["to stdout" in log_of(folder), "to stderr" in log_of(folder)] == [True, True]


def test_a_script_that_fails_is_started_again(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    pod = launch_on(client, THIRD_TIME_LUCKY)

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert [f"start {number}\n" in log_of(folder) for number in (1, 2, 3)] == [True] * 3
    assert (folder / "over").read_text() == "0"


def test_a_script_that_only_fails_is_given_up(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    pod = launch_on(client, "raise SystemExit(1)")

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert log_of(folder).count("the script ended with exit code 1") == 3
    assert "gave up after 2 restarts" in log_of(folder)


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6])
def test_a_script_that_no_restart_can_help_is_not_restarted(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil, code: int
) -> None:
    pod = launch_on(client, f"raise SystemExit({code})")

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert log_of(folder).count("[boot] start") == 1


def test_a_container_that_restarts_goes_on_counting(
    emulator: Emulator, client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    """Kills the boot code itself, as a machine that runs out of memory may."""
    pod = launch_on(client, "import os, time; print('parent', os.getppid()); time.sleep(600)")
    wait_until(lambda: "parent " in log_of(folder))

    os.kill(int(log_of(folder).split("parent ")[1].split()[0]), signal.SIGKILL)

    wait_until(lambda: "start 2 of at most 3" in log_of(folder))
    assert emulator.starts(pod.pod_id) == 2


def test_a_script_that_was_changed_on_the_way_is_not_run(
    emulator: Emulator,
    client: RunPodSdk,
    make_cleared: Callable[..., Cleared],
    make_order: Callable[..., LaunchOrder],
    wait_until: WaitUntil,
) -> None:
    def env(text: str) -> dict[str, str]:
        return dict(request(text).env)

    def request(text: str) -> PodRequest:
        return pod_requests(make_cleared(text).script, make_order())[0]

    damaged = {**env("print('sent')"), "PS_00": env("print('arrived')")["PS_00"]}
    original = request("print('sent')")
    pod_id = client.create(
        PodRequest(**{**vars(original), "env": tuple(damaged.items())}),
    )

    wait_until(lambda: client.find(pod_id) is None)
    printed = emulator.log_path(pod_id).read_text()
    assert "ValueError: the script arrived with sha256" in printed
    assert "arrived\n" not in printed


def test_a_terminated_pod_lets_its_script_save(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    pod = launch_on(client, OBEDIENT)
    wait_until(lambda: "training" in log_of(folder))

    client.terminate(pod.pod_id)

    wait_until(lambda: "the script ended with exit code 143" in log_of(folder))
    assert (folder / "saved").exists()
    assert not (folder / "over").exists()


def test_out_of_time_the_script_saves_and_the_pod_ends(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    pod = launch_on(client, OBEDIENT, max_hours=1 / 3600)

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert (folder / "saved").exists()
    assert "out of time after 1 s" in log_of(folder)


def test_a_script_that_does_not_end_is_ended_with_its_pod_at_the_deadline(
    client: RunPodSdk, folder: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    pod = launch_on(client, LINGERING, max_hours=2 / 3600)

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert "done" in log_of(folder)
    assert "out of time after 2 s" in log_of(folder)


@pytest.mark.parametrize("fault", [Fault.NOTHING_DONE, Fault.BAD_GATEWAY, Fault.UNAUTHORIZED])
def test_a_pod_asks_for_its_end_until_it_comes(
    emulator: Emulator, client: RunPodSdk, launch_on: LaunchOn, wait_until: WaitUntil, fault: Fault
) -> None:
    emulator.fail_next(Operation.TERMINATE, fault)
    emulator.fail_next(Operation.REST_TERMINATE, Fault.BAD_GATEWAY)

    pod = launch_on(client, "")

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert emulator.requests[-2].operation in {Operation.TERMINATE, Operation.POD}


def test_a_pod_ends_itself_by_rest_when_graphql_is_no_more(
    emulator: Emulator, client: RunPodSdk, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    emulator.fail_next(Operation.TERMINATE, *[Fault.BAD_GATEWAY] * 100)

    pod = launch_on(client, "")

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert Operation.REST_TERMINATE in {request.operation for request in emulator.requests}


def test_two_pods_on_one_machine_do_not_mix_up_their_scripts(
    client: RunPodSdk,
    emulator: Emulator,
    make_cleared: Callable[..., Cleared],
    make_order: Callable[..., LaunchOrder],
    wait_until: WaitUntil,
) -> None:
    run_ids = ("run-a", "run-b")

    for run_id in run_ids:
        script = make_cleared(f"print('I am {run_id}')").script
        client.create(pod_requests(script, make_order(run_id=run_id))[0])

    wait_until(lambda: client.list_pods() == ())
    logs = [log_of(emulator.volume_path("local-volume") / run_id) for run_id in run_ids]
    assert [f"I am {run_id}" in log for run_id, log in zip(run_ids, logs, strict=True)] == [
        True
    ] * 2
