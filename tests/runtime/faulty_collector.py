"""A collector that fails as it is told, a clock that hurries, and a reporter between them."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from podproof.runtime.courier import ReportEndpoint
from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Reporter, ReporterBell, ReporterPace, ReportSource
from podproof.runtime.spool import SPOOL_LIMIT_BYTES

TOKEN = "one-token-per-run"  # noqa: S105 - the fake collector's only token
PLENTY_S = 20.0
# Longer than any wait for the collector, so that only those are waited for.
LOOK_S = 1000.0


class Fault(Enum):
    """What the fake collector does with one post."""

    ACCEPT = auto()
    SERVER_ERROR = auto()
    BAD_GATEWAY_PAGE = auto()
    LOGIN_PAGE = auto()
    NOT_FOUND = auto()
    TOO_MANY = auto()
    WRONG_TOKEN = auto()
    BAD_REQUEST_PAGE = auto()
    REDIRECT = auto()
    NEVER_ANSWER = auto()
    HALF_A_HEAD = auto()
    HALF_A_BODY = auto()
    DRIP = auto()
    HANG_UP = auto()
    KEEP_AND_HANG_UP = auto()
    KEEP_AND_HALF_A_BODY = auto()
    CANNOT_TAKE = auto()


# A refused token is asked again after a minute, which the end of a run does not wait for.
LASTING_FAULTS = {Fault.ACCEPT, Fault.WRONG_TOKEN, Fault.CANNOT_TAKE}
PASSING_FAULTS = [fault for fault in Fault if fault not in LASTING_FAULTS]

ANSWERS = {
    Fault.ACCEPT: (200, "application/json", b'{"accepted": 1}'),
    Fault.SERVER_ERROR: (500, "application/json", b'{"error": "boom"}'),
    Fault.BAD_GATEWAY_PAGE: (502, "text/html", b"<html>bad gateway</html>"),
    Fault.LOGIN_PAGE: (200, "text/html", b"<html>please log in</html>"),
    Fault.NOT_FOUND: (404, "text/plain", b"no such page"),
    Fault.TOO_MANY: (429, "text/plain", b"slow down"),
    Fault.WRONG_TOKEN: (401, "application/json", b'{"error": "wrong token"}'),
    Fault.BAD_REQUEST_PAGE: (400, "text/html", b"<html>bad request</html>"),
    Fault.REDIRECT: (302, "text/plain", b"elsewhere"),
    Fault.CANNOT_TAKE: (400, "application/json", b'{"error": "cannot take this event"}'),
}

# What is sent of an answer by those that stop in the middle of it, without hanging up.
HALVES = {
    Fault.NEVER_ANSWER: b"",
    Fault.HALF_A_HEAD: b"HTTP/1.1 200 OK\r\nContent-Len",
    Fault.HALF_A_BODY: b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"accepted"',
    Fault.KEEP_AND_HALF_A_BODY: b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"accepted"',
}
KEEPING_FAULTS = {Fault.ACCEPT, Fault.KEEP_AND_HANG_UP, Fault.KEEP_AND_HALF_A_BODY}


class FaultyCollector:
    """A collector on loopback that commits its faults in order, then accepts every post.

    It refuses with 400 any batch that holds the event id `poison`. `deliveries` has every event
    id it kept, duplicates too, in order of arrival; `events` has each once, as a store would.
    `retry_after` goes with every answer.
    """

    retry_after = "120"

    def __init__(self, faults: Sequence[Fault] = (), poison: str = "", port: int = 0) -> None:
        self.poison = poison
        self.deliveries: list[str] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.authorizations: list[str | None] = []
        self.posts = 0
        self._faults = list(faults)
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_until(self, condition: Callable[["FaultyCollector"], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), PLENTY_S)

    def take(self, authorization: str | None, body: dict[str, Any]) -> Fault:
        """Note the post, keep its events unless a fault forbids it, and return the fault."""
        with self._changed:
            self.posts += 1
            self.authorizations.append(authorization)
            fault = self._faults.pop(0) if self._faults else Fault.ACCEPT
            events = {event["event_id"]: event for event in body["events"]}
            if fault is Fault.ACCEPT and self.poison in events:
                fault = Fault.CANNOT_TAKE
            if fault in KEEPING_FAULTS:
                self.deliveries += events
                self.events |= events
            self._changed.notify_all()
            return fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = collector.take(self.headers["Authorization"], body)
                with suppress(OSError):  # the client may be gone
                    self._commit(fault)

            def _commit(self, fault: Fault) -> None:
                if fault in HALVES:
                    self.wfile.write(HALVES[fault])
                    self.connection.recv(1)  # returns when the client gives up
                elif fault is Fault.DRIP:
                    _drip(self)
                elif fault in ANSWERS:
                    self._answer(*ANSWERS[fault])

            def _answer(self, status: int, kind: str, text: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Retry-After", collector.retry_after)
                self.send_header("Location", f"{collector.url}/elsewhere")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        return Handler


def _drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a head that never ends, byte by byte, until the client hangs up."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while not select.select([handler.connection], [], [], 0.02)[0]:
        handler.wfile.write(b"a")


class HurriedTime:
    """Time that passes only while the reporter waits, and then at once.

    `waits_s` are the waits for the collector.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_s: list[float] = []
        self.all_waits_s: list[float] = []

    def monotonic_s(self) -> float:
        return self.now_s

    def wait(self, bell: ReporterBell, seconds: float | None) -> None:
        assert seconds is not None
        self.all_waits_s.append(seconds)
        if seconds < LOOK_S:
            self.waits_s.append(seconds)
        self.now_s += seconds
        bell.wait(0.001)

    def pace(
        self,
        *,
        batch_events: int = 200,
        waiting_limit: int = 10_000,
        file_bytes: int = SPOOL_LIMIT_BYTES,
    ) -> ReporterPace:
        return ReporterPace(
            look_s=LOOK_S,
            batch_events=batch_events,
            waiting_limit=waiting_limit,
            file_bytes=file_bytes,
            monotonic_s=self.monotonic_s,
            wait=self.wait,
        )


