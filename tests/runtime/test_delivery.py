"""Delivery: byte for byte, whole or not at all, and done once for a run that is started again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.checkpoint_files import TRAINING_STATE, USER_FILES, checkpoint, cut
from tests.runtime.test_main import PLAN

from podproof.runtime.checkpoints import file_sha256, write_manifest
from podproof.runtime.delivery import (
    DeliveryRecord,
    TrainingEnding,
    deliver,
    deliver_best,
    former_delivery,
    report_delivery,
)
from podproof.runtime.errors import NoUsableCheckpoint
from podproof.runtime.events import EventKind
from podproof.runtime.model_card import TrainingFacts
from podproof.runtime.plan import PublishPlan, PublishTo, RecoveryPlan, Resume
from podproof.runtime.scorer import SCORE_KEY

CARD = "# a card\n"
DELIVERED = {*USER_FILES, "README.md"}
FACTS = TrainingFacts(
    log_history=(
        {"step": 4, "eval_loss": 1.0, SCORE_KEY: -1.0},
        {"step": 6, "eval_loss": 2.0, SCORE_KEY: -2.0},
    ),
    final_step=6,
    best_step=4,
    train_rows=6,
    eval_rows=2,
    versions={"torch": "2.13.0"},
)
DONE = TrainingEnding(EventKind.DONE, None, 1.0)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "output", 7)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the output of a run whose checkpoints 4 and 6 are on disk."""
    checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 6)
    return tmp_path


def delivered(output: Path, **publish: Any) -> DeliveryRecord:
    plan = replace(PLAN, publish=PublishPlan(**publish))
    return deliver_best(plan, output, FACTS, DONE, print)


# The folder.


def test_what_is_delivered_is_the_checkpoint_byte_for_byte_without_training_state(
    sound: Path,
) -> None:
    destination = sound.parent / "delivered"

    digests = deliver(sound, destination, CARD)

    there = {path.name: path.read_bytes() for path in destination.iterdir()}
    wanted = {name: (sound / name).read_bytes() for name in USER_FILES}
    assert there == {**wanted, "README.md": CARD.encode()}
    assert digests == {name: file_sha256(destination / name) for name in DELIVERED}
    assert {path.name for path in sound.iterdir()} == USER_FILES | TRAINING_STATE


@pytest.mark.parametrize(
    "name",
    [
        "rng_state_1.pth",
        "scaler.pt",
        "optimizer.bin",
        "trainer_state.json",
        "podproof.json",
        "latest",
    ],
)
def test_no_file_of_the_training_state_is_delivered(sound: Path, name: str) -> None:
    (sound / name).write_bytes(b"x")

    assert name not in deliver(sound, sound.parent / "delivered", CARD)


