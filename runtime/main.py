"""One run, top to bottom: read the plan and the rows, train, deliver the best, say how it ended."""

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from podproof.runtime.advice import selection_notices
from podproof.runtime.alone import Alone
from podproof.runtime.arithmetic import arithmetic
from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.checkpoints import list_checkpoints
from podproof.runtime.courier import ReportEndpoint
from podproof.runtime.data import read_data
from podproof.runtime.deadline import DEADLINE_ENDINGS, DeadlineWatch
from podproof.runtime.delivery import (
    DeliveryRecord,
    TrainingEnding,
    deliver_best,
    former_delivery,
    report_delivery,
)
from podproof.runtime.errors import BadPlan, DiskFull, OutOfMemory, PodproofError, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.failures import is_disk_full
from podproof.runtime.libraries import library_versions
from podproof.runtime.model_card import TrainingFacts
from podproof.runtime.plan import Plan, Sink, plan_from_json
from podproof.runtime.recovery import train_in_memory
from podproof.runtime.reporter import Reporter, ReportSource
from podproof.runtime.resuming import checkpoint_to_resume
from podproof.runtime.rows import Rows, row_notices
from podproof.runtime.safeguard import Safeguard
from podproof.runtime.sealing import CheckpointSealer
from podproof.runtime.selfcheck import failed_vectors
from podproof.runtime.spool import boots_so_far, seqs_so_far
from podproof.runtime.trainers import as_trainer_callback, build_trainer

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_OUT_OF_TIME = 6
EXIT_PREEMPTED = 143

# How long the end of a run may wait for the collector; what is not delivered stays in the file.
FLUSH_SECONDS = 30.0
# Whoever sends a signal kills a few seconds later.
FLUSH_SECONDS_STOPPED = 1.0
# A disk that hangs holds up the save itself, soon after.
FLUSH_SECONDS_SAVING = 1.0
SEAL_SECONDS_STOPPED = 1.0


@dataclass(frozen=True)
class Surroundings:
    """Where this run happens, read once from the environment."""

    run_id: str
    boot: int
    output: Path
    data_roots: tuple[Path, ...]
    endpoint: ReportEndpoint | None
    deadline: DeadlineWatch


@dataclass
class PodRun:
    """One start of a run: what it works with, and how far it has come."""

    plan: Plan
    parts: Mapping[str, Any]
    surroundings: Surroundings
    reporter: Reporter
    rank: Alone
    is_started: bool = False

    def notice(self, what: str) -> None:
        """Say what is worth knowing and no reason to stop, in the record and in the log."""
        self.reporter.report(EventKind.NOTICE, body={"what": what, "count": 1})
        print(f"notice: {what}")


@dataclass(frozen=True)
class Trained:
    """How training ended: `stop_reason` says why the trainer itself stopped it, if it did."""

    final_step: int
    max_steps: int
    log_history: Sequence[Mapping[str, Any]]
    stop_reason: str | None


def main(plan_json: str, parts: Mapping[str, Any], argv: list[str] | None = None) -> int:
    """Run the plan, or check it with --selfcheck; return one of the exit codes listed on top.

    `parts` are those of the script's optional parts that this plan asked for, by name.
    """
    parser = argparse.ArgumentParser(prog="pod_script.py", description="Run this script's plan.")
    parser.add_argument("--selfcheck", action="store_true", help="check the scorer; train nothing")
    options = parser.parse_args(argv)
    try:
        plan = plan_from_json(plan_json)
        surroundings = read_surroundings(plan)
        if options.selfcheck:
            return selfcheck(plan, surroundings)
        with _full_disk_explained(surroundings.output):
            surroundings.output.mkdir(parents=True, exist_ok=True)
        rank: Alone = parts.get("ranks", Alone)(plan, surroundings.output)
        code = rank.start_all()
    except PodproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return rank.ended(_run_here(plan, parts, surroundings, rank)) if code is None else code


