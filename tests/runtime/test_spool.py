from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from podproof.runtime.events import Event, EventKind
from podproof.runtime.spool import (
    ACK_FILE,
    EVENTS_FILE,
    EventSpool,
    SpoolBatch,
    boots_so_far,
    spool_line,
)


def line(seq: int, *, run_id: str = "run-a", text: str = "") -> bytes:
    event_id = f"{run_id}-1-{seq}"
    body = {"what": text}
    return spool_line(Event(event_id, run_id, 1, seq, EventKind.NOTICE, 0.0, None, None, body))


def seqs(batch: SpoolBatch) -> list[int]:
    return [event["seq"] for event in batch.events]


@contextmanager
def opened(output: Path) -> Iterator[EventSpool]:
    with closing(EventSpool(output, "run-a")) as spool:
        spool.append([])
        yield spool


def test_a_batch_has_the_oldest_unconfirmed_events(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([line(seq) for seq in range(5)])
        spool.acknowledge(spool.next_batch(2))

        assert seqs(spool.next_batch(2)) == [2, 3]


def test_a_new_spool_starts_where_the_last_one_was_confirmed(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([line(seq) for seq in range(5)])
        spool.acknowledge(spool.next_batch(3))

    with opened(tmp_path) as spool:
        assert seqs(spool.next_batch(9)) == [3, 4]


@pytest.mark.parametrize("ack", ["", "seven", "-1", "5", "999999", "\x80"])
def test_a_confirmed_position_that_cannot_be_right_means_send_everything(
    tmp_path: Path, ack: str
) -> None:
    (tmp_path / EVENTS_FILE).write_bytes(line(0) + line(1))
    (tmp_path / ACK_FILE).write_text(ack, encoding="utf-8")

    with opened(tmp_path) as spool:
        assert seqs(spool.next_batch(9)) == [0, 1]


def test_lines_of_another_run_and_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    strange = [b'{"event_id": "x"}\n', b"\xff\xfe\n", b"\n", b"[]\n", line(0, run_id="run-b")]
    (tmp_path / EVENTS_FILE).write_bytes(b"".join([*strange, line(1)]))

    with opened(tmp_path) as spool:
        batch = spool.next_batch(9)
        spool.acknowledge(batch)

        assert (seqs(batch), spool.is_pending) == ([1], False)


def test_an_event_longer_than_one_read_is_still_read_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([line(0, text="x" * 700_000), line(1)])

        assert len(spool.next_batch(1).events[0]["body"]["what"]) == 700_000


def test_a_file_emptied_behind_our_back_is_sent_from_its_new_start(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([line(0), line(1)])
        spool.acknowledge(spool.next_batch(9))
        (tmp_path / EVENTS_FILE).write_bytes(b"")
        spool.append([line(2)])

        assert seqs(spool.next_batch(9)) == [2]


def test_events_only_in_memory_are_sent_from_there_and_not_twice(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    with opened(tmp_path) as spool:
        is_written = spool.append([line(seq) for seq in range(3)])
        first = spool.next_batch(2)
        spool.acknowledge(first)

        assert not is_written
        assert (seqs(first), seqs(spool.next_batch(9))) == ([0, 1], [2])


def test_a_batch_from_memory_confirmed_after_its_lines_reached_the_file_is_sent_again(
    tmp_path: Path,
) -> None:
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    with opened(tmp_path) as spool:
        spool.append([line(0)])
        batch = spool.next_batch(9)
        (tmp_path / EVENTS_FILE).unlink()
        spool.append([line(1)])
        spool.acknowledge(batch)

        assert seqs(spool.next_batch(9)) == [0, 1]


def test_a_position_that_cannot_be_saved_only_costs_a_second_delivery(tmp_path: Path) -> None:
    (tmp_path / ACK_FILE).mkdir()
    with opened(tmp_path) as spool:
        spool.append([line(0)])
        spool.acknowledge(spool.next_batch(9))

        assert (spool.is_pending, spool.failed_writes) == (False, 1)


def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.close()

        assert not spool.append([line(0)])


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_every_whole_event_and_takes_new_ones(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    output = tmp_path_factory.mktemp("cut")
    whole = [line(seq) for seq in range(3)]
    remains = b"".join(whole)[:cut]
    (output / EVENTS_FILE).write_bytes(remains)

    with opened(output) as spool:
        spool.append([line(3)])
        kept = seqs(spool.next_batch(9))

    # A line that only lacks its newline is whole.
    assert kept == [*range((remains + b"\n").count(b"}}\n")), 3]


def test_a_script_started_by_hand_counts_its_own_starts(tmp_path: Path) -> None:
    spool = EventSpool(tmp_path, "run")
    spool.append(
        [spool_line(Event("run-3-0", "run", 3, 0, EventKind.STARTED, 0.0, None, None, {}))]
    )
    spool.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"cut short')

    assert boots_so_far(tmp_path) == 3
    assert boots_so_far(tmp_path / "nowhere") == 0
