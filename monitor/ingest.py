"""Events into tables: each event kept once, and the rows that follow from it brought up to date.

A row is always worked out anew from the stored events it depends on, so the order and the number
of arrivals cannot matter. Train logs and evaluations, by far the most, touch only their own row,
the position of the run and its scores; only rarer events have the whole run folded again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Select, Table, select, true, update
from sqlalchemy.dialects import sqlite

from podproof.compiler.throughput import PastRun
from podproof.monitor.fold import (
    MergedSteps,
    fold_run,
    merged_by_sample,
    merged_by_step,
    progress_of,
    scored_evaluations,
)
from podproof.monitor.records import LaunchRecord, RunRecord, RunStatus
from podproof.monitor.rows import (
    checkpoint_row,
    event_of,
    event_row,
    job_row,
    launch_of,
    metric_row,
    prediction_row,
    score_history,
    score_metrics,
)
from podproof.monitor.speeds import past_run
from podproof.monitor.tables import (
    ESTIMATES,
    LAUNCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_EVENTS as EVENTS,
    TRAINING_JOBS as JOBS,
    TRAINING_METRICS,
    TRAINING_PREDICTIONS,
)
from podproof.runtime.events import Event, EventKind

_Item = TypeVar("_Item")

# Kinds that can come thousands of times. They move a running run; nothing else follows from them.
_FREQUENT_KINDS = (
    EventKind.TRAIN_LOG,
    EventKind.EVALUATION,
    EventKind.NOTICE,
    EventKind.NEW_BEST,
    EventKind.PREDICTION,
    EventKind.CHECKPOINT_SAVED,
)

# Well under the number of variables that SQLite takes in one statement.
_CHUNK = 500

_PAST_RUNS = 50
_PAST_LOGS = 100


def ingest_events(connection: Connection, events: Iterable[Event]) -> int:
    """Keep the events that are new and bring their runs up to date; return how many were new.

    `connection` is in a transaction that may write.
    """
    of_runs: dict[str, dict[str, Event]] = {}
    for event in events:
        of_runs.setdefault(event.run_id, {}).setdefault(event.event_id, event)
    # In order of run ids, so that two transactions never wait for each other.
    return sum(
        _ingest_run(connection, run_id, tuple(of_runs[run_id].values()))
        for run_id in sorted(of_runs)
    )


def refresh_job(connection: Connection, run_id: str) -> None:
    """Fold the run anew and write its row in `training_jobs`, which is made if it is missing."""
    lock_job(connection, run_id)
    is_in_row = EVENTS.c.kind.not_in(_FREQUENT_KINDS) | (EVENTS.c.kind == EventKind.EVALUATION)
    record = _record(connection, run_id, is_in_row)
    connection.execute(update(JOBS).where(JOBS.c.id == run_id).values(job_row(record)))


def read_record(connection: Connection, run_id: str) -> RunRecord:
    """Return all that is known of the run; an empty record when nothing is."""
    return _record(connection, run_id, EVENTS.c.kind != EventKind.TRAIN_LOG)


def read_events(connection: Connection, run_id: str, kinds: Iterable[EventKind]) -> list[Event]:
    """Return the run's events of these kinds as they happened: by boot, then by number."""
    is_wanted = EVENTS.c.kind.in_([kind.value for kind in kinds])
    wanted = select(EVENTS).where(EVENTS.c.job_id == run_id, is_wanted)
    return _events(connection, wanted.order_by(EVENTS.c.boot, EVENTS.c.seq))


def read_launch(connection: Connection, run_id: str) -> LaunchRecord | None:
    """Return the launch of a run, or None if it was not launched from here."""
    found = connection.execute(select(LAUNCHES).where(LAUNCHES.c.run_id == run_id)).one_or_none()
    return None if found is None else launch_of(found._asdict())


def read_past_runs(connection: Connection) -> Iterator[PastRun]:
    """Yield what the newest runs with an estimate got done, where their events tell.

    Of each the first train logs are read, up to a bound, so that a store of many long runs does
    not hold a gate up.
    """
    newest = select(ESTIMATES, LAUNCHES.c.intended_unix_s).join(
        LAUNCHES, LAUNCHES.c.run_id == ESTIMATES.c.run_id
    )
    newest = newest.order_by(LAUNCHES.c.intended_unix_s.desc()).limit(_PAST_RUNS)
    for row in connection.execute(newest):
        started = read_events(connection, row.run_id, (EventKind.STARTED,))
        logs = select(EVENTS).where(
            EVENTS.c.job_id == row.run_id, EVENTS.c.kind == EventKind.TRAIN_LOG.value
        )
        ordered = logs.order_by(EVENTS.c.boot, EVENTS.c.seq).limit(_PAST_LOGS)
        run = past_run(row.body, [*started, *_events(connection, ordered)])
        if run is not None:
            yield run


def lock_job(connection: Connection, run_id: str) -> str:
    """Make sure the run has a row, keep others off it until we are done, and return its status."""
    add_row(connection, JOBS, {"id": run_id, "status": RunStatus.PENDING.value})
    locked = select(JOBS.c.status).where(JOBS.c.id == run_id).with_for_update()
    return str(connection.execute(locked).scalar_one())


def add_row(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert the row unless there is one with its key."""
    connection.execute(_insert(connection, table).values(**row).on_conflict_do_nothing())


def put_rows(
    connection: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the rows, each in place of the one with the same keys."""
    if not rows:
        return
    insert = _insert(connection, table)
    news = {column.name: insert.excluded[column.name] for column in table.columns}
    for key in keys:
        del news[key]
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=news), rows)


