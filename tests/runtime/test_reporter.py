import signal
import socket
import threading
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, given, settings, strategies as st
from tests.runtime.faulty_collector import (
    PASSING_FAULTS,
    PLENTY_S,
    TOKEN,
    Fault,
    HurriedTime,
    closed_port,
    collecting,
    ids,
    reporting,
    train,
    written,
)

from podproof.runtime.events import EventKind
from podproof.runtime.reporter import ReporterBell

# --- the file


def test_every_event_becomes_one_line_numbered_from_zero(tmp_path: Path) -> None:
    with reporting(tmp_path) as reporter:
        reporter.report(EventKind.STARTED, body={"device": "cpu"})
        reporter.report(EventKind.TRAIN_LOG, step=5, epoch=0.5, body={"loss": 2.0})
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert [event["event_id"] for event in written(tmp_path)] == ids(1, 2)
    assert written(tmp_path)[1] == {
        "event_id": "run-a-1-1",
        "run_id": "run-a",
        "boot": 1,
        "seq": 1,
        "kind": "train_log",
        "time_unix_s": 1000.0,
        "step": 5,
        "epoch": 0.5,
        "body": {"loss": 2.0},
    }


def test_a_nan_is_written_as_strict_json(tmp_path: Path) -> None:
    with reporting(tmp_path) as reporter:
        reporter.report(EventKind.EVALUATION, step=1, body={"eval_loss": float("nan")})
        reporter.close(PLENTY_S)

    assert '"eval_loss": "NaN"' in (tmp_path / "events.jsonl").read_text()


def test_a_body_that_cannot_be_written_does_not_lose_its_event(tmp_path: Path) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

    with reporting(tmp_path) as reporter:
        reporter.report(EventKind.DONE, step=9, body={"final_step": Unprintable()})
        reporter.close(PLENTY_S)

    assert written(tmp_path)[0]["kind"] == "done"
    assert written(tmp_path)[0]["body"] == {"unwritable_body": "RuntimeError"}


def test_a_body_changed_after_its_report_is_written_as_it_was(tmp_path: Path) -> None:
    logs = {"loss": 1.0}
    with reporting(tmp_path) as reporter:
        reporter.report(EventKind.TRAIN_LOG, step=1, body=logs)
        logs["loss"] = 2.0
        reporter.close(PLENTY_S)

    assert written(tmp_path)[0]["body"] == {"loss": 1.0}


def test_events_of_many_threads_are_all_written_in_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    with reporting(tmp_path) as reporter:
        threads = [threading.Thread(target=train, args=(reporter, range(100))) for _ in range(4)]
        deque(map(threading.Thread.start, threads), maxlen=0)
        deque(map(threading.Thread.join, threads), maxlen=0)
        reporter.close(PLENTY_S)

    assert [event["event_id"] for event in written(tmp_path)] == ids(1, 400)


def test_an_event_after_close_is_counted_as_dropped(tmp_path: Path) -> None:
    with reporting(tmp_path) as reporter:
        reporter.close(PLENTY_S)
        reporter.report(EventKind.DONE, body={})

        assert reporter.counts.dropped_events == 1


# --- delivery


def test_events_are_delivered_under_the_runs_token(tmp_path: Path) -> None:
    with collecting() as collector, reporting(tmp_path, collector.url) as reporter:
        train(reporter, range(3))
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert collector.deliveries == ids(1, 3)
    assert set(collector.authorizations) == {f"Bearer {TOKEN}"}
    assert [collector.events[event["event_id"]] for event in written(tmp_path)] == written(tmp_path)


def test_a_long_backlog_is_delivered_in_several_posts(tmp_path: Path) -> None:
    pace = HurriedTime().pace(batch_events=10)
    with collecting() as collector, reporting(tmp_path, collector.url, pace=pace) as reporter:
        train(reporter, range(95))
        reporter.close(PLENTY_S)

    assert collector.deliveries == ids(1, 95)
    assert collector.posts >= 10


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_every_event_arrives_once_the_fault_has_passed(tmp_path: Path, fault: Fault) -> None:
    with collecting(fault, fault) as collector, reporting(tmp_path, collector.url) as reporter:
        train(reporter, range(3))
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert list(collector.events) == ids(1, 3)


def test_events_reported_while_the_collector_was_down_arrive_when_it_is_back(
    tmp_path: Path,
) -> None:
    port = closed_port()
    with reporting(tmp_path, f"http://127.0.0.1:{port}") as reporter:
        train(reporter, range(3))
        with collecting(port=port) as collector:
            is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert list(collector.events) == ids(1, 3)


def test_close_gives_up_on_a_dead_collector_and_says_so(tmp_path: Path) -> None:
    with reporting(tmp_path, f"http://127.0.0.1:{closed_port()}") as reporter:
        train(reporter, range(3))
        is_delivered = reporter.close(0.05)

    assert not is_delivered
    assert len(written(tmp_path)) == 3


def test_close_writes_the_file_while_a_request_hangs(tmp_path: Path) -> None:
    with (
        collecting(*[Fault.NEVER_ANSWER] * 9) as collector,
        reporting(tmp_path, collector.url) as reporter,
    ):
        train(reporter, [1])
        collector.wait_until(lambda collector: collector.posts >= 1)
        train(reporter, range(2, 50))
        is_delivered = reporter.close(0.0)
        lines = len(written(tmp_path))

    assert not is_delivered
    assert lines == 49


