"""The port: what podproof asks of whoever rents out pods, in its own words."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from podproof.compiler.ir import Cloud


class PodStatus(StrEnum):
    """What a pod is doing; a terminated pod is not found at all."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class PodRequest:
    """The pod to make.

    `name` is ours and unique, so that a pod can be found again when its id was lost. `gpu` is the
    provider's GPU id, absent for a CPU pod; `data_center` is absent for any. Disk sizes are in GB.
    `env` holds secrets, so it is left out of the repr.
    """

    name: str
    image: str
    gpu: str | None
    gpu_count: int
    cloud: Cloud
    data_center: str | None
    cuda_versions: tuple[str, ...]
    container_disk_gb: int
    volume_gb: int
    network_volume: str | None
    start_command: str
    env: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True)
class PodState:
    """What the provider says about one pod; an absent number is one it does not tell.

    `uptime_s` counts seconds since the container started.
    """

    pod_id: str
    name: str
    status: PodStatus
    cost_usd_per_h: float | None
    uptime_s: float | None
    gpu: str | None


class LogSource(StrEnum):
    """Who wrote a log line: the command on the pod, or the machine that runs it."""

    CONTAINER = "container"
    SYSTEM = "system"


@dataclass(frozen=True)
class LogLine:
    """One line of a pod's log; `time` is RFC 3339 text as the provider gave it."""

    time: str
    source: LogSource
    text: str


class PriceList(Protocol):
    """What pods cost."""

    def usd_per_h(self, request: PodRequest) -> float | None:
        """Return what such a pod costs an hour; None when nobody tells, as for CPU pods.

        Where the pod may land in one of two clouds, the dearer. Raises what a PodClient raises.
        """
        ...


class PodClient(PriceList, Protocol):
    """Someone who rents out pods.

    Every method raises AuthenticationFailed when the key is refused, and ProviderUnavailable when
    the provider fails or does not answer in time.
    """

    def create(self, request: PodRequest) -> str:
        """Make a pod and return its id.

        After ProviderUnavailable the pod may exist: look for its name. After any other
        LaunchFailed (NoCapacity, OverLimit, an unknown GPU) it does not.
        """
        ...

    def find(self, pod_id: str) -> PodState | None:
        """Return the pod, or None when the provider knows no such pod at this moment."""
        ...

    def list_pods(self) -> tuple[PodState, ...]:
        """Return all pods of the account; a pod made seconds ago may be missing."""
        ...

    def terminate(self, pod_id: str) -> None:
        """Ask for the end of the pod, its disk and its bill; a pod that is gone already is fine."""
        ...

    def read_logs(self, pod_id: str) -> tuple[LogLine, ...]:
        """Return the last lines of the pod's log, oldest first; nothing when it has none."""
        ...


def named(pods: tuple[PodState, ...], name: str) -> tuple[PodState, ...]:
    """Return the pods of that name, ordered by id so that every caller picks the same one."""
    return tuple(sorted((pod for pod in pods if pod.name == name), key=lambda pod: pod.pod_id))
