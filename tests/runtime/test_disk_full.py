"""A disk that takes no more: what was saved stays whole, the ending says so, and space mends it."""

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.pod_process import Fault, PodFolder, plan_for

from podproof.runtime.events import EventKind
from podproof.runtime.plan import Plan, plan_to_json

Undisturbed = Callable[[Plan], dict[str, Any]]


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond a size: the kernel refuses it as too large."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    "name", ["model.safetensors", pytest.param("optimizer.pt", marks=pytest.mark.slow)]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, name: str, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")
    pod.run(Fault(at=6, sends=signal.SIGTERM))
    too_small = (pod.output / "checkpoint-6" / name).stat().st_size - 100

    refused = pod.run(before=partial(limit_files, too_small))
    left = pod.checkpoints()
    resumed = pod.run()

    (failed,) = pod.events(EventKind.FAILED)
    assert (refused, resumed) == (5, 0)
    assert failed.body["error"] == "DiskFull"
    assert "lower trainer.save_total_limit" in failed.body["problems"][0]
    assert left == ["checkpoint-4", "checkpoint-6"]
    assert pod.result() == undisturbed(pod.plan)


# A file system of its own, as big as it is told, that only this run sees. It ends with the shell.
ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=1900k tmpfs podproof-output
head -c 1200000 /dev/zero > podproof-output/ballast
"$1" pod.py || echo "exit code $?"
ls podproof-output
echo == with space
rm podproof-output/ballast
"$1" pod.py && echo "exit code $?"
cp -r podproof-output/. left/
"""
POD = """
import sys
from podproof.runtime.main import main
sys.exit(main(open("plan.json").read(), {}, []))
"""


@pytest.fixture
def mounting() -> None:
    """Skip where no file system may be mounted; asked when the test runs, not at every import."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    is_there = shutil.which("unshare") is not None
    if not is_there or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system may be mounted here")


@pytest.mark.slow
@pytest.mark.usefixtures("mounting")
def test_on_a_real_full_disk_the_run_ends_clearly_and_goes_on_when_there_is_space(
    tmp_path: Path,
) -> None:
    pod = PodFolder(tmp_path / "run", plan_for(save_total_limit=1))
    (pod.path / "plan.json").write_text(plan_to_json(pod.plan))
    (pod.path / "pod.py").write_text(POD)
    pod.output.mkdir()
    (pod.path / "left").mkdir()
    command = ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", sys.executable]

    shell = subprocess.run(command, cwd=pod.path, capture_output=True, text=True, check=False)

    full, with_space = shell.stdout.split("== with space")
    assert "exit code 5" in full
    assert "checkpoint-4\n" in full
    assert "checkpoint-8\n" not in full
    assert "the disk is full" in shell.stderr
    assert "exit code 0" in with_space
    assert (pod.path / "left" / "delivered" / "model.safetensors").is_file()
