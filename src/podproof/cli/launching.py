"""`podproof launch`: config to gates to pod to record, with a sweep as many of them in a row."""

import argparse
import hashlib
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from podproof.cli.remembered import all_surroundings
from podproof.cli.scripts import compiled, request_of
from podproof.cli.terminal import (
    EXIT_INTERRUPTED,
    EXIT_OUT_OF_TIME,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    err,
    home,
    out,
    print_json,
    progress,
    show,
)
from podproof.compiler.delivery import ReportTarget
from podproof.compiler.ir import PodScript, Provider
from podproof.compiler.lower import lower
from podproof.compiler.read import sweep
from podproof.compiler.schema import Config
from podproof.compiler.script import compile_run
from podproof.harness.gates import clear
from podproof.harness.report import verdict_table
from podproof.harness.surroundings import data_roots
from podproof.harness.verdict import Cleared
from podproof.launcher.client import PodClient, PodState
from podproof.launcher.launch import LaunchOrder, Patience, launch
from podproof.launcher.watch import Outcome, follow
from podproof.monitor.records import RunRecord, RunStatus
from podproof.monitor.show import run_to_dict, show_run
from podproof.monitor.store import Store, open_store
from podproof.runtime.events import Event, EventKind
from podproof.runtime.plan import Sink
from podproof.runtime.spool import EVENTS_FILE, spooled_event

# A process on this machine is looked at often; a rented pod changes slowly and calls cost.
_LOCAL_PATIENCE = Patience(poll_s=0.5, reconcile_s=10.0)


@dataclass(frozen=True)
class Place:
    """Where a run goes: the provider's client, what the pod may reach, what we remember of it."""

    client: PodClient
    report: ReportTarget | None
    log_path: str | None
    output_path: str | None
    patience: Patience


def launch_config(options: argparse.Namespace) -> int:
    """Launch one config, or with -m every job of a sweep; return the exit code."""
    if options.multirun:
        return _launch_sweep(options)
    cleared = _cleared(compiled(request_of(options)))
    if cleared is None:
        return EXIT_REFUSED
    with open_store(home() / "podproof.db") as store:
        record = _launch_and_follow(cleared, store, options.run_id)
    if options.json:
        print_json(run_to_dict(record))
    else:
        show(show_run(record))
        out().print(_where_weights_are(record), soft_wrap=True, markup=False)
    return _exit_code(record)


def _launch_sweep(options: argparse.Namespace) -> int:
    """Run a sweep; return 0 when every job ended well, else the first other exit code."""
    codes: list[int] = []
    records: list[RunRecord] = []

    def run_job(config: Config) -> float:
        cleared = _cleared(compile_run(lower(config)))
        if cleared is None:
            codes.append(EXIT_REFUSED)
            return math.inf
        with open_store(home() / "podproof.db") as store:
            record = _launch_and_follow(cleared, store, None)
        records.append(record)
        if not options.json:
            show(show_run(record))
        codes.append(_exit_code(record))
        return record.best.score if record.best else math.inf

    folder = home() / "multirun" / time.strftime("%Y%m%d-%H%M%S")
    sweep(request_of(options), sweep_dir=folder, task=run_job)
    if options.json:
        print_json([run_to_dict(record) for record in records])
    return next((code for code in codes if code), 0)


def _cleared(script: PodScript) -> Cleared | None:
    """Ask every gate; print the report and return None when one refuses."""
    with progress("asking the gates") as update:
        there = all_surroundings(update)
        result = clear(script, there, on_gate=lambda gate: update(f"gate {gate}"))
    if isinstance(result, Cleared):
        asked = (item for item in result.verdicts if item.outcome.value == "passed")
        passed = ", ".join(verdict.gate for verdict in asked)
        err().print(f"cleared by {passed}")
        return result
    err().print(verdict_table(result))
    return None


def _launch_and_follow(cleared: Cleared, store: Store, run_id: str | None) -> RunRecord:
    """Launch, follow to the end, and return the record; a local pod never outlives us."""
    script = cleared.script
    run_id = run_id or new_run_id(script.run.plan.name)
    _record_estimate(cleared, store, run_id)
    try:
        with _place(script, store, run_id) as place:
            try:
                outcome = _in_its_place(cleared, store, run_id, place)
            finally:
                _take_in_events(store, place)
    except KeyboardInterrupt:
        if script.run.pod.provider is Provider.RUNPOD:
            err().print(f"no longer watching; the pod goes on. To end it: podproof stop {run_id}")
            raise
        outcome = Outcome.INTERRUPTED
        store.end_launch(run_id, outcome.value)
    if outcome is not Outcome.ENDED_ITSELF:
        _record_interruption(store, run_id, outcome)
    return store.run(run_id)


def _record_estimate(cleared: Cleared, store: Store, run_id: str) -> None:
    """Note what the memory gate said, so that later estimates can learn from the run."""
    for verdict in cleared.verdicts:
        if verdict.gate == "memory" and verdict.details:
            store.record_estimate(run_id, verdict.details)


def _take_in_events(store: Store, place: Place) -> None:
    """Store what a run that reported elsewhere, or to nobody, wrote on a disk we can read."""
    path = Path(place.output_path or "") / EVENTS_FILE
    if place.output_path is None or not path.is_file():
        return
    with path.open("rb") as file:
        events = filter(None, map(spooled_event, file))
        store.ingest(events)