def test_the_wait_after_each_failure_doubles_up_to_a_minute(tmp_path: Path) -> None:
    time = HurriedTime()
    with (
        collecting(*[Fault.SERVER_ERROR] * 9) as collector,
        reporting(tmp_path, collector.url, pace=time.pace()) as reporter,
    ):
        train(reporter, [1])
        collector.wait_until(lambda collector: bool(collector.events))
        reporter.close(PLENTY_S)

    assert [wait for wait in time.waits_s if wait >= 1.0][:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    time = HurriedTime()
    with (
        collecting(Fault.TOO_MANY) as collector,
        reporting(tmp_path, collector.url, pace=time.pace()) as reporter,
    ):
        train(reporter, [1])
        collector.wait_until(lambda collector: bool(collector.events))
        reporter.close(PLENTY_S)

    assert max(time.waits_s) == 120.0


def test_a_retry_after_that_is_a_date_is_obeyed_up_to_ten_minutes(tmp_path: Path) -> None:
    time = HurriedTime()
    with (
        collecting(Fault.TOO_MANY) as collector,
        reporting(tmp_path, collector.url, pace=time.pace()) as reporter,
    ):
        collector.retry_after = "Thu, 01 Jan 1970 23:00:00 GMT"
        train(reporter, [1])
        collector.wait_until(lambda collector: bool(collector.events))
        reporter.close(PLENTY_S)

    assert max(time.waits_s) == 600.0


def test_a_refused_token_is_tried_again_every_minute_with_one_notice(tmp_path: Path) -> None:
    time = HurriedTime()
    with (
        collecting(Fault.WRONG_TOKEN, Fault.WRONG_TOKEN) as collector,
        reporting(tmp_path, collector.url, pace=time.pace()) as reporter,
    ):
        train(reporter, [1])
        collector.wait_until(lambda collector: len(collector.events) == 2)
        is_delivered = reporter.close(PLENTY_S)

    notices = [event["body"]["what"] for event in written(tmp_path) if event["kind"] == "notice"]
    assert is_delivered
    assert [wait for wait in time.waits_s if wait >= 60.0] == [60.0, 60.0]
    assert notices == ["the collector refuses our token (HTTP 401); it is asked again"]


def test_the_end_of_a_run_asks_once_more_and_does_not_wait_for_a_refused_token(
    tmp_path: Path,
) -> None:
    with (
        collecting(*[Fault.WRONG_TOKEN] * 99) as collector,
        reporting(tmp_path, collector.url) as reporter,
    ):
        train(reporter, [1])
        is_delivered = reporter.close(PLENTY_S)

        assert not is_delivered
        assert collector.posts <= 2
    assert [event["step"] for event in written(tmp_path)] == [1, None]


def test_an_event_the_collector_cannot_take_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with (
        collecting(poison="run-a-1-5") as collector,
        reporting(tmp_path, collector.url) as reporter,
    ):
        train(reporter, range(12))
        is_delivered = reporter.close(PLENTY_S)

    assert not is_delivered
    assert set(ids(1, 12)) - set(collector.events) == {"run-a-1-5"}
    assert reporter.counts.refused_events == 1
    assert written(tmp_path)[-1]["body"]["what"].endswith("(HTTP 400), first run-a-1-5")


def test_a_redirect_is_not_followed_with_our_token(tmp_path: Path) -> None:
    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{stranger.getsockname()[1]}/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with (
        socket.create_server(("127.0.0.1", 0)) as stranger,
        ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with reporting(tmp_path, f"http://127.0.0.1:{server.server_address[1]}") as reporter:
            train(reporter, [1])
            is_delivered = reporter.close(0.2)
        server.shutdown()
        thread.join()
        stranger.setblocking(False)

        assert not is_delivered
        with pytest.raises(BlockingIOError):  # nobody has come
            stranger.accept()


# Not shrunk: each example talks to a server, and shrinking would take minutes.
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    faults=st.lists(st.sampled_from(PASSING_FAULTS), max_size=6),
    count=st.integers(1, 30),
    batch_events=st.integers(1, 9),
)
def test_every_event_is_there_exactly_once_whatever_the_faults(
    faults: list[Fault], count: int, batch_events: int
) -> None:
    pace = HurriedTime().pace(batch_events=batch_events)
    with (
        TemporaryDirectory() as folder,
        collecting(*faults) as collector,
        reporting(Path(folder), collector.url, pace=pace) as reporter,
    ):
        train(reporter, range(count))
        is_delivered = reporter.close(PLENTY_S)

    assert is_delivered
    assert list(collector.events) == ids(1, count)


# --- signals


def interrupted_rings(bell: ReporterBell, times: int) -> int:
    """Ring without a pause and be taken away from it, so many times; return how many it were."""

    def take_away(*_: object) -> None:
        raise KeyboardInterrupt

    interrupts = 0
    before = signal.signal(signal.SIGALRM, take_away)
    while interrupts < times:
        with suppress(KeyboardInterrupt):
            interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 20e-6)
            while True:
                bell.ring()
    signal.signal(signal.SIGALRM, before)
    return interrupts


@pytest.mark.timeout(20, method="thread")
def test_a_bell_can_be_rung_again_after_a_signal_took_somebody_away_from_it() -> None:
    bell = ReporterBell()

    assert interrupted_rings(bell, 2000) == 2000

    bell.wait(None)
