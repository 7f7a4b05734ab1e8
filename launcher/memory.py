"""A PodClient whose pods exist in memory alone: the port's meaning, without a provider."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from podproof.launcher.client import LogLine, LogSource, PodRequest, PodState, PodStatus
from podproof.launcher.errors import LaunchFailed

_USD_PER_GPU_H = 0.5


@dataclass(frozen=True)
class Failure:
    """How one `create` fails; a provider may make the pod and fail to say so."""

    error: LaunchFailed
    makes_pod: bool = False


class MemoryPods:
    """Pods that cost nothing and run nothing.

    `script` says, call by call, how `create` fails; None, and the end of it, mean success.
    `most_alive` is the largest number of pods that ever were there at once.
    """

    def __init__(self, script: Iterable[Failure | None] = ()) -> None:
        self.requests: list[PodRequest] = []
        self.pods: dict[str, PodState] = {}
        self.most_alive = 0
        self._script = deque(script)

    def usd_per_h(self, request: PodRequest) -> float | None:
        """Return the same price for each GPU; none for a pod without."""
        return _USD_PER_GPU_H * request.gpu_count if request.gpu else None

    def create(self, request: PodRequest) -> str:
        """Make a pod that runs at once, or fail as told."""
        self.requests.append(request)
        pod_id = f"pod-{len(self.requests)}"
        failure = self._script.popleft() if self._script else None
        if failure is None or failure.makes_pod:
            self.pods[pod_id] = _running(pod_id, request)
            self.most_alive = max(self.most_alive, len(self.pods))
        if failure is not None:
            raise failure.error
        return pod_id

    def find(self, pod_id: str) -> PodState | None:
        """Return the pod unless it is terminated."""
        return self.pods.get(pod_id)

    def list_pods(self) -> tuple[PodState, ...]:
        """Return every pod that is not terminated."""
        return tuple(self.pods.values())

    def terminate(self, pod_id: str) -> None:
        """Forget the pod."""
        self.pods.pop(pod_id, None)

    def read_logs(self, pod_id: str) -> tuple[LogLine, ...]:
        """Return one line while the pod is there."""
        line = LogLine("1970-01-01T00:00:00Z", LogSource.SYSTEM, "started")
        return (line,) if pod_id in self.pods else ()


def _running(pod_id: str, request: PodRequest) -> PodState:
    return PodState(
        pod_id=pod_id,
        name=request.name,
        status=PodStatus.RUNNING,
        cost_usd_per_h=_USD_PER_GPU_H * request.gpu_count,
        uptime_s=1.0,
        gpu=request.gpu,
    )
