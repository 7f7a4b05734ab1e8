"""From the events of a run to what is known of it: a pure fold, ordered by boot and number.

Events may come late, twice and out of order; since the fold sorts them, the result does not
depend on how they came. An absent value never replaces a present one.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from podproof.monitor.records import (
    Delivery,
    Ending,
    LaunchRecord,
    LaunchStatus,
    NoticeCount,
    PlanFacts,
    Prediction,
    Publication,
    RunRecord,
    RunStatus,
    SavedCheckpoint,
    ScoredEvaluation,
    best_of,
)
from podproof.monitor.rows import storable_text
from podproof.runtime.events import Event, EventKind, number_or_none

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")

_LAST_WORDS = {EventKind.INTERRUPTED, EventKind.OUT_OF_TIME, EventKind.OUT_OF_MONEY}

# Epoch and body of each step.
MergedSteps = dict[int, tuple[float | None, dict[str, Any]]]


def fold_run(run_id: str, events: Iterable[Event], launch: LaunchRecord | None) -> RunRecord:
    """Return what the events and the launch say of the run.

    Of the `train_log` events the newest is enough; the losses themselves are not in the record.
    """
    ordered = in_order(events)
    status, last = _status(ordered, launch)
    evaluations = scored_evaluations(
        merged_by_step(event for event in ordered if event.kind is EventKind.EVALUATION)
    )
    plan = _plan(ordered)
    # A delivery names the step of the weights it delivers, not where training stands.
    places = [event for event in ordered if event.kind is not EventKind.DELIVERED]
    step = _newest(places, lambda event: event.step)
    return RunRecord(
        run_id=run_id,
        status=status,
        launch=launch,
        plan=plan,
        device=_newest(ordered, lambda event: _start_fact(event, "device")),
        output=_newest(ordered, lambda event: _start_fact(event, "output")),
        boots=max((event.boot for event in ordered), default=0),
        step=step,
        epoch=_newest(places, lambda event: event.epoch),
        progress=progress_of(status, step, plan.total_steps),
        evaluations=evaluations,
        best=best_of(evaluations),
        predictions=_newest_predictions(ordered),
        checkpoints=_checkpoints(ordered),
        delivery=_newest(ordered, _delivery),
        publication=_newest(ordered, _publication),
        ending=_ending(status, last, launch),
        notices=_notices(ordered),
        started_unix_s=_newest(ordered[::-1], _start_time),
        last_event_unix_s=_newest(ordered, lambda event: event.time_unix_s),
    )


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return the events of one run as they happened: by boot, then by number."""
    return sorted(events, key=lambda event: (event.boot, event.seq))


def merged_by_step(events: Iterable[Event]) -> MergedSteps:
    """Return epoch and body for each step, in order of steps; later present values win.

    Events without a step are left out.
    """
    merged: MergedSteps = {}
    for event in in_order(events):
        if event.step is not None:
            epoch, body = merged.get(event.step, (None, {}))
            present = {key: value for key, value in event.body.items() if value is not None}
            epoch = epoch if event.epoch is None else event.epoch
            merged[event.step] = (epoch, {**body, **present})
    return dict(sorted(merged.items()))


def merged_by_sample(events: Iterable[Event]) -> dict[tuple[int, int], Mapping[str, Any]]:
    """Return the last told body for each step and sample, in order of these.

    Events that are no predictions, or do not say of which sample, are left out.
    """
    told: dict[tuple[int, int], Mapping[str, Any]] = {}
    for event in in_order(events):
        sample = _whole(event.body, "sample") if event.kind is EventKind.PREDICTION else None
        if event.step is not None and sample is not None:
            told[event.step, sample] = event.body
    return dict(sorted(told.items()))


def scored_evaluations(steps: MergedSteps) -> tuple[ScoredEvaluation, ...]:
    """Return the evaluations whose epochs and bodies these are."""
    return tuple(_evaluation(step, epoch, body) for step, (epoch, body) in steps.items())


def progress_of(status: RunStatus, step: int | None, total_steps: int | None) -> float | None:
    """Return how far the run is, from 0 to 1; None when its length is not known."""
    if status is RunStatus.DONE:
        return 1.0
    if step is None or not total_steps or total_steps < 0:
        return None
    return min(1.0, max(0.0, step / total_steps))


def _status(events: Sequence[Event], launch: LaunchRecord | None) -> tuple[RunStatus, Event | None]:
    """Return the status, and the event that ended the run if one did."""
    is_intended = launch is not None and launch.status is LaunchStatus.INTENDED
    status = RunStatus.INTENDED if is_intended else RunStatus.PENDING
    ending: Event | None = None
    for event in events:
        is_later_boot = ending is None or event.boot > ending.boot
        # The launcher's word that a run was ended comes after whatever the dying pod still said.
        is_last_word = event.kind in _LAST_WORDS
        if status.is_final or not (is_later_boot or is_last_word):
            continue
        ending = event if event.is_terminal else None
        status = RunStatus(event.kind.value) if event.is_terminal else RunStatus.RUNNING
    if launch is None or launch.status is not LaunchStatus.ENDED or status.is_ending:
        return status, ending
    # The pod is gone and never said how the run ended.
    if launch.stop_requested:
        return RunStatus.INTERRUPTED, None
    return (RunStatus.FAILED if events or launch.pod_id is None else RunStatus.ENDED), None


