"""Carry events to the collector: one POST a batch, and a judgement of the answer.

Only a collector's own words count as delivered. Everything a broken network, a proxy or a login
page can do means "try again"; only a refusal of the token or of the events means anything else.
"""

import email.utils
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from enum import Enum, auto
from typing import Any

from podproof.runtime.errors import BadPlan, Problem

# More than a collector ever answers, less than a page that a captive portal may send.
_COURIER_REPLY_BYTES = 64 * 1024


@dataclass(frozen=True)
class ReportEndpoint:
    """Where events go; `timeout_s` is the longest silence of the other side in one request.

    The collector wants a token; a sink of the user's own may do without.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0

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


class EventCourier:
    """Carries events to one collector; holds no connection between two posts."""

    def __init__(self, endpoint: ReportEndpoint, clock: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._address = endpoint.url.rstrip("/") + "/rpc/ingest_events"
        handlers: list[urllib.request.BaseHandler] = [_CourierStaysPut()]
        if urllib.parse.urlsplit(endpoint.url).hostname in {"127.0.0.1", "localhost", "::1"}:
            handlers.append(urllib.request.ProxyHandler({}))  # no proxy can reach our own machine
        self._opener = urllib.request.build_opener(*handlers)

    def post(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> CourierReply:
        """Send the events once and judge the answer; never raise for what the network does."""
        try:
            with self._opener.open(
                self._request(run_id, events), timeout=self._endpoint.timeout_s
            ) as response:
                return _courier_reply_to_success(response)
        except urllib.error.HTTPError as error:
            with error:
                return self._reply_to_error(error.code, error.headers)
        except (OSError, http.client.HTTPException, ValueError):
            return CourierReply(CourierOutcome.TRY_AGAIN)

    def _request(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> urllib.request.Request:
        body = json.dumps({"job_id": run_id, "events": list(events)}, allow_nan=False)
        headers = {"Content-Type": "application/json"}
        if self._endpoint.token:
            headers["Authorization"] = f"Bearer {self._endpoint.token}"
        return urllib.request.Request(  # noqa: S310 - ReportEndpoint lets only http(s) through
            self._address, data=body.encode("ascii"), headers=headers, method="POST"
        )

    def _reply_to_error(self, status: int, headers: Message) -> CourierReply:
        match status:
            case 401 | 403:
                return CourierReply(CourierOutcome.TOKEN_REFUSED, status)
            case 400 | 413 | 422:
                return CourierReply(CourierOutcome.EVENTS_REFUSED, status)
            case 429 | 503:
                wait_s = courier_retry_after_s(headers.get("Retry-After", ""), self._clock())
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


def _courier_reply_to_success(response: http.client.HTTPResponse) -> CourierReply:
    """Believe only a collector's own words: a login page with status 200 accepted nothing."""
    reply = json.loads(response.read(_COURIER_REPLY_BYTES))
    is_collector = isinstance(reply, dict) and isinstance(reply.get("accepted"), int)
    outcome = CourierOutcome.ACCEPTED if is_collector else CourierOutcome.TRY_AGAIN
    return CourierReply(outcome, response.status)
