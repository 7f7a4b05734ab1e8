"""A collector that fails as it is told, a clock that hurries, and a reporter between them."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from podproof.runtime.courier import ReportEndpoint
from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Reporter, ReporterPace, ReportSource

TOKEN = "one-token-per-run"  # noqa: S105 - the fake collector's only token
PLENTY_S = 20.0


class Fault(Enum):
    """What the fake collector does with one post."""

    ACCEPT = auto()
    SERVER_ERROR = auto()
    BAD_GATEWAY_PAGE = auto()
    LOGIN_PAGE = auto()
    NOT_FOUND = auto()
    TOO_MANY = auto()
    WRONG_TOKEN = auto()
    NEVER_ANSWER = auto()
    HANG_UP = auto()
    KEEP_AND_HANG_UP = auto()
    CANNOT_TAKE = auto()


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
    Fault.CANNOT_TAKE: (400, "text/plain", b"cannot take this event"),
}


class FaultyCollector:
    """A collector on loopback that commits its faults in order, then accepts every post.

    It refuses with 400 any batch that holds the event id `poison`. `deliveries` has every event
    id it kept, duplicates too, in order of arrival; `events` has each once, as a store would.
    """

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
            if fault in {Fault.ACCEPT, Fault.KEEP_AND_HANG_UP}:
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
                if fault is Fault.NEVER_ANSWER:
                    self.connection.recv(1)  # returns when the client gives up
                if fault in ANSWERS:
                    status, kind, text = ANSWERS[fault]
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Retry-After", "120")
                    self.end_headers()
                    self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        return Handler


class HurriedTime:
    """Time that passes only while the reporter waits, and then at once."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_s: list[float] = []

    def monotonic_s(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        if seconds is None:
            return event.wait()
        self.waits_s.append(seconds)
        self.now_s += seconds
        return event.wait(0.001)

    def pace(self, *, batch_events: int = 200, waiting_limit: int = 10_000) -> ReporterPace:
        return ReporterPace(
            batch_events=batch_events,
            waiting_limit=waiting_limit,
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
    """Run a reporter whose requests give up after 0.1 s; end its thread whatever happens."""
    endpoint = None if url is None else ReportEndpoint(url, TOKEN, timeout_s=0.1)
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


def written(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]


def ids(boot: int, count: int) -> list[str]:
    return [f"run-a-{boot}-{seq}" for seq in range(count)]


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