def _run_here(plan: Plan, parts: Mapping[str, Any], surroundings: Surroundings, rank: Alone) -> int:
    output, boot, heard = surroundings.output, surroundings.boot, rank.heard
    source = ReportSource(surroundings.run_id, boot, seqs_so_far(output, boot))
    reporter = rank.reporter(lambda: Reporter(output, source, endpoint=surroundings.endpoint))
    code = EXIT_PREEMPTED
    try:
        code = run_to_its_end(PodRun(plan, parts, surroundings, reporter, rank))
        return code
    finally:
        # Whoever stopped a run will not wait long: it cuts the delivery short, but not before the
        # file has the last word. A run that is over and does not say so is over for ever, so what
        # no other start will deliver has all the time there is, signal or not.
        heard.is_awaited = True
        reporter.write(FLUSH_SECONDS_STOPPED)
        # From here on one signal ends a run that goes on later, and two one that is over.
        heard.is_awaited = code != EXIT_PREEMPTED
        with contextlib.suppress(KeyboardInterrupt):
            reporter.close(FLUSH_SECONDS_STOPPED if code == EXIT_PREEMPTED else FLUSH_SECONDS)


def read_surroundings(plan: Plan) -> Surroundings:
    """Return where this run happens; everything has a default, so that a bare script runs."""
    environment = os.environ
    output = Path(environment.get("PODPROOF_OUTPUT") or "podproof-output").resolve()
    data_folder = environment.get("PODPROOF_DATA")
    script_folder = Path(sys.argv[0]).resolve().parent
    roots = (Path(data_folder),) if data_folder else ()
    return Surroundings(
        run_id=environment.get("PODPROOF_RUN_ID") or f"{plan.name}-{plan.config_sha256[:8]}",
        boot=_boot_number(output),
        output=output,
        data_roots=(*roots, Path.cwd(), script_folder),
        endpoint=_endpoint(plan),
        deadline=DeadlineWatch(environment, plan.publish.to),
    )


def _boot_number(output: Path) -> int:
    given = os.environ.get("PODPROOF_BOOT")
    if not given:
        return boots_so_far(output) + 1
    if not given.isdecimal() or given == "0":
        raise BadPlan(Problem("PODPROOF_BOOT", f"must count from 1, got {given!r}", "leave it out"))
    return int(given)


def _endpoint(plan: Plan) -> ReportEndpoint | None:
    url = os.environ.get("PODPROOF_REPORT_URL") or plan.report.url
    if plan.report.sink is Sink.NONE or not url:
        return None
    return ReportEndpoint(url, os.environ.get("PODPROOF_REPORT_TOKEN") or "")


def selfcheck(plan: Plan, surroundings: Surroundings) -> int:
    """Check the scorer's vectors and print the plan's arithmetic; 0 when every vector holds."""
    failures = failed_vectors()
    for line in failures:
        print(f"scorer: {line}", file=sys.stderr)
    print(f"{plan.name}: {plan.method.value}, scored by {plan.scorer.name.value}")
    print(f"scorer vectors: {'FAILED' if failures else 'all reproduced'}")
    try:
        rows = read_data(plan.data, plan.method, surroundings.data_roots)
    except PodproofError as error:
        print(f"data: {error}", file=sys.stderr)
        return EXIT_FAILED if failures else error.exit_code
    for line in arithmetic(plan, len(rows.train)).describe():
        print(line)
    return EXIT_FAILED if failures else EXIT_DONE


def run_to_its_end(run: PodRun) -> int:
    """Train, deliver, publish; whatever happens, end with one terminal event and its exit code."""
    try:
        _listen_for_signals(run.rank.heard)
        with _full_disk_explained(run.surroundings.output):
            return _train_and_publish(run)
    except PodproofError as error:
        body = {"error": type(error).__name__, "problems": [str(item) for item in error.problems]}
        run.reporter.report(EventKind.FAILED, body=body)
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        run.reporter.report(EventKind.PREEMPTED, body={"reason": run.rank.heard.reason})
        return EXIT_PREEMPTED
    except Exception as error:
        # The whole traceback goes to the log; the event carries its last lines.
        trace = traceback.format_exc()
        body = {"error": f"{type(error).__name__}: {error}", "problems": trace.splitlines()[-12:]}
        print(trace, file=sys.stderr)
        if (again := run.rank.new_start()) is None:
            run.reporter.report(EventKind.FAILED, body=body)
        else:
            run.notice(again)
        return EXIT_FAILED


