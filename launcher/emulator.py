"""RunPod's API on this machine's loopback, with processes for containers.

    with Emulator(root, api_key=key, image_env={"PATH": path}) as emulator:
        emulator.url                # for RUNPOD_API_BASE_URL
        emulator.log_path(pod_id)   # what the pod printed, also after its end
        emulator.fail_next(Operation.DEPLOY_GPU, Fault.NO_CAPACITY)

It keeps RunPod's measured habits, the bad ones above all: a container whose command exits is
restarted for ever, nothing is idempotent, and a terminated pod is simply unknown.
"""

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from podproof.launcher.emulator_faults import Fault, Operation
from podproof.launcher.emulator_graphql import GraphQL
from podproof.launcher.emulator_http import Front, Recorded
from podproof.launcher.emulator_pods import Account, Machine
from podproof.launcher.emulator_rest import Rest

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Habits:
    """How the emulator behaves; times in seconds.

    A container told to stop has `grace_s`; one that ended starts again after `pause_s`, doubling.
    With `mask_errors` a query that cannot be parsed is answered as RunPod answers it, without the
    reason. `silence_s` is how long a Fault.DONE_THEN_SILENCE lasts: longer than the SDK waits.
    """

    grace_s: float = 10.0
    pause_s: float = 0.1
    mask_errors: bool = True
    records_env: bool = False
    silence_s: float = 33.0
    network_volumes: tuple[str, ...] = ("local-volume",)


class Emulator:
    """The emulated account and its API, from `with` to the end of `with`; nothing outlives it.

    Pods, logs and volumes lie below `root`: `logs/` and `volumes/` stay, for the next emulator.
    Containers see `image_env`, then their own environment; a `{{ RUNPOD_SECRET_name }}` in it is
    replaced from `secrets`.
    """

    def __init__(
        self,
        root: Path,
        *,
        api_key: str,
        image_env: Mapping[str, str],
        secrets: Mapping[str, str] | None = None,
        habits: Habits = Habits(),
    ) -> None:
        machine = Machine(
            root=root.absolute(),
            image_env=image_env,
            secrets=secrets or {},
            grace_s=habits.grace_s,
            pause_s=habits.pause_s,
        )
        self._account = Account(machine, habits.network_volumes)
        self._front = Front(
            self._account,
            api_key,
            silence_s=habits.silence_s,
            records_env=habits.records_env,
        )
        self._server = _Server(_app(self._front, mask_errors=habits.mask_errors))
        self.api_key = api_key

    @property
    def url(self) -> str:
        """Return the base URL, without a slash at its end."""
        return self._account.api_url

    @property
    def parse_failures(self) -> tuple[str, ...]:
        """Return why queries could not be parsed: the reasons that RunPod would not tell."""
        return tuple(self._front.parse_failures)

    @property
    def requests(self) -> tuple[Recorded, ...]:
        """Return the last 10,000 requests, oldest first."""
        return tuple(self._front.recorded)

    def log_path(self, pod_id: str) -> Path:
        """Return the file of what a pod printed; it outlives the pod."""
        return self._account.log_path(pod_id)

    def volume_path(self, volume_id: str) -> Path:
        """Return the folder that a network volume is."""
        return self._account.volume_path(volume_id)

    def starts(self, pod_id: str) -> int:
        """Return how often the pod's command was started; 0 for a pod that is gone."""
        pod = self._account.find(pod_id)
        return pod.container.starts if pod and pod.container else 0

    def fail_next(self, operation: Operation, *faults: Fault) -> None:
        """Let the next requests of that operation fail, one for each fault, in this order."""
        self._front.faults.add(operation, faults)

    def __enter__(self) -> Self:
        self._account.api_url = self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._account.close()
        self._front.is_closing.set()
        self._server.stop()


class _Server:
    """Uvicorn in a thread, on a free port of the loopback and nowhere else."""

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", log_config=None, log_level="error"
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Serve, and return the URL once requests are answered."""
        listener = socket.create_server((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        assert self._server.started, "uvicorn did not start on a port that was free"
        return f"http://{LOOPBACK}:{port}"

    def stop(self) -> None:
        """Stop serving, and free the port."""
        self._server.should_exit = True
        self._server.force_exit = True  # idle connections are nothing to wait for
        if self._thread is not None:
            self._thread.join()

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            self._server.run(sockets=[listener])


def _app(front: Front, *, mask_errors: bool) -> Starlette:
    graphql = GraphQL(front, mask_errors=mask_errors).answer
    # RunPod's SDK puts two slashes where the base URL ends in one.
    routes = [Route(path, graphql, methods=["POST"]) for path in ("/graphql", "//graphql")]
    return Starlette(routes=[*routes, *Rest(front).routes()])
