from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from podproof.runtime.events import Event, EventKind
from podproof.runtime.spool import (
    ACK_FILE,
    EVENTS_FILE,
    SPOOL_LIMIT_BYTES,
    EventSpool,
    SpoolBatch,
    boots_so_far,
    seqs_so_far,
    spool_line,
)


def line(
    seq: int, *, run_id: str = "run-a", text: str = "", kind: EventKind = EventKind.NOTICE
) -> bytes:
    event_id = f"{run_id}-1-{seq}"
    body = {"what": text}
    return spool_line(Event(event_id, run_id, 1, seq, kind, 0.0, None, None, body))


def log(seq: int) -> bytes:
    return line(seq, kind=EventKind.TRAIN_LOG)


def seqs(batch: SpoolBatch) -> list[int]:
    return [event["seq"] for event in batch.events]


@contextmanager
def opened(output: Path, *, limit_bytes: int = SPOOL_LIMIT_BYTES) -> Iterator[EventSpool]:
    with closing(EventSpool(output, "run-a", limit_bytes=limit_bytes)) as spool:
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


@pytest.mark.parametrize("ack", ["", "run-a-1-7", "run-a", "5", "\x80"])
def test_a_confirmed_event_that_is_not_there_means_send_everything(
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


def test_what_was_confirmed_from_memory_is_not_sent_again_from_the_file(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    with opened(tmp_path) as spool:
        spool.append([line(seq) for seq in range(3)])
        spool.acknowledge(spool.next_batch(2))
        (tmp_path / EVENTS_FILE).unlink()
        spool.append([line(3)])
        rest = seqs(spool.next_batch(9))

    with opened(tmp_path) as spool:
        assert rest == seqs(spool.next_batch(9)) == [2, 3]


def test_what_an_earlier_start_left_is_not_passed_over_by_what_was_sent_from_memory(
    tmp_path: Path,
) -> None:
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    with opened(tmp_path) as spool:
        spool.append([line(5)])
        spool.acknowledge(spool.next_batch(1))
        (tmp_path / EVENTS_FILE).unlink()
        (tmp_path / EVENTS_FILE).write_bytes(line(0))
        spool.append([line(6)])

        assert seqs(spool.next_batch(9)) == [0, 5, 6]


# A file that has become too long.


def test_a_file_within_its_limit_is_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([log(seq) for seq in range(50)])

        assert (spool.shrink(), len(seqs(spool.next_batch(99)))) == (0, 50)


def test_confirmed_train_logs_go_first_and_cost_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=45 * len(log(10))) as spool:
        spool.append([line(0), *[log(seq) for seq in range(1, 50)]])
        spool.acknowledge(spool.next_batch(40))

        dropped = spool.shrink()

        assert dropped == 0
        assert seqs(spool.next_batch(99)) == [*range(40, 50)]
    kept = (tmp_path / EVENTS_FILE).read_bytes()
    assert kept == b"".join([line(0), *[log(seq) for seq in range(39, 50)]])


def test_of_unconfirmed_train_logs_every_nth_is_kept_and_the_others_are_counted(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, limit_bytes=20 * len(log(10))) as spool:
        spool.append([log(seq) for seq in range(10, 40)] + [line(40)])

        dropped = spool.shrink()

        assert seqs(spool.next_batch(99)) == [*range(10, 40, 4), 40]
        assert dropped == 30 - 8


def test_other_events_stay_however_many_there_are(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=1000) as spool:
        spool.append([line(seq, kind=EventKind.EVALUATION) for seq in range(50)] + [log(50)])

        assert spool.shrink() == 0
        assert seqs(spool.next_batch(99)) == [*range(51)]


def test_what_was_confirmed_stays_confirmed_after_a_kill_in_the_middle_of_shrinking(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, limit_bytes=1000) as spool:
        spool.append([log(seq) for seq in range(50)])
        spool.acknowledge(spool.next_batch(30))
    (tmp_path / f"{EVENTS_FILE}.new").write_bytes(log(30)[:20])

    with opened(tmp_path, limit_bytes=1000) as spool:
        before = seqs(spool.next_batch(99))
        spool.shrink()
    with opened(tmp_path) as spool:
        after = seqs(spool.next_batch(99))

    assert before == [*range(30, 50)]
    assert after == before[::10]


def test_a_disk_too_full_to_shrink_the_file_keeps_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / f"{EVENTS_FILE}.new").symlink_to("/dev/full")
    with opened(tmp_path, limit_bytes=1000) as spool:
        spool.append([log(seq) for seq in range(50)])
        dropped = spool.shrink()

        assert (dropped, spool.failed_writes) == (0, 1)
        assert len(seqs(spool.next_batch(99))) == 50
    assert not (tmp_path / f"{EVENTS_FILE}.new").is_symlink()


@given(
    kinds=st.lists(st.sampled_from(EventKind), min_size=1, max_size=60),
    confirmed=st.integers(0, 60),
    limit_bytes=st.integers(0, 8000),
)
def test_shrinking_loses_nothing_but_train_logs_and_counts_the_unconfirmed(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[EventKind],
    confirmed: int,
    limit_bytes: int,
) -> None:
    output = tmp_path_factory.mktemp("shrink")
    with opened(output, limit_bytes=limit_bytes) as spool:
        spool.append([line(seq, kind=kind) for seq, kind in enumerate(kinds)])
        spool.acknowledge(spool.next_batch(confirmed))
        dropped = spool.shrink()
    with opened(output) as spool:
        left = seqs(spool.next_batch(99))

    unconfirmed = [*range(min(confirmed, len(kinds)), len(kinds))]
    lost = set(unconfirmed) - set(left)
    assert left == [seq for seq in unconfirmed if seq not in lost]
    assert {kinds[seq] for seq in lost} <= {EventKind.TRAIN_LOG}
    assert dropped == len(lost)
    other = sum(len(line(seq, kind=kind)) for seq, kind in enumerate(kinds) if kind != "train_log")
    assert (output / EVENTS_FILE).stat().st_size <= max(limit_bytes, other + 2 * len(log(10)))


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


def test_ranks_that_begin_anew_within_one_start_number_their_events_on(tmp_path: Path) -> None:
    spool = EventSpool(tmp_path, "run")
    last = Event("run-3-7", "run", 3, 7, EventKind.NOTICE, 0.0, None, None, {})
    spool.append([spool_line(last)])
    spool.close()

    assert seqs_so_far(tmp_path, boot=3) == 8
    assert seqs_so_far(tmp_path, boot=4) == seqs_so_far(tmp_path / "nowhere", boot=3) == 0
