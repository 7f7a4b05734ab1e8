"""What the command line shows of runs: values in, rich renderables or plain values out.

Colours are rich styles only, so NO_COLOR and pipes get plain text. Times are shown in UTC.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podproof.monitor.records import (
    LaunchRecord,
    Prediction,
    RunRecord,
    RunStatus,
    RunSummary,
    ScoredEvaluation,
)
from podproof.runtime.events import strict_json

_STYLES = {
    RunStatus.INTENDED: "dim",
    RunStatus.PENDING: "dim",
    RunStatus.RUNNING: "cyan",
    RunStatus.DONE: "green",
    RunStatus.STOPPED_EARLY: "green",
    RunStatus.OUT_OF_TIME: "yellow",
    RunStatus.OUT_OF_MONEY: "yellow",
    RunStatus.INTERRUPTED: "yellow",
    RunStatus.PREEMPTED: "yellow",
    RunStatus.FAILED: "red",
    RunStatus.ENDED: "yellow",
}

_ABSENT = "-"

# How much of a prompt (its end) and of an answer (its beginning) stands in the table of answers.
_SHOWN_CHARACTERS = 36

_CHECK_HEADINGS = {
    "exact_match": "exact",
    "character_error_rate": "errors",
    "json_schema": "schema",
}


def show_run(record: RunRecord, *, now_unix_s: float | None = None) -> RenderableType:
    """Return the run as a page: facts, scores, where the weights are, notices, how it failed.

    The cost counts from the launch to its end, or to `now_unix_s`, or to the last event.
    """
    parts: list[RenderableType] = [_facts_table(_facts(record, now_unix_s))]
    if record.evaluations:
        parts += [Text(), _score_table(record)]
    if record.predictions:
        heading = f"answers at step {record.predictions[0].step}"
        parts += [Text(), _text(heading, style="bold"), _prediction_table(record.predictions)]
    if record.notices:
        parts += [Text(), _text("notices", style="bold"), *_notice_lines(record)]
    if record.ending is not None and record.ending.error is not None:
        parts += [Text(), *_error_lines(record.ending.error, record.ending.problems)]
    return Group(*parts)


def list_runs(summaries: Sequence[RunSummary]) -> RenderableType:
    """Return one line for each run, in the order given."""
    if not summaries:
        return _text("no runs yet")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("run", "name", "status"):
        table.add_column(heading)
    for heading in ("progress", "best score", "at step", "$/h"):
        table.add_column(heading, justify="right")
    table.add_column("created (UTC)")
    for summary in summaries:
        table.add_row(*_summary_cells(summary))
    return table


def run_to_dict(record: RunRecord) -> dict[str, Any]:
    """Return the run as strict JSON values: enums by value, NaN and infinities by name."""
    plain = strict_json(dataclasses.asdict(record))
    assert isinstance(plain, dict)
    return plain


def summary_to_dict(summary: RunSummary) -> dict[str, Any]:
    """Return one line of the list as strict JSON values."""
    plain = strict_json(dataclasses.asdict(summary))
    assert isinstance(plain, dict)
    return plain


def cost_usd(launch: LaunchRecord, until_unix_s: float | None) -> float | None:
    """Return what the pod has cost at most: its price from the launch to its end.

    A launch that has not ended counts up to `until_unix_s`; None when price or time is unknown.
    """
    end_unix_s = launch.ended_unix_s if launch.ended_unix_s is not None else until_unix_s
    if launch.cost_usd_per_h is None or end_unix_s is None:
        return None
    return max(0.0, end_unix_s - launch.intended_unix_s) / 3600 * launch.cost_usd_per_h


def _facts(record: RunRecord, now_unix_s: float | None) -> Iterator[tuple[str, Text]]:
    plan, launch, ending = record.plan, record.launch, record.ending
    yield "run", _text(record.run_id, style="bold")
    yield "status", _status(record.status)
    yield "name", _text(launch.name if launch else plan.name or "")
    yield "method", _text(_joined(plan.method, f"scored by {plan.scorer}" if plan.scorer else None))
    yield "rows", _text(_rows(plan.train_rows, plan.eval_rows))
    yield "step", _text(_position(record))
    yield "device", _text(record.device or "")
    yield "starts", _text(str(record.boots) if record.boots > 1 else "")
    yield "pod", _text(_pod(launch))
    yield (
        "cost",
        _text(_cost(launch, record.last_event_unix_s if now_unix_s is None else now_unix_s)),
    )
    yield "stopped", _text((ending.reason if ending else None) or "")
    yield "chosen", _text(_chosen(record))
    yield "weights", _text(record.delivery.path if record.delivery else "")
    yield "published", _text(record.publication.url if record.publication else "")
    yield "output", _text((launch.output_path if launch else None) or record.output or "")
    yield "log", _text((launch.log_path if launch else None) or "")


def _facts_table(facts: Iterable[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        if value.plain:
            table.add_row(name, value)
    return table


def _score_table(record: RunRecord) -> Table:
    components = list(dict.fromkeys(name for e in record.evaluations for name, _ in e.components))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("step", "epoch", "eval loss", "score", *components):
        table.add_column(_text(heading), justify="right")
    table.add_column("train loss")
    table.add_column("")
    for evaluation in record.evaluations:
        parts = dict(evaluation.components)
        cells = (
            str(evaluation.step),
            _number(evaluation.epoch, 2),
            _number(evaluation.eval_loss, 4),
            _number(evaluation.score, 4) if evaluation.is_usable else "unusable",
            *(_number(parts.get(name), 4) for name in components),
            evaluation.trend or "",
            _marks(record, evaluation),
        )
        is_best = record.best is not None and evaluation.step == record.best.step
        table.add_row(*map(_text, cells), style="bold green" if is_best else None)
    return table


def _prediction_table(predictions: Sequence[Prediction]) -> Table:
    checks = list(dict.fromkeys(name for p in predictions for name, _ in p.checks))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("prompt", "answer"):
        table.add_column(heading)
    for name in checks:
        table.add_column(_text(_CHECK_HEADINGS.get(name, name)), justify="right", no_wrap=True)
    for prediction in predictions:
        measured = dict(prediction.checks)
        cells = (
            _one_line(prediction.prompt)[-_SHOWN_CHARACTERS:],
            _one_line(prediction.answer)[:_SHOWN_CHARACTERS],
            *(_measure(measured.get(name)) for name in checks),
        )
        table.add_row(*map(_text, cells))
    return table


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _measure(value: bool | float | None) -> str:  # noqa: FBT001 - the value of one check
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(value, 2)


def _marks(record: RunRecord, evaluation: ScoredEvaluation) -> str:
    is_best = record.best is not None and evaluation.step == record.best.step
    is_chosen = record.ending is not None and evaluation.step == record.ending.best_step
    return _joined("best" if is_best else None, "chosen" if is_chosen else None)


def _notice_lines(record: RunRecord) -> Iterator[Text]:
    for notice in record.notices:
        times = f" ({notice.count} times)" if notice.count > 1 else ""
        yield _text(f"  {notice.what}{times}", style="yellow")


def _error_lines(error: str, problems: Sequence[str]) -> Iterator[Text]:
    yield _text(f"error: {error}", style="bold red")
    for problem in problems:
        yield _text("\n".join(f"  {line}" for line in problem.splitlines()))


def _summary_cells(summary: RunSummary) -> Iterator[Text]:
    yield _text(summary.run_id, style="bold")
    yield _text(summary.name or _ABSENT)
    yield _status(summary.status)
    yield _text(_ABSENT if summary.progress is None else f"{summary.progress:.0%}")
    yield _text(_number(summary.best_score, 4))
    yield _text(_ABSENT if summary.best_step is None else str(summary.best_step))
    yield _text(_number(summary.cost_usd_per_h, 2))
    yield _text(_time(summary.created_unix_s))


def _status(status: RunStatus) -> Text:
    return _text(status.value.replace("_", " "), style=_STYLES[status])


def _position(record: RunRecord) -> str:
    if record.step is None:
        return ""
    total = f" of {record.plan.total_steps}" if record.plan.total_steps else ""
    epoch = "" if record.epoch is None else f"epoch {record.epoch:.2f}"
    per_step = record.plan.sequences_per_step
    sequences = f"{per_step} sequences a step" if per_step else None
    return _joined(f"{record.step}{total}", epoch, sequences)


def _rows(train_rows: int | None, eval_rows: int | None) -> str:
    train = None if train_rows is None else f"{train_rows:,} to train"
    return _joined(train, None if eval_rows is None else f"{eval_rows:,} to evaluate")


def _pod(launch: LaunchRecord | None) -> str:
    if launch is None:
        return ""
    stop = "stop requested" if launch.stop_requested else None
    reason = f": {launch.reason}" if launch.reason else ""
    return _joined(launch.provider.value, launch.pod_id, stop, f"{launch.status.value}{reason}")


def _cost(launch: LaunchRecord | None, until_unix_s: float | None) -> str:
    cost = None if launch is None else cost_usd(launch, until_unix_s)
    if launch is None or cost is None:
        return ""
    return f"${cost:.2f} at ${launch.cost_usd_per_h:.2f} an hour"


def _chosen(record: RunRecord) -> str:
    if record.ending is None or record.ending.best_step is None:
        return ""
    return f"checkpoint of step {record.ending.best_step}"


def _text(value: str, style: str = "") -> Text:
    """Return text that a pod may have written: no markup, and nothing that moves the cursor."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in value), style)


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return _ABSENT
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def _time(unix_s: float | None) -> str:
    if unix_s is None:
        return _ABSENT
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")
