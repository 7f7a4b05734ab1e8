"""A point is a moment at which a boot may be faulted; here they are reached, and faults committed.

Points are found, not listed. Every event of the trainer is one, and so is every operation on a
file of the run's output or on a socket: Python announces those to audit hooks before they happen,
and what it does not announce (writes to a file that is open) a profiler sees. Nothing of ours and
nothing of the file layer is replaced: a hook that raises makes the operation itself fail.

What compiled code writes, safetensors' and torch's weights, no hook sees. There the kernel helps:
a limit on the size of files (RLIMIT_FSIZE) lets a write go so far and no further, and the signal
that comes with it kills in the middle of it.
"""

import errno
import functools
import io
import json
import os
import resource
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Kind(StrEnum):
    """What is done to a boot at a point.

    kill: SIGKILL. term: SIGTERM. error: the operation fails, or, at an event, the trainer does.
    hook: whatever our callback reports at the event raises. tear: the next write to a file is
    killed half-way. full: from here to its end the boot can write to no file.
    """

    KILL = "kill"
    TERM = "term"
    ERROR = "error"
    HOOK = "hook"
    TEAR = "tear"
    FULL = "full"


@dataclass(frozen=True)
class Fault:
    """A kind of fault and the point to commit it at; `limit` is where a tear cuts, in bytes.

    >>> str(Fault(Kind.TEAR, "open-w checkpoint-4/optimizer.pt #1", 700))
    'tear:700@open-w checkpoint-4/optimizer.pt #1'
    """

    kind: Kind
    point: str
    limit: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{f':{self.limit}' if self.limit else ''}@{self.point}"


def is_reading(point: str) -> bool:
    """Tell whether what comes at the point leaves the disk as it is.

    >>> is_reading("thread open-r checkpoint-2/config.json #1"), is_reading("open-w README.md #1")
    (True, False)
    """
    return point.removeprefix("thread ").split()[0] in READING


def fault_from_text(text: str) -> Fault:
    """Read back what `str` makes of a fault; raise ValueError when it is none.

    >>> fault_from_text("kill@on_save 4 #1")
    Fault(kind=<Kind.KILL: 'kill'>, point='on_save 4 #1', limit=0)
    """
    kind, _, point = text.partition("@")
    name, _, limit = kind.partition(":")
    return Fault(Kind(name), point, int(limit or 0))


