"""One run, top to bottom: read the plan and the rows, train, deliver the best, say how it ended."""

import argparse
import os
import platform
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from podproof.runtime.advice import selection_notices
from podproof.runtime.arithmetic import arithmetic
from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.checkpoints import chosen_checkpoint, deliver, newest_usable_checkpoint
from podproof.runtime.courier import ReportEndpoint
from podproof.runtime.data import read_data
from podproof.runtime.errors import BadPlan, NoUsableCheckpoint, PodproofError, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.plan import Plan, PublishTo, Resume, Sink, plan_from_json
from podproof.runtime.reporter import Reporter, ReportSource
from podproof.runtime.rows import Rows, row_notices
from podproof.runtime.selfcheck import failed_vectors
from podproof.runtime.spool import boots_so_far
from podproof.runtime.trainers import build_trainer

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_PREEMPTED = 143

# How long the end of a run may wait for the collector; what is not delivered stays in the file.
FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class Surroundings:
    """Where this run happens, read once from the environment."""

    run_id: str
    boot: int
    output: Path
    data_roots: tuple[Path, ...]
    endpoint: ReportEndpoint | None


def main(plan_json: str, _parts: Mapping[str, Any], argv: list[str] | None = None) -> int:
    """Run the plan, or check it with --selfcheck; return one of the exit codes listed on top.

    `parts` are those of the script's optional parts that this plan asked for, by name.
    """
    parser = argparse.ArgumentParser(prog="pod_script.py", description="Run this script's plan.")
    parser.add_argument("--selfcheck", action="store_true", help="check the scorer; train nothing")
    options = parser.parse_args(argv)
    try:
        plan = plan_from_json(plan_json)
        surroundings = read_surroundings(plan)
    except PodproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.selfcheck:
        return selfcheck(plan, surroundings)
    surroundings.output.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(
        surroundings.output,
        ReportSource(surroundings.run_id, surroundings.boot),
        endpoint=surroundings.endpoint,
    )
    try:
        return run_to_its_end(plan, surroundings, reporter)
    finally:
        reporter.close(FLUSH_SECONDS)


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


def run_to_its_end(plan: Plan, surroundings: Surroundings, reporter: Reporter) -> int:
    """Train and deliver; whatever happens, end with one terminal event and its exit code."""
    stop = StopRequest()
    _listen_for_signals(stop)
    try:
        ending = _train_and_deliver(plan, surroundings, reporter, stop)
    except PodproofError as error:
        body = {"error": type(error).__name__, "problems": [str(item) for item in error.problems]}
        reporter.report(EventKind.FAILED, body=body)
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        reporter.report(EventKind.PREEMPTED, body={"reason": f"{stop.reason}, twice"})
        return EXIT_PREEMPTED
    except Exception as error:
        # The whole traceback goes to the log; the event carries its last lines.
        trace = traceback.format_exc()
        body = {"error": f"{type(error).__name__}: {error}", "problems": trace.splitlines()[-12:]}
        reporter.report(EventKind.FAILED, body=body)
        print(trace, file=sys.stderr)
        return EXIT_FAILED
    return ending


def _train_and_deliver(
    plan: Plan, surroundings: Surroundings, reporter: Reporter, stop: StopRequest
) -> int:
    rows = read_data(plan.data, plan.method, surroundings.data_roots)
    _report_plan(plan, rows, reporter)
    callback = PodCallback(plan.scorer, reporter.report, stop)
    built = build_trainer(plan, rows, surroundings.output, callback)
    trainer = built.trainer
    evaluations = arithmetic(plan, len(rows.train)).evaluations
    advice = selection_notices(len(rows.eval), evaluations)
    notices = [*row_notices(rows), *advice, *built.adjustments]
    _report_start(reporter, trainer, surroundings.output, notices)
    checkpoint = _resumable(plan, surroundings.output, reporter)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    final_step = int(trainer.state.global_step)
    if stop.reason is not None and final_step < trainer.state.max_steps:
        reporter.report(EventKind.PREEMPTED, step=final_step, body={"reason": stop.reason})
        print(f"stopped at step {final_step} ({stop.reason}); start again to resume")
        return EXIT_PREEMPTED
    ending = _deliver_best(plan, surroundings.output, callback, reporter)
    kind = EventKind.STOPPED_EARLY if callback.stopped_early else EventKind.DONE
    reporter.report(kind, step=final_step, body={**ending, "final_step": final_step})
    return EXIT_DONE


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


def _report_start(reporter: Reporter, trainer: Any, output: Path, notices: list[str]) -> None:
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "peft")}
    device = str(trainer.args.device)
    body = {"python": platform.python_version(), **versions, "device": device}
    reporter.report(EventKind.STARTED, body={**body, "output": str(output)})
    for what in notices:
        reporter.report(EventKind.NOTICE, body={"what": what, "count": 1})
        print(f"notice: {what}")


def _resumable(plan: Plan, output: Path, reporter: Reporter) -> Path | None:
    if plan.recovery.resume is Resume.NEVER:
        return None
    checkpoint, notices = newest_usable_checkpoint(output)
    for what in notices:
        reporter.report(EventKind.NOTICE, body={"what": what, "count": 1})
    if checkpoint is not None:
        reporter.report(EventKind.RESUMED, body={"path": str(checkpoint)})
        print(f"resuming from {checkpoint}")
    return checkpoint


def _deliver_best(
    plan: Plan, output: Path, callback: PodCallback, reporter: Reporter
) -> dict[str, Any]:
    """Deliver the checkpoint with the best score, or the last one of a run without evaluations."""
    best_step, best_score = callback.scores.best_step, callback.scores.best_score
    if callback.choice is not None:
        best_step, best_score = callback.choice.step, callback.choice.value
    if best_step is None and plan.arguments.get("load_best_model_at_end"):
        raise NoUsableCheckpoint(
            Problem("evaluation", "no evaluation had a usable loss", "look at the train log")
        )
    checkpoint = chosen_checkpoint(output, best_step)
    ending = {
        "best_step": best_step,
        "best_score": None if best_step is None else best_score,
        "checkpoint": str(checkpoint),
        "delivered": None,
    }
    if plan.publish.to is PublishTo.NONE:
        return ending
    delivered = output / plan.publish.dir
    digests = deliver(checkpoint, delivered)
    body = {"path": str(delivered), "step": best_step, "sha256": digests}
    reporter.report(EventKind.DELIVERED, step=best_step, body=body)
    print(f"delivered {checkpoint.name} to {delivered}")
    return {**ending, "delivered": str(delivered)}


def _listen_for_signals(stop: StopRequest) -> None:
    """Turn SIGTERM and SIGINT into an orderly stop; a second one ends the run at once."""

    def request_stop(number: int, _frame: Any) -> None:
        if stop.reason is not None:
            raise KeyboardInterrupt
        stop.reason = signal.Signals(number).name

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
