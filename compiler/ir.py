"""The values between config and script: a Run, and the PodScript cut from it."""

from dataclasses import dataclass
from enum import StrEnum

from podproof.runtime.plan import Plan


class Provider(StrEnum):
    """Who rents us the pod."""

    LOCAL = "local"
    RUNPOD = "runpod"


class Cloud(StrEnum):
    """RunPod's cloud types."""

    SECURE = "SECURE"
    COMMUNITY = "COMMUNITY"
    ALL = "ALL"


@dataclass(frozen=True)
class PodSpec:
    """The pod to rent.

    `gpu` lists RunPod GPU ids in order of preference; empty asks for a CPU pod.
    `env` travels as plain environment variables; `secrets` maps a variable name to the name of a
    RunPod secret, so that no secret value is ever in our hands. Disk sizes are in GB, `max_hours`
    is the time after which the boot code ends the pod whatever happens, `max_usd` the cost.
    """

    provider: Provider
    image: str
    gpu: tuple[str, ...]
    gpu_count: int
    node_count: int
    cloud: Cloud
    data_centers: tuple[str, ...]
    cuda_versions: tuple[str, ...]
    container_disk_gb: int
    volume_gb: int
    network_volume: str | None
    max_hours: float
    max_usd: float | None
    env: tuple[tuple[str, str], ...]
    secrets: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Run:
    """A config that passed every rule, lowered to what the later steps need.

    `requirements` are exact pins such as `trl==1.16.0`, sorted; `gates_level` is static,
    fast or full; `gates_skip` maps a gate id to the reason its user gave for skipping it.
    `own_scorer` is the text of the user's `scorer.file`, read once.
    """

    plan: Plan
    pod: PodSpec
    requirements: tuple[str, ...]
    gates_level: str
    gates_skip: tuple[tuple[str, str], ...]
    own_scorer: str | None = None


@dataclass(frozen=True)
class PodScript:
    """The one file that runs on the pod, and the Run it was cut from.

    `text` is the whole script; `sha256` is the hex digest of its UTF-8 bytes. `modules` maps each
    runtime module to its first and last line in the script, counted from 1. `knows_pod` is False
    for a script that was found without the manifest that names its pod.
    """

    text: str
    sha256: str
    run: Run
    modules: tuple[tuple[str, int, int], ...]
    knows_pod: bool = True
