"""The emulator's part of RunPod's REST v2: find, list and end pods, and follow their logs."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from podproof.launcher.emulator_faults import Operation
from podproof.launcher.emulator_http import Asked, Front
from podproof.launcher.emulator_pods import Caller, Desired, EmulatedPod


class Rest:
    """The REST endpoints, over the same pods as GraphQL's."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def routes(self) -> list[Route]:
        """Return the routes to serve; an operation is named as its route."""
        acts: dict[Operation, Callable[[Request, Caller], Response]] = {
            Operation.REST_LIST: self._list,
            Operation.REST_FIND: self._find,
            Operation.REST_TERMINATE: self._terminate,
            Operation.REST_LOGS: self._logs,
        }
        return [self._route(operation, act) for operation, act in acts.items()]

    def _route(self, operation: Operation, act: Callable[[Request, Caller], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            asked = Asked(operation, request.path_params, 0, partial(act, request))
            return await self._front.serve(request, asked)

        method, path = operation.value.split(" ")
        return Route(path, endpoint, methods=[method])

    def _list(self, _request: Request, caller: Caller) -> Response:
        if caller.pod_id is not None:
            return _problem(HTTPStatus.FORBIDDEN, "a pod's key cannot list pods")
        return JSONResponse({"pods": [_pod_json(pod) for pod in self._front.account.pods()]})

    def _find(self, request: Request, caller: Caller) -> Response:
        pod = self._own_pod(request, caller)
        return _not_found() if pod is None else JSONResponse(_pod_json(pod))

    def _terminate(self, request: Request, caller: Caller) -> Response:
        pod = self._own_pod(request, caller)
        if pod is None:
            return _not_found()
        self._front.account.terminate(pod)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _logs(self, request: Request, caller: Caller) -> Response:
        pod = self._own_pod(request, caller)
        if pod is None:
            return _not_found()
        tail = int(request.query_params.get("tail", "100"))
        return StreamingResponse(self._follow(pod, tail), media_type="text/event-stream")

    async def _follow(self, pod: EmulatedPod, tail: int) -> AsyncIterator[str]:
        """Yield the last `tail` lines, then each new one, until the pod is terminated."""
        lines = pod.log.lines()
        sent = max(0, len(lines) - tail)
        while self._front.account.find(pod.pod_id) and not self._front.is_closing.is_set():
            for line in lines[sent:]:
                event = {"ts": line.time, "source": line.source.value, "line": line.text}
                yield f"id: {line.time}\ndata: {json.dumps(event)}\n\n"
            sent = max(sent, len(lines))
            await self._front.wait()
            lines = await run_in_threadpool(pod.log.lines)

    def _own_pod(self, request: Request, caller: Caller) -> EmulatedPod | None:
        pod_id: str = request.path_params["pod_id"]
        is_foreign = caller.pod_id not in {None, pod_id}
        return None if is_foreign else self._front.account.find(pod_id)


def _pod_json(pod: EmulatedPod) -> dict[str, Any]:
    uptime_s = pod.uptime_s
    status = "EXITED" if pod.desired is Desired.EXITED else "STARTING"
    return {
        "id": pod.pod_id,
        "name": pod.order.name,
        "image": pod.order.image,
        "status": status if uptime_s is None else "RUNNING",
        "cost": pod.usd_per_h,
        "runtime": None if uptime_s is None else {"uptime": int(uptime_s)},
    }


def _not_found() -> Response:
    return _problem(HTTPStatus.NOT_FOUND, "pod not found")


def _problem(status: HTTPStatus, detail: str) -> Response:
    content = {"title": status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(content, status, media_type="application/problem+json")
