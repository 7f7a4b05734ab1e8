"""The events of a run on disk: everything that happened, and what still has to be delivered.

`events.jsonl` holds one event a line; `events.ack` holds how far the collector has confirmed it,
in bytes. Whatever was not confirmed when the container died is sent by the next one.
"""

import errno
import io
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podproof.runtime.events import Event, event_from_line, event_to_dict, event_to_line

EVENTS_FILE = "events.jsonl"
ACK_FILE = "events.ack"

# One batch carries at most this much of the file, unless a single event is longer.
_SPOOL_READ_BYTES = 256 * 1024


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
    are written once the disk takes them. Safe to use from several threads.
    """

    def __init__(self, output: Path, run_id: str) -> None:
        self._output = output
        self._run_id = run_id
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

    def append(self, lines: Sequence[bytes]) -> bool:
        """Take the lines and write all that waits; return False when the disk refuses.

        The first call finds what an earlier container left, and mends its last line.
        """
        with self._lock:
            if self._is_closed:
                return False
            self._unwritten.extend(lines)
            try:
                self._write(b"".join(self._unwritten))
            except OSError:
                self.failed_writes += 1
                self._close_file()
                return False
            self._unwritten.clear()
            self._sent_unwritten = 0
            self._generation += 1
            return True

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
                self._save_ack(batch.end)
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

    def _opened(self) -> io.FileIO:
        if self._file is None:
            self._output.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is with the kernel once written, and survives our own death.
            file = (self._output / EVENTS_FILE).open("a+b", buffering=0)
            try:
                self._size = _spool_end_last_line(file)
            except OSError:
                file.close()
                raise
            if self._acked is None:
                self._acked = self._load_ack(file)
            self._file = file
        return self._file

    def _load_ack(self, file: io.FileIO) -> int:
        """Return the confirmed position; 0 when it is not the start of a line of this file."""
        try:
            offset = int((self._output / ACK_FILE).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0
        is_line_start = 0 < offset <= self._size and os.pread(file.fileno(), 1, offset - 1) == b"\n"
        return offset if is_line_start else 0

    def _save_ack(self, offset: int) -> None:
        try:
            fresh = self._output / f"{ACK_FILE}.new"
            fresh.write_text(f"{offset}\n", encoding="ascii")
            fresh.replace(self._output / ACK_FILE)
        except OSError:
            self.failed_writes += 1  # after a restart some events are sent again, no more than that

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
