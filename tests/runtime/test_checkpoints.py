"""Checkpoints: the damaged are seen and set aside, and only then is one chosen."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from tests.runtime.checkpoint_files import (
    CONFIG,
    DAMAGES,
    INDEX,
    checkpoint,
    gone,
    safetensors,
    sealed,
    with_header,
)

from podproof.runtime.checkpoints import (
    CHECKPOINT_RECORD,
    MANIFEST_FILE,
    checkpoint_damage,
    checkpoint_step,
    list_checkpoints,
    newest_usable_checkpoint,
    weights_damage,
    write_manifest,
)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "output", 7)


# Damage is seen.


def test_a_sound_checkpoint_has_no_damage(sound: Path) -> None:
    assert checkpoint_damage(sound) is None


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_each_kind_of_damage_is_said(sound: Path, kind: str) -> None:
    damage, said = DAMAGES[kind]

    damage(sound)

    assert checkpoint_damage(sound) == said


@pytest.mark.parametrize("name", ["rng_state.pth", "training_args.bin", "tokenizer.json"])
def test_what_a_trainer_resumes_without_is_no_damage(sound: Path, name: str) -> None:
    (sound / name).unlink()

    assert checkpoint_damage(sound) is None


@pytest.mark.parametrize("name", ["optimizer.bin", "latest"], ids=["FSDP", "DeepSpeed"])
def test_the_optimizer_of_sharded_training_has_another_name(sound: Path, name: str) -> None:
    (sound / "optimizer.pt").rename(sound / name)

    assert checkpoint_damage(sound) is None


def test_weights_that_fsdp_saved_for_itself_are_looked_at(sound: Path) -> None:
    shutil.copyfile(sound / "optimizer.pt", sound / "pytorch_model_fsdp.bin")
    (sound / "pytorch_model_fsdp.bin").write_bytes(b"PK cut short")

    assert checkpoint_damage(sound) == "pytorch_model_fsdp.bin is cut short"


def test_an_adapter_without_its_base_model_is_sound(sound: Path) -> None:
    (sound / "model.safetensors").rename(sound / "adapter_model.safetensors")

    assert checkpoint_damage(sound) is None


def test_weights_in_several_files_are_sound_when_all_are_there(sound: Path) -> None:
    (sound / "model.safetensors").rename(sound / "model-00001-of-00001.safetensors")
    parts = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (sound / INDEX).write_text(json.dumps(parts))

    assert checkpoint_damage(sound) is None


@given(keep=st.integers(0, len(safetensors()) - 1))
def test_weights_cut_anywhere_are_damaged(
    tmp_path_factory: pytest.TempPathFactory, keep: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "model.safetensors").write_bytes(safetensors()[:keep])

    assert weights_damage(folder) is not None


@given(content=st.binary(max_size=60))
def test_any_bytes_as_weights_are_judged_without_an_exception(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "model.safetensors").write_bytes(with_header(content))

    said = weights_damage(folder)

    assert said in {
        None,
        "model.safetensors is cut short",
        "model.safetensors has a broken header",
    }


# The newest sound one is resumed from, and damaged newer ones are out of the way.


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(
    tmp_path: Path, kind: str
) -> None:
    older, newest = sealed(tmp_path, 8), checkpoint(tmp_path, 12)
    damage, said = DAMAGES[kind]
    damage(newest)

    found, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert (found, notices) == (older, (f"checkpoint-12 set aside: {said}",))
    assert (tmp_path / "quarantine" / "checkpoint-12").is_dir()
    assert list_checkpoints(tmp_path) == (older,)


def test_the_newest_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    paths = [sealed(tmp_path, step) for step in (100, 9, 20)]

    assert newest_usable_checkpoint(tmp_path, CONFIG) == (paths[0], ())


def test_a_checkpoint_without_a_seal_is_used_and_called_unverified(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 8)

    found, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert found == path
    assert notices == ("checkpoint-8 has no manifest: whole by its structure, bytes unverified",)


def test_an_older_damaged_checkpoint_is_left_where_it_is(tmp_path: Path) -> None:
    older, newest = checkpoint(tmp_path, 8), sealed(tmp_path, 12)
    (older / "optimizer.pt").write_bytes(b"")

    assert newest_usable_checkpoint(tmp_path, CONFIG) == (newest, ())
    assert older.is_dir()


def test_an_older_checkpoint_whose_removal_was_cut_short_is_set_aside(tmp_path: Path) -> None:
    older, newest = sealed(tmp_path, 8), sealed(tmp_path, 12)
    (older / MANIFEST_FILE).unlink()
    (older / "optimizer.pt").unlink()

    found, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert (found, notices) == (newest, ("checkpoint-8 set aside: optimizer.pt is missing",))
    assert not older.exists()


def with_deepspeed(output: Path, step: int) -> Path:
    """Write the checkpoint of a DeepSpeed run, with the folder that has the optimizer's state."""
    path = checkpoint(output, step)
    folder = path / f"global_step{step}"
    folder.mkdir()
    (path / "optimizer.pt").rename(folder / "optim_states.pt")
    (path / "latest").write_text(folder.name)
    write_manifest(path)
    return path


