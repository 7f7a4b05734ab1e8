"""The collector: takes the events that pods report, each run under its own token.

    POST /rpc/ingest_events   {"job_id": …, "events": […]}  ->  200 {"accepted": new events}
    GET  /healthz             ->  200 {"status": "ok"}

401 for a token that is not the job's (and for a job nobody registered, so that ids cannot be
probed), 400 for a body that cannot be read, 403 for events of another job, 413 for too large a
body, 503 when the store does not take events now. Each refusal is {"error": why}.
"""

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from podproof.monitor.errors import StoreUnavailable
from podproof.monitor.store import Store
from podproof.runtime.events import Event, event_from_dict, strict_json

# A reporter sends at most 256 KiB, or a single larger event.
MAX_BODY_BYTES = 4 * 1024 * 1024

# A client that is cut off while it is still sending never sees our answer, so a body over the
# limit is read to its end and thrown away, up to here.
_MAX_READ_BYTES = 16 * MAX_BODY_BYTES

# What the tables hold as the id of a job, and as an integer.
_MAX_ID_LENGTH = 200
_MAX_INTEGER = 2**31 - 1

# How long a request that is being answered may hold up the end of the server.
_GRACE_SECONDS = 2


class _Refused(Exception):
    """The request is refused with this HTTP status, for this reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def collector_app(store: Store) -> Starlette:
    """Return the collector over a store, as an ASGI application."""

    async def ingest_events(request: Request) -> JSONResponse:
        try:
            body = await _read_body(request)
            token = _bearer_token(request)
            accepted = await run_in_threadpool(_ingest, store, token, body)
        except _Refused as refused:
            return JSONResponse({"error": refused.reason}, refused.status)
        except StoreUnavailable:
            # The reasons name paths of this machine, which are none of the pod's business.
            return JSONResponse({"error": "try again later"}, 503, headers={"Retry-After": "5"})
        return JSONResponse({"accepted": accepted})

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/rpc/ingest_events", ingest_events, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
        ]
    )


@contextmanager
def serve(store: Store) -> Iterator[str]:
    """Run the collector on a free port of this machine, and give its URL while it runs."""
    import uvicorn

    config = uvicorn.Config(
        collector_app(store),
        log_config=None,  # the loggers of whoever uses us stay theirs
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # requests wait from here on
        thread = threading.Thread(
            target=server.run, args=([listener],), name="podproof-collector", daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        body += chunk if size <= MAX_BODY_BYTES else b""
        if size > _MAX_READ_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise _Refused(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _bearer_token(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _Refused(401, "send the job's token as Authorization: Bearer TOKEN")
    return token.strip()


def _ingest(store: Store, token: str, body: bytes) -> int:
    job_id, fields = _read_report(body)
    if not store.token_matches(job_id, token):
        raise _Refused(401, "this token may not report for this job")
    return store.ingest([_read_event(item, job_id, index) for index, item in enumerate(fields)])


def _read_report(body: bytes) -> tuple[str, list[Any]]:
    try:
        report = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is not strict JSON: {error}") from error
    if not isinstance(report, dict):
        raise _Refused(400, "the body must be an object with job_id and events")
    job_id, events = report.get("job_id"), report.get("events")
    is_id = isinstance(job_id, str) and job_id.isprintable() and len(job_id) <= _MAX_ID_LENGTH
    if not is_id or not job_id:
        raise _Refused(400, "job_id must be the id of a run")
    if not isinstance(events, list):
        raise _Refused(400, "events must be a list")
    return job_id, events


def _read_event(fields: Any, job_id: str, index: int) -> Event:
    where = f"events[{index}]"
    try:
        strict = strict_json(fields)
        if not isinstance(strict, dict):
            raise _Refused(400, f"{where} must be an object")
        event = event_from_dict(strict)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _Refused(400, f"{where}: {error}") from error
    if event.run_id != job_id:
        raise _Refused(403, f"{where} is of another job")
    if event.event_id != f"{event.run_id}-{event.boot}-{event.seq}":
        raise _Refused(400, f"{where}: event_id must be run_id-boot-seq")
    if not _is_storable(event):
        raise _Refused(400, f"{where}: boot, seq, step, epoch or time is out of range")
    return event


def _is_storable(event: Event) -> bool:
    whole = (event.boot, event.seq, event.step or 0)
    real = (event.time_unix_s, event.epoch or 0.0)
    return all(0 <= number <= _MAX_INTEGER for number in whole) and all(map(math.isfinite, real))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
