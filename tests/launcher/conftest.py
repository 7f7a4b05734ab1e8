"""What the launcher's tests share: a cleared script, requests, and an emulated provider."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podproof.compiler.ir import Cloud, PodScript, PodSpec, Provider, Run
from podproof.harness.verdict import Cleared
from podproof.launcher.client import PodClient, PodRequest
from podproof.launcher.emulator import Emulator, Habits
from podproof.launcher.launch import Launched, LaunchOrder, Patience, launch
from podproof.launcher.runpod_sdk import RunPodSdk
from podproof.monitor.store import Store, open_store
from podproof.runtime.plan import (
    AdapterPlan,
    DataPlan,
    MethodName,
    ModelPlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    ScorerPlan,
)

ACCOUNT_KEY = "account-key-of-the-tests"

PLAN = Plan(
    name="tiny",
    seed=1,
    method=MethodName.SFT,
    model=ModelPlan(),
    data=DataPlan(path="rows.jsonl"),
    adapter=AdapterPlan(),
    arguments={},
    scorer=ScorerPlan(),
    recovery=RecoveryPlan(max_restarts=2),
    predictions=PredictionsPlan(),
    report=ReportPlan(),
    publish=PublishPlan(),
    gpu_count=1,
    node_count=1,
    config_sha256="c" * 64,
)

SPEC = PodSpec(
    provider=Provider.RUNPOD,
    image="runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
    gpu=("NVIDIA A40", "NVIDIA L40S"),
    gpu_count=1,
    node_count=1,
    cloud=Cloud.SECURE,
    data_centers=(),
    cuda_versions=("12.8",),
    container_disk_gb=50,
    volume_gb=20,
    network_volume="local-volume",
    max_hours=0.1,
    max_usd=None,
    env=(),
    secrets=(),
)


# A script that ends at once can be gone, pod and all, before a test has looked.
STAYS = "import time\n\ntime.sleep(600)\n"


@pytest.fixture(scope="session")
def make_cleared() -> Callable[..., Cleared]:
    """Make a cleared script of a text; keyword arguments change its pod."""

    def make(text: str = "print('hello')\n", **pod: object) -> Cleared:
        spec = replace(SPEC, **pod)  # type: ignore[arg-type]  # the caller names real fields
        run = Run(plan=PLAN, pod=spec, requirements=(), gates_level="static", gates_skip=())
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return Cleared(PodScript(text=text, sha256=sha256, run=run, modules=()), ())

    return make


@pytest.fixture(scope="session")
def make_request() -> Callable[..., PodRequest]:
    """Make a request for a pod that idles; keyword arguments change it."""
    request = PodRequest(
        name="run-1",
        image="image",
        gpu="NVIDIA A40",
        gpu_count=1,
        cloud=Cloud.SECURE,
        data_center=None,
        cuda_versions=(),
        container_disk_gb=20,
        volume_gb=0,
        network_volume=None,
        start_command="sleep 600",
        env=(),
    )

    def make(**changes: object) -> PodRequest:
        return replace(request, **changes)  # type: ignore[arg-type]  # as above

    return make


@pytest.fixture(scope="session")
def make_order() -> Callable[..., LaunchOrder]:
    """Make an order that does not wait long for anything."""
    order = LaunchOrder(run_id="run-1", patience=Patience(poll_s=0.05, reconcile_s=0.2))

    def make(**changes: object) -> LaunchOrder:
        return replace(order, **changes)  # type: ignore[arg-type]  # as above

    return make


@pytest.fixture(scope="session")
def image_env() -> dict[str, str]:
    """Return what the emulated image sets: this interpreter, and no patience."""
    here = str(Path(sys.executable).parent)
    return {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PODPROOF_PYTHON": sys.executable,
        "PODPROOF_PAUSE_SECONDS": "0.1",
    }


@pytest.fixture
def emulator(tmp_path: Path, image_env: dict[str, str]) -> Iterator[Emulator]:
    habits = Habits(grace_s=2.0, pause_s=0.05)
    with Emulator(tmp_path, api_key=ACCOUNT_KEY, image_env=image_env, habits=habits) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def module_emulator(
    tmp_path_factory: pytest.TempPathFactory, image_env: dict[str, str]
) -> Iterator[Emulator]:
    """Run one emulator for a whole module; it shows what it was sent, environment and all."""
    root = tmp_path_factory.mktemp("emulator")
    habits = Habits(grace_s=1.0, records_env=True)
    with Emulator(root, api_key=ACCOUNT_KEY, image_env=image_env, habits=habits) as emulator:
        yield emulator


@pytest.fixture
def clean_emulator(module_emulator: Emulator) -> Iterator[Emulator]:
    """Lend the module's emulator to one test, and end the pods it leaves."""
    yield module_emulator
    client = RunPodSdk(ACCOUNT_KEY, base_url=module_emulator.url)
    for pod in client.list_pods():
        client.terminate(pod.pod_id)


@pytest.fixture
def client(emulator: Emulator) -> RunPodSdk:
    return RunPodSdk(ACCOUNT_KEY, base_url=emulator.url, log_window_s=0.3)


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait for something to come true; fail after 20 s, which no healthy machine needs."""

    def wait(is_true: Callable[[], bool]) -> None:
        end_monotonic_s = time.monotonic() + 20
        while not is_true():
            assert time.monotonic() < end_monotonic_s, "it did not come true"
            time.sleep(0.02)

    return wait


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store.db") as store:
        yield store


@pytest.fixture
def launch_on(
    store: Store, make_cleared: Callable[..., Cleared], make_order: Callable[..., LaunchOrder]
) -> Callable[..., Launched]:
    """Launch a script with a provider, one that stays unless told; others change its pod."""

    def launch_on(client: PodClient, text: str = STAYS, **pod: object) -> Launched:
        return launch(make_cleared(text, **pod), client=client, store=store, order=make_order())

    return launch_on


@pytest.fixture(scope="session")
def is_alive() -> Callable[[int], bool]:
    """Tell whether a process runs; a zombie that waits to be reaped does not."""

    def is_alive(pid: int) -> bool:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)],  # noqa: S607 - ps is where the system has it
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        return bool(state) and not state.startswith("Z")

    return is_alive
