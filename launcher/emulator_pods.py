"""The emulator's account: its pods, their containers, keys and volumes."""

import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from podproof.launcher.catalog import pod_usd_per_h
from podproof.launcher.emulator_container import (
    Container,
    ContainerLog,
    ContainerSpec,
    decode_args,
)


class Desired(StrEnum):
    """What the account's owner wants of a pod; a pod wanted TERMINATED is gone."""

    RUNNING = "RUNNING"
    EXITED = "EXITED"


@dataclass(frozen=True)
class PodOrder:
    """A deployment as it was asked for; sizes in GB, `gpu_id` absent for a CPU pod."""

    name: str
    image: str
    gpu_id: str | None
    gpu_count: int
    is_secure: bool
    data_center: str | None
    docker_args: str
    container_disk_gb: int
    volume_gb: int
    network_volume: str | None
    env: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass
class EmulatedPod:
    """One pod of the account; `key` is the pod-scoped API key its container is given."""

    pod_id: str
    order: PodOrder
    key: str = field(repr=False)
    log: ContainerLog
    folder: Path
    desired: Desired = Desired.RUNNING
    container: Container | None = None
    starts: int = 0

    @property
    def usd_per_h(self) -> float:
        """Return what the pod costs while it runs."""
        order = self.order
        return pod_usd_per_h(order.gpu_id, order.gpu_count, is_secure=order.is_secure)

    @property
    def uptime_s(self) -> float | None:
        """Return how long the container has been up; None while it is not."""
        return self.container.uptime_s if self.container else None


@dataclass(frozen=True)
class Caller:
    """Who asks: the account, or (with `pod_id`) one of its pods by the pod's own key."""

    pod_id: str | None


@dataclass(frozen=True)
class Machine:
    """The computer under the containers.

    Everything lies below `root`. `image_env` is what the image would set, `secrets` the account's
    secrets by name. Times in seconds, as in ContainerSpec.
    """

    root: Path
    image_env: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    grace_s: float
    pause_s: float


class Account:
    """All pods of one account; every method may be called from any thread."""

    def __init__(self, machine: Machine, network_volumes: tuple[str, ...]) -> None:
        self.machine = machine
        self.network_volumes = network_volumes
        self.api_url = ""
        self._pods: dict[str, EmulatedPod] = {}
        self._endings: list[threading.Thread] = []
        self._lock = threading.RLock()
        for volume in network_volumes:
            self.volume_path(volume).mkdir(parents=True, exist_ok=True)

    def volume_path(self, volume: str) -> Path:
        """Return the folder that is the network volume."""
        return self.machine.root / "volumes" / volume

    def log_path(self, pod_id: str) -> Path:
        """Return the pod's log file, which outlives the pod."""
        return self.machine.root / "logs" / f"{pod_id}.log"

    def pods(self) -> tuple[EmulatedPod, ...]:
        """Return the pods that are not terminated, oldest first."""
        with self._lock:
            return tuple(self._pods.values())

    def find(self, pod_id: str) -> EmulatedPod | None:
        """Return the pod, or None when it never was or is terminated."""
        with self._lock:
            return self._pods.get(pod_id)

    def deploy(self, order: PodOrder) -> EmulatedPod:
        """Make a pod and start its container."""
        pod_id = secrets.token_hex(7)
        pod = EmulatedPod(
            pod_id=pod_id,
            order=order,
            key=f"pod-{secrets.token_hex(16)}",
            log=ContainerLog(self.log_path(pod_id)),
            folder=self.machine.root / "pods" / pod_id,
        )
        with self._lock:
            self._pods[pod_id] = pod
            self._start(pod)
        return pod

    def stop(self, pod: EmulatedPod) -> None:
        """End the container and wipe its disk; keep the pod and its volume."""
        with self._lock:
            pod.desired = Desired.EXITED
            self._end_container(pod, wipe=pod.folder / "container")

    def resume(self, pod: EmulatedPod) -> None:
        """Start a stopped pod's container on a fresh disk."""
        with self._lock:
            if pod.desired is Desired.EXITED:
                pod.desired = Desired.RUNNING
                self._start(pod)

    def terminate(self, pod: EmulatedPod) -> None:
        """Forget the pod at once; its container has its grace, then its disks are removed."""
        with self._lock:
            if self._pods.pop(pod.pod_id, None) is not None:
                self._end_container(pod, wipe=pod.folder)

    def close(self) -> None:
        """Terminate every pod, and wait until no process of any is left."""
        for pod in self.pods():
            self.terminate(pod)
        with self._lock:
            endings = tuple(self._endings)
        for ending in endings:
            ending.join()

    def _start(self, pod: EmulatedPod) -> None:
        # A stopped pod's old container may still have its disk: the new one has its own.
        pod.starts += 1
        disk = pod.folder / "container" / str(pod.starts)
        (disk / "tmp").mkdir(parents=True)
        spec = ContainerSpec(
            argv=decode_args(pod.order.docker_args),
            env=self._container_env(pod, disk),
            cwd=disk,
            grace_s=self.machine.grace_s,
            pause_s=self.machine.pause_s,
            longest_pause_s=_LONGEST_PAUSE_S,
        )
        pod.container = Container(spec, pod.log)

    def _end_container(self, pod: EmulatedPod, *, wipe: Path) -> None:
        container, pod.container = pod.container, None
        ending = threading.Thread(target=_end, args=(container, wipe), daemon=True)
        self._endings.append(ending)
        ending.start()

    def _container_env(self, pod: EmulatedPod, disk: Path) -> dict[str, str]:
        order = pod.order
        volume = pod.folder / "volume"
        if order.network_volume is not None:
            volume = self.volume_path(order.network_volume)
        volume.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.defpath,
            "HOME": str(disk),
            "PODPROOF_VOLUME": str(volume),
            **self.machine.image_env,
            "TMPDIR": str(disk / "tmp"),
            **{key: self._with_secrets(value) for key, value in order.env},
            "RUNPOD_POD_ID": pod.pod_id,
            "RUNPOD_API_KEY": pod.key,
            "RUNPOD_API_BASE_URL": self.api_url,
            "RUNPOD_POD_HOSTNAME": f"{pod.pod_id}-local",
            "RUNPOD_DC_ID": order.data_center or "LOCAL-1",
            "RUNPOD_GPU_COUNT": str(order.gpu_count),
            "RUNPOD_CPU_COUNT": str(os.cpu_count() or 1),
        }

    def _with_secrets(self, value: str) -> str:
        for name, secret in self.machine.secrets.items():
            value = value.replace(f"{{{{ RUNPOD_SECRET_{name} }}}}", secret)
        return value


# RunPod does not say how long it waits before it restarts a container; a second is our guess.
_LONGEST_PAUSE_S = 1.0


def _end(container: Container | None, wipe: Path) -> None:
    if container is not None:
        container.stop()
        container.join()
    shutil.rmtree(wipe, ignore_errors=True)