@contextlib.contextmanager
def _full_disk_explained(output: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, PodproofError) or not is_disk_full(error):
            raise
        way_out = "free some space, or use a larger volume; then start again"
        raise DiskFull(Problem(str(output), str(error), way_out)) from error


def _train_and_publish(run: PodRun) -> int:
    report, output = run.reporter.report, run.surroundings.output
    publisher = run.parts["hub"](run.plan, report, run.notice) if "hub" in run.parts else None
    run.rank.begin()
    record = former_delivery(run.plan, output)
    if record is not None:
        report(EventKind.RESUMED, body={"path": record.path or record.checkpoint})
        print(f"an earlier start trained to step {record.final_step}; nothing is trained again")
    else:
        if publisher is not None and run.rank.is_first:
            publisher.check(is_fresh=not list_checkpoints(output))
        try:
            record = _train_and_deliver(run)
        except Exception as error:
            if publisher is not None and run.rank.is_first and _is_given_up(run, error):
                publisher.rescue(output, run.surroundings.data_roots, str(error))
            raise
    if not run.rank.is_first:
        return EXIT_DONE
    if record is None:
        return EXIT_PREEMPTED
    report_delivery(record, report)
    print(f"the chosen weights lie in {record.path or record.checkpoint}")
    published = None if publisher is None else publisher.publish(record)
    if published is not None:
        print(f"published at {published['url']}")
    report(record.ending, step=record.final_step, body=record.ending_body(published))
    return EXIT_OUT_OF_TIME if record.ending in DEADLINE_ENDINGS.values() else EXIT_DONE


def _is_given_up(run: PodRun, error: Exception) -> bool:
    """Tell whether no start follows this failure, so that what there is may end with the pod."""
    if isinstance(error, DiskFull | OutOfMemory) or is_disk_full(error):
        return True
    is_last = run.surroundings.boot > run.plan.recovery.max_restarts
    return is_last and run.rank.new_start() is None


def _train_and_deliver(run: PodRun) -> DeliveryRecord | None:
    """Return what was delivered; None when told to stop, with a checkpoint saved.

    None too on every rank but the first, which alone delivers.
    """
    plan, output, reporter, stop = run.plan, run.surroundings.output, run.reporter, run.rank.stop
    rows = read_data(plan.data, plan.method, run.surroundings.data_roots)
    _report_plan(plan, rows, reporter)
    callback = PodCallback(plan.scorer, reporter.report, stop)
    sealer = CheckpointSealer(reporter.report)
    try:
        trained = train_in_memory(
            plan, output, run.notice, lambda fitted: _train(run, fitted, rows, callback, sealer)
        )
    finally:
        sealer.close(SEAL_SECONDS_STOPPED if stop.reason else None)
    run.rank.leave()
    if not run.rank.is_first:
        return None
    # Past the deadline there is no next start: what there is is delivered in the time that is left
    # until the boot program kills.
    if stop.reason is not None and run.surroundings.deadline.left_s > 0:
        reporter.report(EventKind.PREEMPTED, step=trained.final_step, body={"reason": stop.reason})
        print(f"stopped at step {trained.final_step} ({stop.reason}); start again to resume")
        return None
    best_step, best_score = callback.scores.best_step, callback.scores.best_score
    if callback.choice is not None:
        best_step, best_score = callback.choice.step, callback.choice.value
    facts = TrainingFacts(
        log_history=trained.log_history,
        final_step=trained.final_step,
        best_step=best_step,
        train_rows=len(rows.train),
        eval_rows=len(rows.eval),
        versions=library_versions(),
    )
    kind, reason = _ending_of(run, trained)
    ending = TrainingEnding(kind, reason, best_score)
    return deliver_best(plan, output, facts, ending, run.notice)


