"""Read a pod's log over RunPod's REST v2: a stream of server-sent events that does not end."""

import json
import time
from collections.abc import Iterator
from http import HTTPStatus

import httpx

from podproof.launcher.client import LogLine, LogSource
from podproof.launcher.errors import AuthenticationFailed, ProviderUnavailable
from podproof.runtime.errors import Problem

TAIL_LINES = 1_000
_CONNECT_S = 10.0
# A pod that prints without a pause must not hold us for ever.
_LONGEST_READ_S = 10.0
_DATA = "data:"


def read_pod_logs(
    url: str, api_key: str, *, window_s: float, uses_proxy: bool
) -> tuple[LogLine, ...]:
    """Return the last lines, oldest first; the log counts as read after `window_s` of silence.

    A pod that is unknown has no log. Raises AuthenticationFailed and ProviderUnavailable.
    """
    timeout = httpx.Timeout(_CONNECT_S, read=window_s)
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=uses_proxy) as client,
            client.stream("GET", url, headers=headers, params={"tail": TAIL_LINES}) as response,
        ):
            return tuple(_log_lines(response)) if _has_log(response.status_code) else ()
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        failure = _unavailable(type(error).__name__)
    # Outside the `except`: httpx's exception holds the request, and that the key.
    raise failure


def _has_log(status: int) -> bool:
    if status == HTTPStatus.UNAUTHORIZED:
        problem = Problem("RUNPOD_API_KEY", "RunPod refuses this API key", "set another key")
        raise AuthenticationFailed(problem)
    if status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
        raise _unavailable(f"HTTP {status}")
    return status == HTTPStatus.OK


def _log_lines(response: httpx.Response) -> Iterator[LogLine]:
    """Yield what comes, until nothing has come for the read timeout."""
    end_monotonic_s = time.monotonic() + _LONGEST_READ_S
    try:
        for line in response.iter_lines():
            if line.startswith(_DATA):
                event = json.loads(line.removeprefix(_DATA))
                yield LogLine(str(event["ts"]), LogSource(event["source"]), str(event["line"]))
            if time.monotonic() > end_monotonic_s:
                return
    except httpx.ReadTimeout:
        # The lines of the past come at once; silence means that the rest is still to be printed.
        return


def _unavailable(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(Problem("runpod", f"no usable log ({what})", "try again"))