def test_older_checkpoints_of_deepspeed_are_kept_though_their_folders_differ(
    tmp_path: Path,
) -> None:
    paths = [with_deepspeed(tmp_path, step) for step in (4, 8, 12)]

    assert newest_usable_checkpoint(tmp_path, CONFIG) == (paths[-1], ())
    assert list_checkpoints(tmp_path) == tuple(paths)


def test_an_older_checkpoint_of_deepspeed_without_its_folder_is_set_aside(tmp_path: Path) -> None:
    older, newest = (with_deepspeed(tmp_path, step) for step in (8, 12))
    shutil.rmtree(older / "global_step8")

    found, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert (found, notices) == (newest, ("checkpoint-8 set aside: global_step8 is missing",))


@pytest.mark.parametrize("step", [4, 99])
def test_checkpoints_of_another_run_are_set_aside_older_and_newer(
    tmp_path: Path, step: int
) -> None:
    own = sealed(tmp_path, 8)
    record = {CHECKPOINT_RECORD: {"config_sha256": "d" * 64}}
    state = {"global_step": step, "stateful_callbacks": record}
    (checkpoint(tmp_path, step) / "trainer_state.json").write_text(json.dumps(state))

    found, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert (found, notices) == (own, (f"checkpoint-{step} set aside: it is not of this run",))
    assert list_checkpoints(tmp_path) == (own,)


@pytest.mark.parametrize("state", ["{}", '{"stateful_callbacks": 3}', '{"stateful_callbacks": {}}'])
def test_a_checkpoint_that_does_not_say_whose_it_is_is_set_aside(
    tmp_path: Path, state: str
) -> None:
    (checkpoint(tmp_path, 8) / "trainer_state.json").write_text(state)

    assert newest_usable_checkpoint(tmp_path, CONFIG)[0] is None


def test_when_all_are_damaged_there_is_none_and_each_is_named(tmp_path: Path) -> None:
    gone("scheduler.pt")(checkpoint(tmp_path, 1))
    gone("optimizer.pt")(checkpoint(tmp_path, 2))

    found, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert found is None
    assert [notice.split()[0] for notice in notices] == ["checkpoint-2", "checkpoint-1"]


def test_a_second_damaged_checkpoint_of_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 3) / "optimizer.pt").unlink()
    newest_usable_checkpoint(tmp_path, CONFIG)
    (checkpoint(tmp_path, 3) / "scheduler.pt").unlink()

    _, notices = newest_usable_checkpoint(tmp_path, CONFIG)

    assert notices == ("checkpoint-3 set aside: scheduler.pt is missing or empty",)
    assert (tmp_path / "quarantine" / "checkpoint-3" / "optimizer.pt").is_file()


def test_an_output_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest_usable_checkpoint(tmp_path / "absent", CONFIG) == (None, ())


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-12", 12),
        ("checkpoint-", None),
        ("checkpoint-12-old", None),
        ("checkpoint-x", None),
        ("my-checkpoint-12", None),
        ("quarantine", None),
    ],
)
def test_the_step_of_a_checkpoint_is_read_from_its_name(name: str, step: int | None) -> None:
    assert checkpoint_step(Path(name)) == step
