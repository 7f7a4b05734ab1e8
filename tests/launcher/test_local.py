"""The local pod: this machine as a provider, and nothing left of it afterwards."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from podproof.compiler.ir import Provider, Run
from podproof.harness.verdict import Cleared
from podproof.launcher.errors import LaunchFailed
from podproof.launcher.launch import Launched, Patience
from podproof.launcher.local import local_image_env, local_pods, stage_data
from podproof.launcher.watch import Outcome, follow
from podproof.monitor.store import Store
from podproof.runtime.plan import DataPlan, DataSource, EvalPlan

LaunchOn = Callable[..., Launched]
WaitUntil = Callable[[Callable[[], bool]], None]

PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def quick() -> Patience:
    return Patience(poll_s=0.05)


def printed_environment(log: Path) -> Mapping[str, str]:
    """Return the environment that the script printed."""
    lines = log.read_text().splitlines()
    environment: dict[str, str] = json.loads(next(line for line in lines if line.startswith("{")))
    return environment


def test_a_local_pod_runs_the_script_and_is_gone(
    tmp_path: Path, store: Store, launch_on: LaunchOn
) -> None:
    with local_pods(tmp_path / "my home") as pods:
        launched = launch_on(pods.client, PRINT_ENVIRONMENT, provider=Provider.LOCAL)
        outcome = follow(launched, client=pods.client, store=store, on_tick=print, patience=quick())

    assert outcome is Outcome.ENDED_ITSELF
    folder = pods.run_folder("run-1")
    seen = printed_environment(folder / "log.txt")
    assert folder == tmp_path / "my home" / "volumes" / "local-volume" / "run-1"
    assert seen["PODPROOF_OUTPUT"] == str(folder / "output")
    assert "the container ended" in pods.log_path(launched.pod_id).read_text()


def test_a_local_pod_gets_its_secrets_from_us(
    tmp_path: Path, store: Store, launch_on: LaunchOn
) -> None:
    with local_pods(tmp_path, secret_values={"hub": "hunter2"}) as pods:
        launched = launch_on(
            pods.client, PRINT_ENVIRONMENT, provider=Provider.LOCAL, secrets=(("HUB_LOGIN", "hub"),)
        )
        follow(launched, client=pods.client, store=store, on_tick=print, patience=quick())

    assert printed_environment(pods.run_folder("run-1") / "log.txt")["HUB_LOGIN"] == "hunter2"


def test_a_pod_that_nobody_followed_ends_with_its_provider(
    tmp_path: Path, launch_on: LaunchOn, wait_until: WaitUntil
) -> None:
    script = "import os, time; print('pid', os.getpid()); time.sleep(600)"

    with local_pods(tmp_path) as pods:
        launch_on(pods.client, script, provider=Provider.LOCAL)
        log = pods.run_folder("run-1") / "log.txt"
        wait_until(lambda: log.exists() and "pid " in log.read_text())

    assert "the script ended with exit code -15" in log.read_text()


LAUNCHER_PROCESS = """
import pickle, sys
from pathlib import Path
from podproof.launcher.launch import LaunchOrder, Patience, launch
from podproof.launcher.local import local_pods
from podproof.launcher.watch import follow
from podproof.monitor.store import open_store

home = Path(sys.argv[1])
cleared = pickle.loads((home / "cleared").read_bytes())
order = LaunchOrder("run-1", patience=Patience(poll_s=0.05))
with open_store(home / "store.db") as store, local_pods(home) as pods:
    launched = launch(cleared, client=pods.client, store=store, order=order)
    follow(launched, client=pods.client, store=store, on_tick=print, patience=order.patience)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_launcher_ends_its_pod(
    tmp_path: Path,
    make_cleared: Callable[..., Cleared],
    wait_until: WaitUntil,
    is_alive: Callable[[int], bool],
    number: signal.Signals,
) -> None:
    script = "import os, time; print('pid', os.getpid()); time.sleep(600)"
    cleared = make_cleared(script, provider=Provider.LOCAL)
    (tmp_path / "cleared").write_bytes(pickle.dumps(cleared))
    log = tmp_path / "volumes" / "local-volume" / "run-1" / "log.txt"
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER_PROCESS, tmp_path], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: log.exists() and "pid " in log.read_text())

    launcher.send_signal(number)
    launcher.wait()

    pid = int(log.read_text().split("pid ")[1].split()[0])
    wait_until(lambda: not is_alive(pid))


def test_only_what_a_training_needs_of_our_environment_is_passed_on() -> None:
    env = local_image_env(
        {"PATH": "/bin", "HOME": "/me", "HF_TOKEN": "t", "RUNPOD_API_KEY": "k", "X": "x"}
    )

    here = str(Path(sys.executable).parent)
    assert env == {
        "PATH": f"{here}{os.pathsep}/bin",
        "HOME": "/me",
        "HF_TOKEN": "t",
        "PODPROOF_PYTHON": sys.executable,
    }


@pytest.fixture
def make_run(make_cleared: Callable[..., Cleared]) -> Callable[..., Run]:
    """Make a run with other data; keyword arguments change it."""

    def make(**changes: object) -> Run:
        run = make_cleared().script.run
        data = replace(DataPlan(path="sets/train.jsonl"), **changes)  # type: ignore[arg-type]  # real fields
        return replace(run, plan=replace(run.plan, data=data))

    return make


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Make a folder with data files, and return it."""
    for name in ("base/sets/train.jsonl", "base/sets/eval.jsonl", "outside.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "base"


def test_data_files_are_staged_where_their_paths_lead(
    tmp_path: Path, files: Path, make_run: Callable[..., Run]
) -> None:
    run = make_run(eval=EvalPlan(path="sets/eval.jsonl"))

    staged = stage_data(run, data_folder=tmp_path / "data", roots=(files,))

    folder = tmp_path / "data" / "sets"
    assert staged == (folder / "train.jsonl", folder / "eval.jsonl")
    assert (folder / "eval.jsonl").read_text() == "base/sets/eval.jsonl"


def test_a_file_from_outside_is_staged_by_its_name_alone(
    tmp_path: Path, files: Path, make_run: Callable[..., Run]
) -> None:
    run = make_run(path="../outside.jsonl")

    staged = stage_data(run, data_folder=tmp_path / "data", roots=(files,))

    assert staged == (tmp_path / "data" / "outside.jsonl",)


def test_an_absolute_path_needs_no_copy(
    tmp_path: Path, files: Path, make_run: Callable[..., Run]
) -> None:
    run = make_run(path=str(files / "sets" / "train.jsonl"))

    assert stage_data(run, data_folder=tmp_path / "data", roots=(files,)) == ()


def test_rows_from_the_hub_need_no_copy(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    run = make_run(source=DataSource.HUB, path="org/rows")

    assert stage_data(run, data_folder=tmp_path / "data", roots=()) == ()


def test_every_file_that_is_missing_is_named(
    tmp_path: Path, files: Path, make_run: Callable[..., Run]
) -> None:
    run = make_run(path="no.jsonl", eval=EvalPlan(path="neither.jsonl"))

    with pytest.raises(LaunchFailed) as caught:
        stage_data(run, data_folder=tmp_path / "data", roots=(files,))

    assert [problem.where for problem in caught.value.problems] == ["data.path", "data.eval.path"]
    assert not (tmp_path / "data").exists()
