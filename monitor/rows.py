"""Rows of the tables from values, and values from rows; nothing here touches a database."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from podproof.compiler.approvals import Approval
from podproof.compiler.ir import Provider
from podproof.monitor.records import (
    LaunchRecord,
    LaunchStatus,
    RunRecord,
    RunStatus,
    RunSummary,
    ScoredEvaluation,
    best_of,
)
from podproof.runtime.events import Event, EventKind, number_or_none, strict_json


def event_row(event: Event) -> dict[str, Any]:
    """Return the event as a row of `training_events`."""
    return {
        "event_id": event.event_id,
        "job_id": event.run_id,
        "boot": event.boot,
        "seq": event.seq,
        "kind": event.kind.value,
        "time_unix_s": event.time_unix_s,
        "step": event.step,
        "epoch": event.epoch,
        "body": strict_json(dict(event.body)),
    }


def event_of(row: Mapping[str, Any]) -> Event:
    """Return what `event_row` made a row of."""
    fields = {key: value for key, value in row.items() if key != "job_id"}
    return Event(**{**fields, "run_id": row["job_id"], "kind": EventKind(row["kind"])})


def launch_row(launch: LaunchRecord) -> dict[str, Any]:
    """Return the launch as a row of `launches`."""
    fields = dataclasses.asdict(launch)
    return {**fields, "provider": launch.provider.value, "status": launch.status.value}


def launch_of(row: Mapping[str, Any]) -> LaunchRecord:
    """Return what `launch_row` made a row of."""
    provider, status = Provider(row["provider"]), LaunchStatus(row["status"])
    return LaunchRecord(**{**row, "provider": provider, "status": status})


def approval_row(approval: Approval) -> dict[str, Any]:
    """Return the approval as a row of `approvals`."""
    return {
        "name": approval.name,
        "script_sha256": approval.sha256,
        "who": storable_text(approval.who),
        "why": storable_text(approval.why),
        "approved_unix_s": approval.when_unix_s,
        "changes": list(approval.changes),
    }


def approval_of(row: Mapping[str, Any]) -> Approval:
    """Return what `approval_row` made a row of."""
    return Approval(
        name=row["name"],
        sha256=row["script_sha256"],
        who=row["who"],
        why=row["why"],
        when_unix_s=row["approved_unix_s"],
        changes=tuple(row["changes"]),
    )


def metric_row(
    run_id: str, kind: EventKind, step: int, epoch: float | None, body: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row of `training_metrics` for one step; numbers that are not finite are NULL."""
    return {
        "job_id": run_id,
        "step": step,
        "kind": kind.value,
        "epoch": epoch,
        "loss": _finite(body.get("loss")),
        "eval_loss": _finite(body.get("eval_loss")),
        "score": _finite(body.get("score")),
        "body": dict(body),
    }


def checkpoint_row(run_id: str, step: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of `training_checkpoints` for one step."""
    path = body.get("path")
    return {
        "job_id": run_id,
        "step": step,
        "path": storable_text(path) if isinstance(path, str) else None,
        "body": dict(body),
    }


def prediction_row(run_id: str, step: int, sample: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of `training_predictions` for one answer."""
    texts = {key: body.get(key) for key in ("prompt", "expected", "answer")}
    return {
        "job_id": run_id,
        "step": step,
        "sample": sample,
        **{
            key: storable_text(text) if isinstance(text, str) else None
            for key, text in texts.items()
        },
        "body": dict(body),
    }


def job_row(record: RunRecord) -> dict[str, Any]:
    """Return the run as a row of `training_jobs`, without its id."""
    launch, ending = record.launch, record.ending
    return {
        "name": launch.name if launch else record.plan.name,
        "status": record.status.value,
        "progress": record.progress,
        "current_step": record.step,
        "current_epoch": record.epoch,
        "total_steps": record.plan.total_steps,
        "metrics": score_metrics(record.evaluations),
        "delivered_path": record.delivery.path if record.delivery else None,
        "error": ending.error if ending else None,
        "created_unix_s": launch.intended_unix_s if launch else record.started_unix_s,
        "started_unix_s": record.started_unix_s,
        "ended_unix_s": ending.unix_s if ending else None,
        "updated_unix_s": record.last_event_unix_s,
    }


def summary_of(job: Mapping[str, Any], launch: LaunchRecord | None) -> RunSummary:
    """Return a row of `training_jobs` as one line of the list; `metrics` may lack any key."""
    metrics = job["metrics"] if isinstance(job["metrics"], dict) else {}
    best_step = metrics.get("best_checkpoint_step")
    return RunSummary(
        run_id=job["id"],
        name=job["name"],
        status=RunStatus(job["status"]),
        progress=job["progress"],
        best_score=number_or_none(metrics.get("best_checkpoint_score")),
        best_step=best_step if isinstance(best_step, int) else None,
        cost_usd_per_h=launch.cost_usd_per_h if launch else None,
        created_unix_s=job["created_unix_s"],
        updated_unix_s=job["updated_unix_s"],
        launch_status=launch.status if launch else None,
    )


def score_metrics(evaluations: Sequence[ScoredEvaluation]) -> Any:
    """Return the `metrics` of a job: the best checkpoint, and the scores in order of steps."""
    best = best_of(evaluations)
    history = [
        {"step": item.step, "epoch": item.epoch, "eval_loss": item.eval_loss, "score": item.score}
        for item in sorted(evaluations, key=lambda evaluation: evaluation.step)
    ]
    return strict_json(
        {
            "best_checkpoint_score": best.score if best else None,
            "best_checkpoint_step": best.step if best else None,
            "best_checkpoint_epoch": best.epoch if best else None,
            "checkpoint_scores_history": history,
        }
    )


def score_history(metrics: Mapping[str, Any] | None) -> dict[int, ScoredEvaluation]:
    """Return, by step, what `score_metrics` kept of the evaluations."""
    history = (metrics or {}).get("checkpoint_scores_history", [])
    scored = (
        ScoredEvaluation(
            entry["step"],
            entry["epoch"],
            number_or_none(entry["eval_loss"]),
            math.inf if (score := number_or_none(entry["score"])) is None else score,
        )
        for entry in history
    )
    return {evaluation.step: evaluation for evaluation in scored}


def storable_text(text: str) -> str:
    """Return the text without what databases refuse: zero bytes and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _finite(value: Any) -> float | None:
    number = number_or_none(value)
    return number if number is not None and math.isfinite(number) else None
