"""The adapter over RunPod's own Python SDK, unmodified: the only module that imports it.

The SDK (1.12) speaks GraphQL and escapes nothing, keeps its key in a global, reads its base URL
from the environment at every call, and puts the whole query, secrets and all, into the exceptions
it raises. So no text reaches it that GraphQL would read as more than text; its globals are set for
one call at a time, under a lock; and none of its exceptions leaves this module.
"""

import os
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from podproof.compiler.ir import Cloud
from podproof.compiler.limits import Size, over_hard
from podproof.launcher.client import LogLine, PodRequest, PodState, PodStatus
from podproof.launcher.errors import (
    AuthenticationFailed,
    LaunchFailed,
    NoCapacity,
    OverLimit,
    ProviderUnavailable,
)
from podproof.launcher.runpod_text import hostile_text, hostile_texts
from podproof.runtime.errors import Problem

RUNPOD_API_URL = "https://api.runpod.io"
VOLUME_MOUNT = "/workspace"

_T = TypeVar("_T")

_NO_CAPACITY = ("no longer any instances available", "does not have the resources")
_ALREADY_GONE = "pod not found to terminate"
_UNKNOWN_GPU = "No GPU found with the specified ID"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_STATUS: Mapping[str, PodStatus] = {"EXITED": PodStatus.EXITED, "PAUSED": PodStatus.EXITED}
_GONE = "TERMINATED"

# Shorter values ("1", "eu") would blot out half of every message, and hide nothing.
_SHORTEST_SECRET = 4

# One process has one SDK, and that one set of globals.
_SDK_LOCK = threading.Lock()


