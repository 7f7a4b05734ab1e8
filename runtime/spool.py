"""The events of a run on disk: what happened, and what still has to be delivered.

`events.jsonl` holds one event a line, `events.ack` the id of the last one that the collector has
confirmed. Whatever was not confirmed when the container died is sent by the next one.

What a crash can do, and what holds then:

    the script is killed     a line handed to the kernel stays; one cut short is ended and skipped
    the machine is lost      what is more than a train log was synced to the disk; of train logs
                             the last may be gone, which the resumed run logs again
    events.ack is lost       everything is sent again; the collector drops what it has
    killed while shrinking   the file is the old one or the new one, and the id is in both
"""

import contextlib
import errno
import io
import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podproof.runtime.events import Event, event_from_line, event_to_dict, event_to_line

EVENTS_FILE = "events.jsonl"
ACK_FILE = "events.ack"

_SPOOL_FRESH_FILE = "events.jsonl.new"

# Some 190,000 train logs, two days of one a second; a small part of the smallest disk a pod has.
SPOOL_LIMIT_BYTES = 64 * 1024 * 1024

# One batch carries at most this much of the file, unless a single event is longer.
_SPOOL_READ_BYTES = 256 * 1024

# How `event_to_line` begins: enough to tell a line's kind without reading all of it.
_SPOOL_LINE = re.compile(
    rb'\{"event_id": "[^"]*", "run_id": "[^"]*", "boot": \d+, "seq": \d+, "kind": "(\w+)"'
)


@dataclass(frozen=True)
class SpoolBatch:
    """Events to deliver next.

    `end` is the offset in the file behind them, or None when only memory holds them; `taken`
    counts lines, `events` has fewer when some of them could not be read.
    """

    events: tuple[dict[str, Any], ...]
    taken: int
    end: int | None
    generation: int


