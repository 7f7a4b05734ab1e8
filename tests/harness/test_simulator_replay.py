"""Every recorded stream against the simulator, event by event; and that it can tell a difference.

No recording is out of scope, so there is no table of exceptions. READ and INTERFERENCE have what
was taken from a stream beside its numbers; every other stream follows from its header alone.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podproof.harness.errors import BadStream
from podproof.harness.loss_window import LossWindow
from podproof.harness.recording import Recording, read_recording
from podproof.harness.schedule import schedule_of
from podproof.harness.stream_replay import Replayed, replay, replay_recording
from podproof.harness.trainer_loop import TrainerLoop
from podproof.harness.trainer_state import CheckpointFolder, TrainerState
from tests.harness.drawn_runs import Interferer, Recorder

FOLDER = Path(__file__).parents[1] / "streams"
STREAMS = sorted(path.name.partition(".jsonl")[0] for path in FOLDER.glob("*.jsonl.gz"))
# What the header leaves open.
READ: dict[str, tuple[str, ...]] = {
    **dict.fromkeys([name for name in STREAMS if ".rank" in name], ("2 processes",)),
    "sft_packing": ("22 batches an epoch", "2 batches of eval set ''"),
    "sft_packing_wrapped": ("9 batches an epoch",),
    "sft_two_evals": ("2 batches of eval set 'a'", "2 batches of eval set 'b'"),
}
# What somebody did whom the header does not name: callbacks, signals, a GPU out of memory.
INTERFERENCE: dict[str, tuple[str, ...]] = {
    "sft_auto_find_batch_size": (
        "training cut short after event 14 (on_step_begin, step 2)",
        "training cut short after event 28 (on_step_begin, step 2)",
    ),
    "sft_early_stopping": ("should_training_stop set by event 73 (on_save, step 9)",),
    "sft_sigterm_graceful": (
        "should_save set after event 36 (on_step_end, step 5)",
        "should_training_stop set after event 36 (on_step_end, step 5)",
    ),
    "sft_sigterm_jit_noload": (
        "should_training_stop set by event 82 (on_pre_optimizer_step, step 10)",
    ),
    "sft_stop_substep": ("should_training_stop set after event 33 (on_substep_end, step 4)",),
}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.jsonl.gz"


def tampered(tmp_path: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> Replayed:
    """Replay a recorded stream whose rows were changed."""
    text = gzip.decompress(path_of(name).read_bytes()).decode("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    change(rows)
    path = tmp_path / "tampered.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return replay_recording(path)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_predicted_event_by_event(name: str) -> None:
    replayed = replay_recording(path_of(name))

    assert replayed.differences == ()
    assert replayed.is_exact
    assert (replayed.read, replayed.interference) == (
        READ.get(name, ()),
        INTERFERENCE.get(name, ()),
    )


def test_the_index_names_every_stream() -> None:
    index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))

    assert {entry["file"].partition(".jsonl")[0] for entry in index} <= set(STREAMS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", 4),
        ("epoch", 0.5),
        ("state.best_metric", 1.0),
        ("state.best_global_step", 1),
        ("state.best_model_checkpoint", "checkpoint-1"),
        ("state.len_log_history", 7),
        ("ckpts", ["checkpoint-1"]),
    ],
)
def test_a_field_that_differs_is_named_with_its_event(
    tmp_path: Path, field: str, value: object
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["event"] == "on_save")
        *outer, name = field.split(".")
        (row[outer[0]] if outer else row)[name] = value

    replayed = tampered(tmp_path, "sft", change)

    assert replayed.differences[0].startswith("event 25 (on_save, step")
    assert not replayed.is_exact


@pytest.mark.parametrize("flag", ["stop", "epoch_stop", "save", "evaluate", "log"])
def test_a_flag_that_is_up_at_one_event_only_is_a_difference(tmp_path: Path, flag: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["event"] == "on_optimizer_step")["control"][flag] = True

    assert tampered(tmp_path, "sft", change).differences != ()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("logging_steps", 3),
        ("eval_steps", 2),
        ("save_steps", 6),
        ("num_train_epochs", 3),
        ("max_steps", 7),
        ("gradient_accumulation_steps", 1),
        ("per_device_train_batch_size", 2),
        ("per_device_eval_batch_size", 2),
        ("save_strategy", "no"),
        ("save_total_limit", 1),
        ("eval_on_start", True),
        ("eval_delay", 4),
        ("logging_first_step", True),
        ("greater_is_better", True),
        ("metric_for_best_model", "eval_absent"),
    ],
)
def test_another_argument_in_the_header_makes_another_stream(
    argument: str, value: object, tmp_path: Path
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["config"][argument] = value

    replayed = tampered(tmp_path, "sft", change)

    # A flag that is up unasked, or a metric nobody saw, may be a callback's doing, which is said.
    assert replayed.differences or replayed.interference


def test_arguments_that_change_no_event_change_nothing(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["config"] |= {"learning_rate": 1.0, "optim": "sgd", "neftune_noise_alpha": 5}

    assert tampered(tmp_path, "sft", change).is_exact


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deepspeed": "zero3.json"}, "deepspeed='zero3.json': its events were never recorded"),
        ({"fsdp": "full_shard"}, "fsdp='full_shard': its events were never recorded"),
        ({"beta": 0.1}, "beta: no arguments of SFTConfig"),
    ],
)
def test_arguments_out_of_scope_are_named(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    replayed = tampered(tmp_path, "sft", lambda rows: rows[0]["config"].update(change))

    assert (replayed.out_of_scope, replayed.replayed) == (reason, 0)
    assert not replayed.is_exact


def test_a_method_out_of_scope_is_named(tmp_path: Path) -> None:
    replayed = tampered(tmp_path, "sft", lambda rows: rows[0].update(method="grpo"))

    assert replayed.out_of_scope == "method 'grpo': only sft, dpo, orpo are known"


def test_a_stream_of_two_trainers_is_out_of_scope(tmp_path: Path) -> None:
    replayed = tampered(tmp_path, "sft", lambda rows: rows.insert(2, rows[1]))

    assert replayed.out_of_scope is not None


def test_a_stream_that_ends_early_although_all_went_well_is_a_difference() -> None:
    recording = read_recording(path_of("sft"))

    cut = replay(replace(recording, events=recording.events[:-1]))

    assert cut.differences == ("the recording ends, and the simulator goes on",)


def test_a_metric_that_a_callback_added_unseen_is_read_off_the_best(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["config"]["metric_for_best_model"] = "eval_score"

    replayed = tampered(tmp_path, "sft", change)

    assert replayed.is_exact
    assert len(replayed.interference) == 4


class Crash(Exception):
    """What a training is made to die of."""


class Crasher:
    """Raises at a step, once."""

    step: int | None = 3

    def on_step_end(self, _: object, state: TrainerState, *__: object, **___: object) -> None:
        if state.global_step == self.step:
            self.step = None
            raise Crash


class Numbers:
    """The numbers of some model."""

    def micro_loss(self, state: TrainerState) -> float | None:
        return 1.0

    def train_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        return {"loss": window.logged_loss}

    def eval_logs(self, eval_set: str, state: TrainerState) -> dict[str, Any]:
        return {"eval_runtime": 1.0, "eval_loss": 5.0 - state.global_step}

    def final_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        return {"train_loss": 1.0}


ARGUMENTS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 2,
    "logging_steps": 1,
    "load_best_model_at_end": True,
}


def recorded(
    script: Callable[[TrainerLoop], None], *others: object, **arguments: object
) -> Recording:
    """Return what a simulated trainer shows while a script uses it, as a recording of it."""
    told = {**ARGUMENTS, **arguments}
    folder = CheckpointFolder("/out")
    recorder = Recorder(lambda: folder.steps)
    schedule = schedule_of(told, rows=7, eval_rows=3)
    script(TrainerLoop(schedule, Numbers(), [recorder, *others], folder))
    return Recording(
        name="simulated",
        method="sft",
        arguments=told,
        rows=7,
        eval_rows=3,
        rank=0,
        events=tuple(recorder.events),
        outcome="ok",
        message="",
        history=(),
        checkpoints_at_end=folder.steps,
    )


def train_once(trainer: TrainerLoop) -> None:
    trainer.train()


def test_what_a_script_does_beside_training_is_replayed_too() -> None:
    def script(trainer: TrainerLoop) -> None:
        trainer.evaluate()
        trainer.train()
        trainer.evaluate()
        trainer.predict(3, {"test_loss": 1.0})
        trainer.push()

    replayed = replay(recorded(script))

    assert (replayed.differences, replayed.interference) == ((), ())
    assert replayed.is_exact


def test_a_trainer_that_fails_and_is_called_again_is_replayed() -> None:
    def script(trainer: TrainerLoop) -> None:
        with pytest.raises(Crash):
            trainer.train()
        trainer.train(replace(trainer.state, global_step=2, epoch=0.5))

    replayed = replay(recorded(script, Crasher()))

    assert replayed.differences == ()
    assert replayed.interference[0].startswith("training cut short after event")


@pytest.mark.parametrize(
    ("callback", "what"),
    [
        (
            Interferer("on_step_end", 1, "should_evaluate", value=False),
            "should_evaluate lowered after event 10 (on_step_end, step 2)",
        ),
        (
            Interferer("on_evaluate", 0, "should_save", value=False),
            "should_save lowered after event 14 (on_evaluate, step 2)",
        ),
        (
            Interferer("on_step_end", 0, "should_save"),
            "should_save set after event 6 (on_step_end, step 1)",
        ),
        (
            Interferer("on_evaluate", 0, "should_training_stop"),
            "should_training_stop set by event 15 (on_save, step 2)",
        ),
        (
            Interferer("on_step_begin", 0, "should_epoch_stop"),
            "should_epoch_stop set by event 4 (on_pre_optimizer_step, step 0)",
        ),
    ],
)
def test_what_a_callback_after_the_recorder_did_is_found_by_its_effect(
    callback: Interferer, what: str
) -> None:
    recording = recorded(train_once, callback, logging_steps=50)

    replayed = replay(recording)

    assert (replayed.differences, replayed.interference) == ((), (what,))


def test_pushes_to_the_hub_are_replayed_also_where_one_was_still_going_on() -> None:
    recording = recorded(train_once, push_to_hub=True)
    pushes = [at for at, event in enumerate(recording.events) if event.letter == "H"]
    without = [event for at, event in enumerate(recording.events) if at != pushes[1]]

    assert replay(recording).is_exact
    assert replay(replace(recording, events=tuple(without))).is_exact


def test_a_recorder_added_after_construction_has_not_seen_it() -> None:
    recording = recorded(train_once)

    replayed = replay(replace(recording, events=recording.events[1:]))

    assert replayed.interference == ("the recorder was added after on_init_end",)
    assert replayed.is_exact


def test_half_a_last_line_is_what_a_killed_process_leaves(tmp_path: Path) -> None:
    text = gzip.decompress(path_of("sft_sigkill").read_bytes()).decode("utf-8")
    path = tmp_path / "cut.jsonl"
    path.write_text(text[:-40], encoding="utf-8")

    assert replay_recording(path).is_exact


@pytest.mark.parametrize("text", ["", "{}\n", '{"event": "_header"}\n', "no json\n{}\n"])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(BadStream):
        replay_recording(path)
