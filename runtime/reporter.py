"""Tell the world how the run is doing, without ever holding it up.

    hook --> queue in memory --> events.jsonl --> collector

A training hook only puts its event on a queue. One thread appends events to the file and posts
what the collector has not confirmed yet, so a dead endpoint costs nothing and loses nothing. An
event may arrive twice, never not at all; the collector drops what it has by `event_id`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from podproof.runtime.courier import CourierOutcome, EventCourier, ReportEndpoint
from podproof.runtime.events import Event, EventKind
from podproof.runtime.spool import EventSpool, SpoolBatch, spool_line

_REPORTER_AT_ONCE = float("-inf")


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


@dataclass(frozen=True)
class ReporterPace:
    """How often and how much; times in seconds. Tests hurry it with a clock of their own.

    After a failed post the wait doubles from `first_wait_s` to `longest_wait_s`; a server's
    Retry-After is obeyed up to `longest_retry_after_s`. Posts that carry little are `pause_s`
    apart, and a disk that refused is tried again after `file_retry_s`. When `waiting_limit`
    events wait for the disk, `train_log` events are dropped.
    """

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 600.0
    pause_s: float = 1.0
    file_retry_s: float = 5.0
    batch_events: int = 200
    waiting_limit: int = 10_000
    monotonic_s: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float | None], bool] = threading.Event.wait


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
        self._spool = EventSpool(output, source.run_id)
        self._courier = None if endpoint is None else EventCourier(endpoint, clock)
        self._queue: deque[Event] = deque()
        self._next_seq = source.first_seq
        self._queue_lock = threading.Lock()  # held for microseconds: hooks take it
        self._write_lock = threading.Lock()  # held while the disk works: keeps events in order
        self._waiting = self._dropped = self._untold_drops = 0
        self._refused = self._failed_posts = self._failures_in_a_row = 0
        self._batch_events = self._pace.batch_events
        self._write_due_s = self._post_due_s = _REPORTER_AT_ONCE
        self._is_closed = self._is_closing = self._is_abandoned = self._is_token_refused = False
        self._wake = threading.Event()
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
        """Queue the event for the thread; do no I/O and wait for nothing.

        When too many events wait for the disk, `train_log` events are dropped, and a notice tells
        how many once there is room; no other kind is dropped. After `close` everything is.
        """
        with self._queue_lock:
            is_full = self._waiting >= self._pace.waiting_limit
            if self._is_closed or (is_full and kind is EventKind.TRAIN_LOG):
                self._dropped += 1
                self._untold_drops += 1
                return
            self._enqueue(kind, step, epoch, dict(body))
        self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """Write every event to the file, deliver for at most `timeout_s`, and stop.

        Return whether all is where it should be: confirmed by the collector, or, without one, in
        the file. What is not confirmed stays in the file for the next container.
        """
        with self._queue_lock:
            self._is_closed = True
        self._write_queued()  # here, since the thread may be stuck in a request
        self._failures_in_a_row = 0
        self._write_due_s = self._post_due_s = _REPORTER_AT_ONCE
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        self._is_abandoned = True
        self._wake.set()
        if self._courier is None:
            return self._spool.unwritten == 0
        return not self._spool.is_pending and self._refused == 0

    def _enqueue(
        self, kind: EventKind, step: int | None, epoch: float | None, body: Mapping[str, Any]
    ) -> None:
        run_id, boot, seq = self._source.run_id, self._source.boot, self._next_seq
        self._next_seq += 1
        self._waiting += 1
        event_id = f"{run_id}-{boot}-{seq}"
        self._queue.append(
            Event(event_id, run_id, boot, seq, kind, self._clock(), step, epoch, body)
        )

    def _notice(self, what: str, count: int) -> None:
        with self._queue_lock:
            self._enqueue(EventKind.NOTICE, None, None, {"what": what, "count": count})
        self._wake.set()

    # What follows runs in the thread.

    def _work(self) -> None:
        try:
            while True:
                self._wake.clear()
                self._take_turn()
                if self._is_abandoned or (self._is_closing and not self._has_work):
                    break
                self._pace.wait(self._wake, self._idle_s())
            self._write_queued()  # a notice may have come last
        finally:
            self._spool.close()

    def _take_turn(self) -> None:
        """Write, then post if it is time; whatever fails here is counted and tried again later."""
        try:
            if self._pace.monotonic_s() >= self._write_due_s:
                self._write_queued()
            if self._is_post_wanted and self._pace.monotonic_s() >= self._post_due_s:
                self._post()
        except Exception:
            self._back_off(None)

    @property
    def _is_post_wanted(self) -> bool:
        can_deliver = self._courier is not None and not self._is_token_refused
        return can_deliver and self._spool.is_pending

    @property
    def _has_work(self) -> bool:
        return bool(self._queue) or self._spool.unwritten > 0 or self._is_post_wanted

    def _idle_s(self) -> float | None:
        """Return the seconds until something is to be tried again; None: until woken."""
        due_s = []
        if self._queue or self._spool.unwritten:
            due_s.append(self._write_due_s)
        if self._is_post_wanted:
            due_s.append(self._post_due_s)
        return max(0.0, min(due_s) - self._pace.monotonic_s()) if due_s else None

    def _write_queued(self) -> None:
        with self._write_lock:
            with self._queue_lock:
                events = list(self._queue)
                self._queue.clear()
            is_written = self._spool.append([spool_line(event) for event in events])
        if is_written:
            self._write_due_s = _REPORTER_AT_ONCE
            self._tell_of_drops()
        else:
            self._write_due_s = self._pace.monotonic_s() + self._pace.file_retry_s

    def _tell_of_drops(self) -> None:
        """Report drops once there is room again: while there is none, a notice would only add."""
        with self._queue_lock:
            self._waiting = len(self._queue)
            count, self._untold_drops = self._untold_drops, 0
        if count:
            self._notice("train_log events dropped: too many waited for the disk", count)

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
                self._stop_delivery(reply.status)

    def _settle(self, batch: SpoolBatch) -> None:
        self._spool.acknowledge(batch)
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

    def _stop_delivery(self, status: int) -> None:
        """Post no more: a wrong token does not become right. The file is still written."""
        self._is_token_refused = True
        self._notice(f"the collector refuses our token (HTTP {status}); delivery has stopped", 1)

    def _pause(self, seconds: float) -> None:
        self._post_due_s = self._pace.monotonic_s() + seconds