def _in_its_place(cleared: Cleared, store: Store, run_id: str, place: Place) -> Outcome:
    order = LaunchOrder(run_id, place.report, place.log_path, place.output_path, place.patience)
    with progress(f"{run_id}: asking for a pod") as update:
        launched = launch(cleared, client=place.client, store=store, order=order)
        err().print(f"{run_id} runs on {launched.provider.value} pod {launched.pod_id}")
        watcher = _Watcher(store, run_id)
        return follow(
            launched,
            client=place.client,
            store=store,
            on_tick=lambda pod: watcher.tick(pod, update),
            patience=place.patience,
        )


def new_run_id(name: str) -> str:
    """Return a name no other run has: the config's, the time in UTC, and four random digits."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


@contextmanager
def _place(script: PodScript, store: Store, run_id: str) -> Iterator[Place]:
    if script.run.pod.provider is Provider.LOCAL:
        with _local_place(script, store, run_id) as place:
            yield place
        return
    from podproof.cli.provider import connect

    yield Place(connect(), _own_report_target(script), None, None, Patience())


@contextmanager
def _local_place(script: PodScript, store: Store, run_id: str) -> Iterator[Place]:
    from podproof.launcher.local import local_pods, stage_data

    # What RunPod would put in from its vault comes from our own environment here.
    spec = script.run.pod
    given = {secret: os.environ[key] for key, secret in spec.secrets if key in os.environ}
    places = local_pods(home(), secret_values=given)
    with places as pods, _collector(script, store, run_id) as report:
        folder = pods.run_folder(run_id)
        stage_data(script.run, data_folder=folder / "data", roots=data_roots())
        log, output = str(folder / "log.txt"), str(folder / "output")
        yield Place(pods.client, report, log, output, _LOCAL_PATIENCE)


@contextmanager
def _collector(script: PodScript, store: Store, run_id: str) -> Iterator[ReportTarget | None]:
    """Serve the local collector for as long as the run lasts, if the run reports to it."""
    if script.run.plan.report.sink is not Sink.LOCAL:
        yield _own_report_target(script)
        return
    from podproof.monitor.collector import serve

    token = secrets.token_urlsafe(32)
    store.register_token(run_id, hashlib.sha256(token.encode()).hexdigest())
    with serve(store) as url:
        yield ReportTarget(url, token)


def _own_report_target(script: PodScript) -> ReportTarget | None:
    """Return the user's own collector for sink=http; its token comes from our environment."""
    report = script.run.plan.report
    if report.sink is not Sink.HTTP or report.url is None:
        return None
    return ReportTarget(report.url, os.environ.get("PODPROOF_REPORT_TOKEN", ""))


class _Watcher:
    """Says how a run goes: on a terminal in one moving line, in a pipe one line per evaluation."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._console: Console = err()
        self._told_steps: set[int] = set()
        self._best_score = math.inf

    def tick(self, _pod: PodState | None, update: Callable[[str], object]) -> None:
        """Look at the record and say what is new."""
        record = self._store.run(self._run_id)
        update(f"{self._run_id}: {_progress_text(record)}")
        for evaluation in record.evaluations:
            if evaluation.step not in self._told_steps:
                self._told_steps.add(evaluation.step)
                is_best = evaluation.is_usable and evaluation.score < self._best_score
                self._best_score = min(self._best_score, evaluation.score)
                mark = "  best so far" if is_best else ""
                loss = "-" if evaluation.eval_loss is None else f"{evaluation.eval_loss:.4f}"
                line = f"step {evaluation.step:>5}  eval loss {loss}"
                self._console.print(f"{line}  score {evaluation.score:.4f}{mark}")


def _progress_text(record: RunRecord) -> str:
    total = record.plan.total_steps
    if record.step is None:
        return "starting" if record.device is None else f"training on {record.device}"
    return f"step {record.step} of {total}" if total else f"step {record.step}"


def _record_interruption(store: Store, run_id: str, outcome: Outcome) -> None:
    """Write the ending down that the pod itself could not."""
    boot = max(1, store.run(run_id).boots)
    event = Event(
        event_id=f"{run_id}-launcher",
        run_id=run_id,
        boot=boot,
        seq=2**31 - 1,
        kind=_KINDS.get(outcome, EventKind.INTERRUPTED),
        time_unix_s=time.time(),
        step=None,
        epoch=None,
        body={"reason": outcome.value},
    )
    store.ingest([event])


def _where_weights_are(record: RunRecord) -> str:
    if record.delivery is None:
        return "no weights were delivered"
    place = f"the chosen weights lie in {record.delivery.path}"
    return place if record.publication is None else f"{place} and at {record.publication.url}"


def _exit_code(record: RunRecord) -> int:
    return _EXIT_CODES.get(record.status, EXIT_REFUSED)


_KINDS = {
    Outcome.OUT_OF_TIME: EventKind.OUT_OF_TIME,
    Outcome.OUT_OF_MONEY: EventKind.OUT_OF_MONEY,
}
_EXIT_CODES = {
    RunStatus.DONE: 0,
    RunStatus.STOPPED_EARLY: 0,
    RunStatus.OUT_OF_TIME: EXIT_OUT_OF_TIME,
    RunStatus.OUT_OF_MONEY: EXIT_OUT_OF_TIME,
    RunStatus.INTERRUPTED: EXIT_INTERRUPTED,
    RunStatus.ENDED: EXIT_UNKNOWN,
}
