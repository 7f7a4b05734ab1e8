"""Checkpoints: the damaged are seen and set aside, the chosen one is delivered byte for byte."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from podproof.runtime.checkpoints import (
    checkpoint_damage,
    checkpoint_step,
    chosen_checkpoint,
    deliver,
    file_sha256,
    list_checkpoints,
    newest_usable_checkpoint,
    weights_damage,
)
from podproof.runtime.errors import NoUsableCheckpoint

TRAINING_STATE = {
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
}
USER_FILES = {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}

Damage = Callable[[Path], object]


def safetensors(values: bytes = b"\x01\x02\x03\x04" * 8) -> bytes:
    """Return a file with one tensor of these bytes."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": "F32", "shape": [8], "data_offsets": [0, len(values)]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + values


def with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def saved_by_torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"state " * 50)


def checkpoint(output: Path, step: int) -> Path:
    """Write a sound checkpoint with the files a trainer leaves there."""
    path = output / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(safetensors(bytes([step]) * 32))
    for name in ("config.json", "tokenizer.json"):
        (path / name).write_text('{"a": "\\u00e9"}\n')
    (path / "chat_template.jinja").write_text("{{ messages }}\r\n")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        saved_by_torch(path / name)
    return path


def cut(name: str, keep: int) -> Damage:
    """Return the damage of a file of which only the first bytes were written."""
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:keep])


def gone(name: str) -> Damage:
    return lambda path: (path / name).unlink()


def holds(name: str, content: bytes) -> Damage:
    return lambda path: (path / name).write_bytes(content)


INDEX = "model.safetensors.index.json"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "optimizer missing": (gone("optimizer.pt"), "optimizer.pt is missing or empty"),
    "optimizer empty": (holds("optimizer.pt", b""), "optimizer.pt is missing or empty"),
    "optimizer cut": (cut("optimizer.pt", 100), "optimizer.pt is cut short"),
    "scheduler missing": (gone("scheduler.pt"), "scheduler.pt is missing or empty"),
    "scheduler cut": (cut("scheduler.pt", 300), "scheduler.pt is cut short"),
    "random state cut": (cut("rng_state.pth", 50), "rng_state.pth is cut short"),
    "state missing": (gone("trainer_state.json"), "trainer_state.json is missing or empty"),
    "state empty": (holds("trainer_state.json", b""), "trainer_state.json is missing or empty"),
    "state cut": (cut("trainer_state.json", 9), "trainer_state.json is broken"),
    "state no object": (holds("trainer_state.json", b"[]"), "trainer_state.json is broken"),
    "state no text": (holds("trainer_state.json", b"\xff{}"), "trainer_state.json is broken"),
    "weights missing": (gone("model.safetensors"), "no weights"),
    "weights empty": (holds("model.safetensors", b""), "model.safetensors is cut short"),
    "weights one byte short": (
        holds("model.safetensors", safetensors()[:-1]),
        "model.safetensors is cut short",
    ),
    "weights one byte long": (
        holds("model.safetensors", safetensors() + b"\0"),
        "model.safetensors is cut short",
    ),
    "weights zeroed": (
        holds("model.safetensors", b"\0" * 200),
        "model.safetensors has a broken header",
    ),
    "header no object": (
        holds("model.safetensors", with_header(b"[1]")),
        "model.safetensors has a broken header",
    ),
    "header without places": (
        holds("model.safetensors", with_header(b'{"w": 3}')),
        "model.safetensors has a broken header",
    ),
    "header with odd places": (
        holds("model.safetensors", with_header(b'{"w": {"data_offsets": ["a", null]}}')),
        "model.safetensors has a broken header",
    ),
    "part missing": (
        holds(INDEX, b'{"weight_map": {"w": "model-00002.safetensors"}}'),
        "model-00002.safetensors is missing",
    ),
    "index broken": (holds(INDEX, b'{"weight_map": '), f"{INDEX} is broken"),
    "index without map": (holds(INDEX, b"{}"), f"{INDEX} is broken"),
}


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
    older, newest = checkpoint(tmp_path, 8), checkpoint(tmp_path, 12)
    damage, said = DAMAGES[kind]
    damage(newest)

    found, notices = newest_usable_checkpoint(tmp_path)

    assert (found, notices) == (older, (f"checkpoint-12 set aside: {said}",))
    assert (tmp_path / "quarantine" / "checkpoint-12").is_dir()
    assert list_checkpoints(tmp_path) == (older,)


def test_the_newest_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path, step) for step in (100, 9, 20)]

    assert newest_usable_checkpoint(tmp_path) == (paths[0], ())