class RunPodSdk:
    """RunPod, as a PodClient.

    `base_url` is RunPod's own unless an emulator's is given. `log_window_s` is how long
    `read_logs` waits for one more line of a log that never ends.
    """

    def __init__(
        self, api_key: str, *, base_url: str = RUNPOD_API_URL, log_window_s: float = 2.0
    ) -> None:
        """Load the SDK; raise LaunchFailed when it is not installed."""
        try:
            import runpod
        except ImportError as error:
            problem = Problem("runpod", "is not installed", "pip install 'podproof[launch]'")
            raise LaunchFailed(problem) from error
        self._sdk = runpod
        self._api_key = api_key
        self._base_url = base_url.rstrip("/")
        self._log_window_s = log_window_s

    def usd_per_h(self, request: PodRequest) -> float | None:
        """Return the list price, as the port says; RunPod's SDK knows none of CPU pods."""
        gpu = request.gpu
        if gpu is None:
            return None
        problem = hostile_text("pod.gpu", gpu)
        if problem is not None:
            raise OverLimit(problem)
        return self._call("price", lambda: _list_price(self._sdk.get_gpu(gpu), request))

    def create(self, request: PodRequest) -> str:
        """Make a pod, as the port says; refuse with OverLimit what the SDK would garble."""
        problems = hostile_texts(request) + over_hard({Size.ENV_COUNT: len(request.env)})
        if problems:
            raise OverLimit(*problems)

        def create() -> str:
            return str(self._sdk.create_pod(**_create_arguments(request))["id"])

        return self._call("create", create, secrets=dict(request.env))

    def find(self, pod_id: str) -> PodState | None:
        """Return the pod, as the port says."""
        _check_id(pod_id)
        return self._call("find", lambda: _pod_state(self._sdk.get_pod(pod_id)))

    def list_pods(self) -> tuple[PodState, ...]:
        """Return all pods, as the port says."""

        def list_pods() -> tuple[PodState, ...]:
            states = [_pod_state(fields) for fields in self._sdk.get_pods()]
            return tuple(state for state in states if state is not None)

        return self._call("list", list_pods)

    def terminate(self, pod_id: str) -> None:
        """End the pod, as the port says."""
        _check_id(pod_id)

        def terminate() -> None:
            try:
                self._sdk.terminate_pod(pod_id)
            except self._sdk.error.QueryError as error:
                if _ALREADY_GONE not in str(error):
                    raise

        self._call("terminate", terminate)

    def read_logs(self, pod_id: str) -> tuple[LogLine, ...]:
        """Return the log's last lines, as the port says; over REST, for GraphQL has no logs."""
        from podproof.launcher.runpod_logs import read_pod_logs

        _check_id(pod_id)
        return read_pod_logs(
            f"{self._base_url}/v2/pods/{pod_id}/logs",
            self._api_key,
            window_s=self._log_window_s,
            uses_proxy=not _is_loopback(self._base_url),
        )

    def _call(
        self,
        operation: str,
        function: Callable[[], _T],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> _T:
        """Call the SDK, and raise one of our own errors for whatever it raises.

        Ours is raised outside the `except`, not merely `from None`: the SDK's exception holds the
        query with every secret in it, and would still hang on ours as its context.
        """
        with self._sdk_globals():
            try:
                return function()
            except (self._sdk.error.RunPodError, OSError, LookupError, TypeError, ValueError) as e:
                failure = self._translated(operation, e, secrets or {})
        raise failure

    @contextmanager
    def _sdk_globals(self) -> Iterator[None]:
        """Lend the SDK our key and base URL for one call."""
        settings = {
            "RUNPOD_API_BASE_URL": self._base_url,
            # requests would let an entry of ~/.netrc replace the key in the header.
            "NETRC": os.devnull,
        }
        if _is_loopback(self._base_url):
            settings |= {"NO_PROXY": "*", "no_proxy": "*"}
        with _SDK_LOCK, _environment(settings):
            before, self._sdk.api_key = self._sdk.api_key, self._api_key
            try:
                yield
            finally:
                self._sdk.api_key = before

    def _translated(
        self, operation: str, error: Exception, secrets: Mapping[str, str]
    ) -> LaunchFailed:
        if isinstance(error, self._sdk.error.AuthenticationError):
            return AuthenticationFailed(
                Problem("RUNPOD_API_KEY", "RunPod refuses this API key", _WAY_TO_A_KEY)
            )
        if isinstance(error, self._sdk.error.QueryError):
            return _refusal(operation, _without_values(str(error), secrets))
        if _UNKNOWN_GPU in str(error):
            way_out = "take an id of RunPod's list of GPU types, such as 'NVIDIA A40'"
            return LaunchFailed(Problem("pod.gpu", "RunPod knows no GPU of this id", way_out))
        # The text of these may quote the answer, and the answer repeats the environment.
        what = f"{operation}: RunPod gave no usable answer ({type(error).__name__})"
        return ProviderUnavailable(Problem("runpod", what, _WAY_TO_AN_ANSWER))


_WAY_TO_A_KEY = "set RUNPOD_API_KEY, or [default] api_key in ~/.runpod/config.toml"
_WAY_TO_AN_ANSWER = "try again; nothing is launched twice under one run id"


def find_api_key(environ: Mapping[str, str], home: Path) -> str:
    """Return the account's key, from RUNPOD_API_KEY or from the file that RunPod's tools write.

    Raises AuthenticationFailed when there is none.
    """
    if environ.get("RUNPOD_API_KEY"):
        return environ["RUNPOD_API_KEY"]
    try:
        settings = tomllib.loads((home / ".runpod" / "config.toml").read_text(encoding="utf-8"))
        key = settings["default"]["api_key"]
    except (OSError, ValueError, LookupError, TypeError):
        key = None
    if not isinstance(key, str) or not key:
        raise AuthenticationFailed(Problem("RUNPOD_API_KEY", "no API key is set", _WAY_TO_A_KEY))
    return key


def _create_arguments(request: PodRequest) -> dict[str, Any]:
    return {
        "name": request.name,
        "image_name": request.image,
        "gpu_type_id": request.gpu,
        "gpu_count": request.gpu_count,
        "cloud_type": request.cloud.value,
        "data_center_id": request.data_center,
        "allowed_cuda_versions": list(request.cuda_versions) or None,
        "container_disk_in_gb": request.container_disk_gb,
        "volume_in_gb": request.volume_gb,
        "network_volume_id": request.network_volume,
        "volume_mount_path": VOLUME_MOUNT,
        "docker_args": request.start_command,
        "env": dict(request.env),
        # Nobody logs in: our command replaces the image's, which would have started sshd; and
        # asking for a public address would leave out most community machines.
        "support_public_ip": False,
        "start_ssh": False,
    }


def _list_price(fields: Mapping[str, Any], request: PodRequest) -> float | None:
    """Return the price in the request's cloud; RunPod gives null or 0 where it has no such pod."""
    prices = {Cloud.SECURE: fields["securePrice"], Cloud.COMMUNITY: fields["communityPrice"]}
    wanted = prices.values() if request.cloud is Cloud.ALL else [prices[request.cloud]]
    told = [float(price) for price in wanted if price]
    return request.gpu_count * max(told) if told else None


def _pod_state(fields: Mapping[str, Any] | None) -> PodState | None:
    """Read one pod; None for none, and for one that is terminated."""
    if fields is None or fields["desiredStatus"] == _GONE:
        return None
    # The wish is RUNNING from the first moment; only `runtime` tells that the container is up.
    running = PodStatus.RUNNING if fields["runtime"] is not None else PodStatus.STARTING
    cost, uptime_s = fields["costPerHr"], fields["uptimeSeconds"]
    return PodState(
        pod_id=str(fields["id"]),
        name=str(fields["name"]),
        status=_STATUS.get(fields["desiredStatus"], running),
        cost_usd_per_h=None if cost is None else float(cost),
        uptime_s=float(uptime_s) if uptime_s else None,
        gpu=(fields["machine"] or {}).get("gpuDisplayName"),
    )


def _refusal(operation: str, message: str) -> LaunchFailed:
    if any(text in message.lower() for text in _NO_CAPACITY):
        return NoCapacity(Problem("pod.gpu", message, "name more GPU types or data centers"))
    what = f"{operation}: RunPod answered: {message[:300]}"
    return ProviderUnavailable(Problem("runpod", what, _WAY_TO_AN_ANSWER))


def _without_values(text: str, secrets: Mapping[str, str]) -> str:
    """Return `text` with every value blotted out, the longest first."""
    for key, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"[{key}]")
    return text


def _check_id(pod_id: str) -> None:
    problem = hostile_text("pod_id", pod_id)
    if problem is not None:
        raise OverLimit(problem)


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
