"""What every request to the emulator passes: its key, the record of requests, the faults."""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from podproof.launcher.emulator_faults import Fault, FaultQueue, Operation
from podproof.launcher.emulator_pods import Account, Caller

# RunPod's own words, by which clients (ours too) tell this error from others.
NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)
_POLL_S = 0.05


@dataclass(frozen=True)
class Recorded:
    """One request as it came in; the values of `env` are blotted out unless they are wanted."""

    operation: str
    arguments: Mapping[str, Any] = field(repr=False)
    body_bytes: int
    caller: Caller | None


@dataclass(frozen=True)
class Asked:
    """What one request asks for; `operation` is None for one that cannot be made to fail."""

    operation: Operation | None
    arguments: Mapping[str, Any]
    body_bytes: int
    act: Callable[[Caller], Response]


class Front:
    """The emulator's front desk: it checks, records and spoils requests before they are served."""

    def __init__(self, account: Account, api_key: str, *, silence_s: float, records_env: bool):
        self.account = account
        self.faults = FaultQueue()
        # A long local run asks for its pod twice a second, for days.
        self.recorded: deque[Recorded] = deque(maxlen=10_000)
        self.parse_failures: deque[str] = deque(maxlen=10_000)
        self.is_closing = threading.Event()
        self._api_key = api_key
        self._silence_s = silence_s
        self._records_env = records_env

    async def serve(self, request: Request, asked: Asked) -> Response:
        """Answer a request, well or badly."""
        caller = self._caller(request)
        arguments = asked.arguments if self._records_env else _without_env(asked.arguments)
        name = asked.operation or "unknown"
        self.recorded.append(Recorded(name, arguments, asked.body_bytes, caller))
        fault = self.faults.take(asked.operation) if asked.operation else None
        if caller is None or fault is Fault.UNAUTHORIZED:
            return JSONResponse({"message": "Unauthorized"}, HTTPStatus.UNAUTHORIZED)
        refusal = _REFUSALS.get(fault) if fault else None
        if refusal is not None and asked.operation is not None:
            return refusal(asked.operation)
        return await self._spoil(fault, await run_in_threadpool(asked.act, caller))

    async def wait(self) -> None:
        """Let a moment pass between two looks at something that may change."""
        await asyncio.sleep(_POLL_S)

    def _caller(self, request: Request) -> Caller | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key if scheme.lower() == "bearer" else request.query_params.get("api_key", "")
        if key == self._api_key:
            return Caller(None)
        owners = (pod.pod_id for pod in self.account.pods() if pod.key == key)
        return next((Caller(pod_id) for pod_id in owners), None)

    async def _spoil(self, fault: Fault | None, response: Response) -> Response:
        """Fail to say what was done."""
        if fault is Fault.DONE_THEN_SILENCE:
            await self._keep_silent()
        if fault is Fault.DONE_THEN_CUT:
            return _CutResponse()
        if fault is Fault.DONE_THEN_ERROR:
            return JSONResponse({"message": "internal"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        if fault is Fault.DONE_THEN_ERRORS:
            content = json.loads(bytes(response.body))
            return JSONResponse({**content, "errors": [{"message": "Something went wrong."}]})
        return response

    async def _keep_silent(self) -> None:
        for _ in range(int(self._silence_s / _POLL_S)):
            if not self.is_closing.is_set():
                await self.wait()


def _no_capacity(operation: Operation) -> Response:
    error = {
        "message": NO_CAPACITY,
        "path": [operation.value],
        "extensions": {"code": "SUPPLY_CONSTRAINT"},
    }
    return JSONResponse({"errors": [error], "data": {operation.value: None}})


def _nothing_done(operation: Operation) -> Response:
    return JSONResponse({"data": {operation.value: None}})


def _empty_list(operation: Operation) -> Response:
    return JSONResponse({"data": {operation.value: {"pods": []}}, "pods": []})


def _rate_limited(_operation: Operation) -> Response:
    page = "<html><body>Too many requests</body></html>"
    return HTMLResponse(page, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "1"})


def _bad_gateway(_operation: Operation) -> Response:
    return HTMLResponse("<html><body>Bad gateway</body></html>", HTTPStatus.BAD_GATEWAY)


# The faults that keep an operation from being carried out, and how each is answered.
_REFUSALS: Mapping[Fault, Callable[[Operation], Response]] = {
    Fault.NO_CAPACITY: _no_capacity,
    Fault.NOTHING_DONE: _nothing_done,
    Fault.LIST_LAG: _empty_list,
    Fault.RATE_LIMITED: _rate_limited,
    Fault.BAD_GATEWAY: _bad_gateway,
}


def _without_env(value: Any) -> Any:
    """Return GraphQL arguments with the value of every environment variable left out."""
    if isinstance(value, list):
        return [_without_env(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"key", "value"}:
        return {"key": value["key"], "value": f"<{len(value['value'])} characters>"}
    return {key: _without_env(item) for key, item in value.items()}


class _CutResponse(Response):
    """An answer that announces more than it sends, after which the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and a first piece, and return as if that were all."""
        del scope, receive
        headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"data":', "more_body": True})