def _ending(status: RunStatus, event: Event | None, launch: LaunchRecord | None) -> Ending | None:
    if event is not None:
        problems = event.body.get("problems")
        return Ending(
            unix_s=event.time_unix_s,
            reason=_text(event.body, "reason"),
            error=_text(event.body, "error"),
            problems=tuple(map(str, problems)) if isinstance(problems, list) else (),
            best_step=_whole(event.body, "best_step"),
            final_step=_whole(event.body, "final_step"),
        )
    if not status.is_ending or launch is None:
        return None
    error = "the pod ended without a word of how the run ended"
    if status is RunStatus.ENDED:
        error = "the run reported to nobody here; its output on the volume holds events.jsonl"
    return Ending(launch.ended_unix_s or launch.intended_unix_s, launch.reason, error)


def _plan(events: Sequence[Event]) -> PlanFacts:
    bodies = [event.body for event in events if event.kind is EventKind.PLAN]
    return PlanFacts(
        name=_newest(bodies, lambda body: _text(body, "name")),
        method=_newest(bodies, lambda body: _text(body, "method")),
        scorer=_newest(bodies, lambda body: _text(body, "scorer")),
        config_sha256=_newest(bodies, lambda body: _text(body, "config_sha256")),
        total_steps=_newest(bodies, lambda body: _whole(body, "total_steps")),
        sequences_per_step=_newest(bodies, lambda body: _whole(body, "sequences_per_step")),
        train_rows=_newest(bodies, lambda body: _whole(body, "train_rows")),
        eval_rows=_newest(bodies, lambda body: _whole(body, "eval_rows")),
    )


def _evaluation(step: int, epoch: float | None, body: Mapping[str, Any]) -> ScoredEvaluation:
    score = number_or_none(body.get("score"))
    is_usable = score is not None and math.isfinite(score)
    parts = body.get("components")
    components = [
        (str(name), number)
        for name, value in (parts.items() if isinstance(parts, Mapping) else ())
        if (number := number_or_none(value)) is not None
    ]
    return ScoredEvaluation(
        step=step,
        epoch=epoch,
        eval_loss=number_or_none(body.get("eval_loss")),
        score=score if score is not None and is_usable else math.inf,
        components=tuple(components),
        trend=_text(body, "trend"),
    )


def _newest_predictions(events: Sequence[Event]) -> tuple[Prediction, ...]:
    told = merged_by_sample(events)
    newest = max((step for step, _ in told), default=None)
    return tuple(_prediction(*key, body) for key, body in told.items() if key[0] == newest)


def _prediction(step: int, sample: int, body: Mapping[str, Any]) -> Prediction:
    measured = body.get("checks")
    checks = [
        (str(name), value)
        for name, value in (measured.items() if isinstance(measured, Mapping) else ())
        if isinstance(value, bool | int | float)
    ]
    prompt, expected, answer = (_text(body, key) or "" for key in ("prompt", "expected", "answer"))
    return Prediction(step, sample, prompt, expected, answer, tuple(checks))


def _checkpoints(events: Sequence[Event]) -> tuple[SavedCheckpoint, ...]:
    saved = merged_by_step(event for event in events if event.kind is EventKind.CHECKPOINT_SAVED)
    paths = {step: _text(body, "path") for step, (_, body) in saved.items()}
    return tuple(SavedCheckpoint(step, path) for step, path in paths.items() if path)


def _delivery(event: Event) -> Delivery | None:
    path = _text(event.body, "path")
    if event.kind is not EventKind.DELIVERED or path is None:
        return None
    digests = event.body.get("sha256")
    files = sorted(digests.items()) if isinstance(digests, Mapping) else []
    step = _whole(event.body, "step")
    return Delivery(path, step, tuple((str(name), str(digest)) for name, digest in files))


def _publication(event: Event) -> Publication | None:
    repo_id, commit, url = (_text(event.body, key) for key in ("repo_id", "commit", "url"))
    if event.kind is not EventKind.PUBLISHED or repo_id is None or commit is None or url is None:
        return None
    return Publication(repo_id, commit, url, _whole(event.body, "step"))


def _notices(events: Sequence[Event]) -> tuple[NoticeCount, ...]:
    counts: Counter[str] = Counter()
    for event in events:
        what = _text(event.body, "what")
        if event.kind is EventKind.NOTICE and what is not None:
            count = _whole(event.body, "count")
            counts[what] += 1 if count is None else count
    return tuple(NoticeCount(what, count) for what, count in counts.items())


def _start_fact(event: Event, key: str) -> str | None:
    return _text(event.body, key) if event.kind is EventKind.STARTED else None


def _start_time(event: Event) -> float | None:
    return event.time_unix_s if event.kind is EventKind.STARTED else None


def _newest(items: Sequence[_Item], read: Callable[[_Item], _Value | None]) -> _Value | None:
    """Return what is read from the last item that has it."""
    return next((value for item in reversed(items) if (value := read(item)) is not None), None)


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    return storable_text(value) if isinstance(value, str) else None


def _whole(body: Mapping[str, Any], key: str) -> int | None:
    value = body.get(key)
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    return value if is_whole else None
