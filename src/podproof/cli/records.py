"""`podproof runs`, `show`, `logs` and `stop`: what is known of runs, and how to end one."""

import argparse
import time
from pathlib import Path

from podproof.cli.terminal import err, home, print_json, show
from podproof.compiler.ir import Provider
from podproof.monitor.errors import UnknownRun
from podproof.monitor.records import LaunchRecord, LaunchStatus
from podproof.monitor.show import list_runs, run_to_dict, show_run, summary_to_dict
from podproof.monitor.store import Store, open_store
from podproof.runtime.errors import Problem

# A local launcher looks at stop requests twice a second, and gives the pod 10 s to save.
_STOP_PATIENCE_S = 40.0


def list_all(options: argparse.Namespace) -> int:
    """Print every run, newest first."""
    with open_store(home() / "podproof.db") as store:
        summaries = store.runs()
    if options.json:
        print_json([summary_to_dict(summary) for summary in summaries])
    else:
        show(list_runs(summaries))
    return 0


def show_one(options: argparse.Namespace) -> int:
    """Print one run: status, score table, chosen checkpoint, where the weights are."""
    with open_store(home() / "podproof.db") as store:
        record = store.run(named_run(store, options.run))
    if options.json:
        print_json(run_to_dict(record))
    else:
        show(show_run(record))
    return 0


def print_logs(options: argparse.Namespace) -> int:
    """Print what the run's script printed; with --follow until the run's pod is gone."""
    with open_store(home() / "podproof.db") as store:
        launch = store.launch(named_run(store, options.run))
        if launch.log_path is None:
            return _print_remote_logs(launch)
        path = Path(launch.log_path)
        position = _print_from(path, 0)
        while options.follow and store.launch(launch.run_id).status is not LaunchStatus.ENDED:
            time.sleep(0.5)
            position = _print_from(path, position)
        _print_from(path, position)
    if not path.is_file():
        err().print("the pod has not written anything yet")
    return 0


def stop_run(options: argparse.Namespace) -> int:
    """End a run's pod and wait until it is gone; a run that has ended is left as it is."""
    with open_store(home() / "podproof.db") as store:
        launch = store.launch(named_run(store, options.run))
        err().print(f"{launch.run_id}: {_stopped(store, launch)}")
        record = store.run(launch.run_id)
    if options.json:
        print_json(run_to_dict(record))
    return 0


def _stopped(store: Store, launch: LaunchRecord) -> str:
    """End the pod by whoever can; return what became of it, in words."""
    if launch.status is LaunchStatus.ENDED:
        return f"has ended already: {launch.reason}"
    store.request_stop(launch.run_id)
    if launch.provider is Provider.RUNPOD:
        return _end_rented(store, launch)
    return _wait_for_launcher(store, launch.run_id)


def named_run(store: Store, run: str | None) -> str:
    """Return the newest run whose id begins so; without a beginning, the newest of all."""
    summaries = store.runs()
    if run is not None:
        meant = [summary.run_id for summary in summaries if summary.run_id.startswith(run)]
        return run if run in meant or not meant else meant[0]
    if not summaries:
        raise UnknownRun(Problem("run", "there is none yet", "podproof launch experiment=tiny_sft"))
    return summaries[0].run_id


def _print_from(path: Path, position: int) -> int:
    if not path.is_file():
        return position
    with path.open("rb") as file:
        file.seek(position)
        print(file.read().decode("utf-8", errors="replace"), end="", flush=True)
        return file.tell()


def _print_remote_logs(launch: LaunchRecord) -> int:
    from podproof.cli.provider import connect

    if launch.pod_id is None:
        err().print("no pod was made for this run")
        return 0
    for line in connect().read_logs(launch.pod_id):
        print(f"{line.time} {line.text}")
    return 0


def _end_rented(store: Store, launch: LaunchRecord) -> str:
    from podproof.cli.provider import connect
    from podproof.launcher.watch import Outcome, end_pod

    if launch.pod_id is not None:
        end_pod(launch.pod_id, client=connect())
    store.end_launch(launch.run_id, Outcome.STOPPED.value)
    return "its pod is gone"


def _wait_for_launcher(store: Store, run_id: str) -> str:
    """Wait for the launcher of a local pod to end it; one that died took its pod with it."""
    end_monotonic_s = time.monotonic() + _STOP_PATIENCE_S
    while time.monotonic() < end_monotonic_s:
        if store.launch(run_id).status is LaunchStatus.ENDED:
            return "its pod is gone"
        time.sleep(0.2)
    store.end_launch(run_id, "its launcher died, and the pod with it")
    return "its launcher had died, and the pod with it"
