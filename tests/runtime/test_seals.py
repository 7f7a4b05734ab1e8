"""Seals: a changed byte is noticed, and the chosen checkpoint is one whose bytes are right."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.checkpoint_files import (
    TRAINING_STATE,
    USER_FILES,
    Damage,
    checkpoint,
    cut,
    gone,
    holds,
    safetensors,
    sealed,
)

from podproof.runtime.checkpoints import (
    MANIFEST_FILE,
    checkpoint_damage,
    chosen_checkpoint,
    manifest_damage,
    write_manifest,
)
from podproof.runtime.errors import NoUsableCheckpoint
from podproof.runtime.events import EventKind
from podproof.runtime.sealing import CheckpointSealer

# A seal: sizes and hashes of all files.


@pytest.mark.parametrize("name", sorted(USER_FILES | TRAINING_STATE))
def test_a_bit_flipped_anywhere_in_a_sealed_checkpoint_is_damage(tmp_path: Path, name: str) -> None:
    path = sealed(tmp_path, 4)
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)

    assert manifest_damage(path) == f"{name} is not what was saved"


@pytest.mark.parametrize("name", sorted(USER_FILES | TRAINING_STATE))
def test_a_file_gone_from_a_sealed_checkpoint_is_damage(tmp_path: Path, name: str) -> None:
    path = sealed(tmp_path, 4)
    (path / name).unlink()

    assert manifest_damage(path) == f"{name} is missing"


def test_files_of_folders_inside_a_checkpoint_are_sealed_too(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 4)
    (path / "optimizer_0").mkdir()
    (path / "optimizer_0" / "shard").write_bytes(b"moments")
    write_manifest(path)
    (path / "optimizer_0" / "shard").write_bytes(b"moment!")

    assert manifest_damage(path) == "optimizer_0/shard is not what was saved"


def test_an_intact_sealed_checkpoint_has_no_damage_whatever_came_later(tmp_path: Path) -> None:
    path = sealed(tmp_path, 4)
    (path / "later.txt").write_text("a note")

    assert checkpoint_damage(path) is None


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"files": 3}', b'{"files"'])
def test_a_manifest_that_cannot_be_read_vouches_for_nothing(tmp_path: Path, content: bytes) -> None:
    path = checkpoint(tmp_path, 4)
    (path / MANIFEST_FILE).write_bytes(content)

    assert manifest_damage(path) == f"{MANIFEST_FILE} is broken"


# The chosen one.


def test_the_best_checkpoint_is_chosen(tmp_path: Path) -> None:
    best = sealed(tmp_path, 4)
    sealed(tmp_path, 8)

    assert chosen_checkpoint(tmp_path, [4, 8]) == (best, ())


def test_without_a_ranking_the_last_checkpoint_is_chosen(tmp_path: Path) -> None:
    checkpoint(tmp_path, 4)
    last = checkpoint(tmp_path, 20)

    assert chosen_checkpoint(tmp_path, []) == (last, ())


FLIPPED = holds("model.safetensors", safetensors(b"\xff" * 32))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (FLIPPED, "model.safetensors is not what was saved"),
        (gone("model.safetensors"), "no weights"),
        (cut("model.safetensors", 40), "model.safetensors is cut short"),
        (shutil.rmtree, "it is not on disk"),
    ],
)
def test_the_next_best_stands_in_for_a_best_one_that_is_damaged_or_gone(
    tmp_path: Path, damage: Damage, said: str
) -> None:
    damage(sealed(tmp_path, 4))
    sealed(tmp_path, 8)
    second = sealed(tmp_path, 6)

    found, notices = chosen_checkpoint(tmp_path, [4, 6, 8])

    assert found == second
    assert notices == (f"checkpoint-4 passed over, the next best is delivered: {said}",)
    assert not (tmp_path / "checkpoint-4").exists()


@pytest.mark.parametrize("name", sorted(TRAINING_STATE | {"README.md", "global_step4/states.pt"}))
def test_the_best_is_chosen_though_what_is_not_delivered_of_it_is_rotten(
    tmp_path: Path, name: str
) -> None:
    best = checkpoint(tmp_path, 4)
    (best / name).parent.mkdir(exist_ok=True)
    (best / name).write_bytes(b"as it was saved")
    write_manifest(best)
    (best / name).write_bytes(b"as it was sawed")
    sealed(tmp_path, 8)

    assert chosen_checkpoint(tmp_path, [4, 8]) == (best, ())


@pytest.mark.parametrize("name", sorted(USER_FILES - {"model.safetensors"}))
def test_the_best_is_passed_over_for_any_rotten_file_that_is_delivered(
    tmp_path: Path, name: str
) -> None:
    (sealed(tmp_path, 4) / name).write_bytes(b"rotten")
    second = sealed(tmp_path, 8)

    assert chosen_checkpoint(tmp_path, [4, 8])[0] == second


def test_when_nothing_is_left_to_choose_each_one_is_named(tmp_path: Path) -> None:
    gone("model.safetensors")(checkpoint(tmp_path, 4))

    with pytest.raises(NoUsableCheckpoint) as refused:
        chosen_checkpoint(tmp_path, [4, 5])

    assert [problem.what.split()[0] for problem in refused.value.problems] == [
        "checkpoint-4",
        "checkpoint-5",
    ]


def test_an_output_without_checkpoints_has_none_to_choose(tmp_path: Path) -> None:
    with pytest.raises(NoUsableCheckpoint, match="no checkpoint was saved"):
        chosen_checkpoint(tmp_path, [])


# The sealer works beside the training.


class Notices:
    """Keeps what a sealer reports."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, kind: EventKind, *, body: Any, **_event: Any) -> None:
        self.heard.append(body["what"])


def test_a_sealer_seals_each_checkpoint_by_the_end(tmp_path: Path) -> None:
    sealer = CheckpointSealer(Notices())
    for step in (4, 8):
        sealer.seal(checkpoint(tmp_path, step))

    sealer.close(None)

    assert manifest_damage(tmp_path / "checkpoint-4") is None
    assert (tmp_path / "checkpoint-8" / MANIFEST_FILE).is_file()


def test_a_checkpoint_that_is_written_anew_loses_its_seal_first(tmp_path: Path) -> None:
    sealer = CheckpointSealer(Notices())
    path = checkpoint(tmp_path, 4)
    sealer.seal(path)

    sealer.break_seal(path)

    assert not (path / MANIFEST_FILE).exists()


def test_a_seal_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    sealer = CheckpointSealer(Notices())
    path = sealed(tmp_path, 4)
    cut("model.safetensors", 40)(path)

    sealer.seal(path)
    sealer.close(None)

    assert manifest_damage(path) == "model.safetensors is not what was saved"


def test_a_checkpoint_deleted_before_its_seal_is_no_failure(tmp_path: Path) -> None:
    notices = Notices()
    sealer = CheckpointSealer(notices)

    sealer.seal(tmp_path / "checkpoint-4")
    sealer.close(None)

    assert notices.heard == []


def test_a_checkpoint_that_cannot_be_sealed_is_told_and_stays(tmp_path: Path) -> None:
    notices = Notices()
    sealer = CheckpointSealer(notices)
    path = checkpoint(tmp_path, 4)
    (path / f"{MANIFEST_FILE}.tmp").mkdir()

    sealer.seal(path)
    sealer.close(None)

    assert notices.heard[0].startswith("checkpoint-4 could not be sealed: ")
    assert checkpoint_damage(path) is None
