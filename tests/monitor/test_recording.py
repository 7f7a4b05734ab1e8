"""Records of runs: each kind is known by its content, and what is none of them is refused."""

import gzip
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from podproof.monitor.errors import BadHistory, UnknownRun
from podproof.monitor.history import Columns, History
from podproof.monitor.recording import find_histories, read_path, stored_history
from podproof.monitor.store import Store
from podproof.runtime.errors import Problem
from podproof.runtime.events import Event, EventKind, event_to_line

STREAMS = Path(__file__).parents[1] / "streams"
LOG = [{"loss": 3.0, "step": 5}, {"eval_loss": 2.5, "step": 10}]
EVENTS = (
    Event("r-1-0", "r", 1, 0, EventKind.TRAIN_LOG, 0.0, 5, 0.5, {"loss": 3.0}),
    Event("r-1-1", "r", 1, 1, EventKind.EVALUATION, 0.0, 10, 1.0, {"eval_loss": 2.5}),
)


def state_in(folder: Path, log: Any = LOG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"best_metric": None, "log_history": log}, indent=2))
    return path


def events_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.jsonl"
    path.write_text("".join(f"{event_to_line(event)}\n" for event in EVENTS))
    return path


def stream_of(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def losses(path: Path) -> list[float]:
    (history,) = read_path(path, Columns())
    return [entry.get("loss", entry.get("eval_loss")) for entry in history.log]


def refusal(path: Path) -> str:
    with pytest.raises(BadHistory) as refused:
        read_path(path, Columns())
    return str(refused.value)


def unknown(run: str) -> NoReturn:
    raise UnknownRun(Problem(run, "is not in the store", "did you mean run-a?"))


# What can be read.


def test_a_trainer_state_is_read(tmp_path: Path) -> None:
    assert losses(state_in(tmp_path)) == [3.0, 2.5]


def test_a_trainer_state_with_the_nan_that_a_trainer_writes_is_read(tmp_path: Path) -> None:
    path = state_in(tmp_path, [{"eval_loss": float("nan"), "step": 1}, *LOG])

    assert len(losses(path)) == 3


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    renamed = tmp_path / "curves.csv"
    renamed.write_bytes(gzip.compress(state_in(tmp_path).read_bytes()))

    assert losses(renamed) == [3.0, 2.5]


def test_of_a_folder_of_checkpoints_the_newest_is_read(tmp_path: Path) -> None:
    state_in(tmp_path / "checkpoint-9", LOG[1:])
    state_in(tmp_path / "checkpoint-10")
    state_in(tmp_path / "checkpoint-best", [])

    assert losses(tmp_path) == [3.0, 2.5]


def test_the_folder_of_a_run_without_checkpoints_is_read_by_its_events(tmp_path: Path) -> None:
    events_in(tmp_path / "output")

    assert losses(tmp_path) == [3.0, 2.5]


def test_the_events_of_a_run_are_read_and_give_it_its_name(tmp_path: Path) -> None:
    (history,) = read_path(events_in(tmp_path), Columns())

    assert history.name == "r"
    assert [entry["step"] for entry in history.log] == [5, 10]


def test_a_line_cut_short_at_the_end_is_left_out_and_said(tmp_path: Path) -> None:
    path = events_in(tmp_path)
    path.write_text(path.read_text() + '{"event_id": "r-1-2", "ru')

    (history,) = read_path(path, Columns())

    assert history.notes == ("its last line was cut short and is left out",)
    assert len(history.log) == 2


def is_read(path: Path) -> bool:
    """Tell whether a recording ended in order and has evaluations to score."""
    return path.name.partition(".")[0] not in {"sft_no_eval", "sft_sigkill"}


@pytest.mark.parametrize(
    "path", [*filter(is_read, sorted(STREAMS.glob("*.jsonl.gz")))], ids=lambda path: path.name
)
def test_every_recorded_stream_is_read(path: Path) -> None:
    (history,) = read_path(path, Columns())

    footer = json.loads(gzip.decompress(path.read_bytes()).splitlines()[-1])
    logged = {entry["step"] for entry in footer["log_history"] if "train_loss" not in entry}
    assert {entry["step"] for entry in history.log} == logged


def test_the_log_of_a_killed_recording_is_put_together_from_its_events(tmp_path: Path) -> None:
    path = stream_of(
        tmp_path / "killed.jsonl",
        {"event": "_header", "scenario": "killed"},
        {"event": "on_train_begin", "step": 10, "state": {"len_log_history": 2}},
        {"event": "on_log", "step": 15, "epoch": 1.5, "logs": {"loss": 2.0}},
        {"event": "on_log", "step": 20, "epoch": 2.0, "logs": {"eval_loss": 1.5}},
    )

    (history,) = read_path(path, Columns())

    assert [entry["step"] for entry in history.log] == [15, 20]
    assert history.notes[1] == "the 2 log entries before its resume are not in the recording"


def test_a_run_of_the_store_is_read_by_its_id(store: Store) -> None:
    store.ingest(EVENTS)

    history = stored_history(store, "r", Columns())

    assert [entry["step"] for entry in history.log] == [5, 10]


def test_a_run_the_store_does_not_know_is_unknown(store: Store) -> None:
    with pytest.raises(UnknownRun):
        stored_history(store, "nobody", Columns())


def test_a_name_that_is_no_file_is_looked_up_in_the_store(tmp_path: Path) -> None:
    stored = History("run-a", "run run-a", tuple(LOG), {})

    found = find_histories([str(state_in(tmp_path)), "run-a"], Columns(), lambda _run: stored)

    assert found[1] is stored
    assert len(found) == 2


def test_runs_that_would_be_called_alike_are_called_by_their_paths(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    paths = [str(state_in(folder / "checkpoint-10")) for folder in folders]

    found = find_histories([str(folder) for folder in folders], Columns(), unknown)

    assert [history.name for history in found] == paths


# What cannot.


def test_everything_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("{}")

    with pytest.raises(BadHistory) as refused:
        find_histories(["nowhere", str(empty), str(tmp_path)], Columns(), unknown)

    assert [problem.where for problem in refused.value.problems] == [
        "nowhere",
        str(empty),
        str(tmp_path),
    ]
    assert "did you mean run-a?" in str(refused.value)


def test_a_name_too_long_for_a_file_is_an_unknown_run() -> None:
    with pytest.raises(BadHistory, match="no such file or folder, and no such run"):
        find_histories(["x" * 5000], Columns(), unknown)


def test_a_trainer_state_cut_short_is_refused_with_the_place_of_the_cut(tmp_path: Path) -> None:
    path = state_in(tmp_path)
    path.write_text(path.read_text()[:60])

    assert "is JSON that was cut short or damaged" in refusal(path)
    assert "earlier checkpoint" in refusal(path)


def test_a_compressed_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl.gz"
    path.write_bytes((STREAMS / "sft.jsonl.gz").read_bytes()[:2000])

    assert "cannot be read" in refusal(path)


def test_a_broken_line_in_the_middle_is_refused_by_its_number(tmp_path: Path) -> None:
    path = events_in(tmp_path)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second[:40]}\n{second}\n")

    assert f"{path}:2: not JSON" in refusal(path)


def test_a_line_that_is_no_object_is_refused_by_its_number(tmp_path: Path) -> None:
    path = events_in(tmp_path)
    path.write_text(f"{path.read_text()}3\n{path.read_text()}")

    assert f"{path}:3: must be an object, got int" in refusal(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it lacks step, eval_loss"),
        (b"a,b\n1,2\n", "it lacks step, eval_loss"),
        (b"{}", "neither a trainer's state nor events"),
        (b'{"log_history": 3}', "neither a trainer's state nor events"),
        (b'{"log_history": [3]}', "a log entry is an object"),
        (b'{"event_id": 3, "kind": "plan"}', "event field 'event_id'"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not text"),
        (b'{"a":' * 100_000, "cut short or damaged"),
    ],
)
def test_what_is_no_record_of_a_run_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)

    assert what in refusal(path)
