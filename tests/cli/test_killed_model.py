"""A real model of 135 M parameters, killed on its pod: the next start ends as a calm run does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_launch import podproof, shown

LAUNCH = ("launch", "experiment=smollm2_sft")


def script_processes(home: Path) -> list[int]:
    """Return the processes that run a pod script below `home`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_script = b"pod_script.py" in (folder / "cmdline").read_bytes()
            is_ours = (folder / "cwd").resolve().is_relative_to(home)
        except OSError:
            continue
        if is_script and is_ours:
            found.append(int(folder.name))
    return found


def kill_after(home: Path, checkpoint: str) -> None:
    """Kill the script with SIGKILL as soon as a checkpoint of it is sealed."""
    until_s = time.monotonic() + 600
    while not list(home.rglob(f"{checkpoint}/podproof.json")):
        assert time.monotonic() < until_s, f"{checkpoint} never came"
        time.sleep(0.05)
    (process,) = script_processes(home)
    os.kill(process, signal.SIGKILL)


def told(record: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same however often the run was killed."""
    return {
        "evaluations": [(item["step"], item["score"]) for item in record["evaluations"]],
        "best": record["best"]["step"],
        "final": record["ending"]["final_step"],
        # The card tells the versions and the table, the adapter is the weights.
        "adapter": dict(record["delivery"]["sha256"])["adapter_model.safetensors"],
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_smollm2_killed_in_the_middle_ends_as_the_undisturbed_run(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = podproof(calm, *LAUNCH)
    assert undisturbed.returncode == 0, undisturbed.stderr

    environment = {**os.environ, "PODPROOF_HOME": str(killed)}
    command = [sys.executable, "-m", "podproof", *LAUNCH]
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    kill_after(killed, "checkpoint-8")
    _, said = launcher.communicate(timeout=900)

    assert launcher.returncode == 0, said
    record = shown(killed)
    assert told(record) == told(shown(calm))
    assert "resumed" in (Path(record["output"]) / "events.jsonl").read_text()
