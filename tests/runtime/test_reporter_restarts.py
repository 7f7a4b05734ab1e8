import json
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given, settings, strategies as st
from tests.runtime.faulty_collector import (
    PASSING_FAULTS,
    PLENTY_S,
    Fault,
    HurriedTime,
    boot_and_die,
    closed_port,
    collecting,
    ids,
    reporting,
    train,
    written,
)

from podproof.runtime.events import EventKind, event_to_dict
from podproof.runtime.spool import spooled_event

# --- restarts


# The thread dies on purpose. `cut` bytes go from the end of the file, as a kill in
# the middle of a write leaves it; `is_ack_lost` takes the note of what was confirmed. Not shrunk:
# each example talks to a server, and shrinking would take minutes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    faults=st.lists(st.sampled_from([*PASSING_FAULTS, Fault.WRONG_TOKEN]), max_size=5),
    lives=st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(0, 300), st.booleans()),
        min_size=1,
        max_size=3,
    ),
)
def test_what_reached_the_file_arrives_in_order_whatever_was_killed_when(
    faults: list[Fault], lives: list[tuple[int, int, int, bool]]
) -> None:
    with TemporaryDirectory() as folder, collecting(*faults) as collector:
        output = Path(folder)
        for boot, (turns, count, cut, is_ack_lost) in enumerate(lives, start=1):
            boot_and_die(output, collector.url, boot=boot, turns=turns, count=count)
            tear(output, cut, is_ack_lost=is_ack_lost)
        survivors = [event["event_id"] for event in whole_lines(output)]
        with reporting(output, collector.url, boot=9) as reporter:
            collector.wait_until(lambda collector: set(survivors) <= set(collector.events))
            reporter.close(PLENTY_S)

        arrived = [event_id for event_id in collector.events if event_id in set(survivors)]
    assert arrived == survivors


def tear(output: Path, cut: int, *, is_ack_lost: bool) -> None:
    file = output / "events.jsonl"
    file.write_bytes(file.read_bytes()[: -cut or None])
    if is_ack_lost:
        (output / "events.ack").unlink(missing_ok=True)


def whole_lines(output: Path) -> list[dict[str, Any]]:
    events = map(spooled_event, (output / "events.jsonl").read_bytes().splitlines())
    return [event_to_dict(event) for event in events if event is not None]


def test_a_restart_sends_what_was_not_confirmed_and_nothing_else(tmp_path: Path) -> None:
    with collecting() as first, reporting(tmp_path, first.url) as reporter:
        train(reporter, range(3))
        reporter.close(PLENTY_S)
    with reporting(tmp_path, f"http://127.0.0.1:{closed_port()}", boot=2) as reporter:
        train(reporter, range(2))
        reporter.close(0.05)
    with collecting() as second, reporting(tmp_path, second.url, boot=3) as reporter:
        train(reporter, range(1))
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert second.deliveries == [*ids(2, 2), *ids(3, 1)]


def test_a_line_cut_short_by_a_kill_is_ended_and_skipped(tmp_path: Path) -> None:
    with reporting(tmp_path) as reporter:
        train(reporter, range(3))
        reporter.close(PLENTY_S)
    file = tmp_path / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-10])

    with collecting() as collector, reporting(tmp_path, collector.url, boot=2) as reporter:
        train(reporter, range(1))
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert collector.deliveries == [*ids(1, 2), *ids(2, 1)]
    assert json.loads(file.read_text().splitlines()[-1])["event_id"] == "run-a-2-0"


def test_a_process_killed_in_the_middle_loses_none_of_its_written_events(tmp_path: Path) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        from podproof.runtime.events import EventKind
        from podproof.runtime.reporter import Reporter, ReportSource
        output = Path(sys.argv[1])
        file = output / "events.jsonl"
        reporter = Reporter(output, ReportSource("run-a", 1))
        for step in range(10**9):
            reporter.report(EventKind.EVALUATION, step=step, body={"eval_loss": 1.0})
            if step % 1000 == 999 and file.exists() and file.stat().st_size:
                print("well on its way", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    lines = (tmp_path / "events.jsonl").read_bytes().count(b"\n")

    with collecting() as collector, reporting(tmp_path, collector.url, boot=2) as reporter:
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert lines > 0
    assert list(collector.events) == ids(1, lines)


# --- a disk that refuses


def test_a_full_disk_does_not_stop_delivery_and_the_file_is_written_later(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    with collecting() as collector, reporting(tmp_path, collector.url) as reporter:
        train(reporter, range(3))
        collector.wait_until(lambda collector: len(collector.events) == 3)
        (tmp_path / "events.jsonl").unlink()
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert reporter.counts.failed_writes >= 1
    assert [event["event_id"] for event in written(tmp_path)] == ids(1, 3)


def test_an_output_folder_that_cannot_be_made_is_no_error_for_training(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file where the folder should be")
    with collecting() as collector, reporting(tmp_path / "output", collector.url) as reporter:
        train(reporter, range(3))
        collector.wait_until(lambda collector: len(collector.events) == 3)
        reporter.close(0.0)

    assert collector.deliveries == ids(1, 3)


def test_without_a_collector_a_disk_that_refuses_means_not_delivered(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    with reporting(tmp_path) as reporter:
        train(reporter, [1])

        assert not reporter.close(0.05)


def test_only_train_logs_are_dropped_when_too_much_waits_and_a_notice_tells_how_many(
    tmp_path: Path,
) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    with reporting(tmp_path, pace=HurriedTime().pace(waiting_limit=3)) as reporter:
        train(reporter, range(10))
        reporter.report(EventKind.EVALUATION, step=10, body={"eval_loss": 1.0})
        (tmp_path / "events.jsonl").unlink()
        is_delivered = reporter.close(PLENTY_S)

    kinds = [event["kind"] for event in written(tmp_path)]
    assert is_delivered
    assert kinds == ["train_log", "train_log", "train_log", "evaluation", "notice"]
    assert written(tmp_path)[-1]["body"]["count"] == 7


# --- a file that grows


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(count=st.integers(100, 400), evaluate_every=st.integers(7, 50))
def test_however_long_nobody_listens_the_file_stays_short_and_every_lost_log_is_counted(
    count: int, evaluate_every: int
) -> None:
    steps = range(count)
    with (
        TemporaryDirectory() as folder,
        reporting(Path(folder), pace=HurriedTime().pace(file_bytes=20_000)) as reporter,
    ):
        evaluated = [step for step in steps if step % evaluate_every == 0]
        for step in steps:
            train(reporter, [step])
            reporter.report(EventKind.EVALUATION, step=step, body={}) if step in evaluated else None
        reporter.close(PLENTY_S)
        told = whole_lines(Path(folder))
        size = (Path(folder) / "events.jsonl").stat().st_size

    lost = count - sum(event["kind"] == "train_log" for event in told)
    assert [event["step"] for event in told if event["kind"] == "evaluation"] == evaluated
    assert sum(event["body"]["count"] for event in told if event["kind"] == "notice") == lost
    assert size <= 20_000 + 2 * 250 * (len(evaluated) + 5)