def test_a_delivery_replaces_the_one_before_whole(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (first / "extra.json").write_text("{}")
    deliver(first, tmp_path / "delivered", CARD)

    deliver(second, tmp_path / "delivered", CARD)

    names = {path.name for path in (tmp_path / "delivered").iterdir()}
    assert names == DELIVERED
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

    deliver(sound, output / "delivered", CARD)

    assert {path.name for path in output.iterdir()} == {"checkpoint-7", "delivered"}


def test_damaged_weights_are_not_delivered_and_what_was_delivered_stays(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    deliver(first, tmp_path / "delivered", CARD)
    cut("model.safetensors", 40)(second)

    with pytest.raises(NoUsableCheckpoint) as refused:
        deliver(second, tmp_path / "delivered", CARD)

    assert "cut short" in refused.value.problems[0].what
    assert file_sha256(tmp_path / "delivered" / "model.safetensors") == file_sha256(
        first / "model.safetensors"
    )


def test_a_disk_that_refuses_leaves_no_destination(tmp_path: Path) -> None:
    # The place where the copy is made is taken by a file, which no folder can replace.
    source = checkpoint(tmp_path, 1)
    (tmp_path / "delivered.unfinished").write_text("in the way")

    with pytest.raises(OSError, match="File exists"):
        deliver(source, tmp_path / "delivered", CARD)

    assert not (tmp_path / "delivered").exists()


def test_the_card_of_a_library_gives_way_to_ours(sound: Path) -> None:
    (sound / "README.md").write_text("# Model Card for Model ID [More Information Needed]\n")

    deliver(sound, sound.parent / "delivered", CARD)

    assert (sound.parent / "delivered" / "README.md").read_text() == CARD


# The choice.


def test_the_best_checkpoint_is_delivered_and_written_down(output: Path) -> None:
    record = delivered(output)

    folder = output / "delivered"
    assert (record.step, record.best_step, record.final_step) == (4, 4, 6)
    assert record.path == str(folder)
    assert record.sha256 == {name: file_sha256(folder / name) for name in DELIVERED}
    assert record.checkpoint == str(output / "checkpoint-4")
    assert "| 4 | 1 | 1 | 1 | 0 | **chosen** |" in (folder / "README.md").read_text()


def test_the_next_best_is_delivered_in_place_of_a_damaged_one_and_its_card_says_so(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut("model.safetensors", 40)(output / "checkpoint-4")

    record = delivered(output)

    card = (output / "delivered" / "README.md").read_text()
    assert (record.step, record.best_step) == (6, 4)
    assert "the weights of step 6 of 6, since those of step 4 were damaged" in card
    assert "checkpoint-4 passed over" in capsys.readouterr().out


def test_what_was_sealed_otherwise_is_not_delivered(output: Path) -> None:
    write_manifest(output / "checkpoint-4")
    weights = output / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    assert delivered(output).step == 6


def test_with_publish_none_the_weights_stay_in_their_checkpoint(output: Path) -> None:
    record = delivered(output, to=PublishTo.NONE)

    assert (record.path, record.sha256) == (None, {})
    assert record.checkpoint == str(output / "checkpoint-4")
    assert not (output / "delivered").exists()


def test_a_run_whose_evaluations_were_all_unusable_delivers_nothing(output: Path) -> None:
    with pytest.raises(NoUsableCheckpoint, match="no evaluation had a usable loss"):
        deliver_best(PLAN, output, replace(FACTS, best_step=None), DONE, print)


def test_the_event_names_the_step_of_the_weights(output: Path) -> None:
    told: list[Any] = []

    record = delivered(output)
    report_delivery(record, lambda kind, **rest: told.append((kind, rest)))

    body = {"path": str(output / "delivered"), "step": 4, "sha256": record.sha256}
    assert told == [(EventKind.DELIVERED, {"step": 4, "body": body})]


# Another start.


def test_a_later_start_finds_what_was_delivered(output: Path) -> None:
    record = delivered(output)

    assert former_delivery(PLAN, output) == record


def test_a_later_start_finds_the_checkpoint_that_was_to_stay(output: Path) -> None:
    record = delivered(output, to=PublishTo.NONE)

    assert former_delivery(PLAN, output) == record


def without_a_file(output: Path) -> None:
    (output / "delivered" / "config.json").unlink()


def with_another_file(output: Path) -> None:
    (output / "delivered" / "adapter_model.safetensors").write_bytes(b"?")


def with_a_changed_byte(output: Path) -> None:
    weights = output / "delivered" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


def without_the_folder(output: Path) -> None:
    (output / "delivered").rename(output / "elsewhere")


def without_the_record(output: Path) -> None:
    (output / "delivery.json").unlink()


def with_half_a_record(output: Path) -> None:
    (output / "delivery.json").write_bytes((output / "delivery.json").read_bytes()[:99])


def with_a_record_of_another_shape(output: Path) -> None:
    (output / "delivery.json").write_text(json.dumps({"config_sha256": PLAN.config_sha256}))


def with_a_record_that_is_no_object(output: Path) -> None:
    (output / "delivery.json").write_text("[]")


@pytest.mark.parametrize(
    "spoil",
    [
        without_a_file,
        with_another_file,
        with_a_changed_byte,
        without_the_folder,
        without_the_record,
        with_half_a_record,
        with_a_record_of_another_shape,
        with_a_record_that_is_no_object,
    ],
)
def test_a_delivery_that_is_not_all_there_is_made_again(
    output: Path, spoil: Callable[[Path], None]
) -> None:
    first = delivered(output)
    spoil(output)

    assert former_delivery(PLAN, output) is None
    assert delivered(output) == first == former_delivery(PLAN, output)


def test_the_delivery_of_another_config_is_not_this_runs(output: Path) -> None:
    delivered(output)

    assert former_delivery(replace(PLAN, config_sha256="d" * 64), output) is None


def test_a_run_that_never_resumes_trains_again(output: Path) -> None:
    delivered(output)

    never = replace(PLAN, recovery=RecoveryPlan(resume=Resume.NEVER))
    assert former_delivery(never, output) is None


def test_a_run_that_ran_out_of_time_goes_on_when_there_is_more(output: Path) -> None:
    ending = TrainingEnding(EventKind.OUT_OF_TIME, "no time left", 1.0)
    deliver_best(PLAN, output, FACTS, ending, print)

    assert former_delivery(PLAN, output) is None
