"""Each way a checkpoint can break, on a real one: the run goes on from a whole one, and says so."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.checkpoint_files import Damage, cut, gone, holds
from tests.runtime.pod_process import Fault, PodFolder

from podproof.runtime.checkpoints import MANIFEST_FILE
from podproof.runtime.events import EventKind
from podproof.runtime.plan import Plan

Undisturbed = Callable[[Plan], dict[str, Any]]


def overwritten(name: str, count: int) -> Damage:
    """Return the damage of bytes changed in the middle of a file, its size the same."""

    def damage(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        middle = len(content) // 2
        content[middle : middle + count] = bytes(byte ^ 1 for byte in content[middle:][:count])
        (path / name).write_bytes(content)

    return damage


def half(name: str) -> Damage:
    return lambda path: cut(name, (path / name).stat().st_size // 2)(path)


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


slow = pytest.mark.slow
DAMAGES = [
    pytest.param(half("model.safetensors"), id="weights cut"),
    pytest.param(cut("model.safetensors", 0), id="weights empty", marks=slow),
    pytest.param(holds("model.safetensors", b"\0" * 9000), id="weights zeroed", marks=slow),
    pytest.param(gone("model.safetensors"), id="weights missing", marks=slow),
    pytest.param(overwritten("model.safetensors", 1), id="a bit flipped in the weights"),
    pytest.param(overwritten("model.safetensors", 1000), id="1000 bytes changed", marks=slow),
    pytest.param(gone("trainer_state.json"), id="state missing", marks=slow),
    pytest.param(half("trainer_state.json"), id="state cut", marks=slow),
    pytest.param(cut("trainer_state.json", 0), id="state empty", marks=slow),
    pytest.param(half("optimizer.pt"), id="optimizer cut", marks=slow),
    pytest.param(gone("optimizer.pt"), id="optimizer missing"),
    pytest.param(overwritten("optimizer.pt", 1), id="a bit flipped in the optimizer", marks=slow),
    pytest.param(gone("scheduler.pt"), id="scheduler missing", marks=slow),
    pytest.param(half("rng_state.pth"), id="random state cut", marks=slow),
    pytest.param(gone("rng_state.pth"), id="random state missing", marks=slow),
    pytest.param(gone("training_args.bin"), id="training arguments missing", marks=slow),
    pytest.param(emptied, id="an empty folder", marks=slow),
    pytest.param(cut(MANIFEST_FILE, 30), id="manifest cut", marks=slow),
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run killed at step 10, with sealed checkpoints of steps 4 and 8."""
    pod = PodFolder(tmp_path_factory.mktemp("killed") / "run")
    assert pod.run(Fault(at=10, sends=signal.SIGKILL)) == -9
    assert (pod.output / "checkpoint-8" / MANIFEST_FILE).is_file()
    # Under this name nothing that the checkpoints say of where they lay is found again.
    return pod.path.rename(pod.path.with_name("template"))


@pytest.fixture
def pod(killed: Path, tmp_path: Path) -> PodFolder:
    """Return a copy of that run, to be broken and started again."""
    shutil.copytree(killed, tmp_path / "run")
    return PodFolder(tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_resumed(
    pod: PodFolder, damage: Damage, undisturbed: Undisturbed
) -> None:
    damage(pod.output / "checkpoint-8")

    code = pod.run()

    (resumed,) = pod.events(EventKind.RESUMED)
    assert code == 0
    assert resumed.body["path"].endswith("/checkpoint-4")
    assert pod.notices()[0].startswith("checkpoint-8 set aside: ")
    assert (pod.output / "quarantine" / "checkpoint-8").is_dir()
    assert pod.result() == undisturbed(pod.plan)


def test_a_newer_empty_checkpoint_does_not_hide_the_good_one(
    pod: PodFolder, undisturbed: Undisturbed
) -> None:
    (pod.output / "checkpoint-999").mkdir()

    code = pod.run()

    (resumed,) = pod.events(EventKind.RESUMED)
    assert code == 0
    assert resumed.body["path"].endswith("/checkpoint-8")
    assert pod.notices()[0].startswith("checkpoint-999 set aside: trainer_state.json is missing")
    assert pod.result() == undisturbed(pod.plan)


def test_a_checkpoint_of_another_config_is_not_resumed(
    pod: PodFolder, undisturbed: Undisturbed
) -> None:
    state = pod.output / "checkpoint-8" / "trainer_state.json"
    (pod.output / "checkpoint-8" / MANIFEST_FILE).unlink()
    state.write_text(state.read_text().replace("c" * 64, "d" * 64))

    code = pod.run()

    assert code == 0
    assert pod.notices()[0] == "checkpoint-8 set aside: it is not of this run"
    assert pod.result() == undisturbed(pod.plan)


def test_with_every_checkpoint_damaged_the_run_begins_again(
    pod: PodFolder, undisturbed: Undisturbed
) -> None:
    gone("scheduler.pt")(pod.output / "checkpoint-4")
    half("model.safetensors")(pod.output / "checkpoint-8")

    code = pod.run()

    assert code == 0
    assert pod.events(EventKind.RESUMED) == []
    assert len(pod.notices()) == 2
    assert pod.result() == undisturbed(pod.plan)


def test_the_next_best_is_delivered_when_the_best_one_broke(tmp_path: Path) -> None:
    # Step 8 is the best one: the last evaluation is no number. Step 10 is there to resume from.
    pod = PodFolder(tmp_path / "run")
    pod.run(Fault(at=10, sends=signal.SIGTERM))
    overwritten("model.safetensors", 1)(pod.output / "checkpoint-8")

    code = pod.run(Fault(passes=2, is_training=False, is_poisoned=True))

    next_best = (pod.output / "checkpoint-4" / "model.safetensors").read_bytes()
    what = "checkpoint-8 passed over, the next best is delivered: "
    assert code == 0
    assert pod.notices() == [f"{what}model.safetensors is not what was saved"]
    assert (pod.output / "delivered" / "model.safetensors").read_bytes() == next_best