def _ingest_run(connection: Connection, run_id: str, events: Sequence[Event]) -> int:
    status = lock_job(connection, run_id)
    fresh = _keep_new(connection, events)
    _refresh_metrics(connection, run_id, EventKind.TRAIN_LOG, fresh)
    evaluated = _refresh_metrics(connection, run_id, EventKind.EVALUATION, fresh)
    _refresh_checkpoints(connection, run_id, fresh)
    _refresh_predictions(connection, run_id, fresh)
    is_only_moving = all(event.kind in _FREQUENT_KINDS for event in fresh)
    if fresh and is_only_moving and status == RunStatus.RUNNING:
        _move_job(connection, run_id, evaluated)
    elif fresh:
        refresh_job(connection, run_id)
    return len(fresh)


def _keep_new(connection: Connection, events: Sequence[Event]) -> list[Event]:
    known: set[str] = set()
    for ids in _chunks([event.event_id for event in events]):
        known |= set(
            connection.scalars(select(EVENTS.c.event_id).where(EVENTS.c.event_id.in_(ids)))
        )
    fresh = [event for event in events if event.event_id not in known]
    if fresh:
        connection.execute(EVENTS.insert(), [event_row(event) for event in fresh])
    return fresh


def _refresh_metrics(
    connection: Connection, run_id: str, kind: EventKind, fresh: Sequence[Event]
) -> MergedSteps:
    steps = _touched_steps(connection, run_id, kind, fresh)
    rows = [metric_row(run_id, kind, step, *merged) for step, merged in steps.items()]
    put_rows(connection, TRAINING_METRICS, ("job_id", "step", "kind"), rows)
    return steps


def _refresh_checkpoints(connection: Connection, run_id: str, fresh: Sequence[Event]) -> None:
    steps = _touched_steps(connection, run_id, EventKind.CHECKPOINT_SAVED, fresh)
    rows = [checkpoint_row(run_id, step, body) for step, (_, body) in steps.items()]
    put_rows(connection, TRAINING_CHECKPOINTS, ("job_id", "step"), rows)


def _refresh_predictions(connection: Connection, run_id: str, fresh: Sequence[Event]) -> None:
    stored = _at_touched_steps(connection, run_id, EventKind.PREDICTION, fresh)
    rows = [prediction_row(run_id, *key, body) for key, body in merged_by_sample(stored).items()]
    put_rows(connection, TRAINING_PREDICTIONS, ("job_id", "step", "sample"), rows)


def _touched_steps(
    connection: Connection, run_id: str, kind: EventKind, fresh: Sequence[Event]
) -> MergedSteps:
    return merged_by_step(_at_touched_steps(connection, run_id, kind, fresh))


def _at_touched_steps(
    connection: Connection, run_id: str, kind: EventKind, fresh: Sequence[Event]
) -> list[Event]:
    """Return all stored events of the kind at the steps that a fresh one of the kind is about."""
    steps = {event.step for event in fresh if event.kind is kind and event.step is not None}
    of_kind = select(EVENTS).where(EVENTS.c.job_id == run_id, EVENTS.c.kind == kind.value)
    stored: list[Event] = []
    for chunk in _chunks(sorted(steps)):
        # Unordered: asked for an order, SQLite walks the whole run instead of these few steps.
        stored += _events(connection, of_kind.where(EVENTS.c.step.in_(chunk)))
    return stored


def _move_job(connection: Connection, run_id: str, evaluated: MergedSteps) -> None:
    """Write where a running run stands, and its scores where an evaluation is new."""
    known = select(JOBS.c.total_steps, JOBS.c.metrics).where(JOBS.c.id == run_id)
    total_steps, metrics = connection.execute(known).one()
    position = fold_run(run_id, _newest_events(connection, run_id), launch=None)
    row = {
        "current_step": position.step,
        "current_epoch": position.epoch,
        "progress": progress_of(RunStatus.RUNNING, position.step, total_steps),
        "updated_unix_s": position.last_event_unix_s,
    }
    if evaluated:
        fresh = {evaluation.step: evaluation for evaluation in scored_evaluations(evaluated)}
        row["metrics"] = score_metrics([*{**score_history(metrics), **fresh}.values()])
    connection.execute(update(JOBS).where(JOBS.c.id == run_id).values(row))


def _record(connection: Connection, run_id: str, which: ColumnElement[bool]) -> RunRecord:
    """Fold the chosen events of a run and those that tell where it stands."""
    chosen = _events(connection, select(EVENTS).where(EVENTS.c.job_id == run_id, which))
    newest = _newest_events(connection, run_id)
    distinct = {event.event_id: event for event in (*chosen, *newest)}
    return fold_run(run_id, distinct.values(), read_launch(connection, run_id))


def _newest_events(connection: Connection, run_id: str) -> list[Event]:
    """Return the newest event, the newest with a place in training, the newest with an epoch."""
    is_place = EVENTS.c.kind != EventKind.DELIVERED.value
    has_step, has_epoch = EVENTS.c.step.is_not(None), EVENTS.c.epoch.is_not(None)
    newest_first = EVENTS.c.boot.desc(), EVENTS.c.seq.desc()
    newest: list[Event] = []
    for condition in (true(), is_place & has_step, is_place & has_epoch):
        found = select(EVENTS).where(EVENTS.c.job_id == run_id, condition)
        newest += _events(connection, found.order_by(*newest_first).limit(1))
    return newest


def _events(connection: Connection, wanted: Select[Any]) -> list[Event]:
    return [event_of(row._asdict()) for row in connection.execute(wanted)]


def _insert(connection: Connection, table: Table) -> sqlite.Insert:
    """Return an INSERT that knows ON CONFLICT, which SQLite and PostgreSQL spell the same."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # costs a tenth of a second

        return cast("sqlite.Insert", postgresql.insert(table))
    return sqlite.insert(table)


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