def _ending_of(run: PodRun, trained: Trained) -> tuple[EventKind, str | None]:
    """Return the kind of event that ends the run, and why it is not `done`."""
    if trained.final_step >= trained.max_steps:
        return EventKind.DONE, None
    if run.surroundings.deadline.ending is not None:
        return (
            run.surroundings.deadline.ending,
            run.surroundings.deadline.reason or run.rank.stop.reason,
        )
    return EventKind.STOPPED_EARLY, trained.stop_reason


def _train(
    run: PodRun, plan: Plan, rows: Rows, callback: PodCallback, sealer: CheckpointSealer
) -> Trained:
    """Train once, from the newest usable checkpoint; `plan` is the run's, or one that fits."""
    output, report, rank = run.surroundings.output, run.reporter.report, run.rank
    deadline, sha256 = run.surroundings.deadline, plan.config_sha256
    nonfinite = plan.recovery.nonfinite
    write_events = partial(run.reporter.write, FLUSH_SECONDS_SAVING)
    safeguard = Safeguard(rank.stop, nonfinite, sealer, report, sha256, deadline, write_events)
    built = build_trainer(plan, rows, output, callback, safeguard)
    trainer = built.trainer
    trainer.add_callback(as_trainer_callback(deadline))
    rank.join(trainer)
    if "predictions" in run.parts:
        run.parts["predictions"](trainer, plan, rows, report)
    if not run.is_started:
        advice = selection_notices(len(rows.eval), arithmetic(plan, len(rows.train)).evaluations)
        _report_start(run, trainer, [*row_notices(rows), *advice, *built.adjustments])
        run.is_started = True
    checkpoint = rank.decide(lambda: checkpoint_to_resume(plan, output, run.notice))
    if checkpoint is not None and rank.is_first:
        report(EventKind.RESUMED, body={"path": str(checkpoint)})
        print(f"resuming from {checkpoint}")
        sealer.seal(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return Trained(
        final_step=int(trainer.state.global_step),
        max_steps=int(trainer.state.max_steps),
        log_history=tuple(trainer.state.log_history),
        stop_reason=safeguard.stop_reason or callback.stop_reason,
    )


def _report_plan(plan: Plan, rows: Rows, reporter: Reporter) -> None:
    counted = arithmetic(plan, len(rows.train))
    for line in counted.describe():
        print(line)
    body = {
        "name": plan.name,
        "method": plan.method.value,
        "config_sha256": plan.config_sha256,
        "scorer": plan.scorer.name.value,
        "total_steps": counted.total_steps,
        "sequences_per_step": counted.sequences_per_step,
        "train_rows": len(rows.train),
        "eval_rows": len(rows.eval),
    }
    reporter.report(EventKind.PLAN, body=body)


def _report_start(run: PodRun, trainer: Any, notices: list[str]) -> None:
    device = {"device": str(trainer.args.device), "gpu": _gpu_name(trainer.args)}
    body = {**library_versions(), **device}
    where = {"output": str(run.surroundings.output)}
    run.reporter.report(EventKind.STARTED, body={**body, **where})
    for what in notices:
        run.notice(what)


def _gpu_name(arguments: Any) -> str | None:
    import torch

    is_gpu = arguments.device.type == "cuda"
    return torch.cuda.get_device_name(arguments.device) if is_gpu else None


def _listen_for_signals(stop: StopRequest) -> None:
    """Turn SIGTERM and SIGINT into an orderly stop; a second one ends the run at once.

    So does the first one where no step would be lost: while the model is loaded, the data are
    prepared, or the weights delivered.
    """

    def request_stop(number: int, _frame: Any) -> None:
        is_first = stop.reason is None
        stop.reason = stop.reason or signal.Signals(number).name
        if not (is_first and stop.is_awaited):
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