def test_an_older_damaged_checkpoint_is_left_where_it_is(tmp_path: Path) -> None:
    older, newest = checkpoint(tmp_path, 8), checkpoint(tmp_path, 12)
    (older / "optimizer.pt").unlink()

    assert newest_usable_checkpoint(tmp_path) == (newest, ())
    assert older.is_dir()


def test_when_all_are_damaged_there_is_none_and_each_is_named(tmp_path: Path) -> None:
    gone("scheduler.pt")(checkpoint(tmp_path, 1))
    gone("optimizer.pt")(checkpoint(tmp_path, 2))

    found, notices = newest_usable_checkpoint(tmp_path)

    assert found is None
    assert [notice.split()[0] for notice in notices] == ["checkpoint-2", "checkpoint-1"]


def test_a_second_damaged_checkpoint_of_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 3) / "optimizer.pt").unlink()
    newest_usable_checkpoint(tmp_path)
    (checkpoint(tmp_path, 3) / "scheduler.pt").unlink()

    _, notices = newest_usable_checkpoint(tmp_path)

    assert notices == ("checkpoint-3 set aside: scheduler.pt is missing or empty",)
    assert (tmp_path / "quarantine" / "checkpoint-3" / "optimizer.pt").is_file()


def test_an_output_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest_usable_checkpoint(tmp_path / "absent") == (None, ())


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


# The chosen one.


def test_the_checkpoint_of_the_best_step_is_chosen(tmp_path: Path) -> None:
    best = checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 8)

    assert chosen_checkpoint(tmp_path, 4) == best


def test_without_a_best_step_the_last_checkpoint_is_chosen(tmp_path: Path) -> None:
    checkpoint(tmp_path, 4)
    last = checkpoint(tmp_path, 20)

    assert chosen_checkpoint(tmp_path, None) == last


@pytest.mark.parametrize("step", [5, None])
def test_a_checkpoint_that_is_not_there_is_refused_with_its_place(
    tmp_path: Path, step: int | None
) -> None:
    with pytest.raises(NoUsableCheckpoint) as refused:
        chosen_checkpoint(tmp_path, step)

    assert refused.value.problems[0].where.startswith(str(tmp_path))


# Delivery.


def test_what_is_delivered_is_the_checkpoint_byte_for_byte_without_training_state(
    sound: Path,
) -> None:
    destination = sound.parent / "delivered"

    digests = deliver(sound, destination)

    delivered = {path.name: path.read_bytes() for path in destination.iterdir()}
    assert delivered == {name: (sound / name).read_bytes() for name in USER_FILES}
    assert digests == {name: file_sha256(sound / name) for name in USER_FILES}
    assert {path.name for path in sound.iterdir()} == USER_FILES | TRAINING_STATE


@pytest.mark.parametrize(
    "name", ["rng_state_1.pth", "scaler.pt", "optimizer.bin", "trainer_state.json"]
)
def test_no_file_of_the_training_state_is_delivered(sound: Path, name: str) -> None:
    (sound / name).write_bytes(b"x")

    assert name not in deliver(sound, sound.parent / "delivered")


def test_a_delivery_replaces_the_one_before_whole(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (first / "extra.json").write_text("{}")
    deliver(first, tmp_path / "delivered")

    deliver(second, tmp_path / "delivered")

    names = {path.name for path in (tmp_path / "delivered").iterdir()}
    assert names == USER_FILES
    assert file_sha256(tmp_path / "delivered" / "model.safetensors") == file_sha256(
        second / "model.safetensors"
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-1",
        "checkpoint-2",
        "delivered",
    }


def test_a_delivery_cut_off_by_a_kill_does_not_hinder_the_next(sound: Path) -> None:
    output = sound.parent
    (output / "delivered.unfinished").mkdir()
    (output / "delivered.unfinished" / "model.safetensors").write_bytes(b"half")
    (output / "delivered.former").mkdir()

    deliver(sound, output / "delivered")

    assert {path.name for path in output.iterdir()} == {"checkpoint-7", "delivered"}


def test_damaged_weights_are_not_delivered_and_what_was_delivered_stays(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    deliver(first, tmp_path / "delivered")
    cut("model.safetensors", 40)(second)

    with pytest.raises(NoUsableCheckpoint) as refused:
        deliver(second, tmp_path / "delivered")

    assert "cut short" in refused.value.problems[0].what
    assert file_sha256(tmp_path / "delivered" / "model.safetensors") == file_sha256(
        first / "model.safetensors"
    )


def test_a_disk_that_refuses_leaves_no_destination(tmp_path: Path) -> None:
    # The place where the copy is made is taken by a file, which no folder can replace.
    source = checkpoint(tmp_path, 1)
    (tmp_path / "delivered.unfinished").write_text("in the way")

    with pytest.raises(OSError, match="File exists"):
        deliver(source, tmp_path / "delivered")

    assert not (tmp_path / "delivered").exists()