@contextmanager
def collecting(*faults: Fault, poison: str = "", port: int = 0) -> Iterator[FaultyCollector]:
    collector = FaultyCollector(faults, poison, port)
    try:
        yield collector
    finally:
        collector.stop()


@contextmanager
def reporting(
    output: Path, url: str | None = None, *, boot: int = 1, pace: ReporterPace | None = None
) -> Iterator[Reporter]:
    """Run a reporter whose requests give up soon; end its thread whatever happens."""
    endpoint = None if url is None else ReportEndpoint(url, TOKEN, timeout_s=0.1, total_s=0.2)
    reporter = Reporter(
        output,
        ReportSource("run-a", boot),
        endpoint=endpoint,
        clock=lambda: 1000.0,
        pace=pace or HurriedTime().pace(),
    )
    try:
        yield reporter
    finally:
        reporter.close(0.0)
        reporter._thread.join()


def train(reporter: Reporter, steps: Sequence[int]) -> None:
    for step in steps:
        reporter.report(EventKind.TRAIN_LOG, step=step, epoch=step / 100, body={"loss": 1.0})


def boot_and_die(output: Path, url: str, *, boot: int, turns: int, count: int) -> None:
    """Report `count` events and lose the thread, like a killed process, after so many turns."""
    time = HurriedTime()

    def wait_or_die(bell: ReporterBell, seconds: float | None) -> None:
        if len(time.all_waits_s) >= turns:
            raise SystemExit  # which ends a thread without a word
        time.wait(bell, seconds)

    pace = replace(time.pace(batch_events=2), wait=wait_or_die)
    endpoint = ReportEndpoint(url, TOKEN, timeout_s=0.1, total_s=0.2)
    reporter = Reporter(output, ReportSource("run-a", boot), endpoint=endpoint, pace=pace)
    for step in range(count):
        reporter.report(EventKind.EVALUATION, step=step, body={"eval_loss": 1.0})
    reporter._thread.join()


def written(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]


def ids(boot: int, count: int) -> list[str]:
    return [f"run-a-{boot}-{seq}" for seq in range(count)]


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
