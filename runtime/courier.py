"""Carry events to the collector: one POST a batch, and a judgement of the answer.

Only a collector's own words count, for a delivery as for a refusal. Everything a broken network, a
proxy or a login page can do means "try again".
"""

import email.utils
import http.client
import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from podproof.runtime.errors import BadPlan, Problem

# More than a collector ever answers, less than a page that a captive portal may send.
_COURIER_REPLY_BYTES = 64 * 1024


@dataclass(frozen=True)
class ReportEndpoint:
    """Where events go.

    In one request the other side may be silent for `timeout_s`, and take `total_s` in all: one
    that sends a byte now and then would otherwise keep us for days. The collector wants a token;
    a sink of the user's own may do without.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    total_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse, before any training, what no request could ever carry; never show the token."""
        problems = []
        if not _courier_can_reach(self.url):
            problems.append(
                Problem(
                    "PODPROOF_REPORT_URL",
                    f"must be an http or https address, got {self.url!r}",
                    "give the collector's address, or unset it to write the file only",
                )
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            problems.append(
                Problem(
                    "PODPROOF_REPORT_TOKEN", "must be one line of printable ASCII", "launch again"
                )
            )
        if problems:
            raise BadPlan(*problems)


def _courier_can_reach(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port beyond 65535
        return False


class CourierOutcome(Enum):
    """What became of a post."""

    ACCEPTED = auto()
    TRY_AGAIN = auto()
    TOKEN_REFUSED = auto()
    EVENTS_REFUSED = auto()


@dataclass(frozen=True)
class CourierReply:
    """The outcome, with the server's HTTP status (0: none) and the seconds it asks us to wait."""

    outcome: CourierOutcome
    status: int = 0
    retry_after_s: float | None = None


class _CourierStaysPut(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: a post would become a GET, and the token would go to a stranger."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse, so that the redirect counts as an error of the server."""


class _CourierDoor(urllib.request.AbstractHTTPHandler):
    """Open connections, and remember the last one's socket, so that it can be cut."""

    handler_order = 400  # before urllib's own
    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self) -> None:
        super().__init__()
        self.socket: socket.socket | None = None

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an http address."""
        return self.do_open(self._remembering(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an https address."""
        return self.do_open(self._remembering(http.client.HTTPSConnection), request)

    @contextmanager
    def cut_after(self, seconds: float) -> Iterator[None]:
        """Cut, after so long, what is opened inside `with`; whoever reads from it sees its end."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        with suppress(OSError):  # it may be closed by now
            if self.socket is not None:
                self.socket.shutdown(socket.SHUT_RDWR)

    def _remembering(self, kind: type[http.client.HTTPConnection]) -> Any:
        door = self

        class Remembering(kind):  # type: ignore[misc, valid-type]  # http or https, by the address
            def connect(self) -> None:
                super().connect()
                door.socket = self.sock

        return Remembering


class EventCourier:
    """Carries events to one collector; holds no connection between two posts."""

    def __init__(self, endpoint: ReportEndpoint, clock: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._address = endpoint.url.rstrip("/") + "/rpc/ingest_events"
        self._door = _CourierDoor()
        handlers: list[urllib.request.BaseHandler] = [self._door, _CourierStaysPut()]
        if urllib.parse.urlsplit(endpoint.url).hostname in {"127.0.0.1", "localhost", "::1"}:
            handlers.append(urllib.request.ProxyHandler({}))  # no proxy can reach our own machine
        self._opener = urllib.request.build_opener(*handlers)

    def post(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> CourierReply:
        """Send the events once and judge the answer; never raise for what the network does."""
        request = self._request(run_id, events)
        try:
            with self._door.cut_after(self._endpoint.total_s):
                return self._judge(request)
        except (OSError, http.client.HTTPException, ValueError):
            return CourierReply(CourierOutcome.TRY_AGAIN)

    def _judge(self, request: urllib.request.Request) -> CourierReply:
        try:
            with self._opener.open(request, timeout=self._endpoint.timeout_s) as response:
                is_taken = isinstance(_courier_words(response).get("accepted"), int)
                outcome = CourierOutcome.ACCEPTED if is_taken else CourierOutcome.TRY_AGAIN
                return CourierReply(outcome, response.status)
        except urllib.error.HTTPError as error:
            with error:
                return self._reply_to_error(error)

    def _request(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> urllib.request.Request:
        body = json.dumps({"job_id": run_id, "events": list(events)}, allow_nan=False)
        headers = {"Content-Type": "application/json"}
        if self._endpoint.token:
            headers["Authorization"] = f"Bearer {self._endpoint.token}"
        return urllib.request.Request(  # noqa: S310 - ReportEndpoint lets only http(s) through
            self._address, data=body.encode("ascii"), headers=headers, method="POST"
        )

    def _reply_to_error(self, error: urllib.error.HTTPError) -> CourierReply:
        status = error.code
        match status:
            case 401 | 403:
                return CourierReply(CourierOutcome.TOKEN_REFUSED, status)
            case 413:  # by whomever: the batch can be halved
                return CourierReply(CourierOutcome.EVENTS_REFUSED, status)
            case 400 | 422 if _courier_words(error):
                return CourierReply(CourierOutcome.EVENTS_REFUSED, status)
            case 429 | 503:
                header = error.headers.get("Retry-After", "")
                wait_s = courier_retry_after_s(header, self._clock())
                return CourierReply(CourierOutcome.TRY_AGAIN, status, wait_s)
            case _:  # 404 and redirects too: a collector behind a proxy may not be up yet
                return CourierReply(CourierOutcome.TRY_AGAIN, status)


def courier_retry_after_s(header: str, now_unix_s: float) -> float | None:
    """Return the wait a Retry-After header asks for, in seconds; None when it says nothing.

    >>> courier_retry_after_s("120", 0.0), courier_retry_after_s("soon", 0.0)
    (120.0, None)
    >>> courier_retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 20.0)
    40.0
    """
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now_unix_s)
    except (ValueError, OverflowError):
        return None


def _courier_words(response: Any) -> dict[str, Any]:
    """Return the JSON object that a collector answers with; nothing for a page of somebody else."""
    try:
        words = json.loads(response.read(_COURIER_REPLY_BYTES))
    except ValueError:
        return {}
    return words if isinstance(words, dict) else {}
