"""Tell the world how the run is doing, without ever holding it up.

    hook --> queue in memory --> events.jsonl --> collector

A training hook only puts what happened on a queue: it takes no lock, wakes nobody for a train log,
and waits for nothing. One thread numbers the events, appends them to the file and posts what the
collector has not confirmed yet, so a dead endpoint costs nothing and loses nothing. An event may
arrive twice, never not at all; the collector drops what it has by `event_id`.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from podproof.runtime.courier import CourierOutcome, EventCourier, ReportEndpoint
from podproof.runtime.events import Event, EventKind
from podproof.runtime.spool import SPOOL_LIMIT_BYTES, EventSpool, SpoolBatch, spool_line

_REPORTER_AT_ONCE = float("-inf")
_REPORTER_LOCK_S = 1.0

# What waits in memory for the next look, or for the next save.
_REPORTER_PATIENT = frozenset({EventKind.TRAIN_LOG, EventKind.EVALUATION, EventKind.NEW_BEST})

# What a hook leaves on the queue: kind, time, step, epoch, body.
_Reported = tuple[EventKind, float, int | None, float | None, Mapping[str, Any]]


class Report(Protocol):
    """What a training hook is given to say what happened."""

    def __call__(
        self,
        kind: EventKind,
        *,
        step: int | None = None,
        epoch: float | None = None,
        body: Mapping[str, Any],
    ) -> None:
        """Take note of the event and return at once, whatever disk and network are doing."""


@dataclass(frozen=True)
class ReportSource:
    """Who reports: the run, and which start of its container this is, counted from 1.

    `first_seq` is the number of the next event, where this start has sent some before.
    """

    run_id: str
    boot: int
    first_seq: int = 0


class ReporterBell:
    """Wakes the reporter's thread; may be rung by a thread that a signal takes away from it.

    An Event that a KeyboardInterrupt leaves while it is being set stays locked for ever, and the
    next to set it waits as long: the run would hang where it wants to say that it was stopped.
    What this rings is one call into C, done whole or not at all.
    """

    def __init__(self) -> None:
        """Start silent."""
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """End the wait that is going on, or the next one; return at once."""
        self._rings.put(None)

    def wait(self, seconds: float | None) -> None:
        """Return when it was rung since the last wait began, or after so long; None: only then."""
        try:
            self._rings.get(timeout=seconds)
            while True:
                self._rings.get_nowait()
        except queue.Empty:
            return


@dataclass(frozen=True)
class ReporterPace:
    """How often and how much; times in seconds. Tests hurry it with a clock of their own.

    After a failed post the wait doubles from `first_wait_s` to `longest_wait_s`; after a refused
    token it is `longest_wait_s`; a server's Retry-After is obeyed up to `longest_retry_after_s`.
    Posts that carry little are `pause_s` apart, and a disk that refused is tried again after
    `file_retry_s`. Logs and scores wait in memory for `look_s` at most, every other event wakes
    the thread. When `waiting_limit` events wait for the disk, `train_log` events are dropped; when
    the file is longer than `file_bytes`, it loses some (see EventSpool.shrink).
    """

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 600.0
    pause_s: float = 1.0
    file_retry_s: float = 5.0
    look_s: float = 0.25
    batch_events: int = 200
    waiting_limit: int = 10_000
    file_bytes: int = SPOOL_LIMIT_BYTES
    monotonic_s: Callable[[], float] = time.monotonic
    wait: Callable[[ReporterBell, float | None], None] = ReporterBell.wait


@dataclass(frozen=True)
class ReporterCounts:
    """What went wrong so far: events dropped and refused, writes and posts that failed."""

    dropped_events: int
    refused_events: int
    failed_writes: int
    failed_posts: int


class Reporter:
    """Takes events from training hooks and gets them to the file and the collector.

    Runs from its making to `close`. Without an endpoint events go to the file only.
    """

    def __init__(
        self,
        output: Path,
        source: ReportSource,
        *,
        endpoint: ReportEndpoint | None = None,
        clock: Callable[[], float] = time.time,
        pace: ReporterPace | None = None,
    ) -> None:
        """Start the thread; `clock` gives the seconds since 1970 that events are stamped with."""
        self._source, self._clock, self._pace = source, clock, pace or ReporterPace()
        self._spool = EventSpool(output, source.run_id, limit_bytes=self._pace.file_bytes)
        self._courier = None if endpoint is None else EventCourier(endpoint, clock)
        # Hooks append and the holder of the write lock pops, which a deque allows without a lock.
        self._queue: deque[_Reported] = deque()
        self._next_seq = source.first_seq
        self._write_lock = threading.Lock()  # held while the disk works: keeps events in order
        self._drop_lock = threading.Lock()
        self._dropped = self._untold_drops = 0
        self._refused = self._failed_posts = self._failures_in_a_row = 0
        self._batch_events = self._pace.batch_events
        self._write_due_s = self._post_due_s = _REPORTER_AT_ONCE
        self._is_closed = self._is_closing = self._is_abandoned = False
        self._is_token_refused = False
        self._bell = ReporterBell()
        self._thread = threading.Thread(target=self._work, name="podproof-reporter", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> ReporterCounts:
        """Return what went wrong so far."""
        return ReporterCounts(
            self._dropped, self._refused, self._spool.failed_writes, self._failed_posts
        )

    def report(
        self,
        kind: EventKind,
        *,
        step: int | None = None,
        epoch: float | None = None,
        body: Mapping[str, Any],
    ) -> None:
        """Queue the event for the thread; do no I/O, take no lock, and wait for nothing.

        When too many events wait for the disk, `train_log` events are dropped, and a notice tells
        how many once there is room; no other kind is dropped. After `close` everything is. A
        dictionary is copied, what is inside it is not. Any other body is read in the thread, so
        that one which is made when it is read costs the hook nothing.
        """
        is_train_log = kind is EventKind.TRAIN_LOG
        if self._is_closed or (is_train_log and self._is_full):
            self._count_drops(1)
            return
        kept = dict(body) if isinstance(body, dict) else body
        self._queue.append((kind, self._clock(), step, epoch, kept))
        # Waking costs a hook more than all the rest. Logs and scores can wait: what a kill takes of
        # them the resumed run says again, since they are written before a checkpoint is saved.
        if kind not in _REPORTER_PATIENT:
            self._bell.ring()

    def write(self, timeout_s: float) -> None:
        """Write what is queued to the file; wait for a disk that hangs for `timeout_s` at most."""
        self._write_queued(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write every event to the file, deliver for at most `timeout_s`, and stop.

        Return whether all is where it should be: confirmed by the collector, or, without one, in
        the file. What is not confirmed stays in the file for the next container. A disk that
        hangs holds this up for `timeout_s` once more.
        """
        self._is_closed = True
        # Here, since the thread may be stuck in a request; within limits, since it may be stuck
        # in the disk.
        self._write_queued(timeout_s + _REPORTER_LOCK_S)
        self._failures_in_a_row = 0
        self._write_due_s = self._post_due_s = _REPORTER_AT_ONCE
        self._is_token_refused = False
        self._is_closing = True
        self._bell.ring()
        self._thread.join(timeout_s)
        self._is_abandoned = True
        self._bell.ring()
        if self._queue or self._spool.unwritten:
            return False
        return self._courier is None or (not self._spool.is_pending and self._refused == 0)

    @property
    def _is_full(self) -> bool:
        return len(self._queue) + self._spool.unwritten >= self._pace.waiting_limit

    def _count_drops(self, count: int) -> None:
        with self._drop_lock:
            self._dropped += count
            self._untold_drops += count

    def _notice(self, what: str, count: int) -> None:
        body = {"what": what, "count": count}
        self._queue.append((EventKind.NOTICE, self._clock(), None, None, body))

    # What follows runs in the thread.

    def _work(self) -> None:
        try:
            while True:
                self._take_turn()
                if self._is_abandoned or (self._is_closing and not self._has_work):
                    break
                self._pace.wait(self._bell, self._idle_s())
            self._write_queued()  # a notice may have come last
        finally:
            self._spool.close()

    def _take_turn(self) -> None:
        """Write, then post if it is time; whatever fails here is counted and tried again later."""
        try:
            if self._pace.monotonic_s() >= self._write_due_s:
                self._write_queued()
                self._tell_of_drops()
            if self._is_post_wanted and self._pace.monotonic_s() >= self._post_due_s:
                self._post()
        except Exception:
            self._back_off(None)

    @property
    def _is_post_wanted(self) -> bool:
        # At the end a refused token is not waited for: it would be tried again in a minute.
        is_given_up = self._is_closing and self._is_token_refused
        return self._courier is not None and not is_given_up and self._spool.is_pending

    @property
    def _has_work(self) -> bool:
        return bool(self._queue) or self._spool.unwritten > 0 or self._is_post_wanted

    def _idle_s(self) -> float:
        """Return the seconds until there may be something to do."""
        due_s = self._pace.monotonic_s() + self._pace.look_s
        if self._is_post_wanted:
            due_s = min(due_s, self._post_due_s)
        return max(0.0, due_s - self._pace.monotonic_s())

    def _write_queued(self, patience_s: float = -1.0) -> None:
        """Hand what is queued to the file, numbered; give up when the disk hangs for so long."""
        if not self._write_lock.acquire(timeout=patience_s):
            return
        try:
            events = [self._numbered(*self._queue.popleft()) for _ in range(len(self._queue))]
            is_synced = any(event.kind is not EventKind.TRAIN_LOG for event in events)
            lines = [spool_line(event) for event in events]
            is_written = self._spool.append(lines, is_synced=is_synced)
        finally:
            self._write_lock.release()
        retry_s = self._pace.monotonic_s() + self._pace.file_retry_s
        self._write_due_s = _REPORTER_AT_ONCE if is_written else retry_s

    def _numbered(
        self,
        kind: EventKind,
        time_unix_s: float,
        step: int | None,
        epoch: float | None,
        body: Mapping[str, Any],
    ) -> Event:
        run_id, boot, seq = self._source.run_id, self._source.boot, self._next_seq
        self._next_seq += 1
        event_id = f"{run_id}-{boot}-{seq}"
        return Event(event_id, run_id, boot, seq, kind, time_unix_s, step, epoch, body)

    def _tell_of_drops(self) -> None:
        """Report drops once there is room again: while there is none, a notice would only add."""
        self._count_drops(self._spool.shrink())
        if self._spool.unwritten:
            return
        with self._drop_lock:
            count, self._untold_drops = self._untold_drops, 0
        if count:
            self._notice("train_log events dropped: too many waited for disk or collector", count)

    def _post(self) -> None:
        batch = self._spool.next_batch(self._batch_events)
        if not batch.events or self._courier is None:
            self._spool.acknowledge(batch)
            return
        reply = self._courier.post(self._source.run_id, batch.events)
        match reply.outcome:
            case CourierOutcome.ACCEPTED:
                self._settle(batch)
            case CourierOutcome.TRY_AGAIN:
                self._back_off(reply.retry_after_s)
            case CourierOutcome.EVENTS_REFUSED:
                self._single_out(batch, reply.status)
            case CourierOutcome.TOKEN_REFUSED:
                self._wait_for_token(reply.status)

    def _settle(self, batch: SpoolBatch) -> None:
        self._spool.acknowledge(batch)
        self._is_token_refused = False
        is_more_waiting = batch.taken >= self._batch_events
        self._failures_in_a_row, self._batch_events = 0, self._pace.batch_events
        self._pause(0.0 if is_more_waiting or self._is_closing else self._pace.pause_s)

    def _back_off(self, retry_after_s: float | None) -> None:
        doubled_s = self._pace.first_wait_s * 2.0 ** min(self._failures_in_a_row, 60)
        wait_s = min(self._pace.longest_wait_s, doubled_s)
        if retry_after_s is not None:
            wait_s = min(self._pace.longest_retry_after_s, max(wait_s, retry_after_s))
        self._failed_posts += 1
        self._failures_in_a_row += 1
        self._pause(wait_s)

    def _single_out(self, batch: SpoolBatch, status: int) -> None:
        """Halve the batch until the event the collector cannot take stands alone, then skip it.

        One notice for all of them: the notice, too, is an event that may be refused.
        """
        if len(batch.events) > 1:
            self._batch_events = max(1, batch.taken // 2)
            return
        self._refused += 1
        self._spool.acknowledge(batch)
        self._pause(self._pace.pause_s)
        if self._refused == 1:
            event_id = batch.events[0]["event_id"]
            self._notice(f"the collector refuses events (HTTP {status}), first {event_id}", 1)

    def _wait_for_token(self, status: int) -> None:
        """Post again once in a while: a token may be known to the collector later than to us."""
        if not self._is_token_refused:
            self._notice(f"the collector refuses our token (HTTP {status}); it is asked again", 1)
        self._is_token_refused = True
        self._back_off(self._pace.longest_wait_s)

    def _pause(self, seconds: float) -> None:
        self._post_due_s = self._pace.monotonic_s() + seconds