class EventSpool:
    """The events of a run on disk, and how many of them the collector has confirmed.

    A disk that refuses costs nothing but memory: lines stay here, can be delivered from here, and
    are written once the disk takes them. Safe to use from several threads, of one process.
    """

    def __init__(self, output: Path, run_id: str, *, limit_bytes: int = SPOOL_LIMIT_BYTES) -> None:
        self._output = output
        self._run_id = run_id
        self._limit = self._soft_limit = limit_bytes
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._size = 0
        self._acked: int | None = None
        self._unwritten: list[bytes] = []
        self._sent_unwritten = 0
        self._generation = 0
        self._is_closed = False
        self.failed_writes = 0

    @property
    def unwritten(self) -> int:
        """Count the events that only memory holds."""
        return len(self._unwritten)

    @property
    def is_pending(self) -> bool:
        """Tell whether some event was not confirmed yet."""
        return (self._acked or 0) != self._size or self._sent_unwritten < len(self._unwritten)

    def append(self, lines: Sequence[bytes], *, is_synced: bool = False) -> bool:
        """Take the lines and write all that waits; return False when the disk refuses.

        With `is_synced` they are on the disk, not only with the kernel, when this returns. The
        first call finds what an earlier container left, and mends its last line.
        """
        with self._lock:
            if self._is_closed:
                return False
            self._unwritten.extend(lines)
            if self._file is not None and not self._unwritten:
                return True
            try:
                self._write(b"".join(self._unwritten))
            except OSError:
                self.failed_writes += 1
                self._close_file()
                return False
            self._note_written()
            if is_synced:
                self._sync()
            return True

    def shrink(self) -> int:
        """Keep the file within its limit; return how many unconfirmed events that cost.

        Past the limit it is written anew, half as long: without the train logs that were
        confirmed, and then with only every n-th of those that were not. Other events all stay, so
        the true bound is twice their size where that is more.
        """
        with self._lock:
            if self._file is None or self._size <= self._soft_limit:
                return 0
            try:
                dropped = self._rewrite()
            except OSError:  # a full disk has no room for the shorter file either, for now
                self.failed_writes += 1
                with contextlib.suppress(OSError):
                    (self._output / _SPOOL_FRESH_FILE).unlink()
                self._soft_limit = self._size + self._limit // 4
                return 0
            self._soft_limit = max(self._limit, 2 * self._size)
            return dropped

    def next_batch(self, most: int) -> SpoolBatch:
        """Return up to `most` unconfirmed lines, those in the file first; raise OSError as read."""
        with self._lock:
            acked = self._acked or 0
            if acked > self._size:  # the file was cut behind our back: send all that is left
                self._acked = acked = 0
            if acked < self._size:
                lines = self._read_lines(acked)[:most]
                end = acked + sum(map(len, lines))
                return SpoolBatch(self._readable(lines), len(lines), end, self._generation)
            lines = self._unwritten[self._sent_unwritten :][:most]
            return SpoolBatch(self._readable(lines), len(lines), None, self._generation)

    def acknowledge(self, batch: SpoolBatch) -> None:
        """Remember, on disk if it can be, that the batch needs no more sending."""
        with self._lock:
            if batch.end is not None:
                self._acked = batch.end
                if batch.events:
                    self._save_ack(batch.events[-1]["event_id"])
            elif batch.generation == self._generation:
                self._sent_unwritten += batch.taken
            # else: the lines reached the file meanwhile, and are sent once more from there

    def close(self) -> None:
        """Let go of the file for good; nothing is taken any more."""
        with self._lock:
            self._is_closed = True
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, lines: bytes) -> None:
        file = self._opened()
        before = os.fstat(file.fileno()).st_size
        if file.write(lines) != len(lines):
            os.ftruncate(file.fileno(), before)
            raise OSError(errno.ENOSPC, "only some of the events fit on the disk")
        self._size = before + len(lines)

    def _note_written(self) -> None:
        """Pass over, in the file, what was confirmed while only memory held it."""
        sent = self._unwritten[: self._sent_unwritten]
        before = self._size - sum(map(len, self._unwritten))
        if sent and self._acked == before:
            self._acked = before + sum(map(len, sent))
            self._save_ack(json.loads(sent[-1])["event_id"])
        self._unwritten.clear()
        self._sent_unwritten = 0
        self._generation += 1

    def _sync(self) -> None:
        try:
            os.fsync(self._opened().fileno())
        except OSError:
            self.failed_writes += 1  # the kernel has the lines all the same

    def _opened(self) -> io.FileIO:
        if self._file is None:
            self._output.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is with the kernel once written, and survives our own death.
            file = (self._output / EVENTS_FILE).open("a+b", buffering=0)
            try:
                self._size = _spool_end_last_line(file)
                if self._acked is None:
                    self._acked = self._load_ack()
            except OSError:
                file.close()
                raise
            self._file = file
        return self._file

    def _load_ack(self) -> int:
        """Return where the last confirmed event ends in the file; 0 when it is not there."""
        try:
            event_id = (self._output / ACK_FILE).read_bytes().strip()
        except OSError:
            return 0
        start, end = b'{"event_id": "' + event_id + b'", ', 0
        with (self._output / EVENTS_FILE).open("rb") as file:
            for line in file:
                end += len(line)
                if line.startswith(start):
                    return end
        return 0

    def _save_ack(self, event_id: str) -> None:
        fresh = self._output / f"{ACK_FILE}.new"
        try:
            fresh.write_text(f"{event_id}\n", encoding="ascii")
            fresh.replace(self._output / ACK_FILE)
        except OSError:
            self.failed_writes += 1  # after a restart some events are sent again, no more than that
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _rewrite(self) -> int:
        """Write the file anew, shorter, and put it in place in one step; return what was lost."""
        keeps, dropped, end, size, acked = self._keeper(), 0, 0, 0, 0
        fresh = self._output / _SPOOL_FRESH_FILE
        with (self._output / EVENTS_FILE).open("rb") as old, fresh.open("wb") as new:
            for line in old:
                end += len(line)
                if keeps(line, end):
                    new.write(line)
                    size += len(line)
                elif end > (self._acked or 0):
                    dropped += 1
                if end <= (self._acked or 0):
                    acked = size
            new.flush()
            os.fsync(new.fileno())
        fresh.replace(self._output / EVENTS_FILE)
        self._close_file()
        self._size, self._acked = size, acked
        return dropped

    def _keeper(self) -> Callable[[bytes, int], bool]:
        """Return what tells, line by line with the offset of its end, which lines to keep."""
        acked, rest, logs, end = self._acked or 0, 0, 0, 0
        with (self._output / EVENTS_FILE).open("rb") as file:
            for line in file:
                end += len(line)
                if _is_kept(line, end, acked):
                    rest += len(line)
                elif end > acked:
                    logs += len(line)
        every, seen = -(-logs // max(1, self._limit // 2 - rest)), itertools.count()

        def keeps(line: bytes, end: int) -> bool:
            return _is_kept(line, end, acked) or (end > acked and next(seen) % every == 0)

        return keeps

    def _read_lines(self, start: int) -> list[bytes]:
        """Return whole lines from `start` on, at least one."""
        file, most = self._opened(), _SPOOL_READ_BYTES
        chunk = os.pread(file.fileno(), most, start)
        while b"\n" not in chunk and len(chunk) == most:
            most *= 2
            chunk = os.pread(file.fileno(), most, start)
        if b"\n" not in chunk:
            raise OSError(errno.EIO, "the event file is shorter than it was")
        return chunk[: chunk.rindex(b"\n") + 1].splitlines(keepends=True)

    def _readable(self, lines: Sequence[bytes]) -> tuple[dict[str, Any], ...]:
        """Leave out what a kill or a stranger left in the file: no event, or of another run."""
        events = [event for line in lines if (event := spooled_event(line)) is not None]
        return tuple(event_to_dict(event) for event in events if event.run_id == self._run_id)


def _is_kept(line: bytes, end: int, acked: int) -> bool:
    """Tell whether the line stays however long the file is; the last confirmed one is a mark."""
    head = _SPOOL_LINE.match(line)
    return end == acked or head is None or head.group(1) != b"train_log"


def _spool_end_last_line(file: io.FileIO) -> int:
    """Put a newline behind a line cut short by a kill, and return the size of the file."""
    size = os.fstat(file.fileno()).st_size
    if size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n":
        return size
    return size + (file.write(b"\n") or 0)


def boots_so_far(output: Path) -> int:
    """Return the boot of the last event an earlier start left in `output`; 0 if there is none.

    A script that is started by hand counts its own starts this way: event ids carry the boot, and
    a receiver drops ids that it has.
    """
    last = _spool_last_event(output)
    return 0 if last is None else last.boot


def seqs_so_far(output: Path, boot: int) -> int:
    """Return how many events this start left in `output`: all ranks may begin anew within one."""
    last = _spool_last_event(output)
    return last.seq + 1 if last is not None and last.boot == boot else 0


def _spool_last_event(output: Path) -> Event | None:
    try:
        with (output / EVENTS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _SPOOL_READ_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    events = map(spooled_event, reversed(lines))
    return next((event for event in events if event is not None), None)


def spooled_event(line: bytes) -> Event | None:
    """Return the event of a line; None when the line is not one, as after a kill."""
    try:
        return event_from_line(line.decode("ascii"))
    except (ValueError, OverflowError, RecursionError):
        return None


def spool_line(event: Event) -> bytes:
    """Return the event's line; a body that cannot be written is replaced, never the event."""
    try:
        return event_to_line(event).encode("ascii") + b"\n"
    except Exception as error:
        body = {"unwritable_body": type(error).__name__}
        return event_to_line(replace(event, body=body)).encode("ascii") + b"\n"