# What Python announces, with the places of its paths among the arguments. `open` is told apart.
AUDITED_PATHS = {
    "os.listdir": (0,),
    "os.scandir": (0,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.truncate": (0,),
}
# The argument that holds the folder a relative path counts from, where one may be given.
AUDITED_FOLDERS = {"os.mkdir": 2, "os.remove": 1, "os.rename": 2, "os.rmdir": 1}
READING = {"open-r", "listdir", "scandir", "pread", "fstat"}
PROFILED = {"write", "pread", "fstat", "ftruncate", "fsync"}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Watches one boot, numbers the points it reaches, and commits at most one fault.

    `trace` is a file descriptor that takes one JSON line for each thing worth knowing afterwards:
    the points, when `is_recording`; always the steps trained, and the fault.
    """

    def __init__(
        self, output: Path, fault: Fault | None, trace: int, *, is_recording: bool
    ) -> None:
        self._root = str(output)
        self._fault = fault
        self._trace = trace
        self._is_recording = is_recording
        self._reached: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._here = threading.local()
        self._sizes: dict[str, int] = {}
        self._last = ""

    def install(self) -> None:
        """Start watching, for good: an audit hook cannot be taken away."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self._fault is not None and self._fault.kind is Kind.TEAR:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; now it kills
        self._watch_events()
        threading.setprofile(self._profile)
        sys.addaudithook(self._audit)

    def reach(self, label: str, error: Callable[[], Exception]) -> None:
        """Note that a point is reached; commit the fault that is meant for it."""
        if getattr(self._here, "is_busy", False):
            return
        self._here.is_busy = True
        try:
            point = self._numbered(label)
            if self._fault is not None and self._fault.point == point:
                self._commit(self._fault, error)
        finally:
            self._here.is_busy = False

    def _numbered(self, label: str) -> str:
        is_main = threading.current_thread() is threading.main_thread()
        label = label if is_main else f"thread {label}"
        with self._lock:
            self._reached[label] += 1
            point = f"{label} #{self._reached[label]}"
        if is_main and self._fault is not None and self._fault.kind is Kind.TEAR:
            _allow_files_of(resource.RLIM_INFINITY)
        if self._is_recording:
            self._tell(point=point, main=is_main)
        if self._is_recording and is_main:
            self._note_growth()
            self._last = point
        return point

    def _commit(self, fault: Fault, error: Callable[[], Exception]) -> None:
        if fault.kind is Kind.HOOK:
            return  # committed when the hook reports, if it does
        self._tell(fault=str(fault))
        match fault.kind:
            case Kind.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Kind.TERM:
                os.kill(os.getpid(), signal.SIGTERM)
            case Kind.ERROR:
                raise error()
            case Kind.TEAR:
                _allow_files_of(fault.limit)
            case Kind.FULL:
                _allow_files_of(0)

    def _tell(self, **what: Any) -> None:
        os.write(self._trace, json.dumps(what).encode() + b"\n")

    def _note_growth(self) -> None:
        """Tell which files grew between the last point of the main thread and this one."""
        found = {
            str(path.relative_to(self._root)): path.stat().st_size
            for path in sorted(Path(self._root).rglob("*"))
            if path.is_file() and not path.name.startswith("events.")  # the other thread's
        }
        grown = {
            name: (self._sizes.get(name, 0), size)
            for name, size in found.items()
            if size > self._sizes.get(name, 0)
        }
        self._sizes = found
        if grown and self._last:
            self._tell(after=self._last, grown=grown)

    # The events of the trainer.

    def _watch_events(self) -> None:
        """Stand before every event that the trainer tells its callbacks of."""
        from transformers.trainer_callback import CallbackHandler

        call_event = CallbackHandler.call_event

        @functools.wraps(call_event)
        def watched(
            handler: Any, event: str, args: Any, state: Any, control: Any, **more: Any
        ) -> Any:
            if event == "on_step_end":
                self._tell(trained=state.global_step)
            label = f"{event} {state.global_step}"
            self.reach(label, lambda: RuntimeError(f"the trainer fails at {label}"))
            if event == "on_train_end":
                sys.setprofile(self._profile)  # from here on the main thread writes events too
            with self._broken_report(handler, f"{label} #{self._reached[label]}"):
                return call_event(handler, event, args, state, control, **more)

        CallbackHandler.call_event = watched

    @contextmanager
    def _broken_report(self, handler: Any, point: str) -> Iterator[None]:
        """Let the first thing that our own hook reports at the point fail."""
        # One of the callbacks is the script's own, and wears the hooks of the object that reports.
        owners = [getattr(callback.on_log, "__self__", None) for callback in handler.callbacks]
        hooks: Any = next(owner for owner in owners if hasattr(owner, "report"))
        report = hooks.report

        def refuse(*_args: Any, **_more: Any) -> None:
            self._tell(fault=str(self._fault))
            hooks.report = report  # the failure itself can be reported
            raise RuntimeError("the report fails")

        if self._fault == Fault(Kind.HOOK, point):
            hooks.report = refuse
        try:
            yield
        finally:
            hooks.report = report

    # Files and sockets.

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            self._reach_file(
                "open-w" if (args[2] or 0) & WRITE_FLAGS else "open-r", [args[0]], None
            )
        elif event in AUDITED_PATHS:
            folder = AUDITED_FOLDERS.get(event)
            paths = [args[place] for place in AUDITED_PATHS[event]]
            self._reach_file(
                event.partition(".")[2], paths, None if folder is None else args[folder]
            )
        elif event == "socket.connect":
            self.reach("connect", lambda: _os_error(errno.ECONNREFUSED, "the collector"))

    def _reach_file(self, operation: str, paths: list[Any], folder: int | None) -> None:
        names = [found for path in paths if (found := self._name(path, folder))]
        if names:
            number = errno.EIO if operation in READING else errno.ENOSPC
            name = names[0]
            label = f"{operation} {name}"
            self.reach(label, lambda: _os_error(number, name))

    def _name(self, path: Any, folder: int | None) -> str | None:
        """Return the path below the run's output; None for any other."""
        if isinstance(path, int):
            path = _open_file(path)
        if not isinstance(path, str | os.PathLike):
            return None
        base = Path.cwd() if folder in {None, -1} else _open_file(folder)
        full = Path(os.path.normpath(base / path))
        return str(full.relative_to(self._root)) if full.is_relative_to(self._root) else None

    def _profile(self, _frame: Any, event: str, arg: Any) -> None:
        """Reach the calls on open files, which nothing announces."""
        if event != "c_call" or arg.__name__ not in PROFILED:
            return
        owner = arg.__self__
        if isinstance(owner, io.FileIO) and str(owner.name).startswith(self._root):
            name = os.path.relpath(str(owner.name), self._root)
        elif getattr(owner, "__name__", "") == "posix":
            name = "an open file"
        else:
            return
        number = errno.EIO if arg.__name__ in READING else errno.ENOSPC
        self.reach(f"{arg.__name__} {name}", lambda: _os_error(number, name))


def _open_file(descriptor: int | None) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _os_error(number: int, name: str) -> OSError:
    return OSError(number, os.strerror(number), name)


def _allow_files_of(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
